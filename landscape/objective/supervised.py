"""The usual case in one line: pairs of inputs and targets, and one of torch's losses."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from landscape.errors import InputError
from landscape.objective.objective import Objective

Criterion = Callable[..., Tensor]


def supervised(model: nn.Module, batches: Iterable[Any], criterion: Criterion, **options: Any) -> Objective:
    """Return the mean of a loss over all pairs of inputs and targets, also per example and in two parts.

        objective = supervised(model, loader, F.cross_entropy)

    It equals the criterion's own mean over all data at once: over examples, or over all entries of the
    targets where one example has several (pixels, tokens, outputs). For class weights and ignored targets,
    which change what the mean is over, write a loss that returns (sum, weight) and use `Objective`.

    Args:
        model: takes a batch's inputs: a tensor, a tuple as several arguments, a mapping as named ones. It
            may return an object with `logits`, as Hugging Face's do.
        batches: pairs (inputs, targets), from a list or a data loader.
        criterion: `criterion(outputs, targets, reduction="none")` is the loss of each target, as are those of
            `torch.nn.functional`: `cross_entropy`, `mse_loss`, `binary_cross_entropy_with_logits`.
        options: of `Objective`.

    Raises:
        InputError: a batch is not a pair, or the criterion does not give the loss per target; and as
            `Objective`.
    """

    def whole(outputs: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        sums, weights = _of_examples(criterion(outputs, batch[1], reduction="none"))
        return sums.sum(), weights.sum()

    def per_example(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return _of_examples(criterion(_outputs(model, batch), batch[1], reduction="none"))

    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return whole(_outputs(model, batch), batch)

    return Objective(
        model, batches, loss, per_example=per_example, forward=_outputs, criterion=whole, **options
    )


def _outputs(model: nn.Module, batch: Any) -> Tensor:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError("a batch must be a pair (inputs, targets); for other batches give Objective a loss")
    inputs = batch[0]
    if isinstance(inputs, Mapping):
        outputs = model(**inputs)
    else:
        outputs = model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
    found: Tensor = getattr(outputs, "logits", outputs)
    return found


def _of_examples(costs: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the losses of each example's targets, and count them, shape (examples,) both."""
    if not costs.dim():
        raise InputError('the criterion must give the loss of each target when reduction is "none"')
    rows = costs.flatten(1) if costs.dim() > 1 else costs[:, None]
    return rows.sum(1), rows.new_full((len(rows),), rows.shape[1])
