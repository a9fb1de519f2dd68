"""The ground that every measurement stands on: one frozen loss L(θ)."""

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from landscape.errors import InputError
from landscape.objective.batches import kept, mapped
from landscape.objective.derivatives import gradient, twice_differentiable
from landscape.objective.frozen import (
    Forward,
    Loss,
    LossModule,
    Part,
    frozen_copy,
    has_statistics,
    held_still,
)
from landscape.objective.lookups import Recorder, Renumbered
from landscape.objective.params import ParamSpace
from landscape.runtime.ranks import ALONE, Ranks

Array = NDArray[np.float64]
Weights = dict[str, Tensor] | LossModule
"""Swapped in, by name; or in a copy that holds them, of a model that does not take them so."""
_GIVEN_AS = {"per_example": "per_example", "outputs": "forward and criterion"}


class Objective:
    """L(θ) = Σ_b sum_b(θ) / Σ_b weight_b over frozen batches b, with its gradient and Hessian products.

    The model is copied, put into eval mode and never written to: weights travel beside it, through
    `torch.func.functional_call`, or in a copy for each evaluation, which is slower, where that does not reach
    all of a model (a warning says so). Sums over batches are in float64. All derivatives are true ones: an
    embedding's `padding_idx`, which hides a gradient that the loss does have, is lifted in the copy,
    and attention runs in the one backend (MATH) that can be differentiated twice. Weights in half precision
    are measured in float32. Parameters that were frozen (`requires_grad` is False) are held still, unless all
    are or `include` names them.

        def loss(model, batch):
            logits = model(batch["x"])
            return F.cross_entropy(logits, batch["y"], reduction="sum"), batch["y"].numel()

        objective = Objective(model, batches, loss)

    Args:
        model: any module; what is measured is its current weights.
        batches: any objects, from a list or a data loader. All are kept, in this order, and their tensors
            moved to the model's device.
        loss: maps (model, batch) to (sum of the loss, weight of the batch).
        per_example: the same, but with an entry for each thing that was drawn independently (a user, an
            image), both of shape (examples of the batch,). Standard errors come from them; without it, a
            batch counts as one.
        forward, criterion: the loss cut in two, for the generalized Gauss-Newton matrix: (model, batch) to
            the model's outputs, any tensor, and (outputs, batch) to (sum, weight), which should be convex.
        include, exclude: name patterns of the parameters that take part, see `ParamSpace`.
        provenance: what the results should say of where this came from.
        statistics: of BatchNorm: `kept` as they were trained, or `recomputed` over the batches wherever the
            loss is evaluated, as between two minima, where those of neither fit (Jordan et al., "REPAIR",
            ICLR 2023, arXiv 2211.08403, section 3). Recomputed, the loss has values and no derivatives.

    Raises:
        InputError: no batches, a weight that is not positive, a loss that is not a finite scalar or
            that differs between two evaluations (the message says on which batch), an embedding with
            `max_norm`, which rewrites its weights whenever it is read, a model that cannot be copied, or one
            without the statistics that are to be recomputed.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        *,
        per_example: Loss | None = None,
        forward: Forward | None = None,
        criterion: Loss | None = None,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        provenance: Mapping[str, str] | None = None,
        statistics: Literal["kept", "recomputed"] = "kept",
    ) -> None:
        if (forward is None) != (criterion is None):
            raise InputError("forward and criterion are the two parts of one loss; give both or neither")
        frozen = frozen_copy(model)
        if tuple(include) == ("*",):
            exclude = (*exclude, *held_still(model))
        self._bound = LossModule(frozen, loss, per_example, forward, criterion)
        self.params = ParamSpace(frozen, include, exclude)
        self.batches = kept(batches, self.params.theta)
        self.count = len(self.batches)  # of all ranks, see `shared`
        self.ranks = ALONE
        self._recomputes = statistics == "recomputed"
        self.provenance = dict(provenance or {}) | {
            "parameters": str(self.params.numel),
            "include": " ".join(include),
            "exclude": " ".join(exclude),
        }
        if not self.batches:
            raise InputError("an objective needs at least one batch")
        self._numbers: dict[str, Tensor] = {}  # new numbers of rows, see `compact`
        self._copies = False
        if self._recomputes and not has_statistics(frozen):
            raise InputError("the model has no BatchNorm whose statistics could be recomputed")
        self.weight = self._checked()

    @property
    def theta(self) -> Tensor:
        """The point that is measured, shape (params.numel,)."""
        return self.params.theta

    def value(self, theta: Tensor | None = None) -> float:
        """Return L at `theta` (shape (numel,)), or at the model's weights."""
        total = torch.zeros((), dtype=torch.float64, device=self.theta.device)
        with torch.no_grad(), twice_differentiable():
            weights = self._weights(self.theta if theta is None else theta)
            for batch in self.batches:
                total += self._sum(weights, batch)[0].reshape(())
        return float(self.ranks.summed(total)) / self.weight

    def values(self, thetas: Tensor) -> Array:
        """Return L at each row of `thetas`, shape (K, numel), all at once (`torch.func.vmap`).

        That takes the memory of K evaluations; where it pays is for whoever calls to measure.

        Raises:
            RuntimeError: and other errors of torch, where the loss does what `vmap` cannot follow.
        """
        total = torch.zeros(len(thetas), dtype=torch.float64, device=self.theta.device)
        with torch.no_grad(), twice_differentiable():
            for batch in self.batches:
                total += vmap(lambda theta, batch=batch: self._sum(self._weights(theta), batch)[0])(thetas)
        return (self.ranks.summed(total) / self.weight).cpu().numpy()

    def per_example(self, theta: Tensor | None = None) -> tuple[Array, Array]:
        """Return each unit's sum of the loss and its weight, shape (units,) both: L is Σ sums / Σ weights."""
        with torch.no_grad(), twice_differentiable():
            weights = self._weights(self.theta if theta is None else theta)
            parts = [self._call(weights, batch, "per_example") for batch in self.batches]
        found = [[torch.as_tensor(part).double().reshape(-1).cpu().numpy() for part in p] for p in parts]
        sums, counts = map(np.concatenate, zip(*self.of_all(found), strict=True))
        return sums, counts

    def distribute(self, ranks: Ranks) -> "Objective":
        """Return the same loss with its batches dealt to the ranks, which are to ask all it is asked alike.

        Every rank gets the same numbers: what is summed over batches is summed over ranks too, in float64.

        Raises:
            InputError: there are fewer batches than ranks, the ranks do not hold the same loss, or it
                recomputes statistics, of all batches.
        """
        if ranks.size == 1 or self.ranks is ranks:
            return self
        if self._recomputes:
            raise InputError("statistics are recomputed over all batches, which ranks cannot share")
        if self.count < ranks.size:
            raise InputError(
                f"the frozen loss has {self.count} batches for {ranks.size} ranks, which need one each; "
                "start fewer processes, or take more --users"
            )
        told = self.weight, self.provenance
        if any(other != told for other in ranks.gathered(told)):
            raise InputError("the ranks do not hold the same loss; do all read the same checkpoint and data?")
        other = copy.copy(self)
        other.ranks, share = ranks, ranks.share(self.count)
        other.batches = self.batches[share.start : share.stop]
        return other

    def of_all(self, found: list[Any]) -> list[Any]:
        """Return what was found of each batch of this rank with what the others found, in their order."""
        return [of_batch for of_rank in self.ranks.gathered(found) for of_batch in of_rank]

    def compact(self) -> "tuple[Objective, Tensor] | None":
        """Return the same loss of the coordinates that it reads, and their places in θ, shape (read,).

        A sample of users reads few rows of a large table, and the others need not be moved at every point.
        Found by evaluating each batch once, and checked at two points. None where it would leave out less
        than half, or where the loss does more with its tables than look rows up.
        """
        weights = self._weights(self.theta)
        if isinstance(weights, LossModule):
            return None
        tables = {e.name: weights[f"model.{e.name}"] for e in self.params.entries if e.group == "embedding"}
        if 2 * sum(table.numel() for table in tables.values()) < self.params.numel:
            return None  # without an evaluation: whatever rows are read, most of θ stays
        with torch.no_grad(), twice_differentiable(), Recorder(tables) as seen:
            for batch in self.batches:
                self._sum(weights, batch)
        read = {name: rows for name, rows in seen.rows.items() if name not in seen.whole}
        params, places = self.params.of_rows(read)
        if 2 * len(places) > self.params.numel:
            return None
        other = copy.copy(self)
        other.params = params
        other._numbers = {name: rows.cumsum(0) - 1 for name, rows in read.items()}
        try:
            same = all(other.value(t[places]) == self.value(t) for t in (self.theta, 1.01 * self.theta))
        except Exception:  # the loss minds the size of its tables
            same = False
        return (other, places) if same else None

    def restrict(self, names: Sequence[str] | None = None, group: str | None = None) -> "Objective":
        """Return the same loss of some parameters alone, by their names or their group; others stand still.

        Args:
            names: of parameters that take part.
            group: one of `ParamSpace.groups`, in place of names.

        Raises:
            InputError: no parameter that takes part has such a name or is of the group, or not exactly one
                of the two is given.
        """
        if (names is None) == (group is None):
            raise InputError("restrict takes names or a group, and not both")
        known = {entry.name: entry.group for entry in self.params.entries}
        chosen = [name for name in known if known[name] == group] if names is None else list(names)
        if not chosen and names is None:
            raise InputError(
                f"no parameter of the group {group!r}; there are {', '.join(self.params.groups)}"
            )
        if not chosen or (unknown := [name for name in chosen if name not in known]):
            wrong = f"no parameter that takes part is named {unknown[0]!r}" if chosen else "no names"
            raise InputError(f"{wrong}; there are {', '.join(known)}")
        other = copy.copy(self)
        other.params = ParamSpace(self._bound.model, chosen)
        other._numbers = {}  # whole tables again
        other.provenance = self.provenance | {"parameters": str(other.params.numel)}
        if group is not None:
            other.provenance["group"] = group
        return other

    def in_float64(self) -> "Objective":
        """Return the same loss with weights, and floating numbers in the batches, in float64."""
        other = copy.copy(self)
        other._bound = copy.deepcopy(self._bound).double()
        other.batches = [
            mapped(batch, lambda t: t.double() if t.is_floating_point() else t) for batch in self.batches
        ]
        other.params = ParamSpace(other._bound.model, self.params.include, self.params.exclude)
        return other

    def clone(self) -> "Objective":
        """Return the same objective around a module of its own, for another thread; all tensors are shared.

        While a loss is evaluated, the weights at hand stand in the module, which therefore serves one
        evaluation at a time.
        """
        shared: dict[int, Any] = {id(t): t for t in (*self._bound.parameters(), *self._bound.buffers())}
        other = copy.copy(self)
        other._bound = copy.deepcopy(self._bound, shared)
        return other

    def per_batch(self) -> Iterator["Objective"]:
        """Yield the objective of each batch (of this rank), for stochastic descent; L is their mean."""
        for batch in self.batches:
            other = copy.copy(self)
            other.ranks, other.batches, other.weight = ALONE, [batch], self.weight / self.count
            yield other

    def value_and_grad(self, theta: Tensor | None = None) -> tuple[float, Tensor]:
        """Return L and ∇L, shape (numel,), at `theta` or at the model's weights."""
        total = self.theta.new_zeros(1 + self.params.numel, dtype=torch.float64)
        with torch.enable_grad(), twice_differentiable():
            weights, leaves = self._leaves(theta)
            for batch in self.batches:
                summed, _ = self._sum(weights, batch)
                total[0] += summed.detach().reshape(())
                total[1:] += self._flat_grad(summed, leaves)
        mean = self.ranks.summed(total) / self.weight
        return float(mean[0]), mean[1:].to(self.theta.dtype)

    def grad(self, theta: Tensor | None = None) -> Tensor:
        """Return ∇L, shape (numel,), at `theta` or at the model's weights."""
        return self.value_and_grad(theta)[1]

    def hvp(self, vector: Tensor, theta: Tensor | None = None) -> Tensor:
        """Return ∇²L · vector, shape (numel,), at `theta` or at the model's weights.

        Reverse over reverse (Pearlmutter 1994): the gradient of ∇L · vector. About four evaluations.
        """
        total = torch.zeros_like(self.theta, dtype=torch.float64)
        with torch.enable_grad(), twice_differentiable():
            weights, leaves = self._leaves(theta)
            parts = self.params.split(vector.to(self.theta)).values()
            for batch in self.batches:
                summed, _ = self._sum(weights, batch)
                grads = gradient(summed, leaves, create_graph=True)
                along = [(g, v) for g, v in zip(grads, parts, strict=True) if g.requires_grad]
                if along:  # else the loss is linear in θ
                    total += self._flat_grad(sum(torch.sum(g * v) for g, v in along), leaves)
        return (self.ranks.summed(total) / self.weight).to(self.theta.dtype)

    def traced(
        self, batch: Any, part: Part = "loss", theta: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Return θ (or `theta`) as leaves of a graph, and a part of the loss of one batch that they make.

        `loss` is its sum, `per_example` the sum of each example, `outputs` what `forward` returns. The
        graph is the caller's: products of derivatives are taken from it by `torch.autograd.grad`.

        Raises:
            InputError: the part is one that this objective was not given, or it recomputes statistics.
        """
        bound = self._bound
        if (part == "outputs" and bound.outputs is None) or (
            part == "per_example" and bound.per_example is None
        ):
            raise InputError(f"this objective was not given the {_GIVEN_AS[part]} of its loss")
        with torch.enable_grad(), twice_differentiable():
            weights, leaves = self._leaves(theta)
            if part == "loss":
                return leaves, self._sum(weights, batch)[0].reshape(())
            found = self._call(weights, batch, part)
        return leaves, found if part == "outputs" else found[0]

    def criterion(self, outputs: Tensor, batch: Any) -> Tensor:
        """Return the sum that the loss's criterion makes of the outputs."""
        assert self._bound.criterion is not None
        with torch.enable_grad(), twice_differentiable():
            return self._bound.criterion(outputs, batch)[0].reshape(())

    def summed(self, parts: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Return the sum of the loss of one batch at named tensors, for transformations of torch.

        Raises:
            RuntimeError: it has none, as the loss recomputes statistics or needs copies of the model.
        """
        if self._copies or self._recomputes:
            raise RuntimeError("this loss is no function of tensors alone")
        return self._sum({f"model.{name}": t for name, t in parts.items()}, batch)[0].reshape(())

    def _leaves(self, theta: Tensor | None) -> tuple[Weights, list[Tensor]]:
        if self._recomputes:
            raise InputError(
                "a loss with recomputed statistics has no derivatives; measure it with those kept"
            )
        at = self.params.split(self.theta if theta is None else theta.to(self.theta))
        leaves = {f"model.{name}": tensor.detach().requires_grad_() for name, tensor in at.items()}
        if self._copies:
            bound = self._bound.holding(leaves)
            own = dict(bound.named_parameters())
            return bound, [own[name].requires_grad_() for name in leaves]
        return dict(leaves), list(leaves.values())

    def _flat_grad(self, scalar: Any, leaves: list[Tensor]) -> Tensor:
        return torch.cat([g.reshape(-1) for g in gradient(scalar, leaves)])

    def _weights(self, theta: Tensor) -> Weights:
        named = {f"model.{name}": t for name, t in self.params.split(theta.to(self.theta)).items()}
        if self._copies:
            return self._bound.holding(named)
        return named | (self._bound.recomputed(named, self.batches) if self._recomputes else {})

    def _call(self, weights: Weights, batch: Any, part: Part = "loss") -> Any:
        """Evaluate a part of the loss of one batch."""
        if isinstance(weights, LossModule):
            return weights(batch, part)
        tables = [(weights[f"model.{name}"], new) for name, new in self._numbers.items()]
        with Renumbered(tables) if tables else nullcontext():
            return functional_call(self._bound, weights, (batch, part))

    def _sum(self, weights: Weights, batch: Any) -> tuple[Tensor, float | Tensor]:
        result: tuple[Tensor, float | Tensor] = self._call(weights, batch)
        return result

    def _checked(self) -> float:
        """Check the loss, find out whether its model takes swapped weights, and return the weight of all."""
        try:
            weight = self._check_batches()
        except InputError:
            raise
        except Exception:  # whatever a module does that is not written in Python
            self._copies = True
            weight = self._check_batches()
        moved = {f"model.{n}": 1.01 * t + 1e-3 for n, t in self.params.split(self.theta).items()}
        with torch.no_grad(), twice_differentiable():
            self._copies |= not self._bound.takes(moved, self.batches[0])
        if self._copies:
            said = "the model keeps weights where torch.func does not reach them"
            warnings.warn(f"{said}; each evaluation takes a copy of it, which is slow", stacklevel=3)
        return weight

    def _check_batches(self) -> float:
        """Evaluate each batch twice: a loss that moves by itself would turn every measurement into noise."""
        total = 0.0
        with torch.no_grad(), twice_differentiable():
            weights = self._weights(self.theta)
            for index, batch in enumerate(self.batches):
                (first, weight), (second, _) = self._sum(weights, batch), self._sum(weights, batch)
                if not isinstance(first, Tensor) or first.numel() != 1:
                    raise InputError("the loss must return (sum, weight), the sum a scalar tensor")
                if not torch.isfinite(first):
                    raise InputError(
                        f"the loss is {first.item():g} on batch {index}; nothing can be measured there"
                    )
                if first.item() != second.item():
                    raise InputError(
                        f"the loss differs between two evaluations of batch {index} "
                        f"({first.item()!r}, then {second.item()!r}); it must not draw random numbers"
                    )
                if not float(weight) > 0:
                    raise InputError(f"the weight of batch {index} is {weight}; it must be positive")
                total += float(weight)
        return total
