"""What training minimizes, as (sum, weight): batches of different sizes then average exactly."""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from samrec import choices
from samrec.chunks import chunk_rows
from samrec.data.packing import Batch
from samrec.model import Recommender
from samrec.rows import add_rows
from samrec.sharding import ShardedEmbedding

Loss = Callable[[Recommender, Batch], tuple[Tensor, Tensor]]
Parts = tuple[Callable[[Recommender, Batch], Tensor], Callable[[Tensor, Batch], tuple[Tensor, Tensor]]]


def bce(model: Recommender, batch: Batch) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of the target against the negatives (SASRec, eq. 7, which has one).

    Returns the sum over positions of -log σ(r_target) - Σ log(1 - σ(r_negative)), and their number.
    """
    return gbce(model, batch, calibration=0.0)


def gbce(
    model: Recommender, batch: Batch, calibration: float = 0.75, fused: bool = False
) -> tuple[Tensor, Tensor]:
    """Generalized BCE of gSASRec (Petrov & Macdonald, RecSys 2023, arXiv 2308.07192).

    With k of n - 1 possible negatives drawn, α = k / (n - 1), BCE overestimates probabilities; here the
    target's is raised to the power β = 1 - t (1 - α). t, the calibration, is 0 for plain BCE and 1 for
    the probabilities of a softmax. The paper's factor 1/(k + 1) is left out, so that t = 0 is `bce`.

    Args:
        fused: compute the gradient on the way forward, which is faster with many negatives. Autograd can
            then differentiate it once, and no more (a second time raises).
    """
    return _of_drawn(model, batch, partial(_gbce, calibration=calibration), fused)


def _gbce(scores: Tensor, items: int, calibration: float) -> Tensor:
    target, negatives = scores[0], scores[1:]
    rate = len(negatives) / max(items - 1, 1)
    beta = 1 - calibration * (1 - rate)
    return beta * F.softplus(-target) + F.softplus(negatives).sum(0)


def sampled_softmax(model: Recommender, batch: Batch, fused: bool = False) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the target and k uniform negatives, which stand for all n - 1 other items.

    Each negative's score is raised by log((n - 1) / k), minus the log of how often it is expected in the
    sample (Jean et al., ACL 2015, arXiv 1412.2007); the sum of exponentials is then unbiased.

    Args:
        fused: as for `gbce`.
    """
    return _of_drawn(model, batch, _sampled_softmax, fused)


def _sampled_softmax(scores: Tensor, items: int) -> Tensor:
    target, negatives = scores[0], scores[1:]
    stand_for = math.log((items - 1) / len(negatives)) if items > 1 else -math.inf
    return torch.logsumexp(torch.cat([target[None], negatives + stand_for]), 0) - target


