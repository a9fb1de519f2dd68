"""`landscape train`: SASRec or SAMRec on a file of interactions."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from landscape.cli.options import Columns, Device, Format, Json
from landscape.cli.output import Table, show

METRICS = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr")


def command(
    data: Annotated[
        Path | None, typer.Option(help="Sequence lines, pairs, or a table; see landscape data info --help.")
    ] = None,
    method: Annotated[
        Literal["sasrec", "samrec"] | None, typer.Option(help="samrec is SASRec with SAM.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/DATA-METHOD-seedN if not given.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; options here win over it.")
    ] = None,
    rho: Annotated[float | None, typer.Option(help="SAM's radius ρ (samrec; default 0.1).")] = None,
    loss: Annotated[
        Literal["bce", "ce"] | None, typer.Option(help="BCE with one negative (bce), or CE over all items.")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Width d of the model (64).")] = None,
    max_length: Annotated[int | None, typer.Option(help="Longest history L (50).")] = None,
    layers: Annotated[int | None, typer.Option(help="Transformer layers (2).")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads a layer (2).")] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout (0.5).")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many epochs (400).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Users a batch (256).")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate (1e-3).")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Adam's weight decay (0).")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Epochs between validations (5).")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better NDCG@10 (100).")
    ] = None,
    format: Annotated[Format | None, typer.Option(help="Of the data (auto).")] = None,
    columns: Columns = None,
    deduplicate: Annotated[
        bool | None, typer.Option("--deduplicate", help="Keep a user's first interaction with an item only.")
    ] = None,
    core: Annotated[
        int | None, typer.Option(help="Leave out users and items with fewer interactions (0).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn (0).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train a model, keep its best epoch by validation NDCG@10, and evaluate that on the test items.

    Writes best.pt, last.pt, metrics.jsonl and config.toml.

    Examples:

      landscape train --data Beauty.txt --out runs/sasrec

      landscape train --data Beauty.txt --method samrec --rho 0.1 --out runs/samrec

      landscape train --out runs/sasrec --epochs 600 --resume
    """
    from landscape.errors import InputError
    from samrec.config import configure, read_settings
    from samrec.training import train

    given: dict[str, Any] = {
        "data": None if data is None else str(data),
        "method": method,
        "rho": rho,
        "loss": loss,
        "dim": dim,
        "max_length": max_length,
        "layers": layers,
        "heads": heads,
        "dropout": dropout,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "eval_every": eval_every,
        "patience": patience,
        "format": format,
        "columns": columns,
        "deduplicate": deduplicate,
        "core": core,
        "seed": seed,
    }
    if config is None and resume and out is not None and (out / "config.toml").exists():
        config = out / "config.toml"
    settings = (read_settings(config) if config else {}) | {k: v for k, v in given.items() if v is not None}
    if "data" not in settings:
        raise InputError("nothing to train on: give --data FILE, or --config FILE with data in it")
    outcome = train(configure(settings), out, device, resume)
    show(
        json,
        {
            "out": str(outcome.out),
            "epochs": outcome.epochs,
            "best_epoch": outcome.best_epoch,
            "seconds": outcome.seconds,
            "seconds_per_epoch": outcome.seconds_per_epoch,
            "valid": outcome.valid,
            "test": outcome.test,
        },
        Table(
            f"{outcome.out}: best of {outcome.epochs} epochs is {outcome.best_epoch} "
            f"({outcome.seconds:.0f} s, {outcome.seconds_per_epoch:.2f} s an epoch)",
            ["", *METRICS],
            [
                [part, *(f"{values[m]:.4f}" for m in METRICS)]
                for part, values in (("validation", outcome.valid), ("test", outcome.test))
            ],
        ),
    )
