"""Cross-entropy in chunks: every derivative is that of torch's own, in the memory of a chunk."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape.objective import cross_entropy
from landscape.runtime.allocations import peak

WORDS, WIDTH, POSITIONS = 37, 5, 11


class Tied(nn.Module):
    """A small language model whose last layer is its table of embeddings."""

    def __init__(self, words=WORDS, width=WIDTH):
        super().__init__()
        self.table, self.inner = nn.Embedding(words, width), nn.Linear(width, width)

    def forward(self, ids):
        return torch.tanh(self.inner(self.table(ids)))


def whole(model, batch):
    ids, targets = batch
    logits = model(ids) @ model.table.weight.T
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum"), batch[0].numel()


def chunked(model, batch):
    ids, targets = batch
    return ll.linear_cross_entropy(model(ids), model.table.weight, targets), batch[0].numel()


def objectives(dtype=torch.float64, **options):
    torch.manual_seed(0)
    model = Tied().to(dtype)
    ids = torch.randint(WORDS, (3, POSITIONS))
    targets = torch.randint(WORDS, ids.shape)
    targets[0, :4] = -100  # not counted
    return [ll.Objective(model, [(ids, targets)], loss, **options) for loss in (whole, chunked)]


@pytest.fixture(params=[1, 4 * WORDS, 10**6], ids=["one position", "four", "all"])
def chunks(request, monkeypatch):
    monkeypatch.setitem(cross_entropy.LOGITS, "cpu", request.param)


@pytest.mark.parametrize("include", [["*"], ["inner*"], ["table*"]], ids=str)
def test_value_gradient_and_hessian_are_those_of_torch(chunks, include):
    expected, found = objectives(include=include)
    assert found.value() == pytest.approx(expected.value(), rel=1e-14)
    torch.testing.assert_close(found.grad(), expected.grad(), rtol=1e-12, atol=1e-14)
    vectors = torch.randn(4, expected.params.numel, dtype=torch.float64)
    products = [torch.stack([o.hvp(v) for v in vectors]) for o in (found, expected)]
    torch.testing.assert_close(*products, rtol=1e-11, atol=1e-13)
    kept = ll.hessian(found)
    assert "1 of 1 graphs kept" in kept.strategy
    torch.testing.assert_close(kept.many(vectors), products[1], rtol=1e-11, atol=1e-13)


def test_derivatives_are_those_of_differences():
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 5, -100, 2])

    def loss(x, w):
        return ll.linear_cross_entropy(
            x, w, y
        ).square()  # squared: the factor of the sum has a derivative too

    assert torch.autograd.gradcheck(loss, (x, w))
    assert torch.autograd.gradgradcheck(loss, (x, w))


def test_a_third_derivative_is_refused():
    x, w = (torch.randn(2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    (first,) = torch.autograd.grad(ll.linear_cross_entropy(x, w, torch.tensor([0, 1])), x, create_graph=True)
    with pytest.raises(RuntimeError, match="has two derivatives, and no third"):
        torch.autograd.grad(first.sum(), x, create_graph=True)


def test_eigenvalues_are_those_of_torch(chunks):
    expected, found = (ll.top_eigenpairs(o, 3, tol=1e-6).eigenvalues for o in objectives())
    assert found == pytest.approx(expected, rel=1e-5)


def test_large_logits_do_not_overflow():
    x, w = torch.full((2, 1), 200.0, requires_grad=True), torch.tensor([[5.0], [-5.0], [4.0]])
    total = ll.linear_cross_entropy(x, w, torch.tensor([0, 1]))
    assert total.item() == pytest.approx(2000.0)
    (slope,) = torch.autograd.grad(total, x)
    torch.testing.assert_close(slope, torch.tensor([[0.0], [10.0]]))


def test_no_more_than_a_few_chunks_of_logits_are_held(monkeypatch):
    words, positions, chunk = 4096, 256, 16
    monkeypatch.setitem(cross_entropy.LOGITS, "cpu", chunk * words)
    torch.manual_seed(0)
    model = Tied(words, 8)
    batch = torch.randint(words, (1, positions)), torch.randint(words, (1, positions))
    logits = 4 * words * positions
    peaks = {}
    for loss in (whole, chunked):
        objective = ll.Objective(model, [batch], loss, check=False)
        known = [objective.theta, *model.parameters()]

        def product(objective=objective):
            return ll.hessian(objective)(torch.ones_like(objective.theta))

        peaks[loss] = [peak(of, known)[1] / logits for of in (objective.value, objective.grad, product)]
    assert max(peaks[chunked]) < 0.6
    assert min(peaks[whole]) > 2
    held = [
        ll.hessian(ll.Objective(model, [batch], of, check=False)).held / logits for of in (chunked, whole)
    ]
    assert held[0] < 0.2
    assert held[1] > 1
