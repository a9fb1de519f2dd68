"""One model, one optimizer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from landscape.errors import InputError
from landscape.runtime.ranks import ranks
from samrec.checkpoint import Checkpoint, State, check_fit
from samrec.config import Config
from samrec.data.packing import Batch, Packed
from samrec.data.tensors import Tensors
from samrec.methods.learner import Learner, apart, joined
from samrec.model import Draws, Recommender
from samrec.sam import SAM, Closure
from samrec.training.engines.graph import Captured


class Solo:
    """Trains one learner.

    On CUDA batches have one shape, and the whole step (both of SAM's passes, and the optimizer's) is one
    graph that is replayed; not where a direction of SAM's is kept, since steps then are of two kinds.

    Ranks that were joined share each batch by its rows: all draw the same batch and the same numbers for
    dropout, so that a step is that of one process, to rounding. Gradients are added up before SAM climbs by
    them, or with `ascent: rank` only those above w, each rank's climb being its own (m-sharpness).

    Args:
        config: the settings.
        learner: what is trained; it moves to `device`.
        device: where to train.
        rows: number of rows of a batch, on CUDA; a batch with more is computed without the graph.
    """

    def __init__(self, config: Config, learner: Learner, device: torch.device, rows: int) -> None:
        self.config = config
        self.rows = rows
        self.learner = learner.to(device)
        self.device = device
        groups = parameter_groups(config, dict(learner.named_parameters()))
        self.optimizer = self._sam(groups, torch.optim.Adam, **sam_settings(config, config.radius, device))
        self.ranks = ranks()
        self.climbs_together = config.ascent != "rank"
        if not self.climbs_together:
            self.optimizer.base.register_step_pre_hook(self._add_up)
        if config.clip is not None:
            self.optimizer.base.register_step_pre_hook(self._clip)
        self.generator = torch.Generator(device)
        one_shape = device.type == "cuda" and config.every == 1
        self.captured = Captured(self._step) if one_shape and self.ranks.size == 1 else None
        self.pads = one_shape and self.ranks.size > 1  # CUDA draws by shape: as for one rank, so for several

    def load(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Continue from a checkpoint."""
        (last,) = checkpoints
        weights = joined(last.weights, last.extra)
        check_fit(weights, self.learner.state_dict())
        check_sums(last, self.learner)
        self.learner.load_state_dict(weights)
        load_optimizer(self.optimizer, last.optimizer)

    def states(self) -> list[State]:
        """Return the weights and the optimizer's state, as a checkpoint holds them."""
        return [State(*apart(self.learner.state_dict()), self.optimizer.state_dict())]

    def models(self) -> list[Recommender]:
        return [self.learner.model]

    def step(
        self, batches: Sequence[Sequence[Batch]], seeds: Sequence[int], lr: float, rhos: Sequence[float]
    ) -> Tensor:
        """Take one step; return the sums of the loss's parts, their weight, and 1 if it is the loss at w.

        Shape (1, parts + 2).

        Args:
            batches: the micro-batches of the one run.
            seeds: random seeds of dropout.
            lr, rhos: what the schedules say.
        """
        schedule(self.optimizer, lr, rhos[0])
        parts = batches[0]
        if self.captured or self.pads:
            histories = self.config.batch_size // self.config.micro_batches
            parts = [part.padded(self.rows, histories) for part in parts]
        seed = count(seeds[0])
        parts = [with_bits(part, self.learner.model, self.generator, seed) for part in parts]
        if self.ranks.size > 1:
            parts = [part.dealt(self.ranks.rank, self.ranks.size) for part in parts]
        sums = self.captured(parts) if self.captured else self._step(parts)
        return sums[None]

    def _step(self, parts: Sequence[Batch]) -> Tensor:
        weight = self.ranks.summed(torch.stack([part.used.sum() for part in parts]).sum())
        at_w = 1.0 - self.optimizer.reuses

        def closure(*parts: Batch) -> Closure:
            def evaluate() -> Tensor:
                self.optimizer.zero_grad()
                totals = []
                for part in parts:
                    with precision(self.config, self.device):
                        total = self.learner(part)
                    (total.sum() / weight).backward()
                    totals.append(total.detach())
                if self.climbs_together:
                    self._add_up()
                return torch.stack(totals).sum(0)

            return evaluate

        separate = self.config.ascent == "micro-batch" and len(parts) > 1
        total = self.optimizer.step([closure(part) for part in parts] if separate else closure(*parts))
        total = self.ranks.summed(total)
        return torch.cat([total, torch.stack([weight, torch.full_like(weight, at_w)])])

    def _add_up(self, *_: Any) -> None:
        """Add up the ranks' gradients, in one all-reduce."""
        if self.ranks.size > 1:
            gradients = [p.grad for p in self._held_by_all() if p.grad is not None]
            total = self.ranks.summed(nn.utils.parameters_to_vector(gradients))
            nn.utils.vector_to_parameters(total, gradients)

    def _sam(self, *arguments: Any, **settings: Any) -> SAM:
        return SAM(*arguments, **settings)

    def _held_by_all(self) -> Iterable[nn.Parameter]:
        return self.learner.parameters()

    def _clip(self, *_: Any) -> None:
        assert self.config.clip is not None
        nn.utils.clip_grad_norm_(self.learner.parameters(), self.config.clip)


