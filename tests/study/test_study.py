"""The study's statistics by their laws, and its figures of nothing, of one run, and of a made-up study."""

import functools
import importlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from figures.bootstrap import compared, kendall, relative_gain
from figures.plan import PUBLISHED, SCALES, THIRD, Scale, Training, base, full_runs, short, trainings
from figures.records import LARGEST, Record, read_records, write_record
from figures.style import rounded, seeds, spread

NAMES = ("training", "minima")
FLATNESS = ("sam", "asam", "average", "average-adaptive", "fisher-rao", "relative-flatness-embedding")


def ranks_of(hits, users=1000, at=0):
    """Return ranks of which the first `hits` are `at`, and the others hit nothing."""
    return np.where(np.arange(users) < hits, at, LARGEST)


def quality(run: Training) -> float:
    """Make up a test HR@10: of all that is varied."""
    s = run.config(Path())
    own = {"sasrec": 0.0, "samrec": 0.06, "cl4srec": 0.03, "s3rec": -0.02}[s.method]
    own -= 0.05 * abs(np.log10(s.radius / 0.1)) if s.radius else 0
    shape = 1 - 2.5 * (s.dropout - (0.4 if s.method == "samrec" else 0.5)) ** 2
    short = 0.8 if s.epochs == THIRD[s.loss] else 1.0
    data = s.train_fraction**0.4 * (1 - 1.2 * s.noise)
    large = {"bce": 0.06, "ce": 0.08}[s.loss] * (1.2 if run.data == "Beauty" else 1)
    return 0.0005 if s.radius == 10 else large * short * shape * data * (1 + own)


def made_up(run: Training, users: int) -> tuple[Record, np.ndarray]:
    rng = np.random.default_rng(sum(map(ord, run.name)))
    hr = quality(run) * rng.normal(1, 0.01)
    luck = np.random.default_rng(run.settings.get("seed", 0)).random(users)  # a user is easy for all methods
    luck = np.where(rng.random(users) < 0.3, rng.random(users), luck)
    ranks = np.minimum(luck / hr * 10, LARGEST).astype(int)
    metric = {"hr@10": float((ranks < 10).mean())}
    metric["ndcg@10"] = float((1 / np.log2(ranks + 2))[ranks < 10].sum() / users)
    config = run.config(Path("data"))
    epochs = range(config.eval_every, config.epochs + 1, config.eval_every)
    rise = [1 - np.exp(-6 * epoch / config.epochs) * rng.normal(1, 0.1) for epoch in epochs]
    valid = {key: 1.3 * value for key, value in metric.items()}
    log = [
        {"epoch": float(e), "seconds": 4.0 * e, "loss": 1.4 - r, **{k: v * r for k, v in valid.items()}}
        for e, r in zip(epochs, rise, strict=True)
    ]
    settings = {key: value for key, value in config.settings.items() if key != "data"}
    record = Record(
        name=run.name,
        command=run.command,
        data=run.data,
        digest="0" * 64,
        settings=settings,
        where={"cpu": "none"},
        epochs=config.epochs,
        best_epoch=int(epochs[-1]),
        log=log,
        valid=valid,
        test=metric,
    )
    return record, ranks


def look(record: Record, epoch: float = 1.0) -> dict:
    """Make up what `figures.measure` finds of a checkpoint."""
    rng = np.random.default_rng(sum(map(ord, record.name)))
    flat = (0.4 if record.method == "samrec" else 1.0) * rng.lognormal(0, 0.2) * (1 + 2 * epoch)
    loss = 0.25 + 0.2 * rng.random()
    return {
        "users": 512,
        "loss": loss,
        "valid_loss": loss + 0.5 + 0.05 * flat + 0.02 * rng.random(),
        "weight_norm": 140.0,
        "gradient_norm": 0.1 * flat,
        "lambda_max": 3.4 * flat,
        "trace": 900 * flat,
        "trace_se": 60.0,
        "measures": {key: {"value": 0.05 * flat * rng.lognormal(0, 0.1), "se": None} for key in FLATNESS},
    }


