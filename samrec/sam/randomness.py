"""Random numbers that two passes share."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

CPU = torch.device("cpu")


def capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured, of which nothing can be asked."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def random_states(devices: Iterable[torch.device]) -> dict[torch.device, Tensor]:
    """Return where the generators of the CPU and of `devices` stand."""
    found = {CPU: torch.get_rng_state()}
    for device in set(devices):
        # A graph that is being captured gets its random numbers as inputs, or not at all.
        kind: Any = getattr(torch, device.type, None)
        if hasattr(kind, "get_rng_state") and not capturing(device):
            found[device] = kind.get_rng_state(device)
    return found


def set_random_states(states: Mapping[torch.device, Tensor]) -> None:
    """Let the generators stand where `random_states` found them."""
    for device, state in states.items():
        if device == CPU:
            torch.set_rng_state(state)
        else:
            getattr(torch, device.type).set_rng_state(state, device)
