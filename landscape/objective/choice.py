"""Which way the weights of a model take, see `landscape.objective.evaluators`: decided once an objective."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from landscape.errors import InputError, need_memory, words_of
from landscape.objective.checks import need_same_again, total_weight
from landscape.objective.derivatives import leaves_of, twice_differentiable
from landscape.objective.evaluators import (
    Copied,
    Evaluator,
    Gathering,
    LossModule,
    Recomputed,
    Swapped,
    Weights,
    keeps_statistics,
)
from landscape.objective.frozen import OWN, duplicate, twin
from landscape.objective.keeping import kept, written
from landscape.objective.lookups import Recorder
from landscape.objective.noise import fill_normal, size_of
from landscape.objective.shards import Shard
from landscape.objective.training_mode import in_training_mode
from landscape.runtime.devices import keep_freed_memory
from landscape.runtime.watching import watching


def evaluator_for(
    module: LossModule, weights: Weights, batches: Sequence[Any], statistics: str, known: Tensor | None
) -> tuple[Evaluator, float]:
    """Return the evaluator that a model needs, and the total weight of the batches.

    Args:
        statistics: of BatchNorm, "kept" or "recomputed".
        known: the loss of the first batch, if the module was evaluated there before.

    Raises:
        InputError: as `total_weight`; the loss cannot be evaluated, or is the same wherever the weights are;
            or the statistics of this model cannot be recomputed.
    """
    keep_freed_memory()
    try:
        with torch.enable_grad(), twice_differentiable:
            try:
                return _chosen(module, weights, batches, statistics, known)
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
            module.differentiates = True
            return _chosen(module, weights, batches, statistics, known)
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of the model or the loss, whose traceback stays above this one
        need_memory(error)
        said = f"the loss cannot be evaluated: {words_of(error)}"
        torchs = getattr(module.loss, "__module__", "").startswith("torch.nn")
        name = type(module.model).__name__
        if torchs or (name in said and f"{name}.forward" not in said):  # the model where it expects outputs
            said += (
                "; it takes (model, batch): for a criterion of outputs and targets use landscape.supervised"
            )
        elif _has_loss_in_training(module, batches[0]):
            said += "; it can in training mode, see landscape.in_training_mode(loss)"
        raise InputError(said) from error


def _has_loss_in_training(module: LossModule, batch: Any) -> bool:
    """Tell whether the model gives a loss in training mode alone, as detectors do: boxes in eval mode."""
    with suppress(Exception):  # the user's own code may raise anything
        total, weight = in_training_mode(module.loss)(duplicate(module.model), batch)
        return bool(torch.isfinite(total)) and float(weight) > 0
    return False


def _chosen(
    module: LossModule, weights: Weights, batches: Sequence[Any], statistics: str, known: Tensor | None
) -> tuple[Evaluator, float]:
    recompute = statistics == "recomputed"
    sharded = any(isinstance(weight, Shard) for weight in weights.values())
    swapped, copied = Gathering(module) if sharded else Swapped(twin(module)), Copied(module)
    if recompute and not any(map(keeps_statistics, module.modules())):
        raise InputError("the model has no BatchNorm whose statistics could be recomputed")
    try:
        before = kept(swapped.module.model)
        total, losses = total_weight(swapped.at(weights), batches, known)
        reached, differs = _reached(swapped, copied, weights, batches[0], losses[0])
        if not module.differentiates and copied.module.asks:
            evaluate, _ = copied.with_leaves(weights)
            if not torch.allclose(evaluate(batches[0])[0], losses[0], rtol=OWN, atol=0):
                module.differentiates = True  # a penalty on the weights that are trained, say
                return _chosen(module, weights, batches, statistics, None)
        if reached and written(before, kept(swapped.module.model)):
            _need_stillness(swapped, weights, batches, losses)
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


class _Asked(TorchFunctionMode):
    """Notes in a module whether its loss asks a tensor if it requires a gradient, and what means it takes.

    Attributes:
        means: results of torch's losses that are means over targets.
    """

    def __init__(self, module: LossModule) -> None:
        super().__init__()
        self._module = module
        self.means: list[Any] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self._module.asks |= getattr(func, "__self__", None) is Tensor.requires_grad
        found = func(*args, **(kwargs or {}))
        if kwargs and kwargs.get("reduction") == "mean":
            self.means.append(found)
        return found


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

    Raises:
        InputError: the weight of the batch differs between two points, so that L is not defined by one of
            them; or belongs to a sum, and the loss is a mean; or the loss is another one than `here` once it
            was evaluated elsewhere.
    """
    seen, held, weighed = 0, duplicate(copied.module), set[float]()
    own = {name: parameter.data for name, parameter in held.model.named_parameters()}
    for moved in _elsewhere(weights, {name: own[name] for name in weights}):  # no further copy is held
        try:
            with watching(swapped.module.saw), _Asked(copied.module) as asked:
                expected, weight = held(batch)
        except Exception:  # the loss is not defined there, and nothing can be told
            continue
        if float(weight) > 1 and any(expected is mean for mean in asked.means):
            raise InputError(
                f"the loss returns a mean over targets with the weight {float(weight):g}; return their sum "
                '(reduction="sum"), or mean * count, count'
            )
        copied.module.draws = swapped.module.draws
        found = swapped.at(moved)(batch)[0]
        if not torch.allclose(found, expected, rtol=OWN, atol=0, equal_nan=True):
            return False, False
        if torch.isfinite(found) and not torch.equal(found, here):
            seen += 1
            weighed.add(float(weight))
        if len(weighed) > 1:
            raise InputError(
                "the weight of a batch depends on the weights of the model; it must be a number of the data, "
                "such as how many targets it has"
            )
        if seen > 1:
            break
    if seen:
        need_same_again(here, swapped.at(weights)(batch)[0])
    return True, seen > 0


def _need_stillness(
    evaluator: Evaluator, weights: Weights, batches: Sequence[Any], losses: Sequence[Tensor]
) -> None:
    """Make sure that what a model keeps of evaluations elsewhere changes the loss of no batch.

    A part of the model that the first batch does not reach may keep something, too.

    Args:
        losses: of the batches, as they were before.

    Raises:
        InputError: it changes one.
    """
    moved = next(_elsewhere(weights, {n: torch.empty_like(t) for n, t in weights.items()}))
    for batch in batches:
        with suppress(Exception):  # the loss is not defined there
            evaluator.at(moved)(batch)
    for batch, loss in zip(batches, losses, strict=True):
        need_same_again(loss, evaluator.at(weights)(batch)[0])


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
