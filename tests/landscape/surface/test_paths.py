import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, Objective
from landscape.plots.paths import path_figure
from landscape.surface.paths import STATIONS, endpoint
from samrec.losses import bce
from tests.conftest import RUN, small_sasrec


class Ring(nn.Module):
    """L = (‖θ‖² - 1)²: on a line two wells and a barrier of 1, on a plane a valley all round."""

    def __init__(self, *at):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(at, dtype=torch.float64))

    def forward(self):
        return (self.theta.square().sum() - 1) ** 2


def ring(*at, unit=1.0):
    return Objective(Ring(*at), [None], lambda model, _: (unit * model(), 1))


class Apart(nn.Module):
    """A point, whose loss is half its squared distance to what was drawn."""

    def __init__(self, at):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(at, dtype=torch.float64))

    def forward(self, drawn):
        return (self.theta - drawn).square().sum(1) / 2


DRAWN = torch.from_numpy(np.random.default_rng(0).standard_normal((12, 2)))


def apart(*at, batches=3):
    """Of 12 units in equal batches."""

    def by_unit(model, batch):
        return model(batch), torch.ones(len(batch))

    def loss(model, batch):
        return model(batch).sum(), len(batch)

    return Objective(Apart(at), DRAWN.chunk(batches), loss, per_example=by_unit)


@pytest.fixture(scope="module")
def transformers(sasrec_objective, split):
    """Two SASRecs of different weights, on the same batches."""
    return sasrec_objective, Objective(small_sasrec(split, 1), sasrec_objective.batches, bce)


@pytest.mark.parametrize("which", [0, -1])
def test_a_line_on_a_quadratic_is_its_parabola(quadratic, symmetric, which):
    """L(t) - chord = -t(1 - t) dᵀAd / 2, so a direction of eigenvalue λ < 0 has a barrier of -λ / 8."""
    values, vectors = torch.linalg.eigh(symmetric)
    slope, start = torch.ones(12).double(), torch.linspace(-1, 2, 12).double()
    a, b = (quadratic(symmetric, at, slope) for at in (start, start + vectors[:, which]))
    found = ll.barrier(a, b)
    t, curvature = found.positions, float(values[which])
    chord = (1 - t) * a.value() + t * b.value()
    np.testing.assert_allclose(found.losses, chord - t * (1 - t) * curvature / 2, rtol=0, atol=1e-11)
    assert found.height == pytest.approx(max(0, -curvature / 8))
    assert found.at == (0.5 if curvature < 0 else 0)
    assert found.certificate.reached
    assert found.length == found.distance == pytest.approx(1)


def test_two_wells_have_the_barrier_between_them():
    found = ll.barrier(ring(-1.0), ring(1.0))
    assert (found.height, found.at) == (1, 0.5)
    np.testing.assert_allclose(found.losses, ((2 * found.positions - 1) ** 2 - 1) ** 2, atol=1e-12)
    assert ll.barrier(ring(-1.0), ring(1.0), grid=9).certificate is None


def test_a_slope_alone_is_no_barrier(quadratic):
    flat = torch.zeros(1, 1).double()
    a, b = (quadratic(flat, torch.tensor([x]).double(), torch.ones(1).double()) for x in (0.0, 3.0))
    assert ll.barrier(a, b).height < 1e-12


def test_a_curve_goes_around():
    a, b = ring(-1.0, 0.0), ring(1.0, 0.0)
    straight, bent = ll.barrier(a, b), ll.bezier(a, b, seed=1)
    assert straight.height == 1
    assert bent.height < 0.05
    assert bent.losses.shape == (33,)
    assert abs(bent.bend[1]) > 1
    assert straight.length == 2 < bent.length == pytest.approx(np.pi, rel=0.1)


@pytest.mark.parametrize("unit", [2.0**-40, 2.0**40])
def test_a_curve_in_other_units_of_the_loss(unit):
    """A power of two changes no digit."""
    plain = ll.bezier(ring(-1.0, 0.0), ring(1.0, 0.0), seed=1)
    found = ll.bezier(ring(-1.0, 0.0, unit=unit), ring(1.0, 0.0, unit=unit), seed=1)
    np.testing.assert_array_equal(found.bend, plain.bend)
    np.testing.assert_array_equal(found.losses, unit * plain.losses)


