"""`python -m figures.run [NAME …]`: train and measure what the figures are drawn from; a second call goes on.

    python -m figures.run --data DATA --list            what is there, what is missing, how long it takes
    python -m figures.run --data DATA --work runs       everything that is missing
    python -m figures.run --data DATA planes sharpness  only what has such a name
    python -m figures.run --data DATA --ablation        which architecture SASRec should have by default

DATA is a folder with Beauty.txt and the other files. On a GPU the study is larger: see `figures.plan.SCALES`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.where import where
from figures.ablation import ablation
from figures.measure import Bench, Measurement, measurements
from figures.plan import SCALES, Scale, Training, trainings
from figures.records import Record, read_records, write_record
from landscape.errors import InputError
from landscape.runtime import progress
from landscape.runtime.devices import device_named
from samrec.checkpoint import load
from samrec.evaluation import metrics
from samrec.sweeps.jobs import Job
from samrec.sweeps.sweep import sweep
from samrec.task import ranking
from samrec.training.log import read_log

RESULTS = Path(__file__).parent / "results"


def train(
    wanted: Sequence[Training], bench: Bench, device: str = "auto", processes: int | None = None
) -> None:
    """Train runs, and record each as it ends; what is trained already is only recorded."""
    jobs = {
        run.name: Job(
            {k: str(v) for k, v in run.settings.items()}, run.config(bench.data), bench.work / run.name
        )
        for run in wanted
    }
    by_name = {run.name: run for run in wanted}

    def ended(job: Job) -> None:
        record(by_name[job.name], bench)

    for job in jobs.values():
        if job.result() is not None:
            ended(job)
    pending = [job for job in jobs.values() if job.result() is None]
    if pending:
        sweep(pending, device, processes, ended)


def record(run: Training, bench: Bench, on: dict[str, object] | None = None) -> Record:
    """Write down what came of a run; `on` says where it was trained, if not here and now."""
    folder = bench.work / run.name
    best = load(folder / "best.pt")
    ranks = ranking(folder / "best.pt", "test", bench.data / f"{run.data}.txt", bench.device).ranks
    lines = [line for line in read_log(folder / "metrics.jsonl") if "loss" in line]
    log, seconds = [], 0.0
    for line in lines:
        seconds += line["seconds"]
        if "valid" in line:
            reached = {key: line["valid"][key] for key in ("hr@10", "ndcg@10")}
            log.append(
                {"epoch": line["epoch"], "seconds": round(seconds, 1), "loss": line["loss"], **reached}
            )
    found = Record(
        name=run.name,
        command=run.command,
        data=run.data,
        digest=best.digest,
        settings={key: value for key, value in best.config.settings.items() if key != "data"},
        where=dict(on or where()),
        epochs=lines[-1]["epoch"],
        best_epoch=best.epoch,
        log=log,
        valid=best.valid,
        test=metrics(ranks),
    )
    write_record(found, ranks, bench.results)
    return found


def plan(
    scale: Scale, bench: Bench, names: Sequence[str] = ()
) -> tuple[list[Training], list[Measurement], dict[str, Record]]:
    """Return what is missing: runs, and measurements of runs that are there; and what is recorded."""
    records = read_records(bench.results)
    runs = [run for run in trainings(scale, records) if run.name not in records and _asked(run.name, names)]
    missing = [
        m
        for m in measurements(scale, records)
        if not m.path(bench.results).exists() and _asked(m.name, names)
    ]
    return runs, missing, records


def _asked(name: str, names: Sequence[str]) -> bool:
    return not names or any(part in name for part in names)


def show(scale: Scale, bench: Bench, device: str, names: Sequence[str]) -> None:
    """Print what is missing, and about how long it takes."""
    runs, missing, records = plan(scale, bench, names)
    cores = os.cpu_count() or 1
    known = device == "cpu"
    print(f"{len(records)} runs are recorded; to do on {device}, {cores} cores:")
    rows = [(f"train   {run.name}", run.cpu_seconds / cores) for run in runs]
    rows += [(f"measure {m.name}", m.cpu_seconds) for m in missing]
    for name, seconds in rows:
        print(f"{seconds / 60:7.1f} min  {name}" if known else f"        {name}")
    total = sum(seconds for _, seconds in rows) / 60
    print(f"{total:7.1f} min in all" if known else "how long it takes on a GPU has not been measured")
    if not names and len(trainings(scale, records)) == len(trainings(scale, {})):
        print("runs with the best trials' settings come when all trials are recorded")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only what has one of these in its name")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("LANDSCAPE_DATA"), help="folder of the data"
    )
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder of the checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, help="runs at once on a CPU; one a core if not given")
    parser.add_argument("--ablation", action="store_true", help="only the ablation of architectures")
    parser.add_argument("--list", action="store_true", help="only say what is missing")
    asked = parser.parse_args(arguments)
    if asked.data is None:
        parser.error("give --data FOLDER, or set LANDSCAPE_DATA")
    try:
        device = device_named(asked.device).type
        scale = SCALES[device]
        bench = Bench(asked.work, Path(asked.data), asked.results, device)
        if asked.ablation:
            bench = replace(bench, results=asked.results / "ablation")
            known = read_records(bench.results)
            train([run for run in ablation() if run.name not in known], bench, device, asked.processes)
            return
        if asked.list:
            show(scale, bench, device, asked.names)
            return
        while (found := plan(scale, bench, asked.names))[0]:
            train(found[0], bench, device, asked.processes)
        missing = found[1]
        with progress.bar("measure", len(missing)) as advance:
            for measurement in missing:
                if gone := [run.name for run in measurement.runs if not bench.best(run).exists()]:
                    print(f"{measurement.name}: no checkpoint of {gone[0]} in {bench.work}", file=sys.stderr)
                else:
                    measurement.make(bench, measurement.name)
                advance(measurement.name)
    except InputError as error:
        sys.exit(f"figures: {error}")


if __name__ == "__main__":
    main()
