"""`python -m benchmarks.quality RUN…`: what trained runs reach on the test items, as in the README.

Prints a row a run: HR@10 and NDCG@10 over all items, HR@10's 95% bootstrap interval over users, and both
again with every target that already stood in the user's history counted as a miss. The evaluation of
S3Rec's authors does the latter, since it scores the whole history 0; ours masks the history but for the
target. Only Yelp has such targets (7% of the users). Beside them, the baselines that only count, on the same
data. The result goes to results/quality.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.train import HERE
from benchmarks.where import where
from samrec.checkpoint import Checkpoint, load
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.evaluation import intervals, metrics, ranks
from samrec.methods.baselines import evaluated
from samrec.training.log import read_log


def row(run: Path, best: Checkpoint, folder: Path) -> dict[str, Any]:
    """Evaluate the best epoch of a run whose data lie in `folder`."""
    config = best.config
    split = leave_one_out(read(folder / Path(config.data).name, **config.reading))
    found = ranks(best.model(), split, "test")
    start, length, target = split.history("test")
    items = split.interactions.items
    repeated = np.array([t in items[s : s + n] for s, n, t in zip(start, length, target, strict=True)])
    all_users, missed = metrics(found), metrics(np.where(repeated, split.num_items, found))
    lines = [line for line in read_log(run / "metrics.jsonl") if "seconds" in line]
    return {
        "run": run.name,
        "data": Path(config.data).stem,
        "settings": config.model_dump(exclude_defaults=True, exclude={"data"}),
        "epochs": lines[-1]["epoch"],
        "best_epoch": best.epoch,
        "seconds": round(sum(line["seconds"] for line in lines)),
        "hr@10": round(all_users["hr@10"], 5),
        "hr@10 interval": [round(bound, 5) for bound in intervals(found)["hr@10"]],
        "ndcg@10": round(all_users["ndcg@10"], 5),
        "repeated targets": round(float(repeated.mean()), 4),
        "hr@10, repeats missed": round(missed["hr@10"], 5),
        "ndcg@10, repeats missed": round(missed["ndcg@10"], 5),
    }


def counted(data: Path) -> dict[str, dict[str, float]]:
    """Rank by the baselines that only count."""
    return {
        name: {metric: round(reached[metric], 5) for metric in ("hr@10", "ndcg@10")}
        for name, reached in evaluated(leave_one_out(read(data)), "test")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders that landscape train wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "quality.json")
    asked = parser.parse_args()
    best = {run: load(run / "best.pt") for run in asked.runs}
    rows = [row(run, checkpoint, asked.data) for run, checkpoint in best.items()]
    files = sorted({asked.data / Path(checkpoint.config.data).name for checkpoint in best.values()})
    baselines = {path.stem: counted(path) for path in files}
    asked.out.write_text(
        json.dumps({"where": where(), "runs": rows, "baselines": baselines}, indent=1) + "\n"
    )
    for data, reached in baselines.items():
        for name, of in reached.items():
            print(f"{data:18} {name:10} {of['hr@10']:.4f} / {of['ndcg@10']:.4f}")
    for found in rows:
        low, high = found["hr@10 interval"]
        print(
            f"{found['run']:18} {found['best_epoch']:4}/{found['epochs']:<4} {found['seconds']:6} s  "
            f"{found['hr@10']:.4f} [{low:.4f}, {high:.4f}] / {found['ndcg@10']:.4f}  "
            f"repeats missed {found['hr@10, repeats missed']:.4f} / {found['ndcg@10, repeats missed']:.4f}"
        )


if __name__ == "__main__":
    main()
