"""`Monitor`: the sharpness of a loss while it is trained, and nothing of the training changed."""

import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.curvature.allowance import Allowance
from landscape.curvature.copies import LEAST
from landscape.curvature.history import (
    RecordFile,
    SharpnessHistory,
    SharpnessRecord,
    history_of,
    read_history,
)
from landscape.curvature.operators import hessian
from landscape.curvature.solver import Found
from landscape.curvature.stability import edge_of
from landscape.curvature.trace import trace as estimate_trace
from landscape.curvature.tracking import Tracker
from landscape.curvature.undisturbed import undisturbed
from landscape.errors import InputError
from landscape.objective.criteria import Criterion
from landscape.objective.frozen import uncompiled
from landscape.objective.identity import BATCHES
from landscape.objective.objective import Objective
from landscape.objective.supervised import supervised
from landscape.objective.training_mode import Mode
from landscape.runtime.arguments import Count, CountOrZero, Positive, Seed, Size, checks_arguments
from landscape.runtime.devices import wait_for
from landscape.storage.results import surroundings

FIRST = 10  # products of an eigenvalue that the first measurement is expected to take
OVER = 2  # products that two solves may take beyond their deadlines
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
        optimizer: the optimizer of the training, for the edge of stability. It is only read.
        every: measure at each multiple of this number of steps, or at the first step after it that can be.
        at_most: maximum time of all measurements, and of setting up, as a share of the training's own time.
            What it cannot pay for yet is left out, including the first steps of the training. A measurement
            that takes longer than expected is stopped, and its residuals say what has not converged; the next
            one goes on from its vectors. None: no limit.
        k: number of largest eigenvalues.
        tol: largest residual ‖Hv - λv‖ / |λ| of an eigenvalue that counts as converged.
        trace: number of probes for the trace of the Hessian; 0 leaves it out.
        rho: radius of SAM's sharpness L(θ + ρ ∇L/‖∇L‖) - L(θ); None leaves it out.
        mode: mode of the model in the frozen loss, as for `landscape.supervised`; an `Objective` has its own.
        file: JSON lines, one per measurement; `landscape.load` reads them. A file of the same settings and
            data is continued from `steps`, which a resumed training sets; records of later steps go.
        log: called with the numbers of each measurement and its step, as `mlflow.log_metrics` and
            `wandb.log` are.
        seed: random seed of the vectors, and of the dropout masks in mode `training`.

    Attributes:
        probe: the frozen loss. `steps`: number of the optimizer's steps so far.

    Raises:
        InputError: a number is out of range; batches come without a criterion, or an `Objective` with one or
            a mode; the optimizer does not step this model; the file holds something else; as `supervised`.
    """

    @checks_arguments
    def __init__(
        self,
        model: nn.Module,
        probe: Objective | Iterable[Any],
        criterion: Criterion | None = None,
        *,
        optimizer: Optimizer | None = None,
        every: Size = 1,
        at_most: Positive | None = 0.05,
        k: Count = 5,
        tol: Positive = 1e-3,
        trace: CountOrZero = 0,
        rho: Positive | None = None,
        mode: Mode = "eval",
        file: str | Path | None = None,
        log: Log | None = None,
        seed: Seed = 0,
    ) -> None:
        if trace == 1:
            raise InputError("trace is 1; it takes two probes or more, or 0 for no trace")
        if isinstance(probe, Objective) == (criterion is not None):
            raise InputError("give batches and a criterion, or an Objective of the model alone")
        if isinstance(probe, Objective) and mode != "eval":
            raise InputError("an Objective has a mode of its own; make it with landscape.in_training_mode")
        began = time.perf_counter()
        self.model, self.optimizer, self.log = uncompiled(model), optimizer, log
        self.every, self.trace, self.rho, self.seed = every, trace, rho, seed
        self.steps, self._stride = 0, 1
        with undisturbed():
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
        self._places: Tensor | None = None  # of the coordinates that the trackers' vectors have, if not all
        self._allowance = Allowance(at_most)
        self._ready = at_most is None
        if at_most is not None:
            self._allowance.pace = self._seconds_of_product()
            self._allowance.expected = self._allowance.pace * (FIRST * (k + 1) + trace + LEAST)
        self._allowance.spend(time.perf_counter() - began)
        # θ before the step that is measured next
        self._before: Tensor | None = self._theta() if self._ready and every == 1 else None

    def __enter__(self) -> "Monitor":
        """Count the optimizer's steps until the block ends; do not call `step` in it.

        Raises:
            InputError: the monitor has no optimizer, or is already counting steps.
        """
        if self.optimizer is None or self._hook:
            said = "is already counting steps" if self._hook else "has no optimizer; give it one"
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
        self._allowance.begin(began)
        stride = 1 if step is None else step - self.steps
        self.steps += stride
        if stride not in (1, self._stride):  # a checkpoint was loaded, or another training begins
            self._before = None
        self._stride, record = max(stride, 1), None
        if self._due(self.steps) and self._ready:
            record = self._measured(self._allowance.deadline(began))
        now = time.perf_counter()
        self._ready = self._allowance.ready(now)
        self._before = self._theta() if self._ready and self._due(self.steps + self._stride) else None
        self._allowance.spend(time.perf_counter() - now)
        return record

    def measure(self) -> SharpnessRecord:
        """Measure now, whatever the budget, and store the record. `InputError` where its file cannot be."""
        return self._measured(math.inf)

    def _measured(self, deadline: float) -> SharpnessRecord:
        wait_for(next(self.model.parameters()).device)  # the training's own work is not ours
        began = time.perf_counter()
        with undisturbed():
            found = self._found(deadline)
        cost = time.perf_counter() - began
        converged = all(residual <= self._trackers[0].tol for residual in found.get("residuals", ()))
        self._allowance.learn(cost, found.get("products", 0), converged)
        share = self._allowance.overhead(began, cost)
        overhead = None if math.isnan(share) else round(share, 6)
        record = SharpnessRecord(step=self.steps, seconds=round(cost, 6), overhead=overhead, **found)
        self._file.add(record)
        if self.log:
            self.log(record.metrics, record.step)
        self._allowance.spend(time.perf_counter() - began)
        return record

    @property
    def overhead(self) -> float:
        """Time of all measurements so far, as a share of the training's own; NaN before the first step."""
        return self._allowance.overhead(time.perf_counter())

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

    def _found(self, deadline: float) -> dict[str, Any]:
        """Return the numbers of a record at the present weights."""
        whole, objective, places = self._present()
        loss, gradient = objective.value_and_grad()
        norm = float(gradient.double().norm())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return {}
        found: dict[str, Any] = {"loss": loss, "gradient_norm": norm}
        operator, complete = hessian(objective), whole is objective
        edge = self.optimizer and edge_of(self.optimizer, self.model, whole.params, norm)
        tracker, other = self._trackers
        # after it comes a product, or in the first solve residuals and a search for copies; and the trace
        last = OVER if tracker.start is not None else tracker.k + LEAST
        deadline -= self._allowance.pace * (self.trace + last)
        first = deadline
        if edge and edge.scale is not None and deadline < math.inf:  # for one eigenvalue beside these k
            first -= (deadline - time.perf_counter()) / (tracker.k + 1)
        try:
            pairs = _with_zeros(tracker.solve(operator, gradient, first), complete)
            found["products"] = pairs.products
            found["eigenvalues"] = tuple(map(float, pairs.values))
            found["residuals"] = tuple(map(float, pairs.residuals))
            if self._before is not None:
                found["alignment"] = _cosines(whole.theta - self._before, pairs.vectors, places)
            if edge and edge.scale is not None:
                root = edge.scale[places]
                top = other.solve(lambda v: root * operator(root * v), root * gradient, deadline)
                top = _with_zeros(top, complete)
                found["products"] += top.products
                if top.residuals[0] <= other.tol:
                    found |= {"threshold": edge.threshold, "preconditioned": float(top.values[0])}
            elif edge:
                found["threshold"] = edge.threshold
        except InputError as error:
            warnings.warn(f"step {self.steps}: {error}", stacklevel=5)
        if self.trace and "eigenvalues" in found:
            estimate = estimate_trace(operator, probes=self.trace, seed=self.seed)
            found |= {"trace": estimate.value, "trace_error": estimate.standard_error}
        if self.rho and norm:
            risen = objective.value(objective.theta + gradient * (self.rho / norm)) - loss
            found["sam"] = risen if math.isfinite(risen) else None
        return found

    def _present(self) -> tuple[Objective, Objective, Tensor | slice]:
        """Return the loss now, the same of the coordinates that it reads alone, and their places in θ."""
        whole = self.probe.follow(self.model)
        smaller, places = whole.compact() or (whole, None)
        if not _equal(places, self._places):
            self._places = places
            for tracker in self._trackers:
                tracker.start = None
        return whole, smaller, slice(None) if places is None else places

    def _seconds_of_product(self) -> float:
        """Measure a Hessian product; 0 where there is none at the first weights."""
        try:
            with undisturbed():
                objective = self._present()[1]
                operator, gradient = hessian(objective), objective.grad()
                operator(gradient)  # the first also checks the derivatives
                began = time.perf_counter()
                float(operator(gradient).norm())  # waits for the device
                return time.perf_counter() - began
        except InputError:
            return 0.0

    def _theta(self) -> Tensor:
        named, like = dict(self.model.named_parameters()), self.probe.theta
        return self.probe.params.flat(
            named[entry.name].detach().to(like) for entry in self.probe.params.entries
        )

    def _due(self, step: int) -> bool:
        last = max((r.step for r in self._file.records if r.step < step), default=0)
        return step // self.every > last // self.every

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
                "the optimizer does not update any parameter of this model; give the one that trains it"
            )


def _cosines(update: Tensor, vectors: Tensor, places: Tensor | slice) -> tuple[float, ...]:
    """Return |cos| of a vector with each row, which is zero but at some places; none if it has no angle."""
    length = float(update.double().norm())
    if not 0 < length < math.inf:  # after weights that were not finite
        return ()
    return tuple(((vectors.double() @ update[places].double()).abs() / length).tolist())


def _with_zeros(found: Found, complete: bool) -> Found:
    """Return the pairs of the whole matrix, given those of its rows and columns that are not zero.

    It has zero as a further eigenvalue, in place of those that are negative; the vectors are left out.
    """
    below = found.values < 0
    if complete or not below.any():
        return found
    return replace(
        found,
        values=np.where(below, 0.0, found.values),
        residuals=np.where(below, 0.0, found.residuals),
        vectors=found.vectors * torch.from_numpy(~below).to(found.vectors)[:, None],
    )


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
