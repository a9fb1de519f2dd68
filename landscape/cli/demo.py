"""`landscape demo`: from synthetic data to a report, with nothing downloaded."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli import options
from landscape.cli.compare import compare, show_comparison
from landscape.cli.options import Device, Json, Seed, Users
from landscape.cli.output import stoppable
from landscape.tasks import TaskOptions


def command(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the data, the runs and report.html.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Of each of the two trainings.")] = 60,
    users: Users = 512,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train SASRec and SAMRec on synthetic data and compare their minima: report.html, in under two minutes.

    Run again, it continues what is there.

    Example:

      landscape demo --out demo
    """
    from landscape.errors import InputError
    from samrec.config import configure
    from samrec.data.readers import read
    from samrec.data.synthetic import markov, write_sequences
    from samrec.training.loop import train

    synthetic = markov(seed=seed)
    options.hold(context, out)
    data = out / "interactions.txt"
    if data.exists() and read(data).digest != synthetic.interactions.digest:
        raise InputError(f"{out} holds a demo of another seed; give another --out")
    write_sequences(synthetic.interactions, data)
    checkpoints = {}
    for method in ("sasrec", "samrec"):
        run = configure(
            {
                "data": str(data),
                "method": method,
                "dim": 32,
                "max_length": 20,
                "batch_size": 128,
                "dropout": 0.2,
                "epochs": epochs,
                "seed": seed,
            }
        )
        with stoppable():
            checkpoints[method] = train(run, out / method, device, resume=True).out / "best.pt"
    summary = compare(
        checkpoints,
        out,
        TaskOptions(users, seed, device),
        title="SASRec and SAMRec on synthetic data",
        radius=1.0,
        tol=1e-2,
        grid=None,
        top=5,
        rho=0.1,
        ideal_hr10=synthetic.ideal_hr10,
    )
    show_comparison(summary, json)
