"""What makes a training the same, bit for bit, with a measurement in between and without one."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from landscape.runtime import progress
from landscape.runtime.precision import full_precision


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put the random number generators back, and measure in full precision and with gradients in between."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 # the user's
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call] # torch leaves it untyped
    try:
        with progress.hushed(), torch.inference_mode(False), full_precision:
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002 # the user's
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
