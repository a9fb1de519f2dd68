"""How weights reach a model, so that its loss can be evaluated there: decided once for each objective."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.errors import InputError, words_of
from landscape.objective.batches import doubled
from landscape.objective.checks import added_up, total_weight
from landscape.objective.derivatives import leaves_of, twice_differentiable
from landscape.objective.frozen import OWN, as_parameters, duplicate, twin
from landscape.objective.gathered import Weight
from landscape.objective.lookups import Recorder, Renumbering
from landscape.objective.noise import fill_normal, size_of
from landscape.objective.shards import Shard
from landscape.objective.streams import changed
from landscape.runtime.dealing import regathering
from landscape.runtime.devices import keep_freed_memory
from landscape.runtime.precision import without_cudnn
from landscape.runtime.watching import watching

Loss = Callable[[Any, Any], tuple[Tensor, float | Tensor]]
Forward = Callable[[Any, Any], Tensor]
Part = Literal["loss", "per_example", "outputs"]
Weights = Mapping[str, Tensor]
"""By the names of the model's parameters."""
Evaluate = Callable[..., Any]
"""Maps (batch, part="loss") to what that part of the loss returns."""


class LossModule(nn.Module):
    """The loss as a module around the model, so that swapped weights reach any method the loss calls."""

    COPIED = "the loss (with its object, where it is a method)"

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        per_example: Loss | None,
        forward: Forward | None,
        criterion: Loss | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.per_example = per_example
        self.outputs = forward
        self.criterion = criterion
        self.draws = self.differentiates = self.compared = False
        self.recurrent = any(isinstance(part, nn.RNNBase) for part in model.modules())

    def saw(self, operation: Any, _inputs: Any, _outputs: Any) -> None:
        """Note whether an operation of the loss draws random numbers, as torch has tagged it."""
        self.draws |= torch.Tag.nondeterministic_seeded in operation.tags

    def forward(self, batch: Any, part: Part = "loss") -> Any:
        with without_cudnn if self.recurrent else nullcontext():
            return self._part(batch, part)

    def _part(self, batch: Any, part: Part) -> Any:
        for weight in self.model.parameters() if self.differentiates else ():
            weight.requires_grad_()  # as MAML does, and a penalty on the gradient
        if part == "outputs":
            assert self.outputs is not None
            return self.outputs(self.model, batch)
        if part == "loss" or self.per_example is None:
            return self.loss(self.model, batch)
        found = self.per_example(self.model, batch)
        self.compared = self.compared or added_up(found, self.loss(self.model, batch))
        return found


@dataclass(frozen=True)
class Evaluator(ABC):
    """Evaluates a loss at weights from outside. `at` prepares a point once, for all of its batches."""

    module: LossModule

    @abstractmethod
    def at(self, weights: Weights) -> Evaluate:
        """Return the loss at these weights as a function of the batch."""

    def with_leaves(self, weights: Weights) -> tuple[Evaluate, list[Tensor]]:
        """Return the same, and the weights as leaves of the graphs that it makes, in order.

        Raises:
            InputError: this evaluator has no derivatives.
        """
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
        return self.at(leaves), list(leaves.values())

    def transformable(self, weights: Weights) -> Evaluate:
        """Return the same as `at`, where torch's function transforms (`vmap`, `jvp`) can follow it.

        Raises:
            RuntimeError: they cannot.
        """
        raise RuntimeError("this loss is not a function of tensors alone")

    def renumbered(self, numbers: Mapping[str, Tensor]) -> "Evaluator | None":
        """Return the same loss for tables that hold some rows only; None where that is not possible."""
        return None

    def distributed(self) -> Self:
        """Return the same for ranks that share the batches.

        Raises:
            InputError: they cannot share them.
        """
        return self

    def clone(self) -> Self:
        """Return the same around a module of its own, which shares all tensors."""
        return replace(self, module=twin(self.module))

    def in_float64(self, weights: Weights) -> Self:
        """Return the same in float64, around a module that has these weights, which are in float64."""
        shared = as_parameters(self.module.model, weights)
        return replace(self, module=duplicate(self.module, shared).double())

    def holding(self, weights: Weights) -> Self:
        """Return the same around a module that has these weights, whichever are given to it later."""
        return replace(self, module=twin(self.module, as_parameters(self.module.model, weights)))


@dataclass(frozen=True)
class Swapped(Evaluator):
    """The usual case: weights replace the module's own during a call (`torch.func.functional_call`)."""

    def at(self, weights: Weights) -> Evaluate:
        if self.module.differentiates and not any(tensor.requires_grad for tensor in weights.values()):
            return self.with_leaves(weights)[0]
        named = {f"model.{name}": tensor for name, tensor in weights.items()}
        return lambda batch, part="loss": functional_call(self.module, named, (batch, part))

    def transformable(self, weights: Weights) -> Evaluate:
        return self.at(weights)

    def renumbered(self, numbers: Mapping[str, Tensor]) -> Evaluator | None:
        return Compacted(self.module, numbers)


