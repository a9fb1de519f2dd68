"""Monitors in trainers that call back. Their libraries are imported when a callback is made."""

from importlib import import_module
from typing import Any

from landscape.curvature.monitor import Monitor
from landscape.errors import InputError


def lightning_callback(monitor: Monitor) -> Any:
    """Return a callback of Lightning that measures after optimizer steps, and logs to the trainer's loggers.

    The monitor takes the trainer's optimizer if it has none. Lightning moves the model to its device before
    the training; measurements run where the model was when the monitor was made.

    Args:
        monitor: a monitor of the `LightningModule` that is trained, or of a module in it.

    Returns:
        The callback, for `Trainer(callbacks=[…])`.

    Raises:
        InputError: neither `lightning` nor `pytorch_lightning` is installed.
    """
    base = _imported("Callback", "lightning.pytorch", "pytorch_lightning")

    class MonitorCallback(base):  # type: ignore[misc,valid-type] # the library need not be there
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if monitor.optimizer is None and trainer.optimizers:
                monitor.optimizer = getattr(trainer.optimizers[0], "optimizer", trainer.optimizers[0])
            self.counted = trainer.global_step  # not 0 where a training goes on

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == self.counted:  # gradients are accumulated
                return
            self.counted = trainer.global_step
            if record := monitor.step(self.counted):
                for logger in trainer.loggers:
                    logger.log_metrics(record.metrics, step=record.step)

    return MonitorCallback()


def transformers_callback(monitor: Monitor) -> Any:
    """Return a `TrainerCallback` of Hugging Face's transformers that measures after optimizer steps.

    The monitor takes the trainer's optimizer if it has none. The numbers go to the file and the `log` of the
    monitor.

    Args:
        monitor: a monitor of the model that is trained.

    Returns:
        The callback, for `Trainer(callbacks=[…])`.

    Raises:
        InputError: `transformers` is not installed.
    """
    base = _imported("TrainerCallback", "transformers")

    class MonitorCallback(base):  # type: ignore[misc,valid-type] # the library need not be there
        def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if monitor.optimizer is None and (optimizer := known.get("optimizer")) is not None:
                monitor.optimizer = getattr(optimizer, "optimizer", optimizer)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            monitor.step(state.global_step)

    return MonitorCallback()


def _imported(name: str, *modules: str) -> Any:
    """Return a class from the first of some modules that is installed."""
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except ImportError:
            continue
    library = modules[0].partition(".")[0]
    raise InputError(f"{library} is not installed: pip install {library}")
