"""Points of an objective's landscape that others stand at: tensors, or the weights of other objectives."""

import warnings
from itertools import zip_longest

from torch import Tensor

from landscape.errors import InputError
from landscape.objective.identity import need_one_loss
from landscape.objective.objective import Objective
from landscape.objective.supervised import need_objective

SAME = 1e-4  # relative: of losses that differ by the arithmetic alone


def point_of(objective: Objective, other: Objective | Tensor) -> Tensor:
    """Return the point of another objective, or that of a tensor, in an objective's coordinates: (numel,).

    Raises:
        InputError: its parameters have other names or shapes, or its loss is another.
    """
    need_objective(objective)
    theta = objective.theta
    if not isinstance(other, Tensor):
        need_objective(other)
        check_parameters(objective, other)
        need_one_loss({"the first end": objective.provenance, "the other": other.provenance})
        other = other.theta
    if other.shape != theta.shape:
        raise InputError(
            f"a point of {other.numel()} parameters, of shape {tuple(other.shape)}, is not one of "
            f"this objective, whose theta has the shape {tuple(theta.shape)}"
        )
    return other.detach().to(theta)


def own_end(other: Objective | Tensor, reached: float) -> dict[str, float]:
    """Return the loss of the other model itself, where it is not that of the first at the same parameters.

    They differ in what takes no part: BatchNorm's statistics, or frozen weights. A warning says so.
    """
    if not isinstance(other, Objective):
        return {}
    own = other.value()
    if abs(own - reached) <= SAME * max(abs(own), abs(reached), SAME):
        return {}
    warnings.warn(
        f"the other model's loss is {own:.4g}, but {reached:.4g} with what is fixed in the first one: "
        "BatchNorm statistics or frozen weights differ; see Objective's statistics='recomputed'",
        stacklevel=2,
    )
    return {"own_end": own}


def check_parameters(a: Objective, b: Objective) -> None:
    """Refuse two vectors whose coordinates do not mean the same."""
    one, other = ([f"{e.name} of {tuple(e.shape)}" for e in o.params.entries] for o in (a, b))
    for mine, theirs in zip_longest(one, other, fillvalue="nothing"):
        if mine != theirs:
            raise InputError(
                f"no path leads between different models: where one has {mine}, the other has {theirs}"
            )