@pytest.mark.parametrize("drawn_anew", [False, True])
def test_the_bend_on_a_quadratic(drawn_anew):
    """Of ∫ ‖φ(t) - m‖² dt the minimum is at c - m = -3/4 (a + b - 2m)."""
    a, b = apart(2.0, 0.0), apart(0.0, 4.0)
    found = ll.bezier(a, b, training=(lambda _: a) if drawn_anew else None)
    middle = DRAWN.mean(0).numpy()
    expected = middle - 0.75 * (np.array([2.0, 4.0]) - 2 * middle)
    np.testing.assert_allclose(found.bend, expected, atol=0.05)
    assert found.settings["drawn_anew"] == drawn_anew
    assert found.settings["lr"] == pytest.approx(10**0.5 / 50)  # of the root mean square of b - a = (-2, 4)


def test_a_curve_has_the_length_of_its_polyline():
    found = ll.bezier(ring(-1.0, 0.0), ring(1.0, 0.5), steps=50, lr=0.1)
    t = np.linspace(0, 1, 2001)[:, None]
    a, b = np.array([-1.0, 0.0]), np.array([1.0, 0.5])
    steps = np.diff((1 - t) ** 2 * a + 2 * t * (1 - t) * found.bend + t**2 * b, axis=0)
    assert found.length == pytest.approx(np.linalg.norm(steps, axis=1).sum(), rel=1e-6)


def test_each_step_takes_a_batch_and_a_small_draw_serves_sixteen():
    asked = []

    def training(number):
        asked.append(number)
        return apart(1.0, 1.0)

    ll.bezier(apart(2.0, 0.0), apart(0.0, 4.0), training=training, steps=37)
    assert asked == [0, 1, 2]  # of three batches, six times each


def test_the_way_back_is_the_mirrored_way():
    there, back = ll.barrier(ring(-1.2), ring(0.9)), ll.barrier(ring(0.9), ring(-1.2))
    np.testing.assert_allclose(there.losses, back.losses[::-1], atol=1e-12)
    assert there.height == pytest.approx(back.height)
    assert there.at == pytest.approx(1 - back.at)
    assert there.ends == back.ends[::-1]


def test_the_ends_are_the_losses_of_the_checkpoints(transformers):
    a, b = transformers
    for found in (ll.barrier(a, b, grid=5), ll.bezier(a, b, steps=2, points=3)):
        assert found.ends == [a.value(), b.value()] == [found.losses[0], found.losses[-1]]
        assert found.distance == float((b.theta - a.theta).norm())
        assert found.height >= 0


def test_a_point_says_as_much_as_an_objective_there(transformers):
    a, b = transformers
    assert ll.barrier(a, b.theta, grid=3).losses.tolist() == ll.barrier(a, b, grid=3).losses.tolist()


def test_weights_are_left_as_they_are(transformers):
    before = [o.theta.clone() for o in transformers], [o.value() for o in transformers]
    ll.barrier(*transformers, grid=3)
    ll.bezier(*transformers, steps=2, points=3)
    assert all(torch.equal(o.theta, theta) for o, theta in zip(transformers, before[0], strict=True))
    assert [o.value() for o in transformers] == before[1]


