"""Monitors in trainers that call back. Their libraries are imported when a callback is made."""

from typing import Any

from landscape.curvature.monitor import Monitor
from landscape.errors import InputError


def lightning_callback(monitor: Monitor) -> Any:
    """Return a callback of Lightning that measures after optimizer steps, and logs to the trainer's loggers.

    The monitor takes the trainer's optimizer if it has none. Lightning moves the model to its device before
    the training; measurements run where the model was when the monitor was made.

    Raises:
        InputError: neither `lightning` nor `pytorch_lightning` is installed.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            raise InputError("lightning is not installed: pip install lightning") from None

    class MonitorCallback(Callback):  # type: ignore[misc] # the library need not be there
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if monitor.optimizer is None and trainer.optimizers:
                monitor.optimizer = getattr(trainer.optimizers[0], "optimizer", trainer.optimizers[0])

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step > monitor.steps and (record := monitor.step(trainer.global_step)):
                for logger in trainer.loggers:
                    logger.log_metrics(record.metrics, step=record.step)

    return MonitorCallback()


def transformers_callback(monitor: Monitor) -> Any:
    """Return a `TrainerCallback` of Hugging Face's transformers that measures after optimizer steps.

    The monitor takes the trainer's optimizer if it has none. The numbers go to the file and the `log` of the
    monitor.

    Raises:
        InputError: `transformers` is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise InputError("transformers is not installed: pip install transformers") from None

    class MonitorCallback(TrainerCallback):  # type: ignore[misc] # the library need not be there
        def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if monitor.optimizer is None and (optimizer := known.get("optimizer")) is not None:
                monitor.optimizer = getattr(optimizer, "optimizer", optimizer)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            monitor.step(state.global_step)

    return MonitorCallback()
