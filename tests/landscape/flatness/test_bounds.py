import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape import InputError, Objective
from landscape.flatness.bounds import VARIANCES, binary_kl, gaussian_kl, kl_inverse
from landscape.runtime.ranks import Ranks
from landscape.tasks import TaskOptions, objective_of
from samrec.task import initial_weights
from tests.commands.test_bad_input import refused

SIGMA, DIM = 0.5, 4


def by_unit(model, batch):
    """The 0-1 loss of a linear classifier; a score of 0 is an error."""
    x, y = batch
    errors = (y * model(x).squeeze(1) <= 0).double()
    return errors, torch.ones_like(errors)


def summed(units):
    return lambda model, batch: tuple(part.sum() for part in units(model, batch))


total = summed(by_unit)


def classifier(m, seed=0, batches=1, theta=None, sizes=None):
    """A direction fitted to m points whose label is the sign of x_1, of which that of one in ten is drawn."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(m, DIM, generator=generator, dtype=torch.float64)
    y = torch.where(torch.rand(m, generator=generator) < 0.05, -1, 1) * x[:, 0].sign()
    model = nn.Linear(DIM, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_((y[:, None] * x).mean(0)[None] if theta is None else theta)
    parts = (
        list(zip(x.split(sizes), y.split(sizes), strict=True))
        if sizes
        else [(x[i::batches], y[i::batches]) for i in range(batches)]
    )
    return Objective(model, parts, total, per_example=by_unit)


def true_risk(weights):
    """Of each row: the angle to the first axis by π, and the one point in twenty whose label is wrong."""
    angle = np.arccos(weights[:, 0] / np.linalg.norm(weights, axis=1)) / math.pi
    return 0.05 + 0.9 * angle


def bound(objective, prior=None, **settings):
    return ll.pac_bayes_bound(objective, prior, **{"sigmas": [SIGMA], "samples": 50, **settings})


def test_the_inverse_of_kl_is_that_of_a_search():
    q = np.linspace(1e-6, 1 - 1e-6, 200_001)
    for p in (0.0, 0.01, 0.3, 0.5, 0.99):
        for c in (0.001, 0.1, 2.0):
            with np.errstate(divide="ignore", invalid="ignore"):
                kl = np.nan_to_num(p * np.log(p / q)) + (1 - p) * np.log((1 - p) / (1 - q))
            assert float(kl_inverse(p, c)) == pytest.approx(q[(q >= p) & (kl <= c)].max(), abs=1e-5)


def test_the_inverse_of_kl_at_its_ends():
    c = np.array([1e-3, 0.5, 3])
    np.testing.assert_allclose(kl_inverse(0, c), 1 - np.exp(-c), rtol=1e-12)
    assert kl_inverse(1, 0.1) == 1
    assert kl_inverse(0.3, 0) == pytest.approx(0.3, abs=1e-7)
    assert kl_inverse(0.3, 1e4) == 1
    found = kl_inverse(0.2, c)
    assert (binary_kl(0.2, found) >= c * (1 - 1e-12)).all()  # never below


def test_the_divergence_of_gaussians_is_torchs():
    generator = torch.Generator().manual_seed(0)
    moved, scale = torch.randn(20, generator=generator).double(), torch.rand(20, generator=generator).double()
    normal = torch.distributions.Normal
    for variance in (0.01, 1.0, 30.0):
        expected = torch.distributions.kl_divergence(
            normal(moved, scale), normal(0.0 * moved, variance**0.5 * torch.ones_like(moved))
        ).sum()
        assert gaussian_kl(moved, scale, np.array(variance)) == pytest.approx(float(expected), rel=1e-12)


def test_the_constant_of_the_theorem_holds_for_every_number_of_units():
    """The moment that Maurer bounds by 2√m: E exp(m kl(p̂‖p)), the same sum for every p in (0, 1)."""
    for m in range(1, 100):
        k = np.arange(m + 1)
        ways = np.array([math.comb(m, i) for i in k], float)
        moment = (ways * (k / m) ** k * (1 - k / m) ** (m - k)).sum()
        assert math.sqrt(m) <= moment <= 2 * math.sqrt(m)


def test_it_holds_in_repeated_experiments():
    """For noisy weights of a linear classifier, whose risk on all points is known."""
    rng = np.random.default_rng(0)
    noise, delta, experiments = rng.standard_normal((2000, DIM)), 0.3, 100
    wrong = 0
    for seed in range(experiments):
        objective = classifier(60, seed)
        found = bound(objective, delta=delta, samples=25, seed=seed)
        theta = objective.theta.numpy()
        for row, scale in enumerate((SIGMA, np.sqrt(SIGMA**2 * theta**2 + 1e-6))):
            if found.bounds[row, 0] < true_risk(theta + scale * noise).mean():
                wrong += 1
                break
    assert wrong <= delta * experiments


def test_draws_limit_the_expected_loss_on_the_units():
    """Batches of unequal sizes, each with draws of its own."""
    objective = classifier(100, sizes=[10, 30, 60])
    many = bound(objective, samples=2000, sigmas=[1.0])
    missed = 0
    for seed in range(50):
        few = bound(objective, samples=6, sigmas=[1.0], seed=seed, delta=0.5)
        assert few.settings["passes"] == 2
        assert few.settings["draws"] == pytest.approx(2 / 0.6)
        missed += (few.loss_limits < many.losses).any()
    assert missed <= 0.25 * 50
    whole = bound(classifier(100), samples=1000, sigmas=[1.0])
    np.testing.assert_allclose(many.losses, whole.losses, atol=0.02)


def test_each_batch_has_draws_of_its_own_around_theta():
    objective = classifier(60, sizes=[10, 50])
    prior = torch.full((DIM,), 0.5).double()
    found = bound(objective, prior, samples=3, sigmas=[0.4, 2.0], seed=5)
    rng, theta = np.random.default_rng(5), objective.theta
    expected = np.zeros((2, 2))
    for batch in [*objective.per_batch()] * 2:
        z = torch.from_numpy(rng.standard_normal(DIM))
        for column, sigma in enumerate((0.4, 2.0)):
            adaptive = ((sigma * (theta - prior)) ** 2 + 1e-6).sqrt()
            for row, scale in enumerate((sigma, adaptive)):
                expected[row, column] += batch.per_example(theta + scale * z)[0].sum() / 120
    np.testing.assert_allclose(found.losses, expected, rtol=1e-12)


def test_an_easy_problem_has_a_bound_that_says_something():
    found = bound(classifier(2000, theta=torch.eye(DIM)[0]), samples=1000, sigmas=[0.1, 0.3])
    assert not found.vacuous
    assert found.bounds.min() < 0.2
    assert found.posteriors["plain"].excess < 1
    assert "not vacuous" in found.statement
    assert found.loss == pytest.approx(0.05, abs=0.02)


def test_more_units_and_more_doubt_lower_it():
    theta = torch.eye(DIM)[0]
    by_units = [bound(classifier(m, theta=theta), samples=1000).bounds[0, 0] for m in (50, 500, 5000)]
    assert by_units[0] > by_units[1] > by_units[2]
    objective = classifier(200)
    by_delta = [bound(objective, delta=delta).bounds[0, 0] for delta in (0.01, 0.1, 0.5)]
    assert by_delta[0] > by_delta[1] > by_delta[2]


def test_it_is_the_formula():
    m, delta = 200, 0.1
    objective = classifier(m)
    found = bound(objective, delta=delta)
    variance = float(found.prior_sigmas[0, 0]) ** 2
    j = int(np.argmin(np.abs(VARIANCES - variance))) + 1
    theta = objective.theta
    kl = float(gaussian_kl(theta, torch.full_like(theta, SIGMA), np.array(variance)))
    assert found.kls[0, 0] == pytest.approx(kl)
    limit = float(kl_inverse(found.losses[0, 0], math.log(2 / (delta / 2)) / 50))
    paid = kl + math.log(math.pi**2 * j**2 / 6) + math.log(2 * math.sqrt(m) / (delta / 2))
    assert found.bounds[0, 0] == pytest.approx(float(kl_inverse(limit, paid / m)))


def test_the_priors_variance_is_the_best_of_the_grid():
    """Without a price of the choice, the mean of s_i² + (θ_i - θ0_i)²; of 800 coordinates, nearly so."""
    torch.manual_seed(0)
    model = nn.Linear(800, 1, bias=False)
    objective = Objective(model, [(torch.randn(5, 800), torch.ones(5))], total, per_example=by_unit)
    found = bound(objective, samples=1)
    best = float((objective.theta.double().square() + SIGMA**2).mean()) ** 0.5
    assert found.prior_sigmas[0, 0] == pytest.approx(best, rel=0.01)


def test_less_noise_is_a_larger_divergence():
    found = bound(classifier(100), sigmas=[1e-3, 1e-2, 0.1, 0.5])
    assert (np.diff(found.kls) < 0).all()
    row = found.posteriors["plain"]
    assert row.kl_distance + row.kl_variance == pytest.approx(row.kl)
    assert row.kl_per_unit == row.kl / 100


def test_the_prior_may_stand_where_theta_does():
    """No coordinate has moved: the magnitude-aware posterior has only ε left."""
    objective = classifier(100)
    found = bound(objective, objective.theta.clone())
    assert found.distance == 0
    assert found.posteriors["plain"].kl_distance == 0
    assert np.isfinite(found.kls).all()
    zero = classifier(100, theta=torch.tensor([1.0, 0, 0, 0]))
    assert np.isfinite(bound(zero).kls).all()


def test_a_bound_is_below_a_guess_where_the_divergence_is_allowed():
    found = bound(classifier(300), sigmas=[1e-4, 1e-2, 0.1, 0.3, 1, 3], samples=500)
    below = found.bounds < found.guess
    assert below.any()
    assert not below.all()
    np.testing.assert_array_equal(below, found.kls < found.kl_allowed)


def test_it_says_by_how_much_it_is_vacuous():
    found = bound(classifier(100), sigmas=[1e-9, 1e-6], samples=300)
    assert found.vacuous
    least = min(row.excess for row in found.posteriors.values())
    assert least > 1
    assert f"a factor of {least:.3g}" in found.statement
    hopeless = bound(classifier(20, theta=-torch.eye(DIM)[0]), sigmas=[1e-3])
    assert hopeless.posteriors["plain"].excess == math.inf
    assert "would not be small enough at any σ" in hopeless.statement


def test_a_bound_of_one_is_trivial():
    found = bound(classifier(3), sigmas=[1e-30])
    assert found.posteriors["plain"].trivial


def test_of_equal_bounds_the_one_that_lacks_the_least_is_shown():
    torch.manual_seed(0)
    model, x = nn.Linear(800, 1, bias=False), torch.randn(200, 800)
    right = Objective(model, [(x, model(x).squeeze(1).sign().detach())], total, per_example=by_unit)
    found = bound(right, sigmas=[1e-30, 1e-10, 1e-20])
    row = found.posteriors["plain"]
    assert (found.bounds[0] == 1).all()
    assert row.sigma == row.excess_sigma == 1e-10


def test_it_reloads(tmp_path):
    found = bound(classifier(50, batches=3), sigmas=[0.1, 1])
    again = ll.load(found.save(tmp_path / "b.npz"))
    assert isinstance(again, ll.Bound)
    np.testing.assert_array_equal(again.bounds, found.bounds)
    assert again.statement == found.statement
    assert again.posteriors == found.posteriors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delta": 0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"guess": 1.5}, "guess"),
        ({"samples": 0}, "samples"),
        ({"sigmas": []}, "sigma"),
        ({"sigmas": [0.1, 0]}, "sigma"),
        ({"sigmas": [math.inf]}, "sigma"),
        ({"prior": torch.zeros(DIM + 1)}, "shape"),
        ({"prior": torch.full((DIM,), torch.nan)}, "finite"),
        ({"prior": np.zeros(DIM)}, "tensor"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message) as refusal:
        bound(classifier(10), **settings)
    assert "\n" not in str(refusal.value)


def test_a_loss_that_is_not_bounded_is_refused(sasrec_objective):
    x = torch.ones(4, 1, dtype=torch.float64)

    def squares(model, batch):
        errors = model(batch).square().squeeze(1)
        return errors, torch.ones_like(errors)

    model = nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(model.weight, 0.1)
    square = Objective(model, [x], summed(squares), per_example=squares)
    with pytest.raises(
        InputError, match=r"in \[0, 1\]; one unit here has"
    ):  # at θ it is, at a draw it is not
        bound(square, sigmas=[10.0])

    def scaled(model, factors):
        return model.weight.sum() * factors, factors.abs()

    for factors, said in (([1.0, 2.0], "one here has weight 2"), ([1.0, -1.0], "one unit here has -0.1")):
        with pytest.raises(InputError, match=said):
            bound(Objective(model, [torch.tensor(factors)], summed(scaled), per_example=scaled))
    with pytest.raises(InputError, match="units of weight 1"):
        bound(sasrec_objective)


def test_the_initial_weights_are_those_that_training_began_from(runs):
    checkpoint = runs / "samrec" / "best.pt"
    options = TaskOptions(users=None, device="cpu", metric="pairwise")
    objective = objective_of(checkpoint, options)
    weights = objective.params.join(initial_weights(checkpoint))
    assert weights.shape == objective.theta.shape
    assert torch.equal(weights, objective.params.join(initial_weights(runs / "sasrec" / "best.pt")))
    assert 0 < float((weights - objective.theta).norm()) < float(objective.theta.norm())


@pytest.mark.parametrize("prior", ["zero", "initial"])
def test_the_command(answer, both, split, tmp_path, prior):
    found = answer("bound", *both, "--prior", prior, "--samples", 2, "--out", tmp_path)
    assert set(map(Path, found["files"])) == set(tmp_path.iterdir())
    for entry, name in zip(found["checkpoints"], ("sasrec", "samrec"), strict=True):
        assert entry["units"] == len(split.trained)
        assert entry["posteriors"].keys() == {"plain", "magnitude-aware"}
        assert entry["statement"].startswith("With probability 0.95 over the draw of ")
        assert entry["vacuous"] is True
        saved = ll.load(tmp_path / f"{name}.bound.npz")
        assert saved.settings["prior"] == prior
        assert saved.provenance["metric"] == "pairwise"
        assert saved.posteriors["plain"].bound == entry["posteriors"]["plain"]["bound"]


def test_the_command_for_people(landscape, both):
    code, out, err = landscape("bound", *both, "--users", 10, "--samples", 1)
    assert code == 0, err
    assert "10 users" in out
    assert "vacuous" in out


def test_bad_input_to_the_command(landscape, both, tmp_path):
    for extra, message in [
        (["--delta", 1], "delta is 1.0; it must be between 0 and 1"),
        (["--prior", "initial", "--task", "tests.tasks:regression"], "use --prior zero"),
    ]:
        refused(landscape, "bound", *both, *extra, message=message, tmp_path=tmp_path)
    torch.save({"weights": nn.Linear(4, 2).state_dict()}, tmp_path / "a.pt")
    arguments = ["bound", "--ckpt", tmp_path / "a.pt", "--task", "tests.tasks:regression"]
    refused(landscape, *arguments, message="does not provide the metric 'pairwise'", tmp_path=tmp_path)


def test_a_part_of_the_units_is_not_taken_for_all():
    class Two(Ranks):
        def gathered(self, value):
            return [value, value]

    whole = classifier(40, batches=4)
    assert bound(whole).units == 40
    with pytest.raises(InputError, match="a bound takes all units"):
        bound(whole.distribute(Two(rank=0, size=2)))


@pytest.mark.parametrize("kind", ["training mode", "recomputed"])
def test_units_whose_losses_depend_on_one_another_have_no_bound(kind):
    model = nn.Sequential(nn.Linear(DIM, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).double()
    x = torch.randn(40, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    asked = [(ll.in_training_mode(each) if kind == "training mode" else each) for each in (total, by_unit)]
    statistics = "recomputed" if kind == "recomputed" else "kept"
    objective = Objective(
        model, [(x, x[:, 0].sign())], asked[0], per_example=asked[1], statistics=statistics, check=False
    )
    with pytest.raises(InputError, match="depends on the units beside it"):
        bound(objective)