def cross_entropy(model: Recommender, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy over all items at every position: Σ log Σ_i exp(r_i) - r_target.

    Positions are taken in chunks. Where a batch has more than `KEPT` scores in all, they are not kept
    for the backward pass but computed again there, so that positions × items is never held at once.
    This form can be differentiated twice; `fused_cross_entropy` is the one to train with.
    """
    expected, targets, used = _positions(model, batch)
    table = model.item.weight
    recompute = len(expected) * len(table) > KEPT
    total = expected.new_zeros(())
    parts = (torch.split(tensor, _chunk_rows(table)) for tensor in (expected, targets, used))
    for x, target, weight in zip(*parts, strict=True):
        arguments = x, table, target, weight
        if recompute:
            total = total + checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            total = total + _chunk(*arguments)
    return total, used.sum()


def fused_cross_entropy(model: Recommender, batch: Batch) -> tuple[Tensor, Tensor]:
    """`cross_entropy` with its gradient computed on the way forward: each score exists once, in one chunk.

    For one differentiation by autograd, and no more (a second raises).
    """
    expected, targets, used = _positions(model, batch)
    if used.device.type == "cpu" and 2 * used.count_nonzero() < len(used):  # a CUDA graph has one shape
        asked = used.nonzero().squeeze(1)
        expected, targets, used = expected[asked], targets[asked], used[asked]
    shard = model.item if isinstance(model.item, ShardedEmbedding) else None
    arguments = expected, model.item.weight, targets, used, shard
    total: Tensor = _FusedCrossEntropy.apply(*arguments)  # type: ignore[no-untyped-call] # torch's
    return total, used.sum()


LOSSES: Mapping[choices.Loss, Loss] = {
    "bce": bce,
    "gbce": gbce,
    "sampled": sampled_softmax,
    "ce": cross_entropy,
}
"""Losses that any transformation of torch can go through: second derivatives, `vmap`."""


def loss_of(name: choices.Loss, calibration: float, fused: bool = False) -> Loss:
    """Return a loss by name; `fused` where only its first derivative is needed."""
    if name == "gbce":
        return partial(gbce, calibration=calibration, fused=fused)
    if name == "sampled":
        return partial(sampled_softmax, fused=fused)
    return fused_cross_entropy if fused and name == "ce" else LOSSES[name]


def parts_of(name: choices.Loss, calibration: float, items: int) -> Parts:
    """Return a loss as two parts: what the model scores, and what these scores cost, (sum, weight) again.

    The second part is convex, as the generalized Gauss-Newton matrix needs it. Cross-entropy holds the scores
    of all items at every position at once, where `cross_entropy` goes by chunks.
    """
    if name == "ce":
        return _all_scores, _cost_of_all
    gbce_costs = partial(_gbce, calibration=0.0 if name == "bce" else calibration)
    costs = _sampled_softmax if name == "sampled" else gbce_costs
    return drawn_scores, lambda scores, batch: _weighted(costs(scores, items), batch)


KEPT = 2**26  # 256 MB in float32
MANY = 32  # negatives from which on the fused form is faster
ROWS = 64  # positions a chunk has at least, since each chunk passes once over the whole table's gradient


def drawn_scores(model: Recommender, batch: Batch) -> Tensor:
    """Score the target and then the negatives, shape (1 + negatives, rows, width).

    Inputs and candidates are looked up at once: the table's gradient, which is dense, is then zeroed and
    filled once.
    """
    items = torch.cat([batch.inputs.items[None], batch.targets[None], batch.negatives])
    embedded = model.embedded(items)
    expected = model(batch.inputs, embedded[0])
    scores: Tensor = (embedded[1:] * expected).sum(-1)
    return scores


def _of_drawn(
    model: Recommender, batch: Batch, costs: Callable[[Tensor, int], Tensor], fused: bool
) -> tuple[Tensor, Tensor]:
    if not fused or len(batch.negatives) < MANY or isinstance(model.item, ShardedEmbedding):
        return _weighted(costs(drawn_scores(model, batch), model.item.num_embeddings), batch)
    expected, targets, used = _positions(model, batch)
    candidates = torch.cat([targets[None], batch.negatives.flatten(1)]).T
    arguments = expected, model.item.weight, candidates, used, costs
    total: Tensor = _FusedDrawn.apply(*arguments)  # type: ignore[no-untyped-call] # torch's
    return total, used.sum()


def _weighted(costs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    return (costs * batch.used).sum(), batch.used.sum()


def _all_scores(model: Recommender, batch: Batch) -> Tensor:
    return _positions(model, batch)[0] @ model.item.weight.T


def _cost_of_all(scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    costs = F.cross_entropy(scores, batch.targets.flatten(), reduction="none")
    return (costs * batch.used.flatten()).sum(), batch.used.sum()


def _positions(model: Recommender, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the model's output, the targets and which slots are used, one row per slot."""
    return (
        model(batch.inputs).flatten(0, 1),
        batch.targets.flatten(),
        batch.used.flatten(),
    )


def _chunk_rows(table: Tensor) -> int:
    return max(ROWS, chunk_rows(len(table), table.device))


def _chunk(expected: Tensor, table: Tensor, targets: Tensor, used: Tensor) -> Tensor:
    return F.cross_entropy(expected @ table.T, targets, reduction="none").mul(used).sum()


class _Fused(torch.autograd.Function):
    """A loss of the model's outputs and the item table, whose gradients are computed on the way forward."""

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        # create_graph would take the saved gradients for constants; `once_differentiable` lets that pass
        if torch.is_grad_enabled():
            raise RuntimeError("this form of the loss has a first derivative only; use the one not fused")
        d_expected, d_table = ctx.saved_tensors
        return d_expected * scale, d_table * scale, None, None, None


class _FusedDrawn(_Fused):
    """The cost of the scores s_c = ⟨x, E_c⟩ of candidates. If g = ∂cost/∂s, dx = Σ g_c E_c and dE_c = g_c x.

    Positions go by chunks whose rows of the table fit a CPU's cache, where those of all are gigabytes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        expected: Tensor,
        table: Tensor,
        candidates: Tensor,
        used: Tensor,
        costs: Callable[[Tensor, int], Tensor],
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=table.device)
        d_expected, d_table = torch.empty_like(expected), torch.zeros_like(table)
        size = chunk_rows(candidates.shape[1] * table.shape[1], table.device)
        kind = table.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            for first in range(0, len(expected), size):
                part = slice(first, first + size)
                x, drawn = expected[part].to(table.dtype), candidates[part]
                rows = F.embedding(drawn, table)
                with torch.enable_grad():
                    scores = torch.einsum("pcd,pd->cp", rows, x).detach().requires_grad_()
                    cost = (costs(scores, len(table)) * used[part]).sum()
                    (slopes,) = torch.autograd.grad(cost, scores)
                total += cost.detach()
                d_expected[part] = torch.einsum("cp,pcd->pd", slopes, rows)
                add_rows(d_table, drawn.flatten(), torch.einsum("cp,pd->pcd", slopes, x).flatten(0, 1))
        ctx.save_for_backward(d_expected, d_table)
        return total.to(expected.dtype)


class _FusedCrossEntropy(_Fused):
    """With s = X Eᵀ and p = softmax(s): dX = (p - 1_target) E and dE = (p - 1_target)ᵀ X, chunk by chunk.

    The target's 1 is subtracted by index. Under autocast, scores and p are in its precision, sums are not.
    With a sharded table each rank takes its items at the positions of all ranks, and gets back dX of its own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        expected: Tensor,
        table: Tensor,
        targets: Tensor,
        used: Tensor,
        shard: ShardedEmbedding | None,
    ) -> Tensor:
        own, counted = slice(None), used
        if shard:
            (expected, targets, used), own = shard.of_all_ranks(expected, targets, used)
            counted = torch.zeros_like(used)
            counted[own] = used[own]
        device = expected.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else table.dtype
        items, positions = table.to(kind), expected.to(kind)
        size, one = _chunk_rows(table), positions.new_ones(())
        scores, shares = positions.new_empty(2, min(size, len(expected)), len(table))
        total = torch.zeros((), dtype=torch.float64, device=expected.device)
        d_expected, d_table = torch.empty_like(expected), torch.zeros_like(table)
        for first in range(0, len(expected), size):
            part = slice(first, first + size)
            x, target, weight = positions[part], targets[part], used[part, None]
            s = torch.mm(x, items.T, out=scores[: len(x)])
            p = torch.softmax(s, 1, out=shares[: len(x)])
            # log Σ exp(s) by way of the largest, whose share cannot underflow
            normalizer = s.amax(1).to(table.dtype) - p.amax(1).to(table.dtype).log()
            if shard:
                normalizer, of_target = shard.whole_softmax(s, p, normalizer, target)
                target, found = shard.here(target)
                one = found[:, None].to(kind)  # p's entry at the target is here
            else:
                of_target = s.gather(1, target[:, None]).squeeze(1)
            total += ((normalizer - of_target) * counted[part]).sum(dtype=torch.float64)
            d_expected[part] = (p @ items - one * F.embedding(target, items)) * weight
            if kind == table.dtype:
                d_table.addmm_(p.T, x * weight)
            else:
                d_table += p.T @ (x * weight).to(kind)
            add_rows(d_table, target, -expected[part] * (one * weight))
        if shard:
            d_expected = shard.ranks.summed(d_expected)[own]
        ctx.save_for_backward(d_expected, d_table)
        return total.to(expected.dtype)
