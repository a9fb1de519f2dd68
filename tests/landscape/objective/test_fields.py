"""Models of many fields, as people there write them, against a dense Hessian in float64."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(12, 3, generator=GENERATOR), torch.randint(3, (12,), generator=GENERATOR)


def total(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


def dense(model, step=1e-5):
    """Return ∇L and ∇²L of the mean loss: autograd's gradient in float64, and its central differences."""
    model = copy.deepcopy(model).double()
    parameters = list(model.parameters())
    theta = nn.utils.parameters_to_vector(parameters).detach()

    def gradient(at):
        nn.utils.vector_to_parameters(at.clone(), parameters)
        for p in parameters:
            p.data = p.data.clone()
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(F.cross_entropy(model(X.double()), Y), parameters)]
        )

    steps = step * torch.eye(len(theta), dtype=torch.float64)
    hessian = torch.stack([gradient(theta + d) - gradient(theta - d) for d in steps]) / (2 * step)
    return gradient(theta), hessian


class Pairs(nn.Module):
    """A complex weight as pairs of real numbers, which begin at an odd place in θ."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.scale, self.pairs, self.out = (
            nn.Parameter(torch.ones(1)),
            nn.Parameter(torch.randn(3, 2, 2)),
            nn.Linear(2, 3),
        )

    def forward(self, x):
        return self.scale * self.out(((x + 0j) @ torch.view_as_complex(self.pairs)).abs())


def test_a_complex_weight_as_pairs_may_lie_anywhere():
    model = Pairs()
    _, expected = dense(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ll.top_eigenpairs(ll.Objective(model, [(X[:5], Y[:5]), (X[5:], Y[5:])], total), k=3, tol=1e-5)
    assert found.settings["strategy"].startswith("reverse")
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(expected)[:-4:-1], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_a_graph_network_holds_its_sparse_adjacency_as_a_buffer(layout):
    class Graph(nn.Module):
        def __init__(self, adjacency):
            super().__init__()
            torch.manual_seed(1)
            self.layer = nn.Linear(3, 3)
            self.register_buffer("adjacency", adjacency)

        def forward(self, x):
            return self.layer(self.adjacency @ x)

    whole = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)).relu().round()
    expected, _ = dense(Graph(whole))
    objective = ll.Objective(Graph(whole.to_sparse(layout=layout)), [(X, Y)], total)
    torch.testing.assert_close(objective.grad().double(), expected, rtol=1e-5, atol=1e-6)


def test_a_training_batch_may_have_an_empty_tensor():
    """An image without boxes, say: what is drawn depends on the other tensors."""
    batch = (X, Y, torch.zeros(0, 4))
    drawn = ll.Objective(nn.Sequential(nn.Linear(3, 3), nn.Dropout()), [batch], ll.in_training_mode(total))
    assert drawn.value() == drawn.value() != ll.Objective(nn.Linear(3, 3), [batch], total).value()


class Rereading(torch.autograd.Function):
    """A layer whose backward pass reads the weights of its module, as the adjoint of an ODE does."""

    @staticmethod
    def forward(ctx, layer, x, *weights):
        ctx.layer, ctx.x = layer, x
        return layer(x).detach()

    @staticmethod
    def backward(ctx, slope):
        with torch.enable_grad():
            x = ctx.x.detach().requires_grad_()
            weights = tuple(ctx.layer.parameters())
            found = torch.autograd.grad(ctx.layer(x), (x, *weights), slope, allow_unused=True)
        return None, *found


class Closed(Rereading):
    """The same in closed form: at θ alone it is right with the weights that the module has elsewhere, too."""

    @staticmethod
    def backward(ctx, slope):
        return None, slope @ ctx.layer.weight, slope.T @ ctx.x, slope.sum(0)


@pytest.mark.parametrize("function", [Rereading, Closed])
@pytest.mark.filterwarnings("ignore:reverse mode|torch lacks:UserWarning")
def test_a_backward_pass_may_read_the_weights_of_its_module(function):
    class Adjoint(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.first, self.layer, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.out(function.apply(self.layer, self.first(x).tanh(), *self.layer.parameters()).tanh())

    model = Adjoint().double()
    slope, curvature = dense(model)
    objective = ll.Objective(model, [(X.double(), Y)], total)
    torch.testing.assert_close(objective.grad(), slope, rtol=1e-7, atol=1e-9)
    moved = objective.theta * 1.1
    nn.utils.vector_to_parameters(moved, model.parameters())
    torch.testing.assert_close(objective.grad(moved), dense(model)[0], rtol=1e-7, atol=1e-9)
    v = torch.randn(len(moved), generator=GENERATOR).double()
    torch.testing.assert_close(ll.hessian(objective)(v), curvature @ v, rtol=1e-4, atol=1e-6)


def test_a_complex_parameter_is_refused_with_the_remedy():
    model = nn.Sequential(nn.Linear(3, 2, dtype=torch.complex64))
    with pytest.raises(ll.InputError, match="keep complex ones as pairs"):
        ll.ParamSpace(model)
