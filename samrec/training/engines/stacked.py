"""Several models of one shape as one: their parameters stacked, each step one vmapped step for all."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from samrec.checkpoint import Checkpoint, State, check_fit
from samrec.config import Config
from samrec.data.packing import Batch
from samrec.methods.learner import Learner, apart, joined
from samrec.model import Recommender
from samrec.sam import SAM
from samrec.sam.vectors import Vector
from samrec.training.engines.graph import Captured
from samrec.training.engines.solo import (
    check_sums,
    fitting,
    load_optimizer,
    parameter_groups,
    precision,
    sam_settings,
    schedule,
    with_bits,
)

MAY_DIFFER = {"seed", "rho", "method"}
"""Settings in which runs that train together may differ, `method` between sasrec and samrec alone: they have
the same number of steps per epoch, and learners of one form."""


class Stacked:
    """Trains several models at once, since one small model leaves a GPU idle.

    Parameters have a first axis of runs. Everything a run draws (its first weights, the order of its users,
    negatives, dropout) is drawn as in a run by itself, so results
    agree with those of `Solo` up to rounding.

    Args:
        configs: equal but for `MAY_DIFFER`, and without micro-batches.
        learners: one per run, all of one form, with a loss that `vmap` can follow.
        device: as for `Solo`.
        rows: per run, as for `Solo`. CUDA draws dropout by shape, so each run's is drawn before it is padded
            to the largest.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        learners: Sequence[Learner],
        device: torch.device,
        rows: Sequence[int],
    ) -> None:
        self.configs = configs
        self.config = first = configs[0]
        self.rows = rows
        self.template = deepcopy(learners[0]).to("meta").train()  # its weights travel beside it
        self.constants = {name: buffer.to(device) for name, buffer in learners[0].named_buffers()}
        self.kept = {k: self.constants[k] for k in learners[0].state_dict().keys() & self.constants.keys()}
        own = [dict(learner.named_parameters()) for learner in learners]
        self.weights = {
            name: nn.Parameter(torch.stack([weights[name].detach() for weights in own]).to(device))
            for name in own[0]
        }
        radii = torch.tensor([config.radius for config in configs], device=device)
        self.still = (radii == 0).float()
        settings = sam_settings(first, 0.0, device)
        if any(config.radius for config in configs):
            settings["rho"] = radii
        self.optimizer = _StackedSAM(parameter_groups(first, self.weights), torch.optim.Adam, **settings)
        if first.clip is not None:
            self.optimizer.base.register_step_pre_hook(self._clip)
        self.generator = torch.Generator(device)
        self.captured = Captured(self._step) if device.type == "cuda" and first.every == 1 else None

    def load(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Continue from checkpoints of the same epoch and step, one per run."""
        runs = [joined(c.weights, c.extra) for c in checkpoints]
        for checkpoint, weights in zip(checkpoints, runs, strict=True):
            check_fit(weights, self.template.state_dict())
            check_sums(checkpoint, self.template)
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(torch.stack([weights[name] for weights in runs]))
        with fitting():
            state = _stacked(_with_directions([c.optimizer for c in checkpoints]))
        load_optimizer(self.optimizer, state)

    def states(self) -> list[State]:
        """Return each run's weights and optimizer state, as `Solo` would: copies, not views."""
        state = self.optimizer.state_dict()
        return [
            State(
                *apart(self.kept | {name: w.detach()[run].clone() for name, w in self.weights.items()}),
                _of_run(state, run),
            )
            for run in range(len(self.configs))
        ]

    def models(self) -> list[Recommender]:
        """Return each run's model; it holds the weights themselves, not copies."""
        models = []
        for run in range(len(self.configs)):
            model = deepcopy(self.template.model)
            weights, _ = apart(self.kept | {name: w.detach()[run] for name, w in self.weights.items()})
            model.load_state_dict(weights, assign=True)
            models.append(model)
        return models

    def step(
        self, batches: Sequence[Sequence[Batch]], seeds: Sequence[int], lr: float, rhos: Sequence[float]
    ) -> Tensor:
        """Take one step of every run; as `Solo.step`, shape (runs, parts + 2)."""
        schedule(self.optimizer, lr, torch.tensor(rhos) if isinstance(self.optimizer.rho, Tensor) else 0.0)
        histories = self.config.batch_size
        parts = []
        for (batch,), seed, own in zip(batches, seeds, self.rows, strict=True):
            part = batch.padded(own, histories)
            parts.append(with_bits(part, self.template.model, self.generator, count(seed)))
        rows = max(*self.rows, *(len(part.targets) for part in parts))
        parts = [part.padded(rows, histories) for part in parts]
        tensors = zip(*(part.tensors() for part in parts), strict=True)
        together = parts[0].filled([torch.stack(same) for same in tensors])
        return self.captured([together]) if self.captured else self._step([together])

    def _step(self, parts: Sequence[Batch]) -> Tensor:
        (batch,) = parts
        weights = batch.used.sum((1, 2))
        at_w = self.still if self.optimizer.reuses else torch.ones_like(weights)

        def mean(parameters: dict[str, Tensor], *tensors: Tensor) -> tuple[Tensor, Tensor]:
            own = batch.filled(tensors)
            with precision(self.config, batch.used.device):
                totals: Tensor = functional_call(self.template, self.constants | parameters, (own,))
            return totals.sum() / own.used.sum(), totals.detach()

        def closure() -> Tensor:
            weights = {name: weight.detach() for name, weight in self.weights.items()}
            gradients, (_, found) = vmap(grad_and_value(mean, has_aux=True))(weights, *batch.tensors())
            for name, weight in self.weights.items():
                weight.grad = gradients[name].contiguous()  # Adam's fused form reads it as the weight lies
            of_runs: Tensor = found
            return of_runs

        totals = self.optimizer.step(closure)
        return torch.cat([totals, torch.stack([weights, at_w], 1)], 1)

    def _clip(self, *_: Any) -> None:
        gradients = [w.grad for w in self.weights.values() if w.grad is not None]
        assert self.config.clip is not None
        factor = (self.config.clip / (_norms(gradients) + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_ does
        for gradient in gradients:
            gradient.mul_(_beside(factor, gradient))


class _StackedSAM(SAM):
    """SAM whose radius, norm and ascent are each run's own; a run of radius 0 does not move."""

    def _norm(self, vector: Vector) -> Tensor:
        return _norms(list(vector.values()))

    def _along(self, scale: Tensor, p: Tensor) -> Tensor:
        return _beside(scale, p)


def _norms(tensors: list[Tensor]) -> Tensor:
    """The Euclidean norm of each run's part of all tensors together. Shape (runs,)."""
    squares = torch.stack([t.flatten(1).square().sum(1) for t in tensors])
    return squares.sum(0).sqrt()


def _beside(per_run: Tensor, p: Tensor) -> Tensor:
    """Shape one number per run so that it meets `p`, whose first axis is the runs'."""
    return per_run.view(-1, *[1] * (p.dim() - 1))


def _with_directions(states: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give runs of radius 0, which have found no direction to keep, one that does not move them."""
    found: list[Tensor | None] = next((s["directions"] for s in states if s.get("directions")), [])
    if not found:
        return list(states)
    still = [None if direction is None else torch.zeros_like(direction) for direction in found]
    none = {"directions": still, "inverse": torch.zeros(())}
    return [state if "directions" in state else {**state, **none} for state in states]


SHARED = ("step", "lr")
"""Tensors of an optimizer's state that all runs share."""


def _stacked(states: Sequence[Any]) -> Any:
    """Stack the tensors of nested optimizer states; take all else from the first."""
    first = states[0]
    if isinstance(first, dict):
        return {
            key: value if key in SHARED else _stacked([state[key] for state in states])
            for key, value in first.items()
        }
    if isinstance(first, list):
        return [_stacked(parts) for parts in zip(*states, strict=True)]
    return torch.stack(list(states)) if isinstance(first, Tensor) else first


def _of_run(state: Any, run: int) -> Any:
    """The inverse of `_stacked`, for one run."""
    if isinstance(state, dict):
        return {key: value if key in SHARED else _of_run(value, run) for key, value in state.items()}
    if isinstance(state, list):
        return [_of_run(value, run) for value in state]
    return state[run].clone() if isinstance(state, Tensor) else state
