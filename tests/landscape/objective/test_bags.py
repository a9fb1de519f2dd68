"""`EmbeddingBag`, whose gradients torch cannot differentiate: a copy is the same function, and can."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import landscape as ll
from landscape import InputError, Objective
from landscape.objective.bags import Bag

IDS, OFFSETS = torch.tensor([1, 2, 3, 2, 5, 5, 0, 4, 2]), torch.tensor([0, 3, 3, 5, 8])
FORMS = {
    "rows": ((torch.tensor([[1, 2, 3], [2, 2, 2], [4, 5, 5], [0, 0, 3], [1, 1, 4]]), None), {}),
    "offsets": ((IDS, OFFSETS), {}),
    "last offset": ((IDS, torch.tensor([0, 3, 3, 5, 8, 9])), {"include_last_offset": True}),
    "int32": ((IDS.int(), OFFSETS.int()), {}),
}
Y = torch.tensor([0, 2, 1, 1, 0])
KINDS = pytest.mark.parametrize(
    ("mode", "weighted"), [("sum", False), ("sum", True), ("mean", False), ("max", False)]
)
WORDS = pytest.mark.parametrize("form", FORMS)
PADDED = pytest.mark.parametrize("padding", [None, 2])


class Reader(nn.Module):
    def __init__(self, weighted, **options):
        super().__init__()
        torch.manual_seed(0)
        self.bag, self.out, self.weighted = nn.EmbeddingBag(6, 4, **options), nn.Linear(4, 3), weighted
        nn.init.normal_(self.bag.weight)  # what is padded too

    def forward(self, read):
        ids, offsets = read
        weights = torch.linspace(0.5, 1.5, ids.numel()).to(self.out.weight).view(ids.shape)
        return self.out(self.bag(ids, offsets, weights if self.weighted else None).tanh())


def outputs_of(model, batch):
    return model(batch[0])


def cost(outputs, batch, reduction="sum"):
    return F.cross_entropy(outputs, batch[1], reduction=reduction), len(batch[1])


def total(model, batch):
    return cost(model(batch[0]), batch)


def each(model, batch):
    costs, _ = cost(model(batch[0]), batch, "none")
    return costs, torch.ones_like(costs)


@KINDS
@WORDS
@PADDED
def test_a_bag_is_the_same_function_with_the_same_gradient(mode, weighted, form, padding):
    read, options = FORMS[form]
    own = Reader(weighted, mode=mode, padding_idx=padding, **options).double()
    other = copy.deepcopy(own)
    other.bag.__class__ = Bag
    pairs = [(model(read), list(model.parameters())) for model in (own, other)]
    torch.testing.assert_close(pairs[0][0], pairs[1][0], rtol=1e-13, atol=1e-14)
    slopes = [torch.autograd.grad(F.cross_entropy(out, Y), weights) for out, weights in pairs]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-14)


@KINDS
@WORDS
@PADDED
def test_products_with_bags_are_those_of_the_matrix_written_out(mode, weighted, form, padding):
    """JᵀSJ / n with S = diag p - ppᵀ of each row, and Σ gᵤgᵤᵀ / n, J and g by torch's own derivatives."""
    read, options = FORMS[form]
    model = Reader(weighted, mode=mode, padding_idx=padding, **options).double()
    named = {name: p.detach() for name, p in model.named_parameters()}
    theta = torch.cat([p.flatten() for p in named.values()])

    def outputs(at):
        parts = torch.split(at, [p.numel() for p in named.values()])
        weights = {n: part.view_as(p) for (n, p), part in zip(named.items(), parts, strict=True)}
        return functional_call(model, weights, (read,))

    rows, p = torch.autograd.functional.jacobian(outputs, theta), outputs(theta).softmax(-1)
    curved = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    slopes = torch.einsum("bk,bki->bi", p - F.one_hot(Y, 3), rows)
    expected = {
        ll.gauss_newton: torch.einsum("bki,bkl,blj->ij", rows, curved, rows) / len(Y),
        ll.empirical_fisher: slopes.T @ slopes / len(Y),
    }
    of = Objective(model, [(read, Y)], total, per_example=each, forward=outputs_of, criterion=cost)
    v = torch.randn(len(theta), dtype=torch.float64)
    for matrix, dense in expected.items():
        torch.testing.assert_close(matrix(of)(v), dense @ v, rtol=1e-10, atol=1e-12)


@KINDS
def test_hessian_products_with_bags_are_differences_of_the_gradient(mode, weighted):
    read, options = FORMS["offsets"]
    of = Objective(Reader(weighted, mode=mode, **options).double(), [(read, Y)], total)
    v, h = torch.randn(of.params.numel, dtype=torch.float64), 1e-6
    expected = (of.grad(of.theta + h * v) - of.grad(of.theta - h * v)) / (2 * h)
    for strategy in ("reverse", "forward"):
        torch.testing.assert_close(ll.hessian(of, strategy)(v), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "given",
    [
        (torch.tensor([1, 2]),),
        (torch.tensor([1, 2]), torch.tensor([1])),
        (torch.tensor([1, 2]), torch.tensor([0, 5])),
        (torch.tensor([[1, 2]]), torch.tensor([0])),
        (torch.tensor([[1, 2]]), None, torch.ones(2, 1)),
    ],
    ids=str,
)
def test_what_torch_refuses_of_a_bag_is_refused_in_its_words(given):
    own = nn.EmbeddingBag(6, 4, mode="sum")
    with pytest.raises((ValueError, RuntimeError)) as said:
        own(*given)
    own.__class__ = Bag
    with pytest.raises(type(said.value)) as found:
        own(*given)
    assert str(found.value) == str(said.value)


def test_bags_that_rewrite_their_weights_are_refused():
    with pytest.raises(InputError, match="an embedding has max_norm"):
        Objective(Reader(False, max_norm=1.0), [(FORMS["rows"][0], Y)], total)