@dataclass(frozen=True)
class Gathering(Swapped):
    """Swapped weights of which each rank holds a share."""

    def at(self, weights: Weights) -> Evaluate:
        whole = super().at({name: Weight(share) for name, share in weights.items()})

        def evaluate(batch: Any, part: Part = "loss") -> Any:
            with regathering():
                return whole(batch, part)

        return evaluate

    def transformable(self, weights: Weights) -> Evaluate:
        raise RuntimeError("torch's transformations do not gather weights")


@dataclass(frozen=True)
class Compacted(Swapped):
    """Swapped weights, with tables of which only some rows are there; the loss is NaN where it reads another.

    Attributes:
        numbers: for each such table, the new number of each old row; of rows that are left out, one past the
            last.
    """

    numbers: Mapping[str, Tensor]

    def at(self, weights: Weights) -> Evaluate:
        numbers = {name: new for name, new in self.numbers.items() if name in weights}
        tables = {name: _with_a_row_of_nan(weights[name]) for name in numbers}
        whole = super().at({**weights, **tables})

        def evaluate(batch: Any, part: Part = "loss") -> Any:
            with Renumbering((tables[name], new) for name, new in numbers.items()):
                return whole(batch, part)

        return evaluate


def _with_a_row_of_nan(table: Tensor) -> Tensor:
    return torch.cat([table, table.new_full((1, *table.shape[1:]), torch.nan)])


@dataclass(frozen=True)
class Copied(Evaluator):
    """A copy of the module for each point: for models that keep weights where swapping does not reach."""

    def at(self, weights: Weights) -> LossModule:
        held = duplicate(self.module)
        own = dict(held.model.named_parameters())
        for name, tensor in weights.items():
            own[name].data.copy_(tensor)
        return held

    def with_leaves(self, weights: Weights) -> tuple[Evaluate, list[Tensor]]:
        held = self.at(weights)
        own = dict(held.model.named_parameters())
        return held, [own[name].requires_grad_() for name in weights]


@dataclass(frozen=True)
class Recomputed(Evaluator):
    """Swapped weights, with the statistics that BatchNorm finds in the batches at these weights.

    For every layer they are the mean over batches of its inputs' means and variances; the layers before it
    use those of each batch, as in training.
    """

    batches: Sequence[Any]

    def at(self, weights: Weights) -> Evaluate:
        named = {f"model.{name}": tensor for name, tensor in weights.items()}
        norms = {name: module for name, module in self.module.named_modules() if _keeps_statistics(module)}
        named |= {
            f"{name}.{key}": torch.zeros_like(buffer)
            for name, module in norms.items()
            for key, buffer in module.named_buffers(recurse=False)
        }
        with _training(norms.values()):
            for batch in self.batches:
                functional_call(self.module, named, (batch,))
        return lambda batch, part="loss": functional_call(self.module, named, (batch, part))

    def with_leaves(self, weights: Weights) -> tuple[Evaluate, list[Tensor]]:
        raise InputError(
            "a loss with recomputed statistics has no derivatives; use statistics='kept' to measure them"
        )

    def distributed(self) -> Self:
        raise InputError("statistics are recomputed over all batches, which ranks cannot share")

    def in_float64(self, weights: Weights) -> Self:
        return replace(super().in_float64(weights), batches=changed(self.batches, doubled))


def evaluator_for(
    module: LossModule, weights: Weights, batches: Sequence[Any], recompute: bool, known: Tensor | None
) -> tuple[Evaluator, float]:
    """Return the evaluator that a model needs, and the total weight of the batches.

    Args:
        known: the loss of the first batch, if the module was evaluated there before.

    Raises:
        InputError: as `total_weight`; the loss cannot be evaluated, or is the same wherever the weights are;
            or the statistics of this model cannot be recomputed.
    """
    keep_freed_memory()
    try:
        with torch.enable_grad(), twice_differentiable:
            try:
                return _chosen(module, weights, batches, recompute, known)
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
            module.differentiates = True
            return _chosen(module, weights, batches, recompute, known)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of the model or the loss, whose traceback stays above this one
        said = f"the loss cannot be evaluated: {words_of(error)}"
        torchs = getattr(module.loss, "__module__", "").startswith("torch.nn")
        if torchs or type(module.model).__name__ in said:  # it was given the model where it expects outputs
            said += (
                "; it takes (model, batch): for a criterion of outputs and targets use landscape.supervised"
            )
        raise InputError(said) from error


