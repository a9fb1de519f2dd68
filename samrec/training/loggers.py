"""What a training tells TensorBoard, Weights & Biases and MLflow, next to its own metrics.jsonl."""

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from landscape.errors import InputError, first_line
from landscape.storage.files import existing, write_text
from samrec.choices import METRICS, Log
from samrec.config import Config
from samrec.training.log import read_log

MODULES: Mapping[Log, str] = {
    "tensorboard": "torch.utils.tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
}
RUNS = "loggers.json"
"""In a run's folder: the ids under which the services know it, so that resuming continues them."""


class Logger(Protocol):
    """A place that keeps the numbers of a run."""

    @property
    def id(self) -> str | None: ...
    def values(self, values: Mapping[str, float], epoch: int) -> None: ...
    def result(self, table: Mapping[str, Mapping[str, float]]) -> None: ...
    def close(self, ended: bool) -> None: ...


class TensorBoard:
    """Event files in OUT/tensorboard; whatever they hold of later epochs is purged when they are read."""

    def __init__(self, module: Any, config: Config, out: Path, epoch: int | None, known: str | None) -> None:
        self.id = None
        self.writer = module.SummaryWriter(str(out / "tensorboard"), purge_step=(epoch or 0) + 1)
        if epoch is None:
            rows = "".join(f"| {name} | {value} |\n" for name, value in config.settings.items())
            self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def values(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def result(self, table: Mapping[str, Mapping[str, float]]) -> None:
        self.writer.add_text("result", markdown(table))

    def close(self, ended: bool) -> None:
        self.writer.close()


class WandB:
    """A run of Weights & Biases: online, or in OUT/wandb with WANDB_MODE=offline."""

    def __init__(self, module: Any, config: Config, out: Path, epoch: int | None, known: str | None) -> None:
        self.module = module
        self.id = known or uuid4().hex[:12]
        self.run = module.init(
            project=os.environ.get("WANDB_PROJECT", "samrec"),
            id=self.id,
            name=out.name,
            dir=str(out),
            config=config.settings,
            resume="allow",
            settings=module.Settings(silent=True, console="off"),
        )
        self.run.define_metric("*", step_metric="epoch")  # its own steps cannot go back to the best epoch

    def values(self, values: Mapping[str, float], epoch: int) -> None:
        self.run.log({**values, "epoch": epoch})

    def result(self, table: Mapping[str, Mapping[str, float]]) -> None:
        rows = [[part, *(of[metric] for metric in METRICS)] for part, of in table.items()]
        self.run.summary["result"] = self.module.Table(columns=["part", *METRICS], data=rows)

    def close(self, ended: bool) -> None:
        self.run.finish(exit_code=0 if ended else 1)


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI says, in MLFLOW_EXPERIMENT_NAME or `samrec`."""

    def __init__(self, module: Any, config: Config, out: Path, epoch: int | None, known: str | None) -> None:
        self.entities = module.entities
        self.client = module.MlflowClient()
        if known:
            self.id = known
            self.client.update_run(known, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "samrec")
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.id = self.client.create_run(number, run_name=out.name).info.run_id
        settings = [module.entities.Param(key, str(value)) for key, value in config.settings.items()]
        self.client.log_batch(self.id, params=settings)

    def values(self, values: Mapping[str, float], epoch: int) -> None:
        now = int(1000 * time.time())
        metric = self.entities.Metric  # whose names may not hold an @
        named = [metric(name.replace("@", "_at_"), value, now, epoch) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=named)

    def result(self, table: Mapping[str, Mapping[str, float]]) -> None:
        self.client.log_text(self.id, markdown(table), "result.md")

    def close(self, ended: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if ended else "KILLED")


KINDS: Mapping[Log, Callable[..., TensorBoard | WandB | MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


class Loggers:
    """Several loggers as one, none of which can stop a training: one that fails is left out from then on."""

    def __init__(
        self, loggers: Mapping[str, Logger] | None = None, told: Mapping[str, Sequence[Any]] | None = None
    ) -> None:
        """Take the loggers by name, and of those that go on the lines that they were told before."""
        self.loggers = dict(loggers or {})
        self.told = dict(told or {})

    def line(self, line: Mapping[str, Any]) -> None:
        """Log a line of metrics.jsonl: `train/loss`, `train/seconds`, `valid/ndcg@10`, `test/mrr`, …

        An epoch that is trained again is logged once, and so is a test of the same epoch.
        """
        values = {f"train/{name}": line[name] for name in ("loss", "seconds") if name in line}
        for part, prefix in (("losses", "train/loss-"), ("valid", "valid/"), ("test", "test/")):
            values |= {f"{prefix}{name}": value for name, value in line.get(part, {}).items()}
        self.values(values, line["epoch"], [name for name in self.told if self._was_told(name, line)])

    def values(self, values: Mapping[str, float], epoch: int, without: Sequence[str] = ()) -> None:
        """Log numbers of an epoch, but not to the loggers `without`; what is not finite is left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._each(lambda logger: logger.values(finite, epoch), without)

    def result(self, table: Mapping[str, Mapping[str, float]]) -> None:
        """Log the final table: the metrics of each part."""
        self._each(lambda logger: logger.result(table))

    def close(self, ended: bool) -> None:
        """End the runs, as finished or as stopped."""
        self._each(lambda logger: logger.close(ended))

    def _was_told(self, name: str, line: Mapping[str, Any]) -> bool:
        if "loss" not in line:
            return line in self.told[name]
        purged = name == "tensorboard"  # which forgets the epochs that are trained again
        return not purged and any(line["epoch"] == t["epoch"] and "loss" in t for t in self.told[name])

    def _each(self, call: Callable[[Logger], None], without: Sequence[str] = ()) -> None:
        for name, logger in [(n, one) for n, one in self.loggers.items() if n not in without]:
            try:
                call(logger)
            except Exception as error:  # a full disk, a network that is gone, whatever a service raises
                del self.loggers[name]
                with suppress(Exception):
                    logger.close(False)
                warnings.warn(
                    f"logging to {name} failed and stops; training continues: {first_line(error)}",
                    stacklevel=3,
                )


@contextmanager
def logging_to(names: Sequence[Log], config: Config, out: Path, epoch: int | None) -> Iterator[Loggers]:
    """Open loggers for a run, which goes on after `epoch` (None: is new), and close them at the end.

    Raises:
        InputError: a package is not installed, or a logger cannot be started.
    """
    modules = {name: _imported(name) for name in names}
    known = {} if epoch is None else _known(out / RUNS)
    before = [] if epoch is None else read_log(out / "metrics.jsonl")
    goes_on = {*known, *(["tensorboard"] if (out / "tensorboard").exists() else [])}
    opened: dict[str, Logger] = {}
    try:
        for name, module in modules.items():
            try:
                opened[name] = KINDS[name](module, config, out, epoch, known.get(name))
            except Exception as error:  # whatever a service raises
                raise InputError(f"logging to {name} cannot start: {first_line(error)}") from None
    except InputError:
        Loggers(opened).close(False)
        raise
    known |= {name: logger.id for name, logger in opened.items() if logger.id}
    if known:
        write_text(out / RUNS, json.dumps(known))
    loggers = Loggers(opened, {name: before for name in opened if name in goes_on})
    try:
        yield loggers
    except BaseException:
        loggers.close(False)
        raise
    loggers.close(True)


def markdown(table: Mapping[str, Mapping[str, float]]) -> str:
    """Write metrics by part as a table."""
    head = f"| | {' | '.join(METRICS)} |\n|---|{'---|' * len(METRICS)}\n"
    rows = (f"| {part} | {' | '.join(f'{of[m]:.4f}' for m in METRICS)} |\n" for part, of in table.items())
    return head + "".join(rows)


def _imported(name: Log) -> Any:
    try:
        return import_module(MODULES[name])
    except ImportError:
        raise InputError(f"{name} is not installed: pip install {name}") from None


def _known(path: Path) -> dict[str, str]:
    """Return the ids of the run that is continued; none if no logger had one."""
    if not path.exists():
        return {}
    with suppress(ValueError, RecursionError):
        found = json.loads(existing(path, "file of loggers", 2**20).read_text("utf-8"))
        if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
            return found
    raise InputError(f"{path} is damaged; remove it, and the loggers begin new runs")
