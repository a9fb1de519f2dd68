"""Random numbers that two passes share."""

import torch
from torch import Tensor


def capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured, of which nothing can be asked."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def random_state(device: torch.device) -> list[Tensor]:
    """Return where the generators of the CPU and of `device` stand."""
    # A graph that is being captured gets its random numbers as inputs, or not at all.
    cuda = device.type == "cuda" and not capturing(device)
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if cuda else [])]


def set_random_state(device: torch.device, state: list[Tensor]) -> None:
    """Let the generators stand where `random_state` found them."""
    torch.set_rng_state(state[0])
    for on_device in state[1:]:
        torch.cuda.set_rng_state(on_device, device)