def write(found: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def study(results: Path, planned: Scale, users: int = 300) -> Path:
    """Make up the whole study: every run of a scale, and what the figures here read of its measurements."""
    records: dict[str, Record] = {}
    while new := [run for run in trainings(planned, records) if run.name not in records]:
        for run in new:  # those that wait for these come next
            write_record(*made_up(run, users), results)
        records = read_records(results)
    for record in records.values():
        write({"run": record.name, **look(record)}, results / "minima" / f"{record.name}.json")
    for name, loss in itertools.product(planned.studied, planned.losses):
        for method, runs in full_runs(records, name, loss).items():
            if runs[0].settings["save_every"] and method in ("sasrec", "samrec"):
                looks = [{"epoch": e, **look(runs[0], e / 200)} for e in range(20, 201, 20)]
                path = results / "trajectories" / f"{name}-{loss}.{method}.json"
                write({"run": runs[0].name, "epochs": looks}, path)
    return results


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return study(tmp_path_factory.mktemp("whole"), replace(SCALES["cuda"], seeds=(2, 1)))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """What a CPU trains, without S3Rec, CL4SRec and noise."""
    return study(tmp_path_factory.mktemp("small"), SCALES["cpu"])


@functools.lru_cache
def drawn(name: str, results: Path) -> dict:
    """Draw a figure of what JSON keeps of its data, as it is saved; return its panels."""
    module = importlib.import_module(f"figures.{name}")
    text = json.dumps(rounded(module.data(results)), allow_nan=False)
    found = json.loads(text)
    figures = module.draw(found).values()
    for figure in figures:
        figure.draw_without_rendering()
    axes = [axes for figure in figures for axes in figure.axes]
    return {"found": found, "axes": axes, "said": [text.get_text() for a in axes for text in a.texts]}


def test_equal_ranks_gain_nothing_for_certain():
    ranks = np.random.default_rng(0).integers(0, 40, 500)
    for metric in ("hr@10", "ndcg@10"):
        assert relative_gain([ranks], [ranks], metric) == (0, 0, 0, 1)


def test_twice_the_hits_are_a_gain_of_one():
    found = relative_gain([ranks_of(200)], [ranks_of(100)], "hr@10")
    assert found.gain == pytest.approx(1)
    assert found.low < 1 < found.high
    assert found.p == pytest.approx(2 / 2001)  # the least that so many resamples can say


def test_a_gain_in_ndcg_is_of_ranks_and_not_of_hits():
    found = relative_gain([ranks_of(100, at=0)], [ranks_of(100, at=2)], "ndcg@10")
    assert found[:3] == pytest.approx((1, 1, 1))  # each hit is worth twice as much, whoever is drawn
    assert relative_gain([ranks_of(100, at=0)], [ranks_of(100, at=2)], "hr@10") == (0, 0, 0, 1)


def test_a_user_counts_with_the_mean_over_seeds():
    hit, miss = np.array([0, 99, 0, 99]), np.array([99, 99, 0, 0])
    found = relative_gain([hit, miss], [miss, hit], "hr@10")
    assert found == (0, 0, 0, 1)
    assert relative_gain([hit, hit], [hit], "hr@10").gain == 0


def test_the_interval_is_that_of_resampled_users():
    """Against resamples of the users themselves, one by one."""
    rng = np.random.default_rng(1)
    ours, theirs = (rng.random(400) < share for share in (0.4, 0.3))
    drawn = rng.integers(0, 400, (2000, 400))
    expected = np.quantile(ours[drawn].mean(1) / theirs[drawn].mean(1) - 1, [0.025, 0.975])
    found = relative_gain([np.where(ours, 0, 99)], [np.where(theirs, 0, 99)], "hr@10")
    assert found.gain == pytest.approx(ours.mean() / theirs.mean() - 1)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.05)  # of an interval 0.5 wide


def test_more_users_narrow_the_interval():
    rng = np.random.default_rng(2)
    widths = []
    for users in (200, 3200):
        ours, theirs = (rng.integers(0, 40, users) for _ in range(2))
        found = relative_gain([ours], [theirs], "hr@10")
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.3)


def test_p_is_about_uniform_when_there_is_nothing_to_find():
    rng = np.random.default_rng(3)
    found = [
        relative_gain([rng.integers(0, 40, 300)], [rng.integers(0, 40, 300)], "hr@10").p for _ in range(100)
    ]
    assert 0.35 < np.mean(found) < 0.65
    assert np.mean(np.array(found) < 0.05) < 0.12


def test_where_theirs_never_hits_there_is_no_gain():
    assert np.isnan(relative_gain([ranks_of(5)], [ranks_of(0)], "hr@10")).all()


def test_ranks_of_other_users_are_refused():
    with pytest.raises(ValueError, match="shape"):
        relative_gain([ranks_of(5, users=10)], [ranks_of(5, users=11)], "hr@10")


@pytest.mark.parametrize("sign", [1, -1])
def test_what_orders_runs_alike_has_a_tau_of_one(sign):
    x = np.array([3.0, 1, 4, 1.5, 9, 2.6])
    assert kendall(x, sign * np.exp(x)) == pytest.approx((sign, sign, sign))


def test_tau_is_scipys_and_its_interval_that_of_resampled_runs():
    rng = np.random.default_rng(4)
    x = rng.integers(0, 8, 20)  # with ties
    y = x + rng.normal(0, 3, 20)
    drawn = rng.integers(0, 20, (1000, 20))
    expected = np.quantile([kendalltau(x[at], y[at]).statistic for at in drawn], [0.025, 0.975])
    found = kendall(x, y)
    assert found.tau == kendalltau(x, y).statistic
    assert found[1:] == pytest.approx(tuple(expected), abs=0.05)


def test_four_runs_have_no_tau_nor_have_equal_ones():
    assert kendall(range(4), range(4)) is None
    assert kendall([1.0] * 6, range(6)) is None


def test_the_spread_over_seeds_has_gaps_where_nothing_is():
    middle, low, high = spread([[1.0, 3.0], [], [5.0]])
    np.testing.assert_array_equal([middle, low, high], [[2, np.nan, 5], [1, np.nan, 5], [3, np.nan, 5]])
    assert [seeds(counts) for counts in ([], [1, 0], [3, 3], [1, 5])] == [
        "no run",
        "1 seed",
        "3 seeds",
        "1 to 5 seeds",
    ]


def test_runs_are_compared_by_their_stored_ranks(small):
    runs = full_runs(read_records(small), "Beauty", "bce")
    found = compared(runs["samrec"], runs["sasrec"], small)
    means = [np.mean([run.test["hr@10"] for run in runs[method]]) for method in ("samrec", "sasrec")]
    assert found["hr@10"]["gain"] == pytest.approx(means[0] / means[1] - 1)
    assert compared([], runs["sasrec"], small) == {"hr@10": None, "ndcg@10": None}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_stored_is_drawn_as_missing(name, tmp_path):
    assert all("yet" in text or "few" in text for text in drawn(name, tmp_path)["said"])
    assert drawn(name, tmp_path)["said"]
    assert not drawn(name, tmp_path)["found"]["panels"]


@pytest.mark.parametrize("name", NAMES)
def test_one_run_is_drawn(name, tmp_path):
    run = Training("Beauty", short("bce"))
    record, ranks = made_up(run, 100)
    write_record(record, ranks, tmp_path)
    write({"run": run.name, **look(record)}, tmp_path / "minima" / f"{run.name}.json")
    found = drawn(name, tmp_path)
    assert not found["found"]["panels"]  # nothing to compare it with


@pytest.mark.parametrize("size", ["small", "whole"])
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_draws_a_study_without_labels_that_overlap(name, size, request):
    """Each data set and loss has its panels; what a CPU does not train is said to be missing."""
    found = drawn(name, request.getfixturevalue(size))
    assert found["found"]["panels"]
    for axes in found["axes"]:
        shown = [label for label in axes.get_xticklabels() if label.get_text()]
        boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
        assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes)), axes.get_title()
    titles = [(axes.figure, axes.title.get_window_extent()) for axes in found["axes"] if axes.get_title()]
    pairs = itertools.combinations(titles, 2)
    assert not any(one is other and a.overlaps(b) for (one, a), (other, b) in pairs)


def test_ratios_of_minima_are_of_runs_that_share_a_seed_and_their_mean_has_students_interval(tmp_path):
    trained = {("sasrec", s): (2.0, 1.0, 4.0)[s] for s in (0, 1, 2)} | {("samrec", s): 1.0 for s in (1, 2)}
    for (method, seed), trace in trained.items():
        run = Training("Beauty", base("bce") | dict(PUBLISHED[method]) | {"seed": seed})
        record, ranks = made_up(run, 10)
        write_record(record, ranks, tmp_path)
        write(look(record) | {"trace": trace}, tmp_path / "minima" / f"{run.name}.json")
    panel = drawn("minima", tmp_path)["found"]["panels"]["Beauty-bce"]
    assert panel["seeds"] == [1, 2]
    row = panel["rows"]["trace"]
    assert row["ratios"] == [1, 0.25]
    far = 12.7062 * np.log(2)  # t of one degree of freedom; the two logarithms are ln 2 from their mean
    assert [row["mean"], row["low"], row["high"]] == pytest.approx(
        [0.5, 0.5 * np.exp(-far), 0.5 * np.exp(far)], rel=1e-4
    )
