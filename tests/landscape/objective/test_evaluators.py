"""How weights reach a model is decided once, and gives the same numbers, whichever it is."""

from threading import Event, Thread

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import checkpoint

import landscape as ll
from landscape import InputError, Objective
from landscape.objective.derivatives import twice_differentiable
from landscape.objective.evaluators import Compacted, Copied, Recomputed, Swapped

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).double()


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x):
        return self.layer(x).tanh()


class Hoarder(Plain):
    """Reads its weights from a list, where swapping does not reach."""

    def __init__(self):
        super().__init__()
        self.weights = list(self.layer.parameters())

    def forward(self, x):
        return F.linear(x, *self.weights).tanh()


class Caching(Plain):
    """Computes something of its weights once, as timm's LeViT does with attention biases in eval mode."""

    kept = None

    def forward(self, x):
        weight = 2 * self.layer.weight if self.kept is None else self.kept
        self.kept = weight
        return F.linear(x, weight, self.layer.bias).tanh()


class Forgetting(Caching):
    def forward(self, x):
        self.kept = None
        return super().forward(x)


class Clamping(Plain):
    """Keeps its weights within a box by writing to them, as some models with constraints do."""

    def forward(self, x):
        self.layer.weight.data.clamp_(-1, 1)
        return super().forward(x)


class Drifting(Plain):
    def forward(self, x):
        out = super().forward(x)
        self.layer.weight.data.mul_(0.5)
        return 0 * out


class Normed(nn.Module):
    def __init__(self, hoards=False):
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.norm = nn.Linear(3, 2).double(), nn.BatchNorm1d(2).double()
        self.weights = list(self.layer.parameters()) if hoards else None

    def forward(self, x):
        return self.norm(F.linear(x, *self.weights) if self.weights else self.layer(x)).tanh()


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.table, self.head = nn.Embedding(50, 3), nn.Linear(3, 1)

    def forward(self, items):
        return self.head(self.table(items))


def loss(model, x):
    return model(x).square().sum(), len(x)


def copied():
    with pytest.warns(UserWarning, match="keeps weights where torch.func does not reach"):
        return Objective(Hoarder(), [X[:5], X[5:]], loss)


def test_each_kind_of_model_gets_its_evaluator_once():
    assert type(Objective(Plain(), [X], loss)._evaluator) is Swapped
    assert type(copied()._evaluator) is Copied
    assert type(Objective(Normed(), [X], loss, statistics="recomputed")._evaluator) is Recomputed
    compact, _ = Objective(Table(), [torch.arange(4)], loss).compact()
    assert type(compact._evaluator) is Compacted


def test_copies_and_swapped_weights_give_the_same_loss_and_derivatives():
    one, other = copied(), Objective(Plain(), [X[:5], X[5:]], loss)
    theta, v = 1.3 * one.theta, torch.randn_like(one.theta)
    assert one.value(theta) == pytest.approx(other.value(theta), rel=1e-12)
    torch.testing.assert_close(one.grad(theta), other.grad(theta))
    torch.testing.assert_close(one.hvp(v), other.hvp(v))
    torch.testing.assert_close(one.in_float64().clone().grad(theta), other.grad(theta))


@pytest.mark.parametrize("scale", [1e-6, 1e-12])
def test_weights_out_of_reach_are_noticed_whatever_the_unit_of_the_loss(scale):
    def small(model, x):
        total, weight = loss(model, x)
        return scale * total, weight

    with pytest.warns(UserWarning, match="keeps weights where torch.func does not reach"):
        one = Objective(Hoarder(), [X], small)
    other = Objective(Plain(), [X], loss)
    assert one.value(1.3 * one.theta) == pytest.approx(
        scale * other.value(1.3 * other.theta), rel=1e-12, abs=0
    )


def test_what_a_model_keeps_of_an_evaluation_is_not_read_at_another_point():
    with pytest.warns(UserWarning, match="does not reach them"):
        caching = Objective(Caching(), [X[:5], X[5:]], loss)
    forgetting = Objective(Forgetting(), [X[:5], X[5:]], loss)
    theta, v = 1.3 * forgetting.theta, torch.randn_like(forgetting.theta)
    assert caching.value(theta) == pytest.approx(forgetting.value(theta), rel=1e-12)
    torch.testing.assert_close(caching.grad(), forgetting.grad())
    for product in (Objective.hvp, lambda objective, v: ll.hessian(objective)(v)):
        torch.testing.assert_close(product(caching, v), product(forgetting, v))


def test_what_an_evaluator_cannot_do_it_says_itself():
    statistics = Objective(Normed(), [X], loss, statistics="recomputed")
    for derivative in (
        statistics.grad,
        lambda: statistics.hvp(statistics.theta),
        lambda: ll.hessian(statistics),
    ):
        with pytest.raises(InputError, match="recomputed statistics has no derivatives"):
            derivative()
    for objective in (statistics, copied()):
        assert objective.compact() is None
        with pytest.raises(RuntimeError, match="not a function of tensors alone"):
            objective.values(torch.stack([objective.theta] * 2))
    with pytest.raises(InputError, match="so its statistics cannot be recomputed"):
        Objective(Normed(hoards=True), [X], loss, statistics="recomputed")


