"""What SAM remembers of its ascent: within a step, and from one step to the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from samrec.sam.vectors import Vector


@dataclass
class Ascent:
    """How one step came to w + e.

    Attributes:
        climbed: whether it found a direction by a gradient at w; else it took the kept one, or stayed at w.
        memory: the variant's, once the step is taken.
        scale: what the loss at w was multiplied by, if it was said.
        norm: length of the direction; not finite where the gradient at w is not.
        below: gradients at w, for a variant that compares.
        weights: the parameters that moved, and what each held at w.
    """

    climbed: bool
    memory: Vector
    scale: float | Tensor | None = None
    norm: Tensor | None = None
    below: Vector = field(default_factory=dict)
    weights: list[tuple[Tensor, Tensor]] = field(default_factory=list)


@dataclass
class Kept:
    """What later steps need.

    Attributes:
        steps: number of steps taken.
        directions: e / rho times its length, for the steps that climb by it again.
        inverse: 1 over that length; the two need not meet before the move.
        memory: the variant's.
    """

    steps: int = 0
    directions: Vector = field(default_factory=dict)
    inverse: Tensor = field(default_factory=lambda: torch.zeros(()))
    memory: Vector = field(default_factory=dict)

    def saved(
        self, perturbed: Sequence[Tensor], parameters: Sequence[Tensor], variant: str
    ) -> dict[str, Any]:
        """Return it as SAM's state dict holds it: tensors in the order of the parameters."""
        found: dict[str, Any] = {"steps": self.steps}
        if self.directions:
            found |= {"directions": [self.directions.get(p) for p in perturbed], "inverse": self.inverse}
        if self.memory:
            found[variant] = [self.memory.get(p) for p in parameters]
        return found

    @classmethod
    def loaded(
        cls, found: Mapping[str, Any], perturbed: Sequence[Tensor], parameters: Sequence[Tensor], variant: str
    ) -> "Kept":
        """Return what `saved` returned, or a new beginning where there is nothing of it.

        Raises:
            ValueError: it is of other parameters.
        """
        kept = cls(int(found.get("steps", 0)), memory=_by_parameter(found.get(variant), parameters))
        if "directions" in found:
            kept.directions = _by_parameter(found["directions"], perturbed)
            kept.inverse = found["inverse"].to(perturbed[0].device)
        return kept


def _by_parameter(saved: Sequence[Tensor | None] | None, parameters: Sequence[Tensor]) -> Vector:
    """Return saved tensors as a vector, on the parameters' devices.

    Raises:
        ValueError: there are more or fewer than parameters, or one has another shape.
    """
    if saved is None:
        return {}
    if len(saved) != len(parameters):
        raise ValueError(f"the state keeps {len(saved)} directions, for {len(parameters)} parameters")
    for tensor, p in zip(saved, parameters, strict=True):
        if tensor is not None and tensor.shape != p.shape:
            raise ValueError(
                f"the state keeps a direction of shape {tuple(tensor.shape)}, not {tuple(p.shape)}"
            )
    return {p: tensor.to(p) for tensor, p in zip(saved, parameters, strict=True) if tensor is not None}