def test_equal_seeds_give_equal_curves(transformers):
    one, same, other = (ll.bezier(*transformers, steps=3, points=3, seed=seed).bend for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_metrics_on_the_way_have_errors_by_unit():
    a, b = apart(2.0, 0.0), apart(0.0, 4.0)
    found = ll.barrier(a, b, grid=3, metrics={"far": a, "alone": ring(2.0, 0.0)}).metrics
    assert found["far"]["positions"] == list(STATIONS)
    theta = (1 - 0.25) * a.theta + 0.25 * b.theta
    units = ((theta - DRAWN).square().sum(1) / 2).numpy()
    assert found["far"]["values"][1] == pytest.approx(units.mean())
    assert found["far"]["values"][::4] == pytest.approx([a.value(), b.value()])
    assert found["far"]["standard_errors"][1] == pytest.approx(units.std(ddof=1) / np.sqrt(12))
    assert np.isnan(found["alone"]["standard_errors"]).all()  # one unit alone


def test_a_barrier_has_the_error_of_its_units():
    """On a concave loss -‖θ - x‖² / 2 the height is ‖b - a‖² / 8 whoever is drawn."""

    def by_unit(model, batch):
        return -model(batch), torch.ones(len(batch))

    a, b = (
        Objective(
            Apart(at), [DRAWN], lambda model, batch: (-model(batch).sum(), len(batch)), per_example=by_unit
        )
        for at in ((2.0, 0.0), (0.0, 4.0))
    )
    found = ll.barrier(a, b)
    assert found.height == pytest.approx(20 / 8)
    assert found.standard_error == pytest.approx(0, abs=1e-12)
    assert ll.barrier(apart(2.0, 0.0), apart(0.0, 4.0)).standard_error is None  # no barrier


def test_the_error_of_a_barrier_weighs_its_ends_as_the_chord_does():
    """Three quarters of the way, the chord is a quarter of one end and three quarters of the other."""
    units = torch.from_numpy(np.random.default_rng(1).uniform(0.5, 2, (9, 2)))

    def losses(theta, units):
        s = theta[0]
        return 10 * units[:, 0] * s**3 * (1 - s) + units[:, 1] * (1 - s)

    def by_unit(model, batch):
        return losses(model.theta, batch), torch.ones(len(batch))

    def at(*theta):
        return Objective(
            Apart(theta), [units], lambda m, b: (losses(m.theta, b).sum(), len(b)), per_example=by_unit
        )

    a, b = at(0.0, 0.0), at(1.0, 0.0)
    found = ll.barrier(a, b, grid=201)
    assert 0.6 < found.at < 0.9
    assert found.standard_error is not None
    t = found.at
    start, top, end = (losses(a.theta + s * (b.theta - a.theta), units).numpy() for s in (0, t, 1))
    above = top - (1 - t) * start - t * end
    assert found.height == pytest.approx(above.mean(), rel=1e-9)
    assert found.standard_error == pytest.approx(above.std(ddof=1) / 3, rel=1e-9)


def test_a_loss_that_is_not_finite_on_the_way_stays_so():
    def at(x):
        return Objective(Ring(x), [None], lambda model, _: (model.theta.log().sum() ** 2, 1))

    a, b = at(1.0), torch.tensor([-1.0]).double()
    found = ll.barrier(a, b, grid=5)
    assert np.isnan(found.losses[-1])
    assert np.isnan(found.height)


@pytest.mark.parametrize("name", ["linear", "bezier"])
def test_what_is_saved_is_loaded(transformers, name, tmp_path):
    a, b = transformers
    metrics = {"again": a}
    before = (
        ll.barrier(a, b, grid=3, metrics=metrics)
        if name == "linear"
        else ll.bezier(a, b, steps=2, points=3, metrics=metrics)
    )
    after = ll.load(before.save(tmp_path / "a.npz"))
    assert type(after) is ll.PathProfile
    assert after.kind == name
    assert after.bend.shape == ((0,) if name == "linear" else (a.params.numel,))
    for key, value in vars(before).items():
        np.testing.assert_equal(getattr(after, key), value)


def test_finished_points_are_kept(tmp_path):
    first, again = (ll.barrier(ring(-1.0), ring(1.0), file=tmp_path / "points.jsonl") for _ in range(2))
    assert first.settings["reused"] == 0 < again.settings["reused"]
    np.testing.assert_array_equal(first.losses, again.losses)


def test_paths_that_lead_nowhere_are_refused(transformers):
    a = ring(1.0, 0.0)
    for make in (ll.barrier, ll.bezier):
        with pytest.raises(InputError, match="same point"):
            make(a, ring(1.0, 0.0))
        with pytest.raises(InputError, match=r"one has theta of \(2,\), the other has theta of \(1,\)"):
            make(a, ring(1.0))
        with pytest.raises(InputError, match="different models"):
            make(a, transformers[0])
        with pytest.raises(InputError, match="3 parameters"):
            make(a, torch.ones(3))
        with pytest.raises(InputError, match="different models"):
            make(a, ring(0.0, 1.0), metrics={"other": ring(1.0)})
    for kwargs in ({"steps": 0}, {"points": 1}, {"lr": 0.0}, {"lr": np.inf}):
        with pytest.raises(InputError, match=r"it must be (positive|a whole number)"):
            ll.bezier(a, ring(0.0, 1.0), **kwargs)
    with pytest.raises(InputError, match="use an lr below 1e"):
        ll.bezier(a, ring(0.0, 1.0), lr=1e90)
    with pytest.raises(InputError, match="different models"):
        ll.bezier(a, ring(0.0, 1.0), training=lambda _: ring(1.0))
    assert torch.equal(endpoint(a, ring(0.0, 1.0)), torch.tensor([0.0, 1.0]).double())


def test_a_figure_has_a_panel_for_the_loss_and_for_each_metric_of_all():
    a, b, c = (ring(*at) for at in ((-1.0, 0.0), (1.0, 0.0), (0.0, 2.0)))
    metrics = {"hr@10": a, "mrr": a}
    paths = {
        "a to b, line": ll.barrier(a, b, metrics=metrics),
        "a to b, Bézier": ll.bezier(a, b, steps=2, metrics=metrics),
        "a to c, line": ll.barrier(a, c, metrics=metrics),
    }
    figure = path_figure(paths)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "HR@10", "MRR"]
    shown = {line.get_label(): line for line in figure.axes[0].get_lines()}
    line, curve, other = (shown[label] for label in shown if not label.startswith("_"))
    assert line.get_color() == curve.get_color() != other.get_color()
    assert (line.get_linestyle(), curve.get_linestyle()) == ("-", "--")
    np.testing.assert_array_equal(line.get_ydata(), paths["a to b, line"].losses)
    assert "a to b, line: barrier 1" in shown
    del metrics["mrr"]
    assert len(path_figure({**paths, "b": ll.barrier(b, c, metrics=metrics)}).axes) == 2
    with pytest.raises(InputError, match="give at least one path"):
        path_figure({})


