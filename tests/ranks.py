"""What the ranks of test_parallel.py do, and one process to compare with: `-m tests.ranks`."""

import json
import os
import signal
import sys
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import landscape as ll
from landscape import InputError
from landscape.cli import app, compare
from landscape.runtime import ranks as parallel
from landscape.surface.record import Record
from landscape.tasks import TaskOptions, objective_of
from samrec.config import Config
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.methods import batches_of, initial_learner
from samrec.training import loop
from samrec.training.engines.solo import Solo, with_bits
from samrec.training.log import read_log

CPU = torch.device("cpu")
SMALL = {"dim": 8, "max_length": 8, "batch_size": 64, "eval_every": 2, "dropout": 0.5, "epochs": 5}
MEASURES = [
    word
    for name in ("sam", "m-sharpness", "keskar", "average", "fisher-rao", "trace", "relative-flatness-last")
    for word in ("--measure", name)
]
ITEMS = {"method": "samrec", "loss": "ce", "every": 2, "clip": 0.1, "rho": 0.5}
COMMANDS = [
    ["hessian", "--top", "3", "--trace", "--probes", "4"],
    ["sharpness", "--steps", "2", "--samples", "2", "--probes", "2", *MEASURES],
    ["evaluate"],
    ["evaluate", "--shard-items"],
]

COMPARE = ["--grid", "3", "--top", "2"]
HASTE = (  # these take most of the time of `compare`
    (ll, "sharpness", partial(ll.sharpness, measures=("sam", "asam"))),
    (compare, "PROBES", 2),
    (compare, "STEPS", 10),
)


def config(folder, **settings):
    return Config(data=str(folder / "data.txt"), **{**SMALL, **settings})


def command(*arguments):
    """Run a command; it prints one JSON object."""
    sys.argv = ["landscape", *map(str, arguments), "--device", "cpu", "--json"]
    try:
        app.main()
    except SystemExit as ended:
        return ended.code


def refusal(*arguments):
    try:
        app.app([*map(str, arguments)])
    except InputError as error:
        return str(error)


def objective(folder):
    return objective_of(folder / "run" / "best.pt", TaskOptions(device="cpu"))


def plane(folder, name="plane"):
    """Return a plane, and how many of its points were known before."""
    found = ll.plane(objective(folder), grid=9, file=folder / f"{name}.points.jsonl")
    return {"losses": found.losses.tolist(), "reused": found.settings["reused"], "all": found.evaluations}


@contextmanager
def in_float64():
    """Let models be of float64, in which SAM's chaos leaves fifty steps comparable."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@in_float64()
def curve(folder, out, shard_items=False, **settings):
    """Train, and return what was logged."""
    loop.train(config(folder, **settings), folder / out, "cpu", resume=True, shard_items=shard_items)
    return [
        {k: v for k, v in line.items() if k != "seconds"} for line in read_log(folder / out / "metrics.jsonl")
    ]


@in_float64()
def steps(folder, own_ascent):
    """Take three steps of SAMRec by halves of the rows, which climb each by its own gradient."""
    settings = config(folder, method="samrec", ascent=own_ascent, micro_batches=1)
    split = leave_one_out(read(Path(settings.data)))
    solo = Solo(settings, initial_learner(settings, split), CPU, 0)
    for seed, batch in enumerate(islice(batches_of(settings, split, CPU).epoch(64, (0, 1)), 3)):
        if own_ascent == "rank":
            solo.step([[batch]], [seed], 1e-3, [0.1])
        else:
            whole = with_bits(batch, solo.learner.model, solo.generator, iter([seed]))
            solo._step([whole.dealt(0, 2), whole.dealt(1, 2)])
    return torch.cat([p.detach().flatten() for p in solo.learner.parameters()]).tolist()


def measured(folder, name):
    """Everything that one process and several must agree on."""
    return {
        "plane": plane(folder, name),
        "sasrec": curve(folder, f"{name}-sasrec"),
        "samrec": curve(folder, f"{name}-samrec", method="samrec"),
        "resumed": curve(folder, f"{name}-resumed", method="samrec", every=2),
        "negatives sharded": curve(folder, f"{name}-negatives", name == "two", loss="gbce", negatives=3),
        "items sharded": curve(folder, f"{name}-items", name == "two", **ITEMS),
        "steps": steps(folder, "rank" if name == "two" else "micro-batch"),
    }


def together(folder):
    parallel.leave = lambda: None  # several commands in one process
    checkpoint = ["--ckpt", folder / "run" / "best.pt"]
    for arguments in COMMANDS:
        assert command(*arguments, *checkpoint) == 0
    data = ["--data", folder / "data.txt", "--out", folder / "command", "--epochs", "1"]
    assert command("train", *data) == 0
    for haste in HASTE:
        setattr(*haste)
    assert command("compare", *checkpoint, *COMPARE, "--out", folder / "compared") == 0
    found = measured(folder, "two")
    found["alike"] = len(set(parallel.ranks().gathered(np.array(found["steps"]).tobytes()))) == 1
    found["refused"] = [
        refusal("bound", *checkpoint),
        *(refusal("train", *data, "--method", method) for method in ("cl4srec", "s3rec")),
        refusal("train", *data, "--method", "samrec", "--ascent", "rank", "--shard-items"),
    ]
    if parallel.ranks().first:
        (folder / "two.json").write_text(json.dumps(found))
    sys.exit(command("hessian", *checkpoint, "--users", "9"))


def dying(folder):
    """Measure a plane; in the first attempt the second rank is killed at its fifth point."""
    parallel.join()
    point, done = Record.point, []

    def counted(*arguments):
        point(*arguments)
        done.append(1)
        if len(done) == 5 and parallel.ranks().rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        Record.point = counted
    found = plane(folder, "killed")
    if parallel.ranks().first:
        (folder / "killed.json").write_text(json.dumps(found))
    parallel.leave()
    os._exit(0)  # as the command does


if __name__ == "__main__":
    {"together": together, "dying": dying}[sys.argv[1]](Path(sys.argv[2]))
