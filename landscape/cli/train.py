"""`landscape train`: a sequential recommender on a file of interactions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.cli.options import (
    Columns,
    Device,
    Encoding,
    Json,
    MinRating,
    Quote,
    Separator,
    ShardItems,
    TimeFormat,
)
from landscape.cli.output import Table, show, stoppable
from samrec.choices import Ascent, Format, Loss, Method, Perturb, Precision, Preset, Schedule

if TYPE_CHECKING:
    from samrec.run import Outcome

LOSS, MODEL, STEPS, OF_SAM, VIEWS, PRETRAINING, DATA = (
    {"rich_help_panel": panel}
    for panel in (
        "Loss",
        "Model",
        "Training",
        "Sharpness-Aware Minimization (samrec; any other method but sasrec, where --rho is given)",
        "Contrast of views (cl4srec)",
        "Pre-training (s3rec, s3rec-pretraining)",
        "Data",
    )
)
METRICS: tuple[str, ...] = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr")


def command(
    data: Annotated[
        Path | None, typer.Option(help="Sequence lines, pairs, or a table; see landscape data info --help.")
    ] = None,
    method: Annotated[Method | None, typer.Option(help="What trains the model (sasrec); see below.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/DATA-METHOD-seedN if not given.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; options here win over it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    shard_items: ShardItems = False,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn (0).")] = None,
    device: Device = "auto",
    json: Json = False,
    loss: Annotated[
        Loss | None,
        typer.Option(help="BCE, gBCE or sampled softmax on negatives, or CE over all items.", **LOSS),
    ] = None,
    negatives: Annotated[
        int | None, typer.Option(help="Drawn a position (1 for bce, 256 for gbce and sampled).", **LOSS)
    ] = None,
    calibration: Annotated[
        float | None, typer.Option(help="t of gbce, 0 for bce to 1 (0.75).", **LOSS)
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(help="This toolkit's, the first release's, or that of S3Rec and RecBole.", **MODEL),
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Width d (64).", **MODEL)] = None,
    max_length: Annotated[int | None, typer.Option(help="Longest history L (50).", **MODEL)] = None,
    layers: Annotated[int | None, typer.Option(help="Transformer layers (2).", **MODEL)] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads a layer (2).", **MODEL)] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout (0.5).", **MODEL)] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many (400).", **STEPS)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Users a batch (256).", **STEPS)] = None,
    micro_batches: Annotated[
        int | None, typer.Option(help="Parts of a batch, whose gradients are accumulated (1).", **STEPS)
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate (1e-3).", **STEPS)] = None,
    lr_schedule: Annotated[
        Schedule | None, typer.Option(help="Of the learning rate, to 0 at the last epoch.", **STEPS)
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Epochs in which the learning rate rises (0).", **STEPS)
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Adam's weight decay (0).", **STEPS)] = None,
    clip: Annotated[
        float | None, typer.Option(help="Largest norm of the gradient that is stepped with.", **STEPS)
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Of matrix products in training (float32).", **STEPS)
    ] = None,
    eval_every: Annotated[int | None, typer.Option(help="Epochs between validations (5).", **STEPS)] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better NDCG@10 (100).", **STEPS)
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(help="Epochs between checkpoints kept in OUT/epochs, to draw the trajectory.", **STEPS),
    ] = None,
    rho: Annotated[float | None, typer.Option(help="Radius ρ (0.1 of samrec, else 0).", **OF_SAM)] = None,
    rho_schedule: Annotated[
        Schedule | None, typer.Option(help="Of ρ, to 0 at the last epoch.", **OF_SAM)
    ] = None,
    rho_warmup: Annotated[int | None, typer.Option(help="Epochs in which ρ rises (0).", **OF_SAM)] = None,
    adaptive: Annotated[
        bool | None, typer.Option("--adaptive", help="ASAM: ρ in units of the weights' size.", **OF_SAM)
    ] = None,
    every: Annotated[
        int | None, typer.Option(help="Compute the direction in one step of so many (1).", **OF_SAM)
    ] = None,
    perturb: Annotated[
        Perturb | None, typer.Option(help="Which parameters are moved (all).", **OF_SAM)
    ] = None,
    ascent: Annotated[
        Ascent | None,
        typer.Option(help="Climb by the batch's gradient, or each micro-batch or rank by its own.", **OF_SAM),
    ] = None,
    contrast: Annotated[
        float | None, typer.Option(help="λ, what the contrastive loss counts (0.02).", **VIEWS)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="What similarities of views are divided by (√d).", **VIEWS)
    ] = None,
    crop: Annotated[
        float | None, typer.Option(help="Share of a history that a cropped view keeps (0.6).", **VIEWS)
    ] = None,
    reorder: Annotated[
        float | None, typer.Option(help="Share that a reordered view shuffles (0.6).", **VIEWS)
    ] = None,
    mask: Annotated[
        float | None,
        typer.Option(help="Share of items hidden, in views (0.3) and in pre-training (0.2).", **VIEWS),
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of the items' attributes (DATA_item2attributes.json, if it is there).",
            **PRETRAINING,
        ),
    ] = None,
    pretrain_epochs: Annotated[
        int | None, typer.Option(help="Epochs of pre-training, in OUT/pretraining (100).", **PRETRAINING)
    ] = None,
    pretrained: Annotated[
        Path | None,
        typer.Option(help="last.pt of a run of s3rec-pretraining, to begin from it.", **PRETRAINING),
    ] = None,
    associated_attribute: Annotated[
        float | None, typer.Option(help="Weight of the attributes of items seen (0.2).", **PRETRAINING)
    ] = None,
    masked_item: Annotated[
        float | None, typer.Option(help="Weight of the items hidden (1).", **PRETRAINING)
    ] = None,
    masked_attribute: Annotated[
        float | None, typer.Option(help="Weight of the attributes of items hidden (1).", **PRETRAINING)
    ] = None,
    segment: Annotated[
        float | None, typer.Option(help="Weight of the segments cut out (0.5).", **PRETRAINING)
    ] = None,
    format: Annotated[Format | None, typer.Option(help="Of the data (auto).", **DATA)] = None,
    columns: Columns = None,
    separator: Separator = None,
    quote: Quote = None,
    encoding: Encoding = None,
    time_format: TimeFormat = None,
    min_rating: MinRating = None,
    drop_missing: Annotated[
        bool | None,
        typer.Option("--drop-missing", help="Leave out rows without a user, an item or a time.", **DATA),
    ] = None,
    deduplicate: Annotated[
        bool | None,
        typer.Option("--deduplicate", help="Keep a user's first interaction with an item only.", **DATA),
    ] = None,
    core: Annotated[
        int | None, typer.Option(help="Leave out users and items with fewer interactions (0).", **DATA)
    ] = None,
    train_fraction: Annotated[
        float | None, typer.Option(help="Train on this share of the users, test on all (1).", **DATA)
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Train with this share of interactions replaced by random items (0).", **DATA),
    ] = None,
) -> None:
    """Train a model, keep its best epoch by validation NDCG@10, and evaluate that on the test items.

    Methods: sasrec; samrec, SASRec with Sharpness-Aware Minimization; cl4srec, with a contrast of augmented
    views beside the loss; s3rec, pre-trained by self-supervision (alone: s3rec-pretraining), then trained as
    SASRec; gru4rec, a recurrent baseline.

    Writes best.pt, last.pt, metrics.jsonl and config.toml; with --save-every also epochs/epoch-NNNN.pt, from
    the initial weights, 0, to the last epoch. SIGTERM and Ctrl-C end the run after the step they come in,
    and --resume continues it bit for bit.

    Examples:

      landscape train --data Beauty.txt --out runs/sasrec

      landscape train --data Beauty.txt --method samrec --rho 0.1 --out runs/samrec

      landscape train --data Beauty.txt --method samrec --every 5 --perturb no-embedding --out runs/light

      landscape train --data Beauty.txt --method cl4srec --preset sasrec-bert --rho 0.05 --out runs/cl4srec

      landscape train --data Beauty.txt --method s3rec --preset sasrec-bert --out runs/s3rec

      landscape train --data Beauty.txt --train-fraction 0.4 --noise 0.1 --out runs/hard

      landscape train --data Beauty.txt --loss ce --epochs 30 --eval-every 3 --out runs/ce

      landscape train --data Beauty.txt --loss ce --epochs 30 --eval-every 3 --save-every 1 --out runs/path

      landscape train --out runs/sasrec --epochs 600 --resume

      torchrun --nproc-per-node 2 -m landscape train --data Beauty.txt --out runs/sasrec

      torchrun --nproc-per-node 8 -m landscape train --data big.parquet --loss ce --shard-items --out runs/big
    """
    options = dict(locals())  # by their names, which are those of the settings
    from landscape.errors import InputError
    from samrec.config import Config, configure, read_settings
    from samrec.training import train

    if config is None and resume and out is not None and (out / "config.toml").exists():
        config = out / "config.toml"
    given = {name: options[name] for name in Config.model_fields if options[name] is not None}
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    settings = (read_settings(config) if config else {}) | given
    if "data" not in settings:
        raise InputError("nothing to train on: give --data FILE, or --config FILE with data in it")
    with stoppable():
        outcome = train(configure(settings), out, device, resume, shard_items)
    show(
        json,
        {
            "out": str(outcome.out),
            "epochs": outcome.epochs,
            "best_epoch": outcome.best_epoch,
            "seconds": outcome.seconds,
            "seconds_per_epoch": outcome.seconds_per_epoch,
            "losses": outcome.losses,
            "valid": outcome.valid,
            "test": outcome.test,
        },
        _ranked(outcome) if outcome.test else _pretrained(outcome),
    )


def _ranked(outcome: "Outcome") -> Table:
    return Table(
        f"{outcome.out}: best of {outcome.epochs} epochs is {outcome.best_epoch} ({_time(outcome)})",
        ["", *METRICS],
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
    return f"{outcome.seconds:.0f} s, {outcome.seconds_per_epoch:.2f} s an epoch"