def test_vectors_are_not_written_to_whatever_the_model_does():
    objective = Objective(Clamping(), [X[:5], X[5:]], loss)
    far = 5 * objective.theta
    before = far.clone()
    measures = (objective.value, objective.value_and_grad, objective.per_example)
    found = [measure(far) for measure in measures]
    assert torch.equal(far, before)
    assert found[0] == pytest.approx(found[1][0])
    assert found[0] == pytest.approx(
        objective.value(
            objective.params.join(
                {
                    name: t.clamp(-1, 1) if "weight" in name else t
                    for name, t in objective.params.split(far).items()
                }
            )
        )
    )
    with pytest.raises(InputError, match=r"changes its own weights|differs between two"):
        Objective(Drifting(), [X], loss)


def test_a_compact_loss_is_restricted_and_doubled_like_the_whole_one():
    whole = Objective(Table(), [torch.tensor([3, 44]), torch.tensor([3])], loss)
    compact, places = whole.compact()
    assert compact.in_float64().value() == pytest.approx(whole.in_float64().value(), rel=1e-14)
    head = compact.restrict(names=["head.weight"])
    torch.testing.assert_close(head.grad(), whole.restrict(names=["head.weight"]).grad())
    torch.testing.assert_close(compact.grad(), whole.grad()[places])


def test_sums_over_batches_are_in_float64():
    """2²⁴ + 1 + 1 + … is 2²⁴ in float32, however many ones there are."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    batches = [2.0**24, *[1.0] * 8]
    objective = Objective(model, batches, lambda m, b: ((m.weight * b).sum(), 1))
    exact = (2**24 + 8) / 9
    assert objective.value() == exact
    assert objective.value_and_grad()[0] == exact
    np.testing.assert_array_equal(objective.values(objective.theta[None]), [exact])


@pytest.mark.parametrize("model", ["encoder", "attention"])
def test_the_value_is_of_the_function_that_is_differentiated(model):
    """Torch's fast path of attention, taken under `no_grad` alone, treats masked positions otherwise."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    net = (
        nn.TransformerEncoder(layer, 2)
        if model == "encoder"
        else nn.MultiheadAttention(4, 2, batch_first=True)
    )
    x, padded = torch.randn(3, 5, 4), torch.tensor([[False] * 3 + [True] * 2] * 3)

    def out(net, x):
        if model == "encoder":
            return net(x, src_key_padding_mask=padded)
        return net(x, x, x, key_padding_mask=padded, need_weights=False)[0]

    objective = Objective(net, [x], lambda net, x: (out(net, x).square().sum(), len(x)))
    value, _ = objective.value_and_grad()
    assert objective.value() == pytest.approx(value, rel=1e-6)
    assert objective.per_example()[0].sum() / 3 == pytest.approx(value, rel=1e-6)


def test_the_fast_path_is_restored():
    assert torch.backends.mha.get_fastpath_enabled()
    with twice_differentiable, twice_differentiable:
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_settings_of_torch_are_put_back_after_the_last_of_several_threads():
    """A thread that leaves changes nothing under another, nor does the last put back what the first set."""

    def state():
        cuda = torch.backends.cuda
        return (
            torch.backends.mha.get_fastpath_enabled(),
            cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            checkpoint.CheckpointFunction,
        )

    entered, left = Event(), Event()

    def first():
        with twice_differentiable:
            entered.set()
            left.wait()

    before = state()
    thread = Thread(target=first)
    thread.start()
    entered.wait()
    with twice_differentiable:
        left.set()
        thread.join()
        within = state()
    assert not any(within[:3])
    assert within[3] is not before[3]
    assert state() == before


def numbers(objective):
    v = torch.ones_like(objective.theta)
    measures = ["sam", "average", "fisher-rao", "trace", "relative-flatness-last"]
    return [
        objective.value(),
        *(objective.hvp(v).tolist(), ll.gauss_newton(objective)(v).tolist()),
        *(objective.grad().tolist(), ll.empirical_fisher(objective)(v).tolist()),
        ll.top_eigenpairs(objective, 2).eigenvalues.tolist(),
        [m.value for m in ll.sharpness(objective, measures, samples=2, probes=2).measures.values()],
        ll.line(objective, grid=5).losses.tolist(),
    ]


@pytest.mark.parametrize("made_inside", [False, True])
@pytest.mark.parametrize("around", [torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_what_stands_around_a_measurement_does_not_change_it(around, made_inside):
    """Autocast of the caller would round every product to eight bits, and no_grad leave no derivatives."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 3))
    batches = [(torch.randn(30, 20), torch.randint(3, (30,)))]
    own = ll.supervised(model, batches, nn.CrossEntropyLoss())
    expected = numbers(own)
    with around():
        objective = ll.supervised(model, batches, nn.CrossEntropyLoss()) if made_inside else own
        assert numbers(objective) == expected
        assert torch.is_grad_enabled() == (around is not torch.no_grad)
        assert torch.is_autocast_enabled("cpu") == (around is not torch.no_grad)


def test_a_model_that_rounds_by_itself_is_measured_as_it_is():
    class Rounding(nn.Linear):
        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x).float()

    torch.manual_seed(0)
    model, x, y = Rounding(20, 3), torch.randn(30, 20), torch.randint(3, (30,))
    found = ll.supervised(model, [(x, y)], nn.CrossEntropyLoss(), check=False).value()
    assert found == pytest.approx(float(nn.CrossEntropyLoss()(model(x), y).detach()), rel=1e-6)
    assert found != pytest.approx(
        float(nn.CrossEntropyLoss()(nn.Linear.forward(model, x), y).detach()), rel=1e-6
    )
