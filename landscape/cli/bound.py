"""`landscape bound`: what the training users tell of others, by theory."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscape.cli import options
from landscape.cli.options import Checkpoints, Data, Device, Json, Seed, Task
from landscape.cli.output import Table, show
from landscape.tasks import TaskOptions

if TYPE_CHECKING:
    from landscape.flatness.bounds import Bound


def command(
    context: typer.Context,
    ckpt: Checkpoints,
    prior: Annotated[
        Literal["zero", "initial"],
        typer.Option(help="The prior's mean: 0, or the weights that training began from."),
    ] = "zero",
    delta: Annotated[float, typer.Option(help="Probability with which a bound may fail.")] = 0.05,
    samples: Annotated[int, typer.Option(min=1, help="Draws from each posterior, at least.")] = 400,
    users: Annotated[
        int | None, typer.Option(min=1, help="How many users the bound rests on; all of them if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to save the results in.")] = None,
    metric: Annotated[
        str, typer.Option(help="The loss, in [0, 1] for each unit; of a task of your own, what it calls so.")
    ] = "pairwise",
    guess: Annotated[
        float, typer.Option(help="The loss reached without having learned, as by a random answer.")
    ] = 0.5,
    data: Data = None,
    task: Task = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Bound the ranking loss of noisy weights on other users (PAC-Bayes), and say what the bound is worth.

    The loss is the share of a user's training positions at which a random item scores at least what the next
    one does; a task of your own names its loss by --metric. All parameters take part: what is held still
    would depend on the users too.

    Examples:

      landscape bound --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt

      landscape bound --ckpt runs/sasrec/best.pt --prior initial --samples 1000 --out bounds

      landscape bound --ckpt resnet.pt --task mytask:objective --metric error --guess 0.9
    """
    from landscape.flatness.bounds import pac_bayes_bound
    from landscape.tasks import initial_of, joined, objectives_of

    if out is not None:
        options.hold(context, out)
    names = options.names_of(ckpt)
    settings = TaskOptions(users, seed, device, data, metric=metric)
    results: dict[str, Bound] = {}
    starts = [initial_of(path, task) if prior == "initial" else None for path in ckpt]
    objectives = objectives_of(ckpt, settings, task)
    means = [
        None if start is None else joined(start, path, objective)
        for start, path, objective in zip(starts, ckpt, objectives, strict=True)
    ]
    for name, objective, mean in zip(names, objectives, means, strict=True):
        found = pac_bayes_bound(objective, mean, delta=delta, samples=samples, guess=guess, seed=seed)
        results[name] = replace(found, settings={**found.settings, "prior": prior, "metric": metric})
        if out is not None:
            results[name].save(out / f"{name}.bound.npz")
    show(
        json,
        {
            "checkpoints": [
                {
                    "path": str(path),
                    "loss": found.loss,
                    "units": found.units,
                    "guess": found.guess,
                    "distance": found.distance,
                    "posteriors": found.posteriors,
                    "vacuous": found.vacuous,
                    "statement": found.statement,
                    "seconds": found.seconds,
                }
                for path, found in zip(ckpt, results.values(), strict=True)
            ]
        },
        _lowest(results, prior),
        *(Table(f"{name}: {found.statement}\n", [], []) for name, found in results.items()),
    )


def _worth(row: Mapping[str, Any]) -> str:
    return "trivial" if row["trivial"] else "vacuous" if row["vacuous"] else "not vacuous"


_LOWEST: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "bound": lambda row: f"{row['bound']:.4f} ({_worth(row)})",
    "at σ": lambda row: f"{row['sigma']:.4g}",
    "loss under Q": lambda row: f"{row['loss']:.4f}",
    "KL / m": lambda row: f"{row['kl_per_unit']:.4g}",
    "KL too large": lambda row: f"{row['excess']:.3g} × (σ = {row['excess_sigma']:.4g})",
}


def _lowest(results: "Mapping[str, Bound]", prior: str) -> Table:
    """A column a checkpoint: the lowest bound of each kind of posterior, and by how much KL is too large."""
    first = next(iter(results.values()))
    units = "users" if first.settings["metric"] == "pairwise" else "units"
    return Table(
        f"PAC-Bayes bounds ({first.settings['metric']} loss, prior at {prior}, m = {first.units:,} {units}, "
        f"δ = {first.settings['delta']:g}; a guess reaches {first.guess:g})",
        ["", *results],
        [
            ["L(θ)", *(f"{found.loss:.4f}" for found in results.values())],
            ["‖θ - θ0‖", *(f"{found.distance:.1f}" for found in results.values())],
            *(
                [f"{kind}: {label}", *(write(found.posteriors[kind]) for found in results.values())]
                for kind in first.kinds
                for label, write in _LOWEST.items()
            ),
        ],
    )
