"""Several models of one shape as one: their parameters stacked, each step one vmapped step for all."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from samrec.checkpoint import Checkpoint, new_model
from samrec.config import Config
from samrec.data.packing import Batch, padded
from samrec.engines.graph import Captured
from samrec.engines.solo import (
    draw_bits,
    initial_model,
    load_optimizer,
    parameter_groups,
    precision,
    sam_settings,
    schedule,
)
from samrec.losses import loss_of
from samrec.model import SASRec
from samrec.sam import SAM

MAY_DIFFER = {"seed", "rho", "method"}
"""Settings in which runs that train together may differ: they have the same number of steps an epoch."""


class Stacked:
    """Trains several models at once, since one small model leaves a GPU idle.

    Parameters have a first axis of runs. Everything a run draws (its first weights, the order of its users,
    negatives, dropout) is drawn as it would be alone, so each equals its solo twin up to rounding.

    Args:
        configs: equal but for `MAY_DIFFER`, and without micro-batches.
        num_items, device, rows: as for `Solo`.
    """

    def __init__(self, configs: Sequence[Config], num_items: int, device: torch.device, rows: int) -> None:
        self.configs = configs
        self.config = first = configs[0]
        self.rows = rows
        with torch.device("meta"):  # its weights travel beside it
            self.template = new_model(first, num_items).train()
        models = [dict(initial_model(config, num_items).named_parameters()) for config in configs]
        self.weights = {
            name: nn.Parameter(torch.stack([model[name].detach() for model in models]).to(device))
            for name in models[0]
        }
        self.criterion = loss_of(first.loss, first.calibration)
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
        """Continue from checkpoints of one epoch and step, one a run."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(torch.stack([c.weights[name] for c in checkpoints]))
        load_optimizer(self.optimizer, _stacked(_with_directions([c.optimizer for c in checkpoints])))

    def states(self) -> list[tuple[dict[str, Tensor], dict[str, Any]]]:
        """Return each run's weights and optimizer state, as `Solo` would: copies, not views."""
        state = self.optimizer.state_dict()
        return [
            ({name: w.detach()[run].clone() for name, w in self.weights.items()}, _of_run(state, run))
            for run in range(len(self.configs))
        ]

    def models(self) -> list[SASRec]:
        """Return each run's model; it holds the weights themselves, not copies."""
        models = []
        for run, config in enumerate(self.configs):
            with torch.device("meta"):
                model = new_model(config, self.template.item.num_embeddings)
            model.load_state_dict({name: w.detach()[run] for name, w in self.weights.items()}, assign=True)
            models.append(model)
        return models

    def step(
        self, batches: Sequence[Sequence[Batch]], seeds: Sequence[int], lr: float, rhos: Sequence[float]
    ) -> Tensor:
        """Take one step of every run; as `Solo.step`, shape (runs, 3)."""
        schedule(self.optimizer, lr, torch.tensor(rhos) if isinstance(self.optimizer.rho, Tensor) else 0.0)
        rows = max(self.rows, *(len(batch.targets) for (batch,) in batches))
        parts = []
        for (batch,), seed in zip(batches, seeds, strict=True):
            part = padded(batch, rows, self.config.batch_size)
            self.generator.manual_seed(seed)
            bits = draw_bits(self.template, part, part.used.device, self.generator)
            parts.append(replace(part, bits=bits).tensors())
        together = Batch.of([torch.stack(same) for same in zip(*parts, strict=True)])
        return self.captured([together]) if self.captured else self._step([together])

    def _step(self, parts: Sequence[Batch]) -> Tensor:
        (batch,) = parts
        weights = batch.used.sum((1, 2))
        at_w = self.still if self.optimizer.reuses else torch.ones_like(weights)

        def mean(parameters: dict[str, Tensor], *tensors: Tensor) -> tuple[Tensor, Tensor]:
            bound = _Bound(self.template, self.criterion)
            with precision(self.config, batch.used.device):
                total, weight = functional_call(bound, parameters, (Batch.of(tensors),))
            return total / weight, total.detach()

        def closure() -> Tensor:
            named = {f"model.{name}": weight.detach() for name, weight in self.weights.items()}
            gradients, (_, totals) = vmap(grad_and_value(mean, has_aux=True))(named, *batch.tensors())
            for name, weight in self.weights.items():
                weight.grad = gradients[f"model.{name}"]
            return totals  # type: ignore[no-any-return]

        totals = self.optimizer.step(closure)
        return torch.stack([totals, weights, at_w], 1)

    def _clip(self, *_: Any) -> None:
        gradients = [w.grad for w in self.weights.values() if w.grad is not None]
        assert self.config.clip is not None
        factor = (self.config.clip / (_norms(gradients) + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_ does
        for gradient in gradients:
            gradient.mul_(_beside(factor, gradient))


class _Bound(nn.Module):
    """The loss as a module around the model, so that given weights reach all that the loss calls."""

    def __init__(self, model: SASRec, criterion: Any) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = self.criterion(self.model, batch)
        return result


class _StackedSAM(SAM):
    """SAM whose radius, norm and ascent are each run's own; a run of radius 0 does not move."""

    def _norm(self, tensors: list[Tensor]) -> Tensor:
        return _norms(tensors)

    def _along(self, scale: Tensor, p: Tensor) -> Tensor:
        return _beside(scale, p)


def _norms(tensors: list[Tensor]) -> Tensor:
    """The Euclidean norm of each run's part of all tensors together. Shape (runs,)."""
    squares = torch.stack([t.flatten(1).square().sum(1) for t in tensors])
    return squares.sum(0).sqrt()


def _beside(per_run: Tensor, p: Tensor) -> Tensor:
    """Shape one number a run so that it meets `p`, whose first axis is the runs'."""
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
