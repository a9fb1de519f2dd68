"""What every measurement is of: one frozen loss L(θ)."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import vmap

from landscape.errors import InputError
from landscape.objective.batches import doubled
from landscape.objective.checks import need_same_draws, repeatability
from landscape.objective.choice import evaluator_for
from landscape.objective.derivatives import defined, gradient, product, twice_differentiable
from landscape.objective.differences import Multiply
from landscape.objective.evaluators import Forward, Loss, LossModule, Part
from landscape.objective.frozen import faithful, fingerprint, frozen_copy, held_still, present, settled
from landscape.objective.gathered import kind_of
from landscape.objective.identity import BATCHES, batches_digest
from landscape.objective.lookups import rows_read
from landscape.objective.streams import changed, placed
from landscape.objective.structure import Grouping
from landscape.objective.sums import Sum
from landscape.objective.trust import Graph, Trust, check_gradient, check_products
from landscape.runtime.arguments import Names, checks_arguments
from landscape.runtime.ranks import ALONE, Ranks

Array = NDArray[np.float64]
CHANGING = "the model changes its own weights when it is evaluated, so L(θ) is undefined"


class Objective:
    """L(θ) = Σ_b sum_b(θ) / Σ_b weight_b over frozen batches b, with its gradient and Hessian products.

    The model is copied, once, put into eval mode and never written to. Weights reach the copy by
    `torch.func.functional_call`, or are set for each evaluation where that does not reach all of a model,
    slowly (a warning says so). Sums over batches are rounded once. All derivatives are true: an embedding's
    `padding_idx`, which hides a gradient that the loss has, is lifted in the copy, and attention runs by the
    one path that can be differentiated twice (`twice_differentiable`). Half precision is measured in float32.
    Frozen parameters (`requires_grad` is False) are held fixed, unless all are or `include` names them.

        def loss(model, batch):
            logits = model(batch["x"])
            return F.cross_entropy(logits, batch["y"], reduction="sum"), batch["y"].numel()

        objective = Objective(model, batches, loss)

    Args:
        model: any module, also one sharded over ranks (docs/scale.md); its current weights are measured.
        batches: any objects, from a list or a data loader. All are kept, in this order, and their tensors
            moved to the model's device; or they are read anew each time, see `landscape.streamed`.
        loss: maps (model, batch) to (sum of the loss, weight of the batch).
        per_example: the same, with one entry per unit that was drawn independently (a user, an image), both
            of shape (examples,), which must add up to the loss. Errors come from these, else from batches.
        forward, criterion: the two parts of the loss, for the generalized Gauss-Newton matrix: (model, batch)
            to the model's outputs, any tensor, and (outputs, batch) to (sum, weight), which should be convex.
        include, exclude: name patterns of the parameters that take part, see `ParamSpace`.
        group, filter_axes: what group each parameter is of, and where its filters lie, see `ParamSpace`.
        provenance: where the objective came from; results repeat it and a digest of the batches. Only those
            of equal `data_sha256`, `loss` and batches are compared.
        check: compare the first gradient with differences of the loss, and the first Hessian product with
            differences of the gradient (`landscape.objective.trust`). Results say so, or `unchecked`.
        statistics: of BatchNorm: `kept` as they were trained, or `recomputed` over the batches wherever the
            loss is evaluated, for example between two minima, whose own statistics do not fit there (Jordan
            et al., "REPAIR", ICLR 2023, arXiv 2211.08403, section 3); then it has no derivatives.
        copy: if False, the model's parameters become views of θ, with equal values; do not use it then.

    Raises:
        InputError: no batches, or batches that do not end; a weight that is not positive; a loss that is not
            a finite scalar, cannot be evaluated, ignores the parameters, or differs between two evaluations;
            `forward` or `criterion` alone; no model, or one with lazy parameters, that cannot be copied, that
            changes its weights when evaluated, or lacks statistics to recompute; and as `ParamSpace`.
    """

    @checks_arguments
    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        *,
        per_example: Loss | None = None,
        forward: Forward | None = None,
        criterion: Loss | None = None,
        include: Names = ("*",),
        exclude: Names = (),
        provenance: Mapping[str, str] | None = None,
        statistics: Literal["kept", "recomputed"] = "kept",
        group: Grouping | None = None,
        filter_axes: Mapping[str, int | None] | None = None,
        check: bool = True,
        copy: bool = True,
    ) -> None:
        if (forward is None) != (criterion is None):
            raise InputError("forward and criterion are the two parts of one loss; give both or neither")
        kind, self.ranks = kind_of(model, changed=statistics == "recomputed" or not copy)
        frozen = frozen_copy(model)
        held = held_still(model) if tuple(include) == ("*",) else []
        space = partial(
            kind, include=include, exclude=exclude, held=held, group=group, filter_axes=filter_axes
        )
        owner = None if copy else model
        self.params = settled(frozen, space, owner)
        before, self.batches = fingerprint(self._weights(None).values()), placed(batches, self.theta)
        self.count = len(self.batches)  # over all ranks, see `distribute`
        if not self.batches:
            raise InputError("an objective needs at least one batch")
        found, known_loss = faithful(model, frozen, lambda module: loss(module, self.batches[0])[0])
        if found is not frozen:
            frozen, self.params = found, settled(found, space, owner)
        own = dict(frozen.named_parameters())
        if before != fingerprint(own[entry.name] for entry in self.params.entries):
            raise InputError(CHANGING)
        self._trust = Trust(check)
        known = dict(provenance or {}) | getattr(loss, "provenance", {})  # of `in_training_mode`
        self._provenance = known | {
            BATCHES: known.get(BATCHES) or batches_digest(self.batches),
            "parameters": str(self.params.numel),
            "include": " ".join(include),
            "exclude": " ".join((*exclude, *held)),
            **repeatability(self.theta.device),
        }
        still = set(held_still(model)).difference(entry.name for entry in self.params.entries)
        module = LossModule(frozen, loss, per_example, forward, criterion, self.count, still)
        weights = self._weights(None)
        self._evaluator, self.weight = evaluator_for(module, weights, self.batches, statistics, known_loss)
        if before != fingerprint(weights.values()):
            raise InputError(CHANGING)
        self.ranks.need_same(self.weight, self._provenance)

    @property
    def provenance(self) -> dict[str, str]:
        """Where the loss came from, and whether its derivatives were checked, once they were taken."""
        checked = str(self._trust)
        return self._provenance | self._evaluator.told | ({"derivatives": checked} if checked else {})

    def __repr__(self) -> str:
        """Say size, batches, device and L(θ), which is evaluated, unless that takes other ranks."""
        batches = f"{len(self.batches)} batch{'es' if len(self.batches) > 1 else ''}"
        said = f"{batches} of weight {self.weight:,g} in all, on {self.theta.device}"
        value = f"; L(θ) = {self.value():.6g}" if self.ranks is ALONE else ""
        return f"Objective: {self.params.numel:,} parameters ({str(self.theta.dtype)[6:]}), {said}{value}"

    @property
    def draws(self) -> bool:
        """Whether the loss draws random numbers: threads would mix their sequences."""
        return self._bound.draws

    @property
    def theta(self) -> Tensor:
        """The point that is measured, shape (params.numel,)."""
        return self.params.theta

    def value(self, theta: Tensor | None = None) -> float:
        """Return L at `theta` (shape (numel,)), or at the model's weights. Raises InputError: it has none."""
        total = torch.zeros((), dtype=torch.float64, device=self.theta.device)
        with torch.enable_grad(), twice_differentiable:
            evaluate = defined(self._evaluator.at(self._weights(theta)))
            for batch in self.batches:
                total += evaluate(batch)[0].detach().reshape(())
        return float(self.ranks.summed(total)) / self.weight

    def values(self, thetas: Tensor) -> Array:
        """Return L at each row of `thetas`, shape (K, numel), all at once (`torch.func.vmap`).

        That takes the memory of K evaluations, and is faster only where launches cost more than arithmetic.

        Raises:
            RuntimeError: and other errors of torch, where the loss does what `vmap` cannot follow.
        """
        total = torch.zeros(len(thetas), dtype=torch.float64, device=self.theta.device)
        with torch.enable_grad(), twice_differentiable:
            weights, point = self._weights(thetas), self._evaluator.transformable
            for batch in self.batches:
                total += vmap(lambda at, batch=batch: point(at)(batch)[0].detach())(weights)
        return (self.ranks.summed(total) / self.weight).cpu().numpy()

    def per_example(self, theta: Tensor | None = None) -> tuple[Array, Array]:
        """Return each unit's sum of the loss and its weight, shapes (units,): L is Σ sums / Σ weights."""
        with torch.enable_grad(), twice_differentiable:
            evaluate = defined(self._evaluator.at(self._weights(theta)))
            parts = [evaluate(batch, "per_example") for batch in self.batches]
        found = [[torch.as_tensor(t).detach().double().flatten().cpu().numpy() for t in p] for p in parts]
        sums, counts = map(np.concatenate, zip(*self.of_all(found), strict=True))
        return sums, counts

    def distribute(self, ranks: Ranks) -> "Objective":
        """Return the same loss with its batches dealt to the ranks. All ranks must then make the same calls.

        Every rank gets the same numbers: sums over batches are sums over ranks too, in float64.

        Raises:
            InputError: there are fewer batches than ranks, the ranks do not hold the same loss, or its
                statistics are recomputed over all batches.
        """
        if ranks.size == 1 or self.ranks is ranks or self.params.sharded:
            return self
        evaluator = self._evaluator.distributed()
        if self.count < ranks.size:
            raise InputError(
                f"the frozen loss has {self.count} batches for {ranks.size} ranks, which need one each; "
                "start fewer processes, or take more --users"
            )
        told = self.weight, self._provenance
        if any(other != told for other in ranks.gathered(told)):
            raise InputError("the ranks do not hold the same loss; do all read the same checkpoint and data?")
        share = ranks.share(self.count)
        return self._with(_evaluator=evaluator, ranks=ranks, batches=self.batches[share.start : share.stop])

    def of_all(self, found: list[Any]) -> list[Any]:
        """Return what all ranks found for their batches, in order."""
        return [of_batch for of_rank in self.ranks.gathered(found) for of_batch in of_rank]

    def compact(self) -> "tuple[Objective, Tensor] | None":
        """Return the same loss of only the coordinates it reads, and their places in θ, shape (read,).

        A sample of users reads few rows of a large table; the others need not be moved at every point. Each
        batch is evaluated once to find them, and at two points to check. Where the loss reads others at
        another point, it is NaN there. None if less than half would be left out, or tables have other uses.
        """
        weights = self._weights(None)
        tables = {e.name: weights[e.name] for e in self.params.entries if e.group == "embedding"}
        if self.params.sharded or 2 * sum(table.numel() for table in tables.values()) < self.params.numel:
            return None  # without an evaluation: whatever rows are read, most of θ stays
        with torch.enable_grad(), twice_differentiable:
            read = rows_read(self._evaluator.at(weights), self.batches, tables)
        params, places = self.params.of_rows(read)
        numbers = {n: torch.where(rows, rows.cumsum(0) - 1, rows.sum()) for n, rows in read.items()}
        evaluator = self._evaluator.renumbered(numbers)
        if 2 * len(places) > self.params.numel or evaluator is None:
            return None
        other = self._with(params=params, _evaluator=evaluator)
        try:
            same = all(other.value(t[places]) == self.value(t) for t in (self.theta, 1.01 * self.theta))
        except Exception:  # the loss depends on the size of its tables
            same = False
        return (other, places) if same else None

    def restrict(self, names: Names | None = None, group: str | None = None) -> "Objective":
        """Return the same loss as a function of some parameters only; the others stand still at θ.

        Args:
            names: the parameters that take part.
            group: one of `ParamSpace.groups`, in place of names.

        Raises:
            InputError: no parameter that takes part has such a name or is of the group, or not exactly one
                of the two is given.
        """
        params = self.params.restrict(self.params.named(names, group))
        still = self._evaluator.holding(self._weights(None))
        told = {"include": " ".join(params.include)} if group is None else {"group": group}
        told["parameters"] = str(params.numel)
        known = {"_trust": self._trust.of_part(), "_provenance": self._provenance | told}
        return self._with(params=params, _evaluator=still, **known)

    def in_float64(self) -> "Objective":
        """Return the same loss with weights, and floating numbers in the batches, in float64.

        Raises:
            InputError: it draws random numbers, which are others in float64.
        """
        evaluator = self._evaluator.in_float64((params := self.params.in_float64()).split(params.theta))
        other = self._with(_evaluator=evaluator, batches=changed(self.batches, doubled), params=params)
        if self._bound.draws:
            need_same_draws(*(of.first_batch().value() for of in (self, other)))
        return other

    def clone(self) -> "Objective":
        """Return the same objective around a module of its own, for another thread; all tensors are shared.

        Swapped weights stand in the module while it is evaluated, so it serves one evaluation at a time.
        """
        return self._with(_evaluator=self._evaluator.clone())

    def per_batch(self) -> Iterator["Objective"]:
        """Yield the objective of each batch (of this rank), for stochastic descent; L is their mean."""
        for batch in self.batches:
            yield self._with(ranks=self.ranks.alone, batches=[batch], weight=self.weight / self.count)

    def moved(self, theta: Tensor) -> "Objective":
        """Return the same loss at another θ, shape (numel,)."""
        return self._with(params=self.params.at(theta))

    def follow(self, model: nn.Module) -> "Objective":
        """Return the same loss at the present weights of a model, and with its buffers (BatchNorm's).

        Raises:
            InputError: the model does not have the parameters and buffers of this objective's model.
        """
        module, theta = present(self._bound, model, self.params)
        return self._with(_evaluator=replace(self._evaluator, module=module), params=self.params.at(theta))

    def first_batch(self) -> "Objective":
        """Return the summed loss of the first batch alone (of this rank)."""
        return self._with(ranks=self.ranks.alone, batches=self.batches[:1], weight=1.0)

    def unchecked(self) -> "Objective":
        """Return the loss of this rank's batches, with derivatives as autograd gives them."""
        return self._with(ranks=self.ranks.alone, _trust=Trust(False))

    def _with(self, **changed: Any) -> "Objective":
        other = copy.copy(self)
        vars(other).update(changed)
        return other

    def check_products(self, strategy: str, multiply: Multiply, graph: Graph | None = None) -> bool:
        """Compare products with differences of ∇L once (`trust.check_products`), if that is wanted."""
        if self._trust.wanted:
            check_products(self, self._trust, strategy, multiply, graph)
        return self._trust.wanted

    def _check_gradient(self) -> None:
        if self._trust.wanted:
            check_gradient(self, self._trust)

    def value_and_grad(self, theta: Tensor | None = None) -> tuple[float, Tensor]:
        """Return L and ∇L, shape (numel,), at `theta` or at the model's weights.

        Raises:
            InputError: ∇L by autograd is not the slope of L, which is checked once; or L has no derivatives.
        """
        self._check_gradient()
        value, total = torch.zeros((), dtype=torch.float64, device=self.theta.device), Sum(self.theta)
        for batch in self.batches:
            leaves, summed = self.traced(batch, theta=theta)
            value += summed.detach()
            total.add(gradient(summed, leaves))
        return float(self.ranks.summed(value)) / self.weight, total.mean(self.weight, self.ranks)

    def grad(self, theta: Tensor | None = None) -> Tensor:
        """Return ∇L, shape (numel,). Raises as `value_and_grad`."""
        return self.value_and_grad(theta)[1]

    def hvp(self, vector: Tensor, theta: Tensor | None = None) -> Tensor:
        """Return ∇²L · vector, shape (numel,), at `theta` or at the model's weights.

        Reverse over reverse (Pearlmutter 1994): the gradient of ∇L · vector. About four evaluations.

        Raises:
            InputError: autograd's is not the slope of ∇L; `landscape.hessian` has products by other means.
        """
        self.check_products("reverse", Objective._hvp)
        return self._hvp(vector, theta)

    def _hvp(self, vector: Tensor, theta: Tensor | None = None) -> Tensor:
        total, along = Sum(self.theta), list(self.params.split(vector.to(self.theta)).values())
        for batch in self.batches:
            leaves, summed = self.traced(batch, theta=theta)
            total.add(product(summed, leaves, along))
        return total.mean(self.weight, self.ranks)

    def traced(
        self, batch: Any, part: Part = "loss", theta: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Return θ (or `theta`) as leaves of a graph, and a part of the loss of one batch that they make.

        `loss` is its sum, `per_example` the sum of each example, `outputs` what `forward` returns. The
        graph is the caller's: products of derivatives are taken from it by `torch.autograd.grad`.

        Raises:
            InputError: the part is one that this objective was not given, or it recomputes statistics.
        """
        if part != "loss" and getattr(self._bound, part) is None:
            said = part.replace("outputs", "forward and criterion")
            raise InputError(f"this objective was not given the {said} of its loss")
        self._check_gradient()
        with torch.enable_grad(), twice_differentiable:
            evaluate, leaves = self._evaluator.with_leaves(self._weights(theta))
            found = defined(evaluate)(batch, part)
            found = found if part == "outputs" else found[0]
            return leaves, found.reshape(()) if part == "loss" else found

    def criterion(self, outputs: Tensor, batch: Any) -> Tensor:
        """Return the sum that the loss's criterion makes of the outputs."""
        assert self._bound.criterion is not None
        with torch.enable_grad(), twice_differentiable:
            return self._bound.criterion(outputs, batch)[0].reshape(())

    def summed(self, parts: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Return the sum of the loss of one batch at named tensors, for transformations of torch.

        Raises:
            RuntimeError: the loss recomputes statistics or needs copies of the model.
        """
        found: Tensor = self._evaluator.transformable(parts)(batch)[0]
        return found.reshape(())

    @property
    def _bound(self) -> LossModule:
        return self._evaluator.module

    def _weights(self, theta: Tensor | None) -> dict[str, Tensor]:
        """Return θ by name, where the loss was found to leave its weights alone, or a copy of `theta`."""
        return self.params.split(self.theta if theta is None else theta.detach().to(self.theta, copy=True))
