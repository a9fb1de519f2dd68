"""The loss that a training descends: dropout and batch statistics as in training, but frozen."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import RLock
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.objective.batches import parts_of, tensors_of
from landscape.runtime.arguments import Seed, checks_arguments
from landscape.runtime.devices import accelerated

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
Mode = Literal["eval", "training"]
_DRAWING = RLock()  # the generators are those of the process: other threads must not draw in between


class OfModel(Protocol[T_co]):
    """A function of a model and a batch, such as a loss."""

    def __call__(self, model: Any, batch: Any, /) -> T_co: ...


@checks_arguments
def in_training_mode(loss: OfModel[T], seed: Seed = 0) -> OfModel[T]:
    """Return a loss that evaluates its model in training mode, with the randomness frozen.

        objective = ll.Objective(model, batches, ll.in_training_mode(loss))

    Dropout and whatever else draws from torch's generators draws the same numbers in each evaluation of a
    batch: they depend on the seed and on the batch's tensors. BatchNorm uses the statistics of the batch, and
    does not update its own. So L is a fixed function of θ that can be differentiated twice: one draw of the
    loss whose gradients the training follows. `landscape.supervised` and `landscape.Monitor` take
    `mode="training"`.

    Results say the mode, and an objective in this mode is not compared with one in eval mode.

    Args:
        loss: maps (model, batch) to anything, as the `loss`, `per_example` and `forward` of an `Objective`.
        seed: random seed of all draws.

    Returns:
        The function, for the same argument of `Objective`.

    Raises:
        InputError: the seed is not a whole number from 0.
    """

    @wraps(loss)
    def evaluate(model: Any, batch: Any) -> T:
        tensors = [part for tensor in tensors_of(batch) for part in parts_of(tensor)]
        devices = {t.device for t in (*tensors, *model.parameters()) if accelerated(t.device)}
        with _DRAWING, _seeded(tensors, devices, seed), _training(model):
            return loss(model, batch)

    evaluate.provenance = {"mode": f"training, seed {seed}"}  # type: ignore[attr-defined] # Objective reads it
    return evaluate


def in_mode(function: OfModel[T], mode: Mode, seed: int = 0) -> OfModel[T]:
    """Return a function of a model in a mode by its name."""
    return in_training_mode(function, seed) if mode == "training" else function


@contextmanager
def _seeded(tensors: list[Tensor], devices: Collection[torch.device], seed: int) -> Iterator[None]:
    """Seed the generators of the CPU and of some GPUs by the values of tensors; put them back after.

    `torch.manual_seed` would seed those of all GPUs, which other work draws from: a training beside this.
    """
    kind = next((device.type for device in devices), "cuda")
    with torch.random.fork_rng(devices, device_type=kind):
        for tensor in tensors:
            plain = tensor.detach()
            if plain.is_floating_point():  # float64 draws what float32 does
                plain = plain.float()
            hashed = int(torch.hash_tensor(plain).view(torch.int64)) if plain.numel() else 0
            seed = hash((seed, hashed))
        torch.default_generator.manual_seed(seed % 2**63)
        for device in devices:
            begun = torch.Generator(device).manual_seed(seed % 2**63).get_state()
            torch.get_device_module(device).set_rng_state(begun, device)
        yield


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Set the modes of all modules, without code of their own; BatchNorm writes no statistics."""
    modes = [(module, module.training) for module in model.modules()]
    norms = [m for m, _ in modes if isinstance(m, _BatchNorm) and m.track_running_stats]
    try:
        for module, _ in modes:
            module.training = True
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for module, mode in modes:
            module.training = mode
