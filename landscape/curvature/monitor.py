"""`Monitor`: the sharpness of a loss while it is trained, and nothing of the training changed."""

import math
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.curvature.history import (
    RecordFile,
    SharpnessHistory,
    SharpnessRecord,
    history_of,
    read_history,
)
from landscape.curvature.operators import hessian
from landscape.curvature.stability import edge_of
from landscape.curvature.trace import trace as estimate_trace
from landscape.curvature.tracking import Tracker
from landscape.errors import InputError
from landscape.objective.criteria import Criterion
from landscape.objective.frozen import uncompiled
from landscape.objective.identity import BATCHES
from landscape.objective.objective import Objective
from landscape.objective.supervised import supervised
from landscape.objective.training_mode import Mode
from landscape.runtime import progress
from landscape.runtime.precision import full_precision
from landscape.storage.results import surroundings

Log = Callable[[dict[str, float], int], object]


class Monitor:
    """Measures the curvature of a frozen loss at chosen steps of a training.

        monitor = ll.Monitor(model, probe, nn.CrossEntropyLoss(), optimizer=optimizer, file="monitor.jsonl")
        for x, y in loader:
            ...
            optimizer.step()
            monitor.step()
        monitor.history.plot()

    Or, where the loop is not yours to change, each step of the optimizer in the block is counted:

        with monitor:
            train(model, optimizer)

    Each measurement gives the largest eigenvalues of the Hessian with their residuals, L, ‖∇L‖, the cosine of
    the last update with the eigenvectors, and the edge of stability of the optimizer: 2/η, or its counterpart
    for momentum, SAM and Adam, with λmax of P⁻¹H for the latter (Cohen et al. 2021, 2022, arXiv 2103.00065,
    2207.14484). The loss is that of the model in eval mode, with its present buffers, unless `mode` says
    otherwise. Eigenvalues are followed from measurement to measurement (`landscape.curvature.tracking`).

    The training is the same, bit for bit, with a monitor and without one: the model is copied, and the states
    of all random number generators are put back. Forward hooks of the model are part of its loss, and run in
    the copy too.

    Args:
        model: the model that is trained, on its device. It is only read.
        probe: the batches of the frozen loss, as for `landscape.supervised`; or an `Objective` of the model.
        criterion: as for `landscape.supervised`; none with an `Objective`.
        optimizer: that of the training, for the edge of stability. It is only read.
        every: measure when this number of steps has been taken since the last.
        at_most: maximum time of all measurements, as a share of the training's own time. Measurements that
            would exceed it are left out; the first is made on credit. None: no limit.
        k: number of eigenvalues.
        tol: of their residuals ‖Hv - λv‖ / |λ|.
        trace: number of probes for the trace of the Hessian; 0 leaves it out.
        rho: radius of SAM's sharpness L(θ + ρ ∇L/‖∇L‖) - L(θ); None leaves it out.
        mode: of the model in the frozen loss, as for `landscape.supervised`; an `Objective` has its own.
        file: of JSON lines, one per measurement; `landscape.load` reads it. A file of the same settings and
            data is continued.
        log: called with the numbers of each measurement and its step, as `mlflow.log_metrics` and
            `wandb.log` are.
        seed: of the random vectors, and of the dropout masks in mode `training`.

    Attributes:
        probe: the frozen loss.

    Raises:
        InputError: a number is out of range; the optimizer does not step this model; the file holds something
            else; and as `landscape.supervised`.
    """

    def __init__(
        self,
        model: nn.Module,
        probe: Objective | Iterable[Any],
        criterion: Criterion | None = None,
        *,
        optimizer: Optimizer | None = None,
        every: int = 1,
        at_most: float | None = 0.05,
        k: int = 5,
        tol: float = 1e-3,
        trace: int = 0,
        rho: float | None = None,
        mode: Mode = "eval",
        file: str | Path | None = None,
        log: Log | None = None,
        seed: int = 0,
    ) -> None:
        if k < 1 or every < 1 or tol <= 0 or not (at_most is None or at_most > 0):
            raise InputError(f"k is {k}, every {every}, tol {tol:g}, at_most {at_most}; all must be positive")
        if trace < 0 or trace == 1 or not (rho is None or rho > 0):
            raise InputError(f"trace is {trace}, rho {rho}; trace takes two probes or more, rho is positive")
        if isinstance(probe, Objective) == (criterion is not None):
            raise InputError("give batches and a criterion, or an Objective of the model alone")
        if isinstance(probe, Objective) and mode != "eval":
            raise InputError("an Objective has a mode of its own; make it with landscape.in_training_mode")
        began = time.perf_counter()
        self.model, self.optimizer, self.log = uncompiled(model), optimizer, log
        self.every, self.at_most, self.trace, self.rho, self.seed = every, at_most, trace, rho, seed
        self.steps = 0
        with _undisturbed():
            made = probe
            if not isinstance(made, Objective):
                assert criterion is not None
                made = supervised(model, made, criterion, mode=mode, seed=seed)
            self.probe = made.follow(self.model)
        self._check_optimizer()
        self._trackers = Tracker(k, tol, 100 * k, seed), Tracker(1, tol, 100, seed)
        settings = {"k": k, "tol": float(tol), "trace": trace, "rho": rho, "seed": seed}
        provenance = self.probe.provenance | surroundings(self.probe.theta.device)
        self._file = RecordFile(
            Path(file) if file else None,
            {"settings": settings, "provenance": provenance},
            (BATCHES, "loss", "mode"),
        )
        self._hook: Any = None  # on the optimizer, within `with`
        self._before: Tensor | None = self._theta()  # θ before the step that is measured next
        self._measured: int | None = None  # the step of the last measurement in this process
        self._began: float | None = None
        self._cost = 0.0
        self._spent = time.perf_counter() - began
        self._debt = self._spent  # spent before the training began

    def __enter__(self) -> "Monitor":
        """Count the optimizer's steps until the block ends; do not call `step` in it.

        Raises:
            InputError: the monitor has no optimizer, or counts its steps already.
        """
        if self.optimizer is None or self._hook:
            said = "counts its steps already" if self._hook else "has no optimizer; give it the training's"
            raise InputError(f"the monitor {said}")
        self._hook = self.optimizer.register_step_post_hook(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        self._hook = None

    def _count(self, *_: object) -> None:
        self.step()

    def step(self, model: nn.Module | int | None = None, step: int | None = None) -> SharpnessRecord | None:
        """Count a step of the optimizer, and measure if it is time.

        Args:
            model: what holds the weights now, if it is another object than before. A number is taken for
                `step`.
            step: its number, where the training counts by itself; by default one more than before.

        Raises:
            InputError: the model does not have the parameters and buffers of the one before.

        Returns:
            The measurement, if one was made.
        """
        began = time.perf_counter()
        if isinstance(model, nn.Module):
            self.model = uncompiled(model)
        elif model is not None:
            step = model
        if self._began is None:
            self._began = began
        before, self.steps = self.steps, self.steps + 1 if step is None else step
        record = self.measure() if self._due(self.steps) and self._affordable(began) else None
        following = self.steps + max(self.steps - before, 1)
        self._before = self._theta() if self._due(following) else None
        self._spent += time.perf_counter() - began
        return record

    def measure(self) -> SharpnessRecord:
        """Measure now, whatever the budget, and store the record."""
        device = self.probe.theta.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the training's own work is not ours
        began = time.perf_counter()
        with _undisturbed():
            found = self._found()
        now = time.perf_counter()
        self._cost, training = now - began, self._training(began)
        overhead = round((self._spent + self._cost) / training, 6) if training > 0 else None
        record = SharpnessRecord(step=self.steps, seconds=round(self._cost, 6), overhead=overhead, **found)
        self._measured = self.steps
        self._file.add(record)
        if self.log:
            self.log(record.metrics, record.step)
        return record

    @property
    def overhead(self) -> float:
        """Time of all measurements so far, as a share of the training's own; NaN before the first step."""
        training = self._training(time.perf_counter())
        return self._spent / training if training > 0 else math.nan

    @property
    def records(self) -> list[SharpnessRecord]:
        """All measurements, those of the continued file among them."""
        return list(self._file.records)

    def __repr__(self) -> str:
        return f"Monitor: steps {self.steps}, measurements {len(self.records)}"

    @property
    def history(self) -> SharpnessHistory:
        """All measurements as arrays, which can be drawn and saved."""
        provenance = self._file.header["provenance"] | self.probe.provenance
        return history_of(self.records, settings=self._file.header["settings"], provenance=provenance)

    @staticmethod
    def read(path: str | Path) -> SharpnessHistory:
        """Read the file that a monitor wrote, or still writes.

        Raises:
            InputError: a monitor does not write such a file.
        """
        return read_history(path)

    def _found(self) -> dict[str, Any]:
        """Return the numbers of a record at the present weights."""
        objective = self.probe.follow(self.model)
        loss, gradient = objective.value_and_grad()
        norm = float(gradient.double().norm())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return {}
        found: dict[str, Any] = {"loss": loss, "gradient_norm": norm}
        operator = hessian(objective)
        try:
            pairs = self._trackers[0].solve(operator, gradient)
            edge = self.optimizer and edge_of(self.optimizer, self.model, objective.params, norm)
            found["products"] = pairs.products
            if edge:
                found["threshold"] = edge.threshold
            if edge and (scale := edge.scale) is not None:
                top = self._trackers[1].solve(lambda v: scale * operator(scale * v), scale * gradient)
                found["preconditioned"] = float(top.values[0])
                found["products"] += top.products
        except InputError as error:
            warnings.warn(f"step {self.steps}: {error}", stacklevel=4)
            return found
        found["eigenvalues"] = tuple(map(float, pairs.values))
        found["residuals"] = tuple(map(float, pairs.residuals))
        if self._before is not None:
            found["alignment"] = _cosines(objective.theta - self._before, pairs.vectors)
        if self.trace:
            estimate = estimate_trace(operator, probes=self.trace, seed=self.seed)
            found |= {"trace": estimate.value, "trace_error": estimate.standard_error}
        if self.rho and norm:
            risen = objective.value(objective.theta + gradient * (self.rho / norm)) - loss
            found["sam"] = risen if math.isfinite(risen) else None
        return found

    def _theta(self) -> Tensor:
        named, like = dict(self.model.named_parameters()), self.probe.theta
        return self.probe.params.flat(
            named[entry.name].detach().to(like) for entry in self.probe.params.entries
        )

    def _training(self, now: float) -> float:
        return 0.0 if self._began is None else now - self._began - (self._spent - self._debt)

    def _due(self, step: int) -> bool:
        last = max((r.step for r in self._file.records if r.step < step), default=0)
        return step // self.every > last // self.every

    def _affordable(self, now: float) -> bool:
        if self.at_most is None or self._measured is None:
            return True
        return self._spent + self._cost <= self.at_most * self._training(now)

    def _check_optimizer(self) -> None:
        """Make sure that the optimizer steps this model.

        Raises:
            InputError: it does not.
        """
        if self.optimizer is None:
            return
        stepped = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        if not stepped & {id(p) for p in self.model.parameters()}:
            raise InputError(
                "the optimizer steps no parameter of this model; give the optimizer of its training"
            )


def _cosines(update: Tensor, vectors: Tensor) -> tuple[float, ...]:
    """Return |cos| of a vector with each row; none where the vector is zero."""
    length = float(update.double().norm())
    along = (vectors.double() @ update.double()).abs() / length if length else update.new_zeros(0)
    return tuple(along.tolist())


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put the random number generators back, and measure in full precision and with gradients in between."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 # the user's
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call] # torch leaves it untyped
    try:
        with (
            progress.hushed(),
            torch.inference_mode(False),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            full_precision,
        ):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002 # the user's
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
