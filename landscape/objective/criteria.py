"""A criterion, as people write one, taken apart into the loss of each target and what its mean divides by."""

import copy
import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from landscape.errors import InputError
from landscape.objective.batches import mapped, tensors_of

Criterion = Callable[..., Any]
_OF_CLASSES = (F.cross_entropy, F.nll_loss)
_OF_ENTRIES = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div, F.poisson_nll_loss)
_LEGACY = ("size_average", "reduce")  # which would override `reduction`
CLOSE = 1e-4  # relative: sums in float32
Way = Callable[[Any, Any], Any]


class PerTarget:
    """A criterion as (sum of the loss, weight) of each example; the ratio of their sums is its own mean.

    How is decided on the first batch: by the loss of `torch.nn.functional` that the criterion returns, by its
    own `reduction="none"`, by its result if that is a loss per target, or else example by example.

    To which example a loss per target belongs is not always told by its place: a criterion may lay out tokens
    one position after another, or leave out those that a mask hides. Unless they stand in a row for each
    example, the criterion is therefore asked about each example alone. Where that is another loss, because
    examples depend on one another, a loss per example or per several of them counts as a unit, and otherwise
    the batch as one.

    Attributes:
        scalar: whether it is taken example by example; None before the first batch.
        whole: whether its scalar is not a mean over examples, so that a batch counts as one.
    """

    def __init__(self, criterion: Criterion) -> None:
        if isinstance(criterion, type):
            name = criterion.__name__
            raise InputError(f"the criterion {name} is a class; give one of its objects, {name}()")
        if not callable(criterion):
            raise InputError(
                f"the criterion {type(criterion).__name__} cannot be called with (outputs, targets); "
                "give nn.CrossEntropyLoss(), F.mse_loss, or a function of your own"
            )
        self.scalar: bool | None = None
        self.whole = False
        self._own = criterion
        self._reduction = _reduction_of(criterion)
        self._way: Way = self._decided
        self._in_order: bool | None = None  # whether targets stand in the order of their examples

    def __call__(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Return sum and weight of each example, shape (examples,) both."""
        costs, weights = self._of_targets(outputs, targets)
        return (costs, weights) if self.scalar else self._by_example(costs, weights, outputs, targets)

    def total(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Return sum and weight of a batch, shape () both."""
        costs, weights = self._of_targets(outputs, targets)
        return costs.sum(), weights.sum()

    def _of_targets(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        costs, weights = self._way(outputs, targets)
        if not (costs.numel() or _count(targets)):
            raise InputError("a batch has no examples; leave it out")
        return costs, weights

    def separates(self, outputs: Any, targets: Any, beside: tuple[Any, Any] | None = None) -> bool:
        """Tell whether the criterion's scalar is the mean, or the sum, over the examples of a batch.

        Args:
            beside: outputs and targets of another batch, whose first example is put before them where it
                fits: a mean over tokens is one over examples as long as all of these have equally many.
        """
        if beside is not None:
            outputs, targets = _with_an_example(beside, (outputs, targets))
        try:
            sums, weights = self._one_by_one(outputs, targets)
        except Exception:  # whatever a loss of many examples does with one
            return False
        return _agrees(float(self._own(outputs, targets).detach()), sums, weights)

    def _decided(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        with warnings.catch_warnings(action="ignore"):  # torch has words on some of its means
            own = None if self._reduction == "required" else _tensor(self._own(outputs, targets))
            way = self._chosen(own, outputs, targets)
        found: tuple[Tensor, Tensor] = way(outputs, targets)
        if found[1].sum() > 0:  # else all targets are ignored, and tell nothing
            self._way = way
        return found

    def _chosen(self, own: Tensor | None, outputs: Any, targets: Any) -> Way:
        ways: tuple[Way, ...] = (self._unreduced,) if own is not None else ()
        for way in (*ways, self._as_asked):
            if (found := way(outputs, targets)) and (
                own is None or own.dim() or _agrees(float(own.detach()), *found)
            ):
                self.scalar = False
                return way
        if own is None or not _count(targets):
            raise InputError(
                'the criterion must give the loss of each target when reduction is "none"; '
                "does each batch have an axis of examples?"
            )
        self.scalar, self.whole = True, not self.separates(outputs, targets)
        return self._as_one if self.whole else self._one_by_one

    def _unreduced(self, outputs: Any, targets: Any) -> Any:
        """Take what a loss of torch that the criterion returns would be without its reduction."""
        with _Unreduced(replace=True) as mode:
            try:
                found = self._own(outputs, targets)
            except InputError:
                raise
            except Exception:  # shapes that fit only when reduced; its own errors come when asked plainly
                return None
        return _of_targets(mode.costs, mode.weights) if found is mode.returned else None

    def _as_asked(self, outputs: Any, targets: Any) -> Any:
        """Take the criterion at its word: reduction "none", if it knows that, or its result as it is."""
        criterion, options = self._own, {}
        if self._reduction in ("optional", "required"):
            options["reduction"] = "none"
        elif self._reduction == "attribute":
            criterion = copy.copy(criterion)
            criterion.reduction = "none"  # type: ignore[attr-defined] # it has one
        with _Unreduced(replace=False) as mode:
            found = _tensor(criterion(outputs, targets, **options))
        if not found.dim():
            return None
        costs, weights = (
            (mode.costs, mode.weights) if found is mode.returned else (found, torch.ones_like(found))
        )
        return _of_targets(costs, weights)

    def _by_example(
        self, costs: Tensor, weights: Tensor, outputs: Any, targets: Any
    ) -> tuple[Tensor, Tensor]:
        """Sum over the targets of each example."""
        count = _count(targets)
        if not count or (costs.shape[:1] == (count,) and count not in costs.shape[1:]):
            return _rows(costs, weights, len(costs))
        placed = costs.numel() in [count, *(t.numel() for t in tensors_of(targets))]
        if placed and self._in_order:
            return _rows(costs, weights, count)
        parts = (self._alone(part, costs, weights, outputs, targets) for part in (_example, _stretch))
        alone = next(filter(None, parts), None)
        if alone is None:
            return _rows(costs, weights, len(costs) if len(costs) <= count else 1)
        if placed and count > 1 and self._in_order is None and not _near(costs, costs.flatten()[:1]):
            self._in_order = all(map(_near, _rows(costs, weights, count), alone))  # not by losses all alike
        return alone

    def _alone(
        self, part: Callable[[Any, int], Any], costs: Tensor, weights: Tensor, outputs: Any, targets: Any
    ) -> tuple[Tensor, Tensor] | None:
        """Sum the losses of each example alone; None if they are not those of the batch."""
        pairs = (part((outputs, targets), i) for i in range(_count(targets)))
        try:
            found = [(c.sum(), w.sum()) for c, w in (self._way(*pair) for pair in pairs)]
        except Exception:  # whatever a loss of many examples does with one
            return None
        sums, of_each = (torch.stack(column) for column in zip(*found, strict=True))
        for one, whole in ((sums, costs), (of_each, weights)):
            gap, size = (one.detach().sum() - whole.detach().sum()).abs(), whole.detach().abs().sum()
            if gap > CLOSE * size:  # not where the loss is no number
                return None
        return sums, of_each

    def _one_by_one(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        pairs = (_example((outputs, targets), i) for i in range(_count(targets)))
        own = [self._own(*pair).reshape(()) for pair in pairs]
        sums = torch.stack(own)
        return sums, torch.ones_like(sums)

    def _as_one(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        sums = self._own(outputs, targets).reshape(1)
        return sums, torch.ones_like(sums)


class _Unreduced(TorchFunctionMode):
    """Notes the loss of each target in a loss of `torch.nn.functional`, and what its mean weighs it with.

    Attributes:
        returned: what the last such loss returned; None before.
        costs, weights: its mean is Σ costs / Σ weights; of one shape.
    """

    def __init__(self, replace: bool) -> None:
        super().__init__()
        self._replace = replace
        self.returned: Tensor | None = None
        self.costs = self.weights = torch.empty(0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        asked = kwargs.get("reduction")
        if not isinstance(asked, str) or not (self._replace or asked == "none"):
            return func(*args, **kwargs)
        _check_shapes(func, args)
        for name in ("weight", "pos_weight"):  # which stay behind when a loss moves or becomes float64
            if isinstance(kwargs.get(name), Tensor):
                kwargs[name] = kwargs[name].to(args[0])
        kwargs |= {"reduction": "none"} | {name: None for name in _LEGACY if name in kwargs}
        self.returned = self.costs = _TWICE.get(func, func)(*args, **kwargs)
        self.weights = torch.ones_like(self.costs)
        if func in _OF_CLASSES and not args[1].is_floating_point():
            self.weights = _class_weights(args[1], kwargs["weight"], kwargs["ignore_index"], self.weights)
        elif func is F.ctc_loss:
            self.costs = self.costs / torch.as_tensor(args[3]).to(self.costs).clamp(min=1)
        elif func is F.kl_div and asked == "batchmean":
            self.weights = self.weights * (len(self.costs) / self.costs.numel())
        elif func in (F.mse_loss, F.huber_loss) and isinstance(kwargs.get("weight"), Tensor):
            self.weights = kwargs["weight"].expand_as(self.costs)
        return self.returned


def _multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Return Σ_{j≠y} w_y max(0, m - z_y + z_j)^p / C of each target: torch differentiates its own once."""
    own = target[..., None]
    short = (margin - input.gather(-1, own) + input).clamp(min=0) ** p
    costs = short.scatter(-1, own, 0).mean(-1)
    return costs if weight is None else costs * weight[target]


_TWICE: dict[Any, Callable[..., Any]] = {F.multi_margin_loss: _multi_margin_loss}
"""Losses without their reduction, in place of those of torch that can be differentiated only once."""


def _class_weights(targets: Tensor, weight: Tensor | None, ignored: int, ones: Tensor) -> Tensor:
    """Return what the mean weighs each target with: its class's weight, and 0 where it is ignored."""
    used = targets != ignored
    each = ones if weight is None else weight[targets.where(used, 0)]
    return each * used


def _check_shapes(func: Callable[..., Any], args: Any) -> None:
    if func in _OF_ENTRIES and args[0].shape != args[1].shape:
        shapes = " and targets of ".join(str(tuple(t.shape)) for t in args[:2])
        raise InputError(f"the criterion was given outputs of shape {shapes}; make their shapes equal")


def _agrees(own: float, sums: Tensor, weights: Tensor) -> bool:
    """Tell whether the criterion's own scalar is Σ sums / Σ weights, or Σ sums, as near as float32 tells."""
    total, size, weight = float(sums.detach().sum()), float(sums.detach().abs().sum()), float(weights.sum())
    if weight == 0 or not (math.isfinite(total) and math.isfinite(own)):
        return weight == 0 or math.isfinite(total) == math.isfinite(own)
    return abs(own - total / weight) <= CLOSE * size / weight or abs(own - total) <= CLOSE * size


def _near(some: Tensor, others: Tensor) -> bool:
    """Tell whether losses are the same, as near as float32 tells, whatever their unit."""
    return bool((some - others).detach().abs().max() <= CLOSE * others.detach().abs().max())


def _of_targets(costs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor] | None:
    return (costs, weights) if costs.dim() else None


def _rows(costs: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum over the equal parts of what lies end to end."""
    size = costs.numel() // max(count, 1)
    return costs.reshape(count, size).sum(1), weights.reshape(count, size).sum(1)


def _example(pair: tuple[Any, Any], i: int) -> Any:
    """Return the outputs and targets of one example of a batch."""
    count = _count(pair[1])
    return mapped(pair, lambda t: t[i : i + 1] if t.dim() and len(t) == count else t)


def _stretch(pair: tuple[Any, Any], i: int) -> Any:
    """Return the same where outputs have several rows for each example, end to end."""
    count = _count(pair[1])

    def part(tensor: Tensor) -> Tensor:
        size = len(tensor) // count if tensor.dim() and len(tensor) % count == 0 else 0
        return tensor[i * size : (i + 1) * size] if size else tensor

    return mapped(pair, part)


def _with_an_example(of: tuple[Any, Any], pair: tuple[Any, Any]) -> Any:
    """Return outputs and targets with the first example of others before them, where they fit together."""
    count, parts = _count(pair[1]), iter(tensors_of(_example(of, 0)))

    def joined(tensor: Tensor) -> Tensor:
        part = next(parts)
        return torch.cat([part, tensor]) if tensor.dim() and len(tensor) == count else tensor

    try:
        return mapped(pair, joined)
    except RuntimeError:  # they have other shapes
        return pair


def _count(targets: Any) -> int:
    """Return the number of examples of a batch; 0 where its targets do not tell."""
    lengths = {len(t) if t.dim() else 0 for t in tensors_of(targets)}
    return lengths.pop() if len(lengths) == 1 else 0


def _tensor(found: Any) -> Tensor:
    if not isinstance(found, Tensor):
        raise InputError(f"the criterion returned {type(found).__name__}, not a tensor")
    return found


def _reduction_of(criterion: Criterion) -> str | None:
    """Tell where a criterion is told how to reduce: an `optional` or `required` argument, an `attribute`."""
    if isinstance(criterion, nn.Module):
        return "attribute" if isinstance(getattr(criterion, "reduction", None), str) else None
    try:
        argument = inspect.signature(criterion).parameters.get("reduction")
    except (TypeError, ValueError):  # it is written in C
        return None
    if argument is None:
        return None
    return "required" if argument.default is argument.empty else "optional"
