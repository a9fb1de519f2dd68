"""`python -m figures.run`: train, record and measure what the study needs; a second call goes on.

    python -m figures.run --data DATA --list              what is missing, and how long it takes
    python -m figures.run --data DATA --stage main        one stage; give --stage again for several
    python -m figures.run --data DATA --stage tuning beauty.bce.samrec    only what has such a name
    python -m figures.run --data DATA --landscapes        surfaces, spectra and barriers of one pair of runs
    python -m figures.run --data DATA --counts            what counting reaches, and which users are alike
    python -m figures.run --data DATA --ablation          which architecture SASRec should have by default

DATA is a folder with Beauty.txt and the other files. Each run is recorded, and its minimum measured, right
after its training; then of its checkpoints only the best and the last are kept.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.where import where
from figures.ablation import ablation
from figures.datasets import describe, described
from figures.measure import Bench, Measurement, landscapes, minimum_of, trajectory_of
from figures.plan import DATA, SEEDS, STAGES, Training, by_stage, cut_off, ranked, trainings
from figures.records import ELSEWHERE, Record, read_records, write_record
from figures.stopping import stopped
from landscape.errors import InputError
from landscape.runtime import progress
from landscape.runtime.devices import device_named
from samrec.checkpoint import kept, load
from samrec.config import Config, configure
from samrec.data.interactions import Ints
from samrec.evaluation import metrics
from samrec.sweeps.jobs import Job
from samrec.sweeps.sweep import sweep
from samrec.task import ranking
from samrec.training.log import read_log
from samrec.training.loop import train as pretrain

RESULTS = Path(__file__).parent / "results"
PAIR_DATA = "Beauty"


def train(wanted: Sequence[Training], bench: Bench, device: str = "auto", processes: int = 1) -> None:
    """Train runs, and record and measure each as it ends; what is trained already is not trained again."""
    first = [run for run in wanted if not run.before]
    for batch in ([first] if first else []) + [[run] for run in wanted if run.before]:
        by_name = {run.name: run for run in batch}

        def ended(job: Job, by_name: Mapping[str, Training] = by_name) -> None:
            finish(by_name[job.name], bench)

        jobs = [_job(run, bench, device) for run in batch]
        for job in jobs:
            if job.result() is not None:
                ended(job)
        if pending := [job for job in jobs if job.result() is None]:
            sweep(pending, device, processes, ended)


def _job(run: Training, bench: Bench, device: str) -> Job:
    """Return what trains a run, pre-trained if that is needed."""
    out = bench.work / run.name
    begins = None
    if run.before:
        folder = bench.work / f"{run.name}.pretraining"
        pretrain(configure({"data": str(bench.data / f"{run.data}.txt"), **run.before}), folder, device, True)
        begins = folder / "last.pt"
    return Job({key: str(value) for key, value in run.settings.items()}, run.config(bench.data, begins), out)


def finish(run: Training, bench: Bench) -> None:
    """Record a run that has ended and measure its minimum, then drop the checkpoints of its epochs.

    What was measured of a run that is not recorded may be of an earlier training, so it is measured again.
    """
    found, ranks = recorded(run, bench)
    todo = [minimum_of(found)] if run.measured else []
    if run.name in (pair.name for pair in _pair(SEEDS[:1])):
        todo.append(trajectory_of(found))
    for measurement in todo:
        measurement.make(bench, measurement.name)
    write_record(found, ranks, bench.results)  # last: what is recorded is not looked at again
    shutil.rmtree(bench.work / run.name / "epochs", ignore_errors=True)


def recorded(run: Training, bench: Bench) -> tuple[Record, dict[int, Ints]]:
    """Return what came of a run, and under each of its rules the ranks of the best and the late epochs."""
    folder, data = bench.work / run.name, bench.data / f"{run.data}.txt"
    best = load(folder / "best.pt")
    trained, planned = (_trained(config) for config in (best.config, run.config(bench.data)))
    if changed := [key for key in planned if trained.get(key) != planned[key]]:
        raise InputError(f"{folder} holds a run with other settings: {', '.join(changed)}; move it away")
    lines = [line for line in read_log(folder / "metrics.jsonl") if "loss" in line]
    log, seconds = [], 0.0
    for line in lines:
        seconds += line["seconds"]
        if "valid" in line:
            told = {"loss": line["loss"], **line["valid"]}
            reached = {key: round(value, 6) for key, value in told.items() if value is not None}
            log.append({"epoch": line["epoch"], "seconds": round(seconds, 1), **reached})
    checkpoints = kept(folder) | {best.epoch: folder / "best.pt"}
    under = [stopped(log, rule) for rule in (run.rule, *run.rules)]
    epochs = {best.epoch}
    if best.config.save_every:
        epochs |= {epoch for end in under for epoch in (end.best, *end.late)}
    if lacking := sorted(epochs - checkpoints.keys()):
        raise InputError(f"{folder} has no checkpoint of epoch {lacking[0]}, which is to be ranked")
    ranks = {epoch: ranking(checkpoints[epoch], "test", data, bench.device).ranks for epoch in sorted(epochs)}
    found = Record(
        name=run.name,
        command=run.command,
        data=run.data,
        digest=best.digest,
        settings=trained,
        where=where(),
        epochs=lines[-1]["epoch"],
        best_epoch=best.epoch,
        log=log,
        valid=best.valid,
        test=metrics(ranks[best.epoch]),
    )
    return found, ranks


def _trained(config: Config) -> dict[str, Any]:
    """Return what settings say of a training, wherever its files lie."""
    return {key: value for key, value in config.settings.items() if key not in ELSEWHERE}


def missing(stages: Sequence[str], bench: Bench, names: Sequence[str] = ()) -> list[Training]:
    """Return the runs of some stages that are not recorded, or were ended by a limit that was shorter."""
    records = read_records(bench.results)
    return [
        run
        for name, run in trainings(stages, records).items()
        if (name not in records or cut_off(records[name], run))
        and (not names or any(part in name for part in names))
    ]


def _pair(seeds: Sequence[int]) -> list[Training]:
    """Return the runs whose landscapes are drawn: SASRec's, then SAMRec's."""
    return [ranked(PAIR_DATA, method, seed) for method in ("sasrec", "samrec") for seed in seeds]


def pictured(bench: Bench) -> list[Measurement]:
    """Return what is to be measured for the landscapes of one pair of runs, and of a second one.

    Raises:
        InputError: one of the runs is not recorded.
    """
    records = read_records(bench.results)
    runs = _pair(SEEDS[:2])
    if lacking := [run.name for run in runs if run.name not in records]:
        raise InputError(f"{lacking[0]} is not recorded; run --stage main first")
    found = [records[run.name] for run in runs]
    todo = landscapes(found[:2], found[2:])
    return [measurement for measurement in todo if not measurement.path(bench.results).exists()]


def picture(bench: Bench) -> None:
    """Measure the landscapes, of the checkpoints that are still there."""
    todo = pictured(bench)
    with progress.bar("measure", len(todo)) as advance:
        for measurement in todo:
            if gone := [run.name for run in measurement.runs if not bench.best(run).exists()]:
                print(f"{measurement.name}: no checkpoint of {gone[0]} in {bench.work}", file=sys.stderr)
            else:
                measurement.make(bench, measurement.name)
            advance(measurement.name)


def show(stages: Sequence[str], bench: Bench, names: Sequence[str]) -> None:
    """Print what is missing, and about how long it takes on one core."""
    records = read_records(bench.results)
    wanted = {run.name for run in missing(stages, bench, names)}
    print(f"{len(records)} runs are recorded; to do, on one core:")
    total = 0.0
    for stage, known in by_stage(records, stages).items():
        runs = [run for run in known if run.name in wanted]
        hours = sum(run.core_seconds for run in runs) / 3600
        print(f"{hours:7.1f} h    {stage}, {len(runs)} runs")
        for run in runs:
            print(f"{run.core_seconds / 60:7.0f} min  {run.name}")
        total += hours
    print(f"{total:7.1f} h    in all")
    if "tuned" in stages and wanted & trainings(["tuning"], records).keys():
        print("the runs of stage tuned are known when those of tuning are recorded: 24 runs at most")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only runs with one of these in their name")
    parser.add_argument("--stage", action="append", choices=STAGES, help="only this stage; may be repeated")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("LANDSCAPE_DATA"), help="folder of the data"
    )
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder of the checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=1, help="runs at once (default: 1)")
    parser.add_argument("--landscapes", action="store_true", help="only the landscapes of one pair of runs")
    parser.add_argument("--counts", action="store_true", help="only what needs no training")
    parser.add_argument("--ablation", action="store_true", help="only the ablation of architectures")
    parser.add_argument("--list", action="store_true", help="only say what is missing")
    asked = parser.parse_args(arguments)
    if asked.data is None:
        parser.error("give --data FOLDER, or set LANDSCAPE_DATA")
    stages = asked.stage or list(STAGES)
    try:
        device = device_named(asked.device).type
        bench = Bench(asked.work, Path(asked.data), asked.results, device)
        if asked.list:
            show(stages, bench, asked.names)
            sys.stdout.flush()
        elif asked.landscapes:
            picture(bench)
        elif asked.counts:
            for name in DATA:
                if not described(name, asked.results):
                    describe(name, bench)
        elif asked.ablation:
            bench = replace(bench, results=asked.results / "ablation")
            known = read_records(bench.results)
            train([run for run in ablation() if run.name not in known], bench, device, asked.processes)
        else:
            while wanted := missing(stages, bench, asked.names):
                train(wanted, bench, device, asked.processes)
    except InputError as error:
        sys.exit(f"figures: {error}")
    except BrokenPipeError:  # the reader has gone: `--list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
