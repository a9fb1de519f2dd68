"""The usual case in one line: pairs of inputs and targets, and one of torch's losses or any other."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from landscape.errors import InputError
from landscape.objective.batches import need_batches
from landscape.objective.criteria import Criterion, PerTarget
from landscape.objective.identity import criterion_digest
from landscape.objective.objective import Objective
from landscape.objective.training_mode import Mode, in_mode
from landscape.runtime.arguments import Seed, checks_arguments


@checks_arguments
def supervised(
    model: nn.Module,
    batches: Iterable[Any],
    criterion: Criterion,
    *,
    mode: Mode = "eval",
    seed: Seed = 0,
    **options: Any,
) -> Objective:
    """Return the mean of a loss over all pairs of inputs and targets, also per example and in two parts.

        objective = supervised(model, loader, nn.CrossEntropyLoss())

    It equals the criterion's own mean over all data at once: over examples, or over all entries of the
    targets where one example has several (pixels, tokens, outputs), with class weights and without ignored
    targets, as torch takes the mean. This is compared with the criterion's own value on the first batch.

    Args:
        model: takes a batch's inputs: a tensor or a packed sequence, a tuple as several arguments, a mapping
            as named ones. It may return an object or a mapping with `logits`, as Hugging Face's do.
        batches: pairs (inputs, targets), from a list or a data loader.
        criterion: maps (outputs, targets) to a loss: a module such as `nn.CrossEntropyLoss()`, a function of
            `torch.nn.functional`, or any other callable that returns the loss of each example, their mean, or
            their sum (of which the mean is taken). One that is none of these, because its examples depend
            on one another, can be measured on a single batch.
        mode: mode of the model: `eval`, or `training` with frozen dropout masks and the statistics of each
            batch (`landscape.in_training_mode`).
        seed: random seed of the dropout masks.
        options: further arguments of `Objective`.

    Raises:
        InputError: `batches` is a data set of single examples, or a batch is not a pair; the criterion does
            not give the loss of each target when its `reduction` is "none", cannot be called, or its scalar
            is not a mean over examples and there are several batches; outputs and targets of `mse_loss` and
            its like have different shapes; there is no such mode; and as `Objective`.
    """
    need_batches(batches)
    taken, outputs_of = PerTarget(criterion), in_mode(_outputs, mode, seed)
    known = {"loss": criterion_digest(criterion)} | getattr(outputs_of, "provenance", {})
    options["provenance"] = known | dict(options.get("provenance") or {})

    def whole(outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
        return taken.total(outputs, batch[1])

    def per_example(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return taken(outputs_of(model, batch), batch[1])

    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return whole(outputs_of(model, batch), batch)

    parts: dict[str, Any] = {"forward": outputs_of, "criterion": whole}
    objective = Objective(model, batches, loss, per_example=per_example, **parts, **options)
    if not taken.scalar:
        return objective
    pairs = ((objective.traced(batch, "outputs")[1], batch[1]) for batch in objective.batches)
    first = next(pairs)
    whole_only = taken.whole or not all(taken.separates(*pair, beside=first) for pair in pairs)
    if whole_only and objective.count > 1:
        raise InputError(
            "the criterion's scalar is not the mean over a batch's examples, so several batches have none; "
            "return the loss of each target, or give Objective a loss that returns (sum, weight)"
        )
    return Objective(model, objective.batches, loss, **parts, **options) if whole_only else objective


def _outputs(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        raise InputError(
            "a batch is a mapping, not a pair (inputs, targets): give landscape.Objective a loss that "
            "returns (sum, weight), such as model(**batch).loss * count, count for a mean over count targets "
            "(docs/howto/huggingface.md)"
        )
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError(
            "a batch must be a pair (inputs, targets), and a single batch must stand in a list; "
            "for other batches give landscape.Objective a loss that returns (sum, weight)"
        )
    inputs = batch[0]
    if isinstance(inputs, Mapping):
        outputs = model(**inputs)
    else:
        several = isinstance(inputs, tuple | list) and not isinstance(inputs, PackedSequence)
        outputs = model(*inputs) if several else model(inputs)
    if isinstance(outputs, Mapping) and "logits" in outputs:
        return outputs["logits"]
    return getattr(outputs, "logits", outputs)


def need_objective(given: Any) -> None:
    """Refuse what is measured by mistake in place of an objective, which most often is its model.

    Raises:
        InputError: it is not an `Objective`.
    """
    if not isinstance(given, Objective):
        raise InputError(
            f"expected a landscape.Objective, not {type(given).__name__}; make one of a model and its data: "
            "landscape.supervised(model, batches, criterion)"
        )


def need_names(given: Any, taker: str) -> None:
    """Refuse objectives that do not come by name.

    Args:
        taker: what takes them, for the message.

    Raises:
        InputError: they are not a mapping, or an empty one.
    """
    if not isinstance(given, Mapping) or not given:
        raise InputError(f'{taker} takes objectives by name: {{"my model": objective}}')
