"""Measures of the gradient and the Hessian; for all: rescaling, rows, degenerate cases."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, Objective
from landscape.flatness import point as points
from landscape.flatness.measures import MEASURES, sharpness_by_group
from tests.flatness import by_unit, measure, regression, squared

INVARIANT = [name for name, m in MEASURES.items() if m.invariant]
SCALED = [name for name, m in MEASURES.items() if not m.invariant]


# the gradient


def test_the_gradient_norm(quadratic, symmetric):
    at = torch.ones(12).double()
    assert measure(quadratic(symmetric, at), "gradient-norm")[0] == pytest.approx(
        float((symmetric @ at).norm())
    )


def test_fisher_rao_of_linear_regression():
    """With s = (wᵀx - y)²: ⟨∇s, w⟩ = 2 (wᵀx - y) wᵀx, whatever batches the units lie in."""
    model, x, y = regression()
    objective = by_unit(model, [(x[:9], y[:9]), (x[9:], y[9:])], squared)
    out = model(x).squeeze(1).detach()
    value, error = measure(objective, "fisher-rao")
    slopes = (2 * (out - y) * out).numpy()
    assert value == pytest.approx((slopes**2).mean(), rel=1e-12)
    assert error == pytest.approx((slopes**2).std(ddof=1) / 30**0.5, rel=1e-12)
    halves = Objective(
        model,
        [(x, y)],
        lambda m, b: (squared(m, b).sum(), len(b[1]) / 2),
        per_example=lambda m, b: (squared(m, b), torch.full_like(b[1], 0.5)),
    )
    assert measure(halves, "fisher-rao")[0] == pytest.approx(2 * value, rel=1e-12)
    for of in (objective, halves):
        expected = float(of.theta @ ll.empirical_fisher(of)(of.theta))
        assert measure(of, "fisher-rao")[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("per_example", "message"),
    [
        (None, "not given the per_example"),
        (lambda m, b: (m(b).detach()[:, 0], torch.ones(2)), "no derivative"),
    ],
)
def test_fisher_rao_needs_examples_that_can_be_differentiated(per_example, message):
    objective = Objective(
        nn.Linear(3, 1), [torch.ones(2, 3)], lambda m, b: (m(b).sum(), 2), per_example=per_example
    )
    with pytest.raises(InputError, match=message):
        ll.sharpness(objective, ["fisher-rao"])
    assert "fisher-rao" not in ll.sharpness(objective, steps=1, samples=2, probes=2).measures


# the Hessian


def test_curvature_rows_are_those_of_the_curvature_measurements(sasrec_objective):
    rows = ll.sharpness(sasrec_objective, ["lambda-max", "trace", "frobenius"], probes=5, seed=2).measures
    top = ll.top_eigenpairs(sasrec_objective, 1, smallest=0, seed=2)
    trace = ll.trace(sasrec_objective, probes=5, seed=2)
    norm = ll.frobenius_norm(sasrec_objective, probes=5, seed=2)
    assert rows["lambda-max"].value == pytest.approx(float(top.eigenvalues[0]), rel=1e-9)
    assert rows["trace"].value == pytest.approx(trace.value, rel=1e-9)
    assert rows["trace"].standard_error == pytest.approx(trace.standard_error, rel=1e-9)
    assert rows["frobenius"].value == pytest.approx(norm.value, rel=1e-9)
    assert rows["frobenius"].standard_error == pytest.approx(norm.standard_error, rel=1e-9)


def test_the_curvature_of_a_diagonal_quadratic_is_exact(quadratic):
    objective = quadratic(torch.diag(torch.tensor([3.0, 4.0, 0.0])).double(), torch.ones(3).double())
    rows = ll.sharpness(objective, ["lambda-max", "trace", "frobenius"], probes=2).measures
    assert rows["lambda-max"].value == pytest.approx(4, rel=1e-6)
    assert (rows["trace"].value, rows["frobenius"].value) == pytest.approx((7, 5))
    assert (rows["trace"].standard_error, rows["frobenius"].standard_error) == pytest.approx(
        (0, 0), abs=1e-12
    )


def test_the_graphs_of_the_hessian_are_built_once(sasrec_objective, monkeypatch):
    built = []
    monkeypatch.setattr(points, "hessian", lambda o: built.append(o) or ll.hessian(o, "reverse"))
    ll.sharpness(sasrec_objective, ["lambda-max", "trace", "frobenius"], probes=2)
    assert len(built) == 1


def test_relative_flatness_of_linear_regression():
    """H_{s,s'} = 2 E xxᵀ where s = s', and 0 elsewhere: Σ ‖w_s‖² 2 E ‖x‖²."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False).double()
    x, y = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    objective = by_unit(model, [(x, y)], lambda m, b: ((m(b[0]) - b[1]) ** 2).sum(1))
    value, error = measure(objective, "relative-flatness-last", probes=500)
    expected = float(model.weight.detach().square().sum() * 2 * x.square().sum() / 20)
    assert error < 0.05 * expected
    assert abs(value - expected) < 3 * error


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Embedding(3, 2), "embedding"),
        (nn.Linear(2, 3, bias=False), "last"),
        (nn.Conv1d(2, 3, 2, bias=False), "last"),
        (nn.ConvTranspose1d(2, 3, 2, bias=False), "last"),
    ],
)
def test_relative_flatness_of_a_quadratic_is_the_sum_over_its_blocks(layer, name):
    """Σ over pairs of filters of ⟨w_s, w_s'⟩ tr A_{s,s'}, with A dense."""
    layer = layer.double()
    shape, n = layer.weight.shape, layer.weight.numel()
    root = torch.from_numpy(np.random.default_rng(0).standard_normal((n, n)))
    matrix = root @ root.T
    objective = Objective(
        layer, [None], lambda m, _: (m.weight.flatten() @ matrix @ m.weight.flatten() / 2, 1)
    )
    axis = 1 if isinstance(layer, nn.ConvTranspose1d) else 0
    rows = layer.weight.detach().movedim(axis, 0).flatten(1)
    blocks = matrix.view(*shape, *shape).movedim((axis, len(shape) + axis), (0, len(shape)))
    blocks = blocks.reshape(*rows.shape, *rows.shape)
    expected = float(torch.einsum("sk,tk,sjtj->", rows, rows, blocks))
    value, error = measure(objective, f"relative-flatness-{name}", probes=500)
    assert error < 0.15 * expected
    assert abs(value - expected) < 3.5 * error