def test_the_command(answer, both, tmp_path):
    arguments = ["--bezier", "--steps", 3, "--metric", "hr@10", "--metric", "valid-loss", "--tol", 0.1]
    found = answer("path", *both, *arguments, "--out", tmp_path)
    assert [entry["kind"] for entry in found["paths"]] == ["linear", "bezier"]
    for entry in found["paths"]:
        assert (entry["from"], entry["to"]) == (str(both[1]), str(both[3]))
        assert entry["height"] >= 0
        assert entry["metrics"].keys() == {"hr@10", "valid-loss"}
        assert all(len(column) == 5 for column in entry["metrics"]["hr@10"].values())
        result = ll.load(entry["file"])
        assert result.ends == entry["ends"]
        assert result.seconds == entry["seconds"]
        assert result.provenance["other"]["method"] == "samrec"
    assert result.settings["drawn_anew"]  # not on the users and negatives it is judged by
    linear, bezier = found["paths"]
    assert linear["certificate"]["reached"]
    assert bezier["certificate"] is None
    assert linear["ends"] == bezier["ends"]
    assert linear["length"] == linear["distance"] == bezier["distance"] < bezier["length"]
    assert {p.name for p in tmp_path.iterdir()} == {
        "sasrec-samrec.linear.npz",
        "sasrec-samrec.bezier.npz",
        "sasrec-samrec.points.jsonl",
        "path.png",
        "path.pdf",
    }


def test_the_first_is_joined_to_each_of_the_others(answer, both, tmp_path):
    content = torch.load(both[1], weights_only=True)
    content["weights"] = {name: 2 * tensor for name, tensor in content["weights"].items()}
    torch.save(content, tmp_path / "twice.pt")
    third = ["--ckpt", tmp_path / "twice.pt"]
    found = answer("path", *third, *both, "--grid", 3, "--users", 20, "--out", tmp_path / "out")
    assert [entry["to"] for entry in found["paths"]] == [str(both[1]), str(both[3])]
    assert {entry["from"] for entry in found["paths"]} == {str(third[1])}


def test_tables_for_people(landscape, both, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = landscape("path", *both, "--grid", 3, "--metric", "ndcg@10", "--out", tmp_path)
    assert (code, err) == (0, "")
    for expected in ("Paths from sasrec\n", "samrec, line", "barrier", "NDCG@10 at t = 0.5"):
        assert expected in out


def test_what_the_command_cannot_use_is_one_line(landscape, answer, both, data_file, tmp_path):
    narrow = [*RUN, "--dim", 4, "--epochs", 1]
    other = answer("train", "--data", data_file, "--out", tmp_path / "run", *narrow)["out"]
    out = tmp_path / "out"
    for arguments, message in (
        (both[:2], "give --ckpt at least twice"),
        ([*both[:2], *both[:2]], "given twice"),
        ([*both, "--metric", "nothing"], "no metric matches 'nothing'"),
        ([*both, "--ckpt", f"{other}/best.pt"], "no path leads between different models"),
        ([*both, "--tol", 0], "must be positive"),
    ):
        code, said, err = landscape("path", *arguments, "--out", out)
        assert (code, said) == (2, "")
        assert err.count("\n") == 1
        assert message in err
        assert not out.exists()
