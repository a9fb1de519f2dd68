"""`landscape demo`: from synthetic data to a report, with nothing downloaded."""

from pathlib import Path
from typing import Annotated, Any

import typer

from landscape.cli.compare import show_comparison
from landscape.cli.options import Device, Json, Seed, Users
from landscape.errors import InputError
from landscape.tasks import TaskOptions

SMALL: dict[str, Any] = {"dim": 32, "max_length": 20, "batch_size": 128, "dropout": 0.1, "lr": 6e-3}
DATA: dict[str, Any] = {"items": 200, "mean_length": 16, "lag": 2}
"""Two chains that alternate: what comes next depends on the item before the last one."""


def command(
    out: Annotated[Path, typer.Option(help="Folder for the data, the runs and report.html.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs of each of the two runs.")] = 60,
    users: Users = 256,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train SASRec and SAMRec on synthetic data and compare their minima in report.html, within two minutes.

    The best possible ranking of these data is known. It depends on the item before the last one, so counting
    what follows the last item (a Markov chain) fails. Both are in the report's table.

    If it is run again, it continues from what is there.

    Example:

      landscape demo --out demo
    """
    from landscape.report.compare import Measurements, compare_checkpoints
    from landscape.storage.files import locked, own, writable
    from landscape.tasks import Facts
    from samrec.config import configure
    from samrec.data.readers import read
    from samrec.data.split import leave_one_out
    from samrec.data.synthetic import markov, write_sequences
    from samrec.facts import known_rankers
    from samrec.methods.baselines import evaluated
    from samrec.training.loop import train

    synthetic = markov(**DATA, seed=seed)
    data = out / "interactions.txt"
    with locked(own(writable(out), "sasrec", "samrec")):
        if data.exists() and read(data).digest != synthetic.interactions.digest:
            raise InputError(f"{out} holds a demo with another seed; choose another --out")
        write_sequences(synthetic.interactions, data)
        checkpoints = {}
        for method in ("sasrec", "samrec"):
            settings = {"data": str(data), "method": method, "epochs": epochs, "seed": seed}
            run = train(configure(SMALL | settings), out / method, device, resume=True)
            checkpoints[method] = run.out / "best.pt"
    counted = dict(evaluated(leave_one_out(synthetic.interactions), "test"))
    summary = compare_checkpoints(
        checkpoints,
        out,
        TaskOptions(users, seed, device, data),
        "SASRec and SAMRec on synthetic data",
        Measurements(tol=1e-2),
        facts=Facts((known_rankers(synthetic.ideal_hr10, counted),)),
    )
    show_comparison(summary, json)
