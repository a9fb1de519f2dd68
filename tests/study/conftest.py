"""A made-up study: every run of the plan as it may be recorded, where SAM gains what is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from figures.plan import DATA, LIMITS, STAGES, Training, ranked, trainings
from figures.records import LARGEST, Record, read_records, write_record
from figures.stopping import stopped
from figures.style import PAIR
from samrec.evaluation import metrics
from samrec.methods.baselines import BASELINES

FLATNESS = ("sam", "asam", "average", "average-adaptive", "fisher-rao", "relative-flatness-embedding")
GAIN = {"Beauty": 0.3, "Toys_and_Games": 0.0, "Sports_and_Outdoors": 0.3, "Yelp": 0.3}
PEAK = 12  # validations up to the best one, of which some rules see none
USERS = 2000


def made_up(run: Training) -> tuple[Record, dict[int, np.ndarray]]:
    """Make up a run as it may be recorded: SAM gains what `GAIN` says, on users who are easy for all."""
    config = run.config(Path("data"))
    rng = np.random.default_rng(sum(map(ord, run.name)))
    easy = np.random.default_rng(0).random(USERS)
    gain = GAIN[run.data] if config.method == "samrec" else 0.0
    count = min(PEAK + config.patience // config.eval_every, config.epochs // config.eval_every)
    epochs = [config.eval_every * (i + 1) for i in range(count)]
    level = [0.25 * (1 - ((i - PEAK + 1) / (2 * count)) ** 2) for i in range(count)]
    log = [
        {"epoch": e, "seconds": 4.0 * e, "loss": 1.0 - v, "ndcg@10": v / 2, "ndcg@20": v / 2, "hr@10": v}
        for e, v in zip(epochs, level, strict=True)
    ]
    ends = [stopped(log, rule) for rule in (run.rule, *run.rules)]
    ranks = {}
    for epoch in {epoch for end in ends for epoch in (end.best, *end.late)}:
        hit = level[epochs.index(epoch)] * (1 + gain) * rng.normal(1, 0.01)
        luck = np.where(rng.random(USERS) < 0.2, rng.random(USERS), easy)
        ranks[epoch] = np.where(luck < hit, rng.integers(0, 10, USERS), LARGEST)
    best = ends[0].best
    reached = metrics(ranks[best])
    record = Record(
        name=run.name,
        command=run.command,
        data=run.data,
        digest="0" * 64,
        settings={key: value for key, value in config.settings.items() if key != "data"},
        where={"cpu": "none"},
        epochs=min(config.epochs, best + config.patience),
        best_epoch=best,
        log=log,
        valid={name: 1 - value for name, value in reached.items()},
        test=reached,
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


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Every run of the plan, made up, and what the figures read of their measurements."""
    results = tmp_path_factory.mktemp("whole")
    records: dict[str, Record] = {}
    while new := [run for name, run in trainings(STAGES, records).items() if name not in records]:
        for run in new:  # those that wait for these come next
            write_record(*made_up(run), results)
        records = read_records(results)
    for record in records.values():
        write({"run": record.name, **look(record)}, results / "minima" / f"{record.name}.json")
    for method in LIMITS:
        run = records[ranked("Beauty", method, 0).name]
        looks = [{"epoch": e, **look(run, e / 200)} for e in range(20, 201, 20)]
        path = results / PAIR / "trajectories" / f"Beauty-bce.{method}.json"
        write({"run": run.name, "epochs": looks}, path)
    for number, data in enumerate(DATA):
        counted = {name: {"hr@10": 0.01 * (number + 1), "ndcg@10": 0.005} for name in BASELINES}
        missed = {name: {key: value / 2 for key, value in own.items()} for name, own in counted.items()}
        write({"digest": "0" * 64, "baselines": counted, "missed": missed}, results / "data" / f"{data}.json")
        head, cold = np.arange(USERS) < USERS // 4, np.arange(USERS) % 2 == 0
        repeated = (np.arange(USERS) < USERS // 10) & (data == "Yelp")
        members = {"head": head, "tail": ~head, "cold": cold, "warm": ~cold, "new": ~repeated}
        members["repeated"] = repeated
        np.savez_compressed(results / "data" / f"{data}.npz", **members)
    return results
