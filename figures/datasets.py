"""What is known of a data set without training: what counting reaches, and which users and items are rare."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from figures.measure import Bench
from landscape.storage.files import replacing
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.evaluation import Mask, groups, metrics, missing_repeats
from samrec.methods.baselines import BASELINES, rank_baseline

FOLDER = "data"  # of the results


def describe(data: str, bench: Bench) -> None:
    """Rank the test items of a data set by counts, and keep that, and who belongs to which group of users.

    Who has a test item that is in the history already is in the group `repeated`, else in `new`. The authors
    of S3Rec count a repeated item as missed. Here it stays a candidate, and `missed` has what counting
    reaches where it does not.
    """
    split = leave_one_out(read(bench.data / f"{data}.txt"))
    members: dict[str, Any] = dict(groups(split, "test"))
    repeated = missing_repeats(np.zeros(len(members["head"]), int), split, "test") > 0
    members |= {"new": ~repeated, "repeated": repeated}
    found: dict[str, Any] = {"digest": split.interactions.digest, "baselines": {}, "missed": {}}
    for name, count in BASELINES.items():
        ranks = rank_baseline(count(split), split, "test")
        found["baselines"][name] = metrics(ranks)
        found["missed"][name] = metrics(missing_repeats(ranks, split, "test"))
    path = bench.results / FOLDER / f"{data}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **members)
    bench.write(found, f"{FOLDER}/{data}")  # last: what is there is not made again


def described(data: str, results: Path) -> Mapping[str, Any] | None:
    """Return the digest of a data set's content and the metrics of each baseline; None if there are none."""
    path = results / FOLDER / f"{data}.json"
    found: dict[str, Any] | None = json.loads(path.read_text("utf-8")) if path.exists() else None
    return found


def read_groups(data: str, results: Path) -> dict[str, Mask]:
    """Return who is in each group of the evaluated users, by its name, as `describe` keeps them."""
    with np.load(results / FOLDER / f"{data}.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
