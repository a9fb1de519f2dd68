"""What `torch.amp.GradScaler.step` tells an optimizer that handles scaled gradients itself."""

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from samrec.sam.vectors import Vector


class Scaler:
    """The two tensors that a GradScaler hangs on an optimizer while it calls `step`; false where it does not.

    Args:
        optimizer: one whose class has `_step_supports_amp_scaling`.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._found: Tensor | float | None = vars(optimizer).get("found_inf")
        self._scale: Tensor | None = vars(optimizer).get("grad_scale")

    def __bool__(self) -> bool:
        return self._found is not None

    @property
    def overflowed(self) -> bool:
        """Whether it found a gradient that is not finite; waits for the device."""
        return bool(self._found)

    @torch.no_grad()
    def unscale(self, gradients: Vector) -> None:
        """Divide by the scale, in place, unless `GradScaler.unscale_` has done it."""
        if self._scale is None:
            return
        for gradient in gradients.values():  # float16 has no 65,536, and not every device has float64
            wide = torch.promote_types(gradient.dtype, torch.float32)
            gradient.mul_(self._scale.to(gradient.device, wide).reciprocal().to(gradient.dtype))
