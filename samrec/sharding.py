"""An item table that no rank holds whole: each keeps some of its rows, with their gradient and moments."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from landscape.errors import InputError
from landscape.runtime.ranks import Ranks
from samrec.rows import add_rows


class ShardedEmbedding(nn.Module):
    """An embedding of which this rank holds the rows `rows`; ranks look up together, each what it needs.

    A rank asks the others for the distinct rows of its batch and sends their gradients back: three
    exchanges of as many rows as are asked for, whatever the size of the table. (DTensor's embedding, row by
    row, adds up all ranks' rows on all ranks, and its parameters do not mix with plain ones in one
    optimizer.)

    Args:
        whole: the table, shape (items, d); what is kept of it is a copy.
        ranks: who shares it, contiguously and in their order.

    Raises:
        InputError: there are fewer rows than ranks.
    """

    def __init__(self, whole: Tensor, ranks: Ranks) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = whole.shape
        if self.num_embeddings < ranks.size:
            raise InputError(
                f"{self.num_embeddings} items cannot be shared among {ranks.size} ranks; start fewer"
            )
        self.ranks = ranks
        self.rows = ranks.share(self.num_embeddings)
        self.weight = nn.Parameter(self.part(whole.detach()))

    def part(self, whole: Tensor) -> Tensor:
        """Return a copy of this rank's rows of a table of all items."""
        return whole[self.rows.start : self.rows.stop].clone()

    def forward(self, items: Tensor) -> Tensor:
        """Look up items of any shape; all ranks do at once, each its own. Shape (*items.shape, d)."""
        found: Tensor = _Lookup.apply(self.weight, items, self)  # type: ignore[no-untyped-call] # torch's
        return found

    def here(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return each item's place among the rows here, or any if it is not here, and whether it is."""
        found = (items >= self.rows.start) & (items < self.rows.stop)
        return (items - self.rows.start).clamp(0, len(self.rows) - 1), found

    def of_all_ranks(self, *tensors: Tensor) -> tuple[list[Tensor], slice]:
        """Return the ranks' tensors one after the other, and which part of them is this rank's.

        Each is filled up with zeros to the longest, so that they are of one shape.

        Args:
            tensors: tensors of one length, which may differ between ranks.
        """
        length = len(tensors[0])
        longest = self.ranks.largest(length)
        gathered = []
        for tensor in tensors:
            filled = tensor.new_zeros(longest, *tensor.shape[1:])
            filled[:length] = tensor
            gathered.append(self.ranks.stacked(filled).flatten(0, 1))
        first = self.ranks.rank * longest
        return gathered, slice(first, first + length)

    def whole_softmax(
        self, scores: Tensor, shares: Tensor, normalizer: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Turn a softmax over the items here into their part of that over all items, in place.

        Args:
            scores, shares: scores of the items here, and their softmax, shape (rows, items here).
            normalizer: log Σ exp(scores), shape (rows,).
            targets: shape (rows,).

        Returns:
            log Σ exp(scores) over all items, and the score of the target. One all-gather.
        """
        place, here = self.here(targets)
        of_target = torch.where(here, scores.gather(1, place[:, None]).squeeze(1), 0.0)
        of_ranks = self.ranks.stacked(torch.stack([normalizer, of_target.to(normalizer)]))
        whole = of_ranks[:, 0].logsumexp(0)
        shares.mul_((normalizer - whole).exp()[:, None])
        return whole, of_ranks[:, 1].sum(0)


class _Lookup(torch.autograd.Function):
    """Rows from the ranks that hold them; their gradients go back the same way."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, items: Tensor, table: ShardedEmbedding) -> Tensor:
        ranks = table.ranks
        distinct, places = torch.unique(items, return_inverse=True)
        ends = [ranks.share(table.num_embeddings, rank).stop for rank in range(ranks.size)]
        ends_in = torch.searchsorted(distinct, torch.tensor(ends, device=items.device))
        asked = ends_in.diff(prepend=ends_in.new_zeros(1))
        of_me = ranks.exchanged(asked, [1] * ranks.size, [1] * ranks.size).tolist()
        wanted = asked.tolist()
        rows = ranks.exchanged(distinct, wanted, of_me) - table.rows.start
        ctx.save_for_backward(places, rows)
        ctx.table, ctx.wanted, ctx.of_me = table, wanted, of_me
        return ranks.exchanged(weight[rows], of_me, wanted)[places]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        places, rows = ctx.saved_tensors
        table: ShardedEmbedding = ctx.table
        of_distinct = gradient.new_zeros(sum(ctx.wanted), gradient.shape[-1])
        add_rows(of_distinct, places.flatten(), gradient.flatten(0, -2))
        of_rows = table.ranks.exchanged(of_distinct, ctx.wanted, ctx.of_me)
        return add_rows(torch.zeros_like(table.weight), rows, of_rows), None, None
