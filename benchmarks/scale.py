"""`python -m benchmarks.scale`: how an epoch's time grows with users, length, items and d.

One quantity is varied at a time, the others stay at `BASE`; the exponent is the slope of a least-squares line
through the logarithms. Histories are drawn at random, since what is in them costs nothing. The result goes
to benchmarks/results/scale.json, and its table into docs/scale.md.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.train import HERE, Ours
from benchmarks.where import where
from samrec.config import Config
from samrec.data.interactions import Interactions
from samrec.data.split import Split, leave_one_out

BASE = {"users": 8_000, "length": 8, "items": 10_000, "dim": 64}
VARIED = {
    "users": (2_000, 4_000, 8_000, 16_000, 32_000),
    "length": (4, 8, 16, 32, 50),
    "items": (2_500, 10_000, 40_000, 160_000, 640_000),
    "dim": (32, 64, 128, 256),
}
NAMES = {
    "users": "users",
    "length": "items to predict a user (L = 50)",
    "items": "items",
    "dim": "width d",
}
LIMIT = 24.0  # seconds an epoch: larger points are left out
PAGE = HERE.parent / "docs" / "scale.md"


def world(users: int, length: int, items: int) -> Split:
    """Draw histories of one length at random: `length` items to predict, one to start from, two held out."""
    rng = np.random.default_rng(0)
    size = length + 3
    drawn = rng.integers(0, items, users * size)
    offsets = np.arange(0, len(drawn) + 1, size)
    return leave_one_out(Interactions(drawn, offsets, np.arange(items), "at random"))


def seconds(loss: str, sizes: dict[str, int]) -> float:
    """Time an epoch: the faster of two, after one that is not counted."""
    split = world(sizes["users"], sizes["length"], sizes["items"])
    ours = Ours(
        Config.model_validate({"data": "", "loss": loss, "dim": sizes["dim"]}), split, torch.device("cpu")
    )
    taken = []
    for number in range(3):
        started = time.perf_counter()
        ours.epoch(number)
        taken.append(time.perf_counter() - started)
        if taken[-1] > LIMIT / 4:
            break
    return min(taken[1:] or taken)


def grown(loss: str, name: str) -> dict[str, Any]:
    """Vary one quantity; return its values, the seconds, and the fitted exponent."""
    values: list[int] = []
    taken: list[float] = []
    for value in VARIED[name]:
        if taken and taken[-1] > LIMIT / 4:
            break
        values.append(value)
        taken.append(round(seconds(loss, {**BASE, name: value}), 3))
        print(loss, name, value, taken[-1], flush=True)
    exponent = float(np.polyfit(np.log(values), np.log(taken), 1)[0])
    last = float(np.log(taken[-1] / taken[-2]) / np.log(values[-1] / values[-2]))
    return {"values": values, "seconds": taken, "exponent": round(exponent, 2), "last_step": round(last, 2)}


def table(found: dict[str, Any]) -> str:
    """Draw the results as Markdown."""
    lines = [
        "| loss | varied | values | seconds per epoch | exponent | between the last two |",
        "|---|---|---|---|---|---|",
    ]
    for loss, rows in found["growth"].items():
        for name, row in rows.items():
            values = ", ".join(f"{v:,}" for v in row["values"])
            taken = ", ".join(f"{s:.2f}" for s in row["seconds"])
            slopes = f"{row['exponent']:.2f} | {row['last_step']:.2f}"
            lines.append(f"| {loss} | {NAMES[name]} | {values} | {taken} | {slopes} |")
    at = found["where"]
    base = ", ".join(f"{NAMES[name]} {value:,}" for name, value in BASE.items())
    return "\n".join(
        [f"Base: {base}. {at['cpu']}, {at['threads']} threads, torch {at['torch']}, {at['day']}.", "", *lines]
    )


def write_page(program: str, text: str) -> None:
    """Replace what a program wrote into docs/scale.md before."""
    begin, end = f"<!-- python -m {program} writes from here -->", "<!-- to here -->"
    before, rest = PAGE.read_text("utf-8").split(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "scale.json")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    growth = {loss: {name: grown(loss, name) for name in VARIED} for loss in ("bce", "ce")}
    found = {"where": where(), "base": BASE, "growth": growth}
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    write_page("benchmarks.scale", table(found))


if __name__ == "__main__":
    main()
