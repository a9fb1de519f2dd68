"""`landscape sweep`: many runs, over every combination of settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.options import Device, Json, not_with
from landscape.cli.output import show
from landscape.errors import InputError
from landscape.runtime.table import Table, metric_name
from samrec.cli.options import MaxMemory, listed

if TYPE_CHECKING:
    from samrec.sweeps.jobs import Job

SHOWN = ("hr@10", "ndcg@10")


def command(
    out: Annotated[Path, typer.Option(help="Folder of the sweep, with one folder per run.")],
    vary: Annotated[
        list[str],
        typer.Option(
            help="Setting of train and its values, NAME=V1,V2,… (repeatable: all combinations are run); "
            "quote a value with commas in it."
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="File of interactions, as for train.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings that all runs share.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Setting that all runs share, NAME=VALUE (repeatable).")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes at once (default: one per core; on a GPU, one batched model)."),
        not_with("--ray"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster to run on: HOST:PORT, or auto for the one that this machine is part of.",
        ),
    ] = None,
    max_memory: MaxMemory = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs and which are done; train nothing.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**63 - 1, help="Random seed of all runs (default: that of the settings, or 0)."
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train every combination of the varied settings, and tabulate the test metrics over seeds.

    Finished runs are not repeated, and interrupted ones continue: give the same command again after an
    interruption, or with more values. Settings have the names of the options of train, with _ in place of -.
    --seed applies to all runs, and takes precedence over the settings' own.

    Examples:

      landscape sweep --data Beauty.txt --vary method=sasrec,samrec --vary seed=0,1,2 --out sweeps/seeds

      landscape sweep --data Beauty.txt --set method=samrec --vary rho=0.01,0.05,0.1,0.2 --out sweeps/rho

      landscape sweep --config base.toml --vary train_fraction=0.2,0.4,0.6,0.8,1 --jobs 2 --out sweeps/data

      landscape sweep --data /shared/Beauty.txt --vary seed=0,1,2,3 --out /shared/sweeps/seeds --ray auto
    """
    from samrec.config import combined
    from samrec.sweeps.jobs import plan
    from samrec.sweeps.sweep import sweep

    names = [name for name, _ in map(_pair, [*(set_ or []), *vary])] + ["data"] * bool(data)
    if seed is not None and any(name == "seed" for name, _ in map(_pair, vary)):
        raise InputError("--seed has no effect with --vary seed; leave one of them out")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{twice[0]} is given twice; name all its values once: --vary {twice[0]}=V1,V2")
    given = dict(map(_pair, set_ or [])) | ({"data": str(data)} if data else {})
    settings = combined(config, given)
    settings = {"seed": 0} | settings | ({} if seed is None else {"seed": seed})
    planned = plan(settings, {name: listed(values) for name, values in map(_pair, vary)}, out)
    if dry_run:
        done = {job.name: job.result() is not None for job in planned}
        show(
            json,
            {"runs": [{"run": name, "done": over} for name, over in done.items()]},
            Table(
                "Runs", ["run", "state"], [[name, "done" if over else "to do"] for name, over in done.items()]
            ),
        )
        return
    sweep(planned, device, jobs, ray=ray, max_memory=max_memory)
    groups = _over_seeds(planned)
    runs = [job.row for job in planned]
    show(
        json,
        {"out": str(out), "runs": runs, "over_seeds": groups},
        _table(groups, f"{out}: {len(runs)} runs"),
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise InputError(f"{text!r} is not NAME=VALUE, such as rho=0.1")
    return name.replace("-", "_"), value


def _over_seeds(jobs: "Sequence[Job]") -> list[dict[str, Any]]:
    """Return what the runs that differ in their seed alone share, and what came of them on average."""
    from statistics import mean, stdev

    groups: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
    for job in jobs:
        shared = tuple((name, value) for name, value in job.varied.items() if name != "seed")
        groups.setdefault(shared, []).append(job.row)
    return [
        {
            "settings": dict(shared),
            "runs": len(rows),
            "best_epoch": mean(row["best_epoch"] for row in rows),
            "mean": {metric: mean(row["test"][metric] for row in rows) for metric in rows[0]["test"]},
            "standard_deviation": {
                metric: stdev(row["test"][metric] for row in rows) if len(rows) > 1 else None
                for metric in rows[0]["test"]
            },
        }
        for shared, rows in groups.items()
    ]


def _table(groups: Sequence[Mapping[str, Any]], title: str) -> Table:
    def shown(group: Mapping[str, Any], metric: str) -> str:
        spread = group["standard_deviation"][metric]
        return f"{group['mean'][metric]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")

    return Table(
        f"{title}, test, mean ± standard deviation over seeds",
        ["", "runs", *map(metric_name, SHOWN), "epoch"],
        [
            [
                ", ".join(f"{name} {value}" for name, value in group["settings"].items()) or "all",
                str(group["runs"]),
                *(shown(group, metric) for metric in SHOWN),
                f"{group['best_epoch']:.0f}",
            ]
            for group in groups
        ],
    )
