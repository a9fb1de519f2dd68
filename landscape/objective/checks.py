"""What a loss must be, so that it can be measured: the same twice, finite, with a positive weight."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from landscape.errors import InputError

ADDED = 1e-3  # share of a loss by which the sum over its units may differ, as of the units' absolute losses
SHUFFLED = 1e-5  # share of a loss by which sums in two orders may differ; dropout moves a loss by far more


def total_weight(
    evaluate: Callable[[Any], Any], batches: Sequence[Any], known: Tensor | None = None
) -> tuple[float, list[Tensor]]:
    """Evaluate each batch twice, and return the sum of their weights, and the loss of each batch.

    A loss that moves by itself would turn every measurement into noise. On a CPU, equal evaluations agree bit
    for bit. On other devices, sums whose terms arrive in any order may differ in their last digits.

    Args:
        evaluate: maps a batch to (sum of the loss, weight).
        known: the loss of the first batch from another evaluation; where it is the same, one more is enough.

    Raises:
        InputError: a sum is not a finite scalar, or differs between the two; or a weight is not positive, but
            for batches of weight and sum 0, all of whose targets are ignored.
    """
    total, losses = 0.0, list[Tensor]()
    for index, batch in enumerate(batches):
        first, weight = _pair(evaluate(batch))
        seen = not index and known is not None and isinstance(first, Tensor) and torch.equal(first, known)
        second = first if seen else _pair(evaluate(batch))[0]
        if not isinstance(first, Tensor) or first.numel() != 1:
            found = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
            raise InputError(
                f"the loss must return (sum, weight), the sum a scalar tensor and not {found}; "
                "leave out .item(), and reduce by sum"
            )
        if not torch.isfinite(first):
            raise InputError(f"the loss is {first.item():g} on batch {index}; nothing can be measured there")
        if not _repeats(first, second):
            raise InputError(
                f"the loss differs between two evaluations of batch {index} ({first.item()!r}, then "
                f"{second.item()!r}); it must draw no random numbers, or always the same, and change nothing "
                "that it reads: no buffer, counter or input in place"
            )
        if not float(weight) > 0 and not float(weight) == first.item() == 0:
            raise InputError(f"the weight of batch {index} is {float(weight):g}; it must be positive")
        total += float(weight)
        losses.append(first.detach())
    if batches and not total:
        raise InputError("the weight of each batch is 0: all targets are ignored")
    return total, losses


def need_same_again(before: Tensor, after: Tensor) -> None:
    """Make sure that a loss is the same after it was evaluated elsewhere as before that.

    It is not where the model keeps something of each evaluation, such as the vectors of a spectral norm in
    training: at one point they stand still, and elsewhere they move.

    Raises:
        InputError: it is not.
    """
    if not _repeats(before, after):
        raise InputError(
            f"the loss at θ is {before.item()!r}, and {after.item()!r} after it was evaluated elsewhere; the "
            "model keeps something of each evaluation (a buffer or a counter, as a spectral norm does in "
            "training), which must stand still"
        )


class Units:
    """Makes sure that the loss per example is the same loss as that of the batches: of each batch, once.

    All copies of a loss share it.

    Args:
        batches: how many there are.
    """

    def __init__(self, batches: int) -> None:
        self._left = batches

    def __deepcopy__(self, memo: Any) -> "Units":
        return self

    def __bool__(self) -> bool:
        """Whether a batch is left that was not compared."""
        return self._left > 0

    def compare(self, units: Any, whole: Any) -> None:
        """Compare a batch's loss per example with its loss.

        Raises:
            InputError: it does not add up, or its weights do not: averages over units, and standard errors,
                would be those of another loss.
        """
        self._left -= 1
        found = (torch.as_tensor(part).detach().double() for part in (*_pair(units), *whole))
        sums, weights, total, weight = found
        apart = abs(float(sums.sum() * weight - total * weights.sum()))
        if apart > ADDED * float(sums.abs().sum() * weight):
            raise InputError(
                f"per_example adds up to {float(sums.sum() / weights.sum()):g} over a batch whose loss is "
                f"{float(total / weight):g}; it must return the parts of the same loss, a penalty included, "
                "with its weights"
            )
        if abs(float(weights.sum() - weight)) > ADDED * float(weight):
            raise InputError(
                f"the weights of per_example add up to {float(weights.sum()):g} over a batch that the loss "
                f"weighs with {float(weight):g}; the loss must return the sums of both, and no mean"
            )


def need_same_draws(single: float, double: float) -> None:
    """Make sure that a loss which draws random numbers draws the same in float32 and in float64.

    Dropout's masks are the same on a CPU; normal and uniform numbers are others.

    Raises:
        InputError: the two values of the loss differ by more than rounding makes.
    """
    if abs(single - double) > SHUFFLED * max(abs(single), abs(double)):
        raise InputError("the loss draws random numbers, which are others in float64")


def repeatability(device: torch.device) -> dict[str, str]:
    """Return what results say of two evaluations of one loss: nothing where they agree bit for bit."""
    return {} if device.type == "cpu" else {"evaluations": f"agree to {SHUFFLED:g} of the loss"}


def _repeats(first: Tensor, second: Tensor) -> bool:
    one, other = first.item(), second.item()
    share = 0.0 if first.device.type == "cpu" else SHUFFLED
    return abs(one - other) <= share * max(abs(one), abs(other))


def _pair(found: Any) -> Any:
    """Return what a loss returned, if it is a sum and a weight.

    Raises:
        InputError: it is something else, which most losses return elsewhere: one number.
    """
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise InputError(
            f"the loss must return (sum, weight), not {type(found).__name__}: write "
            'F.cross_entropy(outputs, y, reduction="sum"), len(y), or, where only a mean over count targets '
            "is known, mean * count, count; or use landscape.supervised"
        )
    return found
