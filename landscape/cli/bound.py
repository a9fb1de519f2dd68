"""`landscape bound`: what the loss of the training users says about other users, by theory."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from landscape.cli.options import CheckpointOptions, with_options
from landscape.cli.output import Table, lines, show, values

if TYPE_CHECKING:
    from landscape.flatness.bounds import Bound, Posterior


@with_options
def command(
    *,
    prior: Annotated[
        Literal["zero", "initial"],
        typer.Option(help="Mean of the prior: 0, or the weights that training started from."),
    ] = "zero",
    delta: Annotated[float, typer.Option(help="Probability with which a bound may fail.")] = 0.05,
    samples: Annotated[int, typer.Option(min=1, help="Minimum number of draws from each posterior.")] = 400,
    users: Annotated[
        int | None, typer.Option(min=1, help="Number of users the bound rests on (default: all).")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="Loss to bound, in [0, 1] for each user (or unit of your own task).")
    ] = "pairwise",
    guess: Annotated[float, typer.Option(help="Loss of a random guess.")] = 0.5,
    out: Annotated[Path | None, typer.Option(help="Folder to save the results in.")] = None,
    of: CheckpointOptions,
) -> None:
    """Bound the ranking loss of noisy weights on other users (PAC-Bayes), and say if it is vacuous.

    The loss is the share of a user's training positions at which a random item scores at least as high as the
    next item; name another loss of your own task with --metric. All parameters are perturbed: parameters held
    fixed would depend on the users too.

    Examples:

      landscape bound --ckpt runs/sasrec/best.pt --ckpt runs/samrec/best.pt

      landscape bound --ckpt runs/sasrec/best.pt --prior initial --samples 1000 --out bounds

      landscape bound --ckpt resnet.pt --task mytask:objective --metric error --guess 0.9
    """
    from landscape.flatness.bounds import pac_bayes_bound
    from landscape.tasks import initial_of, joined

    if out is not None:
        of.hold(out)
    results: dict[str, Bound] = {}
    starts = {name: initial_of(path, of.task) for name, path in of.checkpoints.items() if prior == "initial"}
    for name, objective in of.objectives(users=users, metric=metric).items():
        mean = joined(starts[name], of.checkpoints[name], objective) if starts else None
        found = pac_bayes_bound(objective, mean, delta=delta, samples=samples, guess=guess, seed=of.seed)
        results[name] = replace(found, settings={**found.settings, "prior": prior, "metric": metric})
        if out is not None:
            results[name].save(out / f"{name}.bound.npz")
    entries = [
        {"path": str(of.checkpoints[name]), **values(found)}
        | {"posteriors": found.posteriors, "vacuous": found.vacuous, "statement": found.statement}
        for name, found in results.items()
    ]
    statements = lines(f"{name}: {found.statement}\n" for name, found in results.items())
    show(of.json, {"checkpoints": entries}, _lowest(results, prior), *statements)


def _worth(row: "Posterior") -> str:
    return "trivial" if row.trivial else "vacuous" if row.vacuous else "not vacuous"


_LOWEST: Mapping[str, Callable[["Posterior"], str]] = {
    "bound": lambda row: f"{row.bound:.4f} ({_worth(row)})",
    "at σ": lambda row: f"{row.sigma:.4g}",
    "loss under Q": lambda row: f"{row.loss:.4f}",
    "KL / m": lambda row: f"{row.kl_per_unit:.4g}",
    "KL too large": lambda row: f"{row.excess:.3g} × (σ = {row.excess_sigma:.4g})",
}


def _lowest(results: "Mapping[str, Bound]", prior: str) -> Table:
    """Return a table with one column per checkpoint: the lowest bound of each kind of posterior."""
    first = next(iter(results.values()))
    units = "users" if first.settings["metric"] == "pairwise" else "units"
    return Table(
        f"PAC-Bayes bounds ({first.settings['metric']} loss, prior at {prior}, m = {first.units:,} {units}, "
        f"δ = {first.settings['delta']:g}; a random guess has a loss of {first.guess:g})",
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
