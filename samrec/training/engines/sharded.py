"""One model whose item table no rank holds whole."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from landscape.runtime.ranks import ranks
from samrec.checkpoint import Checkpoint, State
from samrec.config import Config
from samrec.methods.learner import Learner
from samrec.sam import SAM
from samrec.sam.vectors import Vector
from samrec.sharding import ShardedEmbedding
from samrec.training.engines.solo import Solo, fitting

TABLE = "item.weight"


class Sharded(Solo):
    """Trains one learner on ranks that share its item table by rows: `ShardedEmbedding`.

    Each rank steps its own rows, whose gradient it has from all ranks' positions; the other parameters
    are as in `Solo`. Checkpoints hold the whole table, so a run can continue with or without sharding.

    Args:
        config, device, rows: as for `Solo`.
        learner: with its whole table; only this rank's rows move to `device`.
    """

    def __init__(self, config: Config, learner: Learner, device: torch.device, rows: int) -> None:
        self.table = learner.model.item = ShardedEmbedding(learner.model.item.weight, ranks())
        super().__init__(config, learner, device, rows)

    def _sam(self, *arguments: Any, **settings: Any) -> SAM:
        return _ShardedSAM(self.table, *arguments, **settings)

    def load(self, checkpoints: Sequence[Checkpoint]) -> None:
        (last,) = checkpoints
        with fitting():
            if last.weights[TABLE].shape != (self.table.num_embeddings, self.table.embedding_dim):
                raise ValueError("its item table has another shape")
            weights = last.weights | {TABLE: self.table.part(last.weights[TABLE])}
            optimizer = self._of_table(last.optimizer, self.table.part)
        super().load([replace(last, weights=weights, optimizer=optimizer)])

    def states(self) -> list[State]:
        """Return what a checkpoint holds, on the first rank; the others keep what they have."""
        (own,) = super().states()
        join = ranks().joined
        weights = own.weights | {TABLE: join(own.weights[TABLE])}
        return [State(weights, own.extra, self._of_table(own.optimizer, join))]

    def _of_table(self, state: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Change what an optimizer's state holds of the table: its moments, and a direction that is kept."""

        def place(parameters: Iterable[Tensor]) -> int | None:
            return next((at for at, p in enumerate(parameters) if p is self.table.weight), None)

        state = {**state, "state": dict(state["state"])}
        at = place(self.optimizer._parameters())
        if moments := state["state"].get(at):
            state["state"][at] = {name: change(t) if t.dim() else t for name, t in moments.items()}
        among = place(self.optimizer._perturbed())
        if among is not None and "directions" in state:
            kept = state["directions"]
            state["directions"] = [
                change(t) if number == among and t is not None else t for number, t in enumerate(kept)
            ]
        return state

    def _held_by_all(self) -> Iterable[nn.Parameter]:
        return [p for p in self.learner.parameters() if p is not self.table.weight]

    def _clip(self, *_: Any) -> None:
        assert self.config.clip is not None
        parameters = list(self.learner.parameters())
        norm = _norm(self.table, ((p, p.grad) for p in parameters))
        nn.utils.clip_grads_with_norm_(parameters, self.config.clip, norm)


class _ShardedSAM(SAM):
    """SAM whose norm counts the rows of all ranks."""

    def __init__(self, table: ShardedEmbedding, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._table = table

    def _norm(self, vector: Vector) -> Tensor:
        return _norm(self._table, vector.items())


def _norm(table: ShardedEmbedding, pairs: Iterable[tuple[Tensor, Tensor | None]]) -> Tensor:
    """Return the Euclidean norm of gradients, given with their parameters: the table's is of all ranks."""
    found = [(p is table.weight, gradient) for p, gradient in pairs if gradient is not None]
    norm = nn.utils.get_total_norm([gradient for of_table, gradient in found if not of_table])
    for of_table, gradient in found:
        if of_table:
            norm = (norm.square() + table.ranks.summed(gradient.square().sum())).sqrt()
    return norm
