"""One model, one optimizer."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from samrec.checkpoint import Checkpoint, new_model
from samrec.config import Config
from samrec.data.packing import Batch, padded
from samrec.engines.graph import Captured
from samrec.losses import loss_of
from samrec.model import Draws, SASRec
from samrec.sam import SAM, Closure


class Solo:
    """Trains one model.

    On CUDA batches have one shape, and the whole step (both of SAM's passes, and the optimizer's) is one
    graph that is replayed; not where a direction of SAM's is kept, since steps then are of two kinds.

    Args:
        config: the settings.
        num_items: rows of the item table.
        device: where to train.
        rows: of a batch, on CUDA; a batch that needs more is computed without the graph.
    """

    def __init__(self, config: Config, num_items: int, device: torch.device, rows: int) -> None:
        self.config = config
        self.rows = rows
        self.model = initial_model(config, num_items).to(device)
        self.criterion = loss_of(config.loss, config.calibration, fused=True)
        self.optimizer = SAM(
            parameter_groups(config, dict(self.model.named_parameters())),
            torch.optim.Adam,
            **sam_settings(config, config.radius, device),
        )
        if config.clip is not None:
            self.optimizer.base.register_step_pre_hook(self._clip)
        self.generator = torch.Generator(device)
        self.captured = Captured(self._step) if device.type == "cuda" and config.every == 1 else None

    def load(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Continue from a checkpoint."""
        (last,) = checkpoints
        self.model.load_state_dict(last.weights)
        load_optimizer(self.optimizer, last.optimizer)

    def states(self) -> list[tuple[dict[str, Tensor], dict[str, Any]]]:
        """Return the weights and the optimizer's state, as a checkpoint holds them."""
        return [(self.model.state_dict(), self.optimizer.state_dict())]

    def models(self) -> list[SASRec]:
        return [self.model]

    def step(
        self, batches: Sequence[Sequence[Batch]], seeds: Sequence[int], lr: float, rhos: Sequence[float]
    ) -> Tensor:
        """Take one step; return the sum of the loss, its weight, and 1 if it is the loss at w. Shape (1, 3).

        Args:
            batches: of the one run, the micro-batches.
            seeds: of dropout.
            lr, rhos: what the schedules say.
        """
        schedule(self.optimizer, lr, rhos[0])
        parts, device = batches[0], self.model.item.weight.device
        if self.captured:
            histories = self.config.batch_size // self.config.micro_batches
            parts = [padded(part, self.rows, histories) for part in parts]
        self.generator.manual_seed(seeds[0])
        parts = [replace(part, bits=draw_bits(self.model, part, device, self.generator)) for part in parts]
        sums = self.captured(parts) if self.captured else self._step(parts)
        return sums[None]

    def _step(self, parts: Sequence[Batch]) -> Tensor:
        weight = torch.stack([part.used.sum() for part in parts]).sum()
        at_w = 1.0 - self.optimizer.reuses

        def closure(*parts: Batch) -> Closure:
            def evaluate() -> Tensor:
                self.optimizer.zero_grad()
                totals = []
                for part in parts:
                    with precision(self.config, part.used.device):
                        total, _ = self.criterion(self.model, part)
                    (total / weight).backward()  # type: ignore[no-untyped-call]
                    totals.append(total.detach())
                return torch.stack(totals).sum()

            return evaluate

        separate = self.config.ascent == "micro-batch" and len(parts) > 1
        total = self.optimizer.step([closure(part) for part in parts] if separate else closure(*parts))
        return torch.stack([total, weight, torch.full_like(weight, at_w)])

    def _clip(self, *_: Any) -> None:
        assert self.config.clip is not None
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)


def initial_model(config: Config, num_items: int) -> SASRec:
    """Build a model whose weights depend on the seed alone; the caller's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return new_model(config, num_items)


def draw_bits(model: SASRec, batch: Batch, device: torch.device, generator: torch.Generator) -> Tensor:
    """Draw a batch's random numbers for dropout."""
    rows, width = batch.inputs.items.shape
    return Draws.fresh(rows, model.draws(width), device, generator)


def parameter_groups(config: Config, named: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Tell the parameters that SAM moves from those that it holds still."""

    def moves(name: str) -> bool:
        if config.perturb == "norm-only":
            return "norm." in name
        return config.perturb == "all" or not name.startswith(("item.", "position."))

    moved, still = ([p for name, p in named.items() if moves(name) is kind] for kind in (True, False))
    groups: list[dict[str, Any]] = [{"params": moved}]
    return [*groups, {"params": still, "perturb": False}] if still else groups


def sam_settings(config: Config, rho: float | Tensor, device: torch.device) -> dict[str, Any]:
    """Arguments of SAM and of Adam. On CUDA lr and rho are tensors, which a captured graph reads anew."""
    cuda = device.type == "cuda"
    return {
        "rho": torch.as_tensor(rho, dtype=torch.float32, device=device) if cuda and config.radius else rho,
        "adaptive": config.adaptive,
        "every": config.every,
        "lr": torch.tensor(config.lr, device=device) if cuda else config.lr,
        "weight_decay": config.weight_decay,
        "fused": True,
        "capturable": cuda,
    }


def load_optimizer(optimizer: SAM, state: dict[str, Any]) -> None:
    """Load a state that may come from another kind of device, whose settings stay there."""
    own = [{key: group[key] for key in ("lr", "fused", "capturable")} for group in optimizer.param_groups]
    rho = optimizer.rho
    optimizer.load_state_dict(state)
    optimizer.rho = rho
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def schedule(optimizer: SAM, lr: float, rho: float | Tensor) -> None:
    """Set the learning rate and the radius, in place where they are tensors."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    if isinstance(optimizer.rho, Tensor):
        optimizer.rho.copy_(torch.as_tensor(rho))
    else:
        assert not isinstance(rho, Tensor)
        optimizer.rho = rho


def precision(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which the loss is computed."""
    return torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()
