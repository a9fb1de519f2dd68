"""Where to compute."""

from typing import TYPE_CHECKING, Literal

from landscape.errors import InputError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]


def device_named(name: str) -> "torch.device":
    """Return the device: `auto` is CUDA where there is one, else the CPU.

    Raises:
        InputError: CUDA was asked for and there is none, or the name is none of a torch device.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"no device {name!r}; expected auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but this machine has none; use --device cpu or auto")
    return device