B = TypeVar("B", bound=Tensors)


def with_bits(batch: B, model: Recommender, generator: torch.Generator, seeds: Iterator[int]) -> B:
    """Give all rows of a batch that the model is to see random numbers for dropout.

    Each set of rows takes a seed of its own, so rows that pad one change nothing in the next.
    """

    def drawn(packed: Packed) -> Packed:
        rows, width = packed.items.shape
        generator.manual_seed(next(seeds))
        return replace(packed, bits=Draws.fresh(rows, model.draws(width), generator.device, generator))

    return batch.changed(Packed, drawn)


EMBEDDINGS = ("model.item.", "model.position.", "model.token.", "token.")
"""What names of embeddings begin with in a learner."""


def parameter_groups(config: Config, named: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Tell the parameters that SAM moves from those that it holds still."""

    def moves(name: str) -> bool:
        if config.perturb == "norm-only":
            return "norm." in name
        return config.perturb == "all" or not name.startswith(EMBEDDINGS)

    moved, still = ([p for name, p in named.items() if moves(name) is kind] for kind in (True, False))
    groups: list[dict[str, Any]] = [{"params": moved}]
    return [*groups, {"params": still, "perturb": False}] if still else groups


def sam_settings(config: Config, rho: float | Tensor, device: torch.device) -> dict[str, Any]:
    """Arguments of SAM and of Adam.

    On CUDA lr and rho are tensors, which a captured graph reads anew. The radius is one on a CPU too: SAM
    does not look at it, so that a step in which a schedule says 0 finds a direction to keep everywhere.
    """
    cuda = device.type == "cuda"
    return {
        "rho": torch.as_tensor(rho, dtype=torch.float32, device=device) if config.radius else rho,
        "adaptive": config.adaptive,
        "every": config.every,
        "lr": torch.tensor(config.lr, device=device) if cuda else config.lr,
        "weight_decay": config.weight_decay,
        "fused": True,
        "capturable": cuda,
    }


def check_sums(checkpoint: Checkpoint, learner: Learner) -> None:
    """Make sure that what the steps of a checkpoint returned is of the parts of this loss.

    Raises:
        InputError: it is not.
    """
    sums = checkpoint.sums
    if sums.shape[1:] != (len(learner.parts) + 2,) or not sums.is_floating_point():
        raise InputError("the checkpoint's steps are of another loss than its settings say")


def load_optimizer(optimizer: SAM, state: dict[str, Any]) -> None:
    """Load a state that may come from another kind of device, or from a damaged file; settings stay.

    Raises:
        InputError: it is not the state of such an optimizer of these parameters.
    """
    own = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    with fitting():
        optimizer.load_state_dict(state)
        _check_moments(optimizer)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


@contextmanager
def fitting() -> Iterator[None]:
    """Say in one line that an optimizer's state does not fit, whatever that provokes."""
    try:
        yield
    except (LookupError, TypeError, ArithmeticError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"the checkpoint's optimizer does not fit its settings: {error}") from error


def _check_moments(optimizer: SAM) -> None:
    for p, kept in optimizer.state.items():
        if kept.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError("a parameter's state is not Adam's")
        if {kept["exp_avg"].shape, kept["exp_avg_sq"].shape} != {p.shape} or kept["step"].numel() != 1:
            raise ValueError("a moment has another shape than its parameter")


def schedule(optimizer: SAM, lr: float, rho: float | Tensor) -> None:
    """Set the learning rate and the radius, in place where they are tensors."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    if not isinstance(optimizer.rho, Tensor):
        assert not isinstance(rho, Tensor)
        optimizer.rho = rho
    elif isinstance(rho, Tensor):
        optimizer.rho.copy_(rho)
    else:
        optimizer.rho.fill_(rho)  # without a copy from the host, for which it would wait


def precision(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which the loss is computed."""
    return torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()
