"""`landscape bound`: what the loss of the training users says about other users, by theory."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from landscape.cli.options import CheckpointOptions, with_options
from landscape.cli.output import named, show, values, written
from landscape.runtime.arguments import MOST

if TYPE_CHECKING:
    from landscape.flatness.bounds import Bound


@with_options
def command(
    *,
    prior: Annotated[
        Literal["zero", "initial"],
        typer.Option(help="Mean of the prior: 0, or the weights that training started from."),
    ] = "zero",
    delta: Annotated[float, typer.Option(help="Probability with which a bound may fail.")] = 0.05,
    samples: Annotated[
        int, typer.Option(min=1, max=MOST, help="Minimum number of draws from each posterior.")
    ] = 400,
    users: Annotated[
        int | None,
        typer.Option(min=1, max=2**63 - 1, help="Number of users the bound rests on (default: all)."),
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
    from landscape.plots.tables import of_bounds
    from landscape.tasks import initial_of, joined

    if out is not None:
        of.hold(out)
    results: dict[str, Bound] = {}
    files: list[Path] = []
    starts = {name: initial_of(path, of.task) for name, path in of.checkpoints.items() if prior == "initial"}
    for name, objective in of.objectives(users=users, metric=metric).items():
        mean = joined(starts[name], of.checkpoints[name], objective) if starts else None
        found = pac_bayes_bound(objective, mean, delta=delta, samples=samples, guess=guess, seed=of.seed)
        results[name] = replace(found, settings={**found.settings, "prior": prior, "metric": metric})
        if out is not None:
            files.append(results[name].save(out / f"{name}.bound.npz"))
    entries = [
        {"path": str(of.checkpoints[name]), **values(found)}
        | {"posteriors": found.posteriors, "vacuous": found.vacuous, "statement": found.statement}
        for name, found in results.items()
    ]
    show(of.json, {"checkpoints": entries} | named(files), *of_bounds(results), *written(files))
