"""The ways in which weights reach a model, so that its loss can be evaluated there."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.errors import InputError
from landscape.objective.batches import doubled
from landscape.objective.checks import Units
from landscape.objective.derivatives import has_own_backward
from landscape.objective.frozen import as_parameters, duplicate, twin
from landscape.objective.gathered import Weight
from landscape.objective.lookups import Renumbering
from landscape.objective.streams import changed
from landscape.runtime.dealing import regathering
from landscape.runtime.precision import without_cudnn

Loss = Callable[[Any, Any], tuple[Tensor, float | Tensor]]
Forward = Callable[[Any, Any], Tensor]
Part = Literal["loss", "per_example", "outputs"]
Weights = Mapping[str, Tensor]
"""By the names of the model's parameters."""
Evaluate = Callable[..., Any]
"""Maps (batch, part="loss") to what that part of the loss returns."""


class LossModule(nn.Module):
    """The loss as a module around the model, so that swapped weights reach any method the loss calls.

    Attributes:
        draws: whether an operation of the loss draws random numbers.
        asks: whether the loss asks which tensors require a gradient.
        differentiates: whether weights require one at each evaluation, those of `still` not.
        rereads: whether an operation has a backward pass of its own, which may read weights of the model.
    """

    COPIED = "the loss (with its object, where it is a method)"

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        per_example: Loss | None,
        forward: Forward | None,
        criterion: Loss | None,
        batches: int,
        still: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.per_example = per_example
        self.outputs = forward
        self.criterion = criterion
        self.units = Units(batches)
        self.still = frozenset(still)
        self.draws = self.asks = self.differentiates = self.rereads = False
        self.recurrent = any(isinstance(part, nn.RNNBase) for part in model.modules())

    def saw(self, operation: Any, _inputs: Any, _outputs: Any) -> None:
        """Note whether an operation of the loss draws random numbers, as torch has tagged it."""
        self.draws |= torch.Tag.nondeterministic_seeded in operation.tags

    def forward(self, batch: Any, part: Part = "loss") -> Any:
        with without_cudnn if self.recurrent else nullcontext():
            return self._part(batch, part)

    def _part(self, batch: Any, part: Part) -> Any:
        for name, weight in self.model.named_parameters() if self.differentiates else ():
            if name not in self.still:
                weight.requires_grad_()  # as MAML does, and a penalty on the gradient, or on what is trained
        if part == "outputs":
            assert self.outputs is not None
            return self.outputs(self.model, batch)
        if part == "loss" or self.per_example is None:
            return self.loss(self.model, batch)
        found = self.per_example(self.model, batch)
        if self.units:
            self.units.compare(found, self.loss(self.model, batch))
        return found


@dataclass(frozen=True)
class Evaluator(ABC):
    """Evaluates a loss at weights from outside. `at` prepares a point once, for all of its batches.

    Attributes:
        told: what results say of it.
    """

    module: LossModule
    told: ClassVar[dict[str, str]] = {}

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

    def with_leaves(self, weights: Weights) -> tuple[Evaluate, list[Tensor]]:
        """Return what `Evaluator.with_leaves` does; where the leaves must stay, in a module of their own.

        Swapped weights leave the module after the call. A backward pass in Python runs later, and may read
        them there, as that of an ODE does which is solved by the adjoint method.
        """
        swapped, leaves = super().with_leaves(weights)

        def evaluate(batch: Any, part: Part = "loss") -> Any:
            if not self.module.rereads:
                found = swapped(batch, part)
                parts = found if isinstance(found, tuple | list) else [found]
                if not has_own_backward([t for t in parts if isinstance(t, Tensor)]):
                    return found
                self.module.rereads = True
            own = dict(self.module.model.named_parameters())
            held = {id(own[name]): leaf for name, leaf in zip(weights, leaves, strict=True)}
            return twin(self.module, held)(batch, part)

        return evaluate, leaves

    def transformable(self, weights: Weights) -> Evaluate:
        return self.at(weights)

    def renumbered(self, numbers: Mapping[str, Tensor]) -> Evaluator | None:
        return Compacted(self.module, numbers)


@dataclass(frozen=True)
class Gathering(Swapped):
    """Swapped weights of which each rank holds a share."""

    with_leaves = Evaluator.with_leaves

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
    with_leaves = Evaluator.with_leaves

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
    told: ClassVar[dict[str, str]] = {"statistics": "recomputed"}

    def at(self, weights: Weights) -> Evaluate:
        named = {f"model.{name}": tensor for name, tensor in weights.items()}
        norms = {name: module for name, module in self.module.named_modules() if keeps_statistics(module)}
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


def keeps_statistics(module: nn.Module) -> bool:
    """Tell whether a module is a BatchNorm that keeps statistics of what it saw."""
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