def test_relative_flatness_of_single_weights_is_exact(quadratic, symmetric):
    """Rows of one entry: δ = ± w, so that every probe is wᵀAw."""
    w = torch.linspace(-1, 1, 12).double()
    value, error = measure(quadratic(symmetric, w[:, None]), "relative-flatness-last")
    assert value == pytest.approx(float(w @ symmetric @ w), rel=1e-12)
    assert error == pytest.approx(0, abs=1e-12)


def test_relative_flatness_says_which_layer_and_needs_one(sasrec_objective, quadratic):
    rows = ll.sharpness(sasrec_objective, samples=2, probes=2, steps=1).measures
    assert rows["relative-flatness-embedding"].settings["layer"] == "item.weight"
    assert rows["relative-flatness-last"].settings["layer"] == "blocks.0.ffn.outer.weight"
    spare = ll.sharpness(degenerate("unused parameters"), ["relative-flatness-last"], probes=2)
    assert spare.measures["relative-flatness-last"].settings["layer"] == "layer.1.weight"
    vector = quadratic(torch.eye(2).double(), torch.ones(2).double())
    assert not [name for name in ll.sharpness(vector).measures if name.startswith("relative")]
    with pytest.raises(InputError, match="needs an embedding"):
        ll.sharpness(vector, ["sam", "relative-flatness-embedding"])
    with pytest.raises(InputError, match="needs a weight matrix"):
        ll.sharpness(vector, ["relative-flatness-last"])


# scale


UNITS = (1.0, 20.0, 0.1, 3.0)  # of one layer


def network(*factors, hidden=False):
    """An embedding, a hidden layer if asked for, a ReLU and a linear layer: one function, whatever `factors`.

    What goes into each hidden unit, its bias included, is multiplied by a factor, and what comes out divided.
    """
    torch.manual_seed(0)
    layers = [nn.Embedding(5, 4), *([nn.Linear(4, 4)] if hidden else []), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(4, 1, bias=False)).double()
    into, out, scale = model[-3], model[-1], torch.tensor(factors or (1.0,)).double()
    with torch.no_grad():
        into.weight.mul_(scale[:, None] if hidden else scale)
        if hidden:
            into.bias.mul_(scale)
        out.weight.div_(scale)
    batches = [(torch.randint(0, 5, (10,)), torch.randn(10).double()) for _ in range(2)]
    return by_unit(model, batches, squared)


