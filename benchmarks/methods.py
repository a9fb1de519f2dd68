"""`python -m benchmarks.methods --data Beauty.txt`: what an epoch of each method costs, in units of SASRec's.

All on the architecture that CL4SRec and S3Rec were published with (`sasrec-bert`), in turns. S3Rec's
fine-tuning is SASRec's training, so its pre-training is what is timed. Prints, and writes
results/methods.json.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.train import HERE, Ours, in_turns, ratio, write
from benchmarks.where import where
from samrec.config import Config
from samrec.data.attributes import beside
from samrec.data.readers import read
from samrec.data.split import leave_one_out


def methods(data: Path, device: torch.device, rounds: int) -> dict[str, Any]:
    """Time an epoch of each method."""
    split = leave_one_out(read(data))
    shared: dict[str, Any] = {"data": str(data), "preset": "sasrec-bert"}
    attributes = beside(data)
    configs = {
        "sasrec": Config(**shared),
        "samrec": Config(**shared, method="samrec"),
        "cl4srec": Config(**shared, method="cl4srec"),
        "cl4srec with SAM": Config(**shared, method="cl4srec", rho=0.1),
        "s3rec-pretraining": Config(
            **shared, method="s3rec-pretraining", attributes=str(attributes) if attributes else None
        ),
        "gru4rec": Config(data=str(data), method="gru4rec", layers=1),
    }
    seconds = in_turns({name: Ours(config, split, device).epoch for name, config in configs.items()}, rounds)
    return {
        "data": data.name,
        "attributes": attributes.name if attributes else None,
        "seconds": {name: median(values) for name, values in seconds.items()},
        "all_seconds": seconds,
        "ratios": {
            f"{name} / sasrec": ratio(seconds, name, "sasrec") for name in configs if name != "sasrec"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Beauty.txt, its attributes beside it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "methods.json")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    found = {"where": where(), **methods(asked.data, torch.device(asked.device), asked.rounds)}
    write(found, asked.out)
    found.pop("all_seconds")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
