"""`landscape train`: a sequential recommender on a file of interactions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from landscape.cli.options import Device, Json, by_ranks
from landscape.cli.output import show
from landscape.runtime.table import Table, metric_name
from samrec.choices import METRICS, Log
from samrec.cli.options import MaxMemory, ShardItems, some_of
from samrec.cli.settings import with_settings

if TYPE_CHECKING:
    from samrec.training.run import Outcome


@with_settings()
@by_ranks
def command(
    settings: dict[str, Any],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run (default: runs/DATA-METHOD-seedN).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; the options given here take precedence.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    shard_items: ShardItems = False,
    max_memory: MaxMemory = None,
    log: Annotated[
        list[str] | None, some_of(Log, "Also log metrics by epoch, settings and the final table there")
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a model, keep the epoch with the best validation NDCG@10, and evaluate it on the test items.

    Methods: sasrec; samrec, SASRec with Sharpness-Aware Minimization; cl4srec, with a contrastive loss of
    augmented views; s3rec, pre-trained by self-supervision (s3rec-pretraining is that alone), then trained
    as SASRec; bert4rec, which sees both sides and learns from masked items; gru4rec, a recurrent baseline.

    --split leave-one-out holds out each user's last item for the test, and the one before for validation.
    time:DATE tests each user's first item from DATE on, validates the last before it, and trains on the rest
    before it; time:DATE,DATE validates the first item between the dates, and trains on what is before both.
    ratio:.8,.1,.1 cuts each user's history, and asks for the first item of each part.

    Writes best.pt, best.safetensors (its weights alone), last.pt, metrics.jsonl and config.toml; with
    --save-every also epochs/epoch-NNNN.pt, from the initial weights (0) to the last epoch; with --monitor
    also monitor.jsonl, the largest Hessian eigenvalues. SIGTERM and Ctrl-C end the run after the current
    step, and --resume continues it bit for bit. --log tensorboard writes to OUT/tensorboard; wandb and mlflow
    log where their environment variables say. A resumed run continues the same logs. A logger that fails
    only causes a warning.

    Examples:

      landscape train --data Beauty.txt --out runs/sasrec

      landscape train --data Beauty.txt --method samrec --rho 0.1 --out runs/samrec

      landscape train --data ratings.csv --split time:2014-01-01,2014-03-01 --out runs/2014

      landscape train --out runs/sasrec --epochs 600 --resume

      torchrun --nproc-per-node 2 -m landscape train --data Beauty.txt --out runs/sasrec
    """
    from samrec.config import FILES, combined, configure
    from samrec.data.claims import claimed_path
    from samrec.training.loop import train

    if config is None and resume and out is not None and (out / "config.toml").exists():
        config = out / "config.toml"
        known = combined(config, {})
        for name in FILES:
            if known.get(name) and name not in settings:
                claimed_path(Path(known[name]), out, str(config), f"--{name.replace('_', '-')}")
    told_to = cast(list[Log], log or [])
    chosen = configure(combined(config, settings))
    outcome = train(chosen, out, device, resume, shard_items, max_memory, told_to)
    told = ("epochs", "best_epoch", "seconds", "seconds_per_epoch", "losses", "valid", "test")
    show(
        json,
        {"out": str(outcome.out), **{name: getattr(outcome, name) for name in told}},
        _ranked(outcome) if outcome.test else _pretrained(outcome),
    )


def _ranked(outcome: "Outcome") -> Table:
    return Table(
        f"{outcome.out}: best epoch {outcome.best_epoch} of {outcome.epochs} ({_time(outcome)})",
        ["", *map(metric_name, METRICS)],
        [
            [part, *(f"{values[m]:.4f}" for m in METRICS)]
            for part, values in (("validation", outcome.valid), ("test", outcome.test))
        ],
    )


def _pretrained(outcome: "Outcome") -> Table:
    return Table(
        f"{outcome.out}: {outcome.epochs} epochs of pre-training ({_time(outcome)})",
        ["", *outcome.losses],
        [["losses", *(f"{value:.4f}" for value in outcome.losses.values())]],
    )


def _time(outcome: "Outcome") -> str:
    return f"{outcome.seconds:.0f} s, {outcome.seconds_per_epoch:.2f} s per epoch"