@pytest.mark.parametrize("factors", [(5.0,), UNITS, (1.0, 1.0, 7.0, 1.0)], ids=["layer", "units", "unit"])
@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("name", INVARIANT)
def test_measures_that_claim_it_do_not_change_under_rescaling(name, hidden, factors):
    values = [measure(network(*f, hidden=hidden), name, rho=0.1, samples=4)[0] for f in ((), factors)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert values[0] != 0


@pytest.mark.parametrize("name", SCALED)
def test_measures_that_do_not_claim_it_do_change(name):
    values = [measure(network(*f), name, rho=0.1, sigma=0.5, probes=200)[0] for f in ((), UNITS)]
    assert abs(math.log(values[0] / values[1])) > 0.5


@pytest.mark.parametrize("layer", ["embedding", "last"])
def test_relative_flatness_is_kept_by_a_rescaling_of_whole_layers_and_not_by_one_of_units(layer):
    """Which is why it bears no mark (Petzka et al. 2021 claim the former)."""
    plain, whole, units = (measure(network(*f), f"relative-flatness-{layer}")[0] for f in ((), (5.0,), UNITS))
    assert whole == pytest.approx(plain, rel=1e-9)
    assert abs(math.log(units / plain)) > 0.5


# rows


def test_a_row_names_every_setting_it_depends_on():
    result = ll.sharpness(network(), steps=3, samples=2, probes=2)
    assert set(result.measures) == set(MEASURES)
    assert result.measures["worst"].settings.keys() == {"rho", "steps", "seed", "resolved"}
    for name, row in result.measures.items():
        assert row.settings.keys() >= set(MEASURES[name].uses)
    assert result.loss == network().value()
    assert result.weight_norm == pytest.approx(float(network().theta.norm()))


def test_a_result_reads_back_with_its_pseudo_values(tmp_path):
    result = ll.sharpness(network(), steps=2, samples=2, probes=2)
    again = ll.load(result.save(tmp_path / "s.npz"))
    assert again.measures == result.measures
    for before, after in ((result.by_draw, again.by_draw), (result.by_unit, again.by_unit)):
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_traces_of_groups_add_up():
    objective = network()
    groups = sharpness_by_group(objective, ["trace", "sam"], probes=400, seed=1)
    assert set(groups) == {"embedding", "other"}
    assert (
        groups["other"].measures["sam"].value == measure(objective.restrict(group="other"), "sam", rho=0.1)[0]
    )
    whole = ll.trace(objective, probes=400)
    parts = [found.measures["trace"] for found in groups.values()]
    error = sum(row.standard_error**2 for row in parts) + whole.standard_error**2
    assert abs(sum(row.value for row in parts) - whole.value) < 3 * error**0.5


def test_a_measure_that_a_group_cannot_have_is_left_out_of_it():
    groups = sharpness_by_group(network(), ["relative-flatness-embedding", "sam"], probes=2)
    assert set(groups["embedding"].measures) == {"relative-flatness-embedding", "sam"}
    assert set(groups["other"].measures) == {"sam"}
    with pytest.raises(InputError, match="no sharpness measure 'blunt'"):
        sharpness_by_group(network(), ["blunt"])


class WithSpare(nn.Module):
    """A layer beside parameters that the loss does not know."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)


def nothing(model, batch):
    return 0 * squared(model, batch)


def output(model, batch):
    return model(batch[0]).squeeze(-1)


def degenerate(case):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 1))
    x, y = torch.tensor([0, 1, 1]), torch.ones(3)
    each = squared
    if case == "constant loss":
        each = nothing
    elif case == "zero weights":
        model = model.apply(lambda m: [nn.init.zeros_(p) for p in m.parameters(recurse=False)])
    elif case == "zero gradient":
        y = model(x).squeeze(-1).detach()
    elif case == "unused parameters":
        model = WithSpare(model)
    elif case == "one parameter":
        model = nn.Embedding(1, 1)
        x = torch.zeros_like(x)
    elif case == "linear loss":
        each = output
    return by_unit(model, [(x, y)], each)


CASES = [
    "constant loss",
    "zero weights",
    "zero gradient",
    "unused parameters",
    "one parameter",
    "linear loss",
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MEASURES)
def test_a_degenerate_case_has_a_number(name, case):
    found = ll.sharpness(degenerate(case), [name], samples=2, probes=2, steps=3)
    row = found.measures[name]
    assert math.isfinite(row.value)
    assert row.standard_error is None or math.isfinite(row.standard_error)
    assert all(np.isfinite(pseudo).all() for pseudo in (*found.by_draw, *found.by_unit))
    if case == "constant loss":
        assert row.value == 0
        assert not row.standard_error
    if case == "zero weights" and MEASURES[name].invariant:
        assert row.value == 0
    if case == "zero gradient" and name in ("sam", "m-sharpness", "asam", "gradient-norm", "fisher-rao"):
        assert row.value == 0
    if case == "zero gradient" and name in ("worst", "keskar", "worst-adaptive"):
        assert row.value > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"measures": ["blunt"]}, "no sharpness measure 'blunt'"),
        ({"rho": 0}, "positive"),
        ({"rise": math.inf}, "positive"),
        ({"epsilon": math.nan}, "positive"),
        ({"samples": 1}, "samples"),
        ({"probes": 1}, "probes"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_settings_are_refused(sasrec_objective, kwargs, message):
    with pytest.raises(InputError, match=message):
        ll.sharpness(sasrec_objective, **kwargs)