def _chosen(
    module: LossModule, weights: Weights, batches: Sequence[Any], recompute: bool, known: Tensor | None
) -> tuple[Evaluator, float]:
    sharded = any(isinstance(weight, Shard) for weight in weights.values())
    swapped, copied = Gathering(module) if sharded else Swapped(twin(module)), Copied(module)
    if recompute and not any(map(_keeps_statistics, module.modules())):
        raise InputError("the model has no BatchNorm whose statistics could be recomputed")
    try:
        total, here = total_weight(swapped.at(weights), batches, known)
        reached, differs = _reached(swapped, copied, weights, batches[0], here)
    except InputError:
        raise
    except Exception:  # whatever a module does that is not written in Python
        reached = differs = False
    if recompute and reached:
        recomputed = Recomputed(module, batches)
        return recomputed, total_weight(recomputed.at(weights), batches)[0]
    if not reached:
        total, _ = total_weight((swapped if sharded else copied).at(weights), batches)
        said = "the model keeps weights where torch.func does not reach them"
        if sharded:
            raise InputError(f"{said}, and it is sharded; keep each weight as a parameter of a module alone")
        if recompute:
            raise InputError(f"{said}, so its statistics cannot be recomputed; use statistics='kept'")
        warnings.warn(f"{said}; each evaluation takes a copy of it, which is slow", stacklevel=4)
    found = swapped if reached else copied
    if not differs:
        _need_dependence(found, weights, batches)
    return found, total


def _elsewhere(weights: Weights, points: Weights) -> Iterator[Weights]:
    """Yield points on all sides of the weights, far first: a factor that is 0 there is not 0 elsewhere.

    Args:
        points: tensors to which they are written, one after another.
    """
    sizes = [size_of(tensor) + 0.1 for tensor in weights.values()]
    for seed, share in enumerate((1.0, -1.0, 0.1)):
        filled = fill_normal((points[name] for name in weights), seed)
        for z, tensor, size in zip(filled, weights.values(), sizes, strict=True):
            z.mul_(share * size).add_(tensor)
        yield points


def _reached(
    swapped: Evaluator, copied: Evaluator, weights: Weights, batch: Any, here: Tensor
) -> tuple[bool, bool]:
    """Tell whether swapped weights, elsewhere, give the loss that they give as a fresh model's own.

    They do not where the model keeps its weights in a second place, such as a list, or keeps what it once
    computed from them, such as attention biases. Two points tell, on either side, if the loss is finite there
    and another one than `here`: a gate that hides a weight at one of them may be open at the other.
    Otherwise, further points are tried.

    Returns:
        Whether they do, and whether the loss was another one than here.
    """
    seen, held = 0, duplicate(copied.module)
    own = {name: parameter.data for name, parameter in held.model.named_parameters()}
    for moved in _elsewhere(weights, {name: own[name] for name in weights}):  # no further copy is held
        try:
            with watching(swapped.module.saw):
                expected = held(batch)[0]
        except Exception:  # the loss is not defined there, and nothing can be told
            continue
        copied.module.draws = swapped.module.draws
        found = swapped.at(moved)(batch)[0]
        if not torch.allclose(found, expected, rtol=OWN, atol=0, equal_nan=True):
            return False, False
        seen += bool(torch.isfinite(found) and not torch.equal(found, here))
        if seen > 1:
            break
    return True, seen > 0


def _need_dependence(evaluator: Evaluator, weights: Weights, batches: Sequence[Any]) -> None:
    """Make sure that the loss is computed from the weights.

    Raises:
        InputError: it is not: no weight is in its graph or used by it, and it is the same at all points.
    """
    for batch in batches:
        here = evaluator.at(weights)(batch)[0]
        for moved in _elsewhere(weights, {n: torch.empty_like(t) for n, t in weights.items()}):
            try:
                if not torch.equal(evaluator.at(moved)(batch)[0], here):
                    return
            except Exception:  # the loss is not defined there, which depends on where it is
                return
        evaluate, leaves = evaluator.with_leaves(weights)
        if {id(leaf) for leaf in leaves} & {id(leaf) for leaf in leaves_of(evaluate(batch)[0])}:
            return
        # an error rate of few examples has no graph, and one value at many points
        with Recorder(weights) as seen:
            evaluator.at(weights)(batch)
        if seen.whole or any(rows.any() for rows in seen.rows.values()):
            return
    raise InputError(
        "the loss does not depend on any parameter that takes part; does it use the model it is given?"
    )


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


@contextmanager
def _training(norms: Collection[Any]) -> Iterator[None]:
    """Let BatchNorm average what it sees, all batches alike."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum
