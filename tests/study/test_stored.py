"""What is stored of the study's runs agrees with itself: records, ranks, minima and landscapes."""

import json
from pathlib import Path

import pytest

from figures.__main__ import FOLDER
from figures.datasets import described, read_groups
from figures.plan import STAGES, trainings
from figures.records import read_ranks, read_records
from figures.style import PAIR
from landscape import Slice, load
from samrec.evaluation import metrics

RESULTS = FOLDER / "results"


def test_stored_results_are_small_and_name_no_machine():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000
    for path in files:
        text = path.read_text("utf-8") if path.suffix == ".json" else ""
        if path.suffix == ".npz" and path.parent.name not in ("ranks", "data"):
            text = json.dumps(dict(load(path).provenance))
        assert "/tmp/" not in text, path
        assert "/work/" not in text, path


def test_stored_planes_are_certified():
    planes = [load(path) for path in RESULTS.rglob("planes/*.npz")]
    assert planes
    for plane in planes:
        assert isinstance(plane, Slice)
        assert plane.certificate.max_error <= plane.settings["tol"]


def test_records_are_what_their_names_say():
    """The limit may have been shorter: a run that it cut off is unfinished, and trained again."""
    records = read_records(RESULTS)
    known = trainings(STAGES, records)
    assert records.keys() <= known.keys()
    for name, record in records.items():
        planned = known[name].config(Path()).settings
        other = {key for key in planned if record.settings.get(key, planned[key]) != planned[key]}
        assert not other - {"epochs"}, name
        assert record.settings["epochs"] <= planned["epochs"], name


@pytest.mark.parametrize("results", [RESULTS, RESULTS / "ablation"], ids=lambda path: path.name)
def test_stored_metrics_are_those_of_the_stored_ranks(results):
    for record in read_records(results).values():
        (ranks,) = read_ranks(record, results)
        assert ranks.size > 10_000
        kept = metrics(ranks)
        assert {k: kept[k] for k in ("hr@10", "ndcg@10")} == pytest.approx(
            {k: record.test[k] for k in ("hr@10", "ndcg@10")}, rel=1e-12
        )


@pytest.mark.parametrize("results", [RESULTS, RESULTS / "ablation"], ids=lambda path: path.name)
def test_all_runs_on_a_data_set_have_the_same_data(results):
    records = read_records(results).values()
    assert len({record.digest for record in records}) == len({record.data for record in records})


def test_the_groups_of_users_are_of_the_data_that_was_trained_on():
    for record in read_records(RESULTS).values():
        assert described(record.data, RESULTS)["digest"] == record.digest
        users = read_ranks(record, RESULTS).shape[1]
        assert all(members.shape == (users,) for members in read_groups(record.data, RESULTS).values())


def test_what_is_measured_is_the_best_epoch_that_is_recorded():
    """A run that is trained again leaves the measurements of the training before, if nobody takes care."""
    records = read_records(RESULTS)
    shas = {}
    for name, record in records.items():
        known = json.loads((RESULTS / "minima" / f"{name}.json").read_text())["provenance"]
        assert (int(known["epoch"]), known["data_sha256"]) == (record.best_epoch, record.digest)
        shas[f"runs/{name}/best.pt"] = known["checkpoint_sha256"]
    pictures = list((RESULTS / PAIR).rglob("*.npz"))
    assert pictures
    for path in pictures:
        known = dict(load(path).provenance)
        for one in (known, known.get("other", known)):
            assert one["checkpoint_sha256"] == shas[one["checkpoint"]], path
