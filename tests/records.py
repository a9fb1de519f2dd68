"""Records of runs that were never trained."""

from pathlib import Path

from figures.plan import Training, trials
from figures.records import Record


def recorded(run: Training, valid: float = 0.03, **changes) -> Record:
    """A record as a run might leave it: the validation rises to `valid` and falls."""
    config = run.config(Path())
    rise = [valid * (1 - abs(i - 6) / 20) for i in range(12)]
    log = [{"epoch": config.eval_every * (i + 1), "ndcg@10": v, "ndcg@20": v} for i, v in enumerate(rise)]
    values = {
        "name": run.name,
        "command": run.command,
        "data": run.data,
        "digest": "",
        "settings": {key: value for key, value in config.settings.items() if key != "data"},
        "where": {},
        "epochs": 12 * config.eval_every,
        "best_epoch": 7 * config.eval_every,
        "log": log,
        "valid": {"ndcg@10": valid},
        "test": {"hr@10": 0.05, "ndcg@10": 0.02},
    }
    return Record(**values | changes)


def of_trials(data: str, best: dict[str, int]) -> dict[str, Record]:
    """Records of all trials on a data set, the one at a place of each method being the best on validation."""
    runs = {method: trials(data, method) for method in best}
    return {
        run.name: recorded(run, 0.04 if place == best[method] else 0.03)
        for method, own in runs.items()
        for place, run in enumerate(own)
    }
