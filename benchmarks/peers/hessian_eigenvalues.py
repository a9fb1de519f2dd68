"""Time five eigenvalues of the Hessian, or a product with it, in three other packages, on a CPU.

Timed: the package's own call for the five eigenvalues, from the constructed operator on. Not timed: imports,
reading the data, building model and batches, constructing the operator (curvlinops probes there that the loss
is deterministic, which costs products), one product at the start. Products are counted by the model's calls.

What is the same as ours: the checkpoint, its users, targets and negatives, and the loss, a mean over all
positions. Peers average the means of batches, hessian-eigenthings all alike, PyHessian and curvlinops by
size. Here each batch is one input, its number, and its loss is sum · (batches / all weights), so that each
of these averages is our mean. What differs:

- `padded`: each history is a row of 50, as their users have it; 89% of the slots are empty for 2,048 users of
  Beauty. `packed`: the very batches of our objective.
- PyHessian finds the five largest in magnitude, one after another, by power iteration. It stops where an
  eigenvalue changes by less than `tol` between two steps, or after 100 (its default), whatever the residual
  is. The vector that it returns is one step ahead of the eigenvalue. It adds 1e-6 to each norm.
- hessian-eigenthings runs Lanczos for a number of steps that must be said beforehand, twice the eigenvalues
  by default, and says afterwards which residuals are within `tol`, by an estimate. In its favour it is given
  the fewest steps with which it says so of all five (`steps`), sought on packed batches and not timed. The
  largest are asked for (its default is the largest in magnitude), reorthogonalized however many steps.
- curvlinops hands its products to ARPACK (SciPy's `eigsh`), in float64 as its `to_scipy` does by default;
  `tol` is that of the residuals, relative, as ARPACK estimates them. A product is `vmap` of forward mode over
  `jacrev`, which torch 2.13 gets wrong in the weights of LayerNorm: `product_differs_from_ours_by` shows it,
  about 0.5% for SASRec, and the residuals stay at about 1e-3, whatever `tol`.
- Sums over batches are in float32.

The residuals ‖Hv - λv‖ / |λ| are those of the pairs that the peer returns, by the products of our objective.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from curvlinops import HessianLinearOperator
from hessian_eigenthings import HessianOperator, LambdaOperator, lanczos, supervised_loss
from pyhessian import hessian
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from benchmarks.padded import padded
from landscape.objective.objective import Objective
from landscape.tasks import TaskOptions
from samrec.checkpoint import load
from samrec.data.packing import Batch
from samrec.losses import Loss, loss_of
from samrec.task import objective

TOP = 5
PRODUCTS = 5  # of which the median is taken
MOST_STEPS = 300
LANCZOS = {"k": TOP, "which": "LA", "reorthogonalize": True, "seed": 0}
Data = list[tuple[Tensor, Tensor]]


class LossOfBatch(nn.Module):
    """Maps the number of a batch to its loss, such that L is the mean over batches; counts its calls."""

    def __init__(self, model: nn.Module, batches: list[Batch], loss: Loss, weight: float) -> None:
        super().__init__()
        self.model = model
        self.batches = batches
        self.loss = loss
        self.scale = len(batches) / weight
        self.calls = 0

    def forward(self, number: Tensor) -> Tensor:
        self.calls += 1
        return self.loss(self.model, self.batches[int(number)])[0] * self.scale

    @property
    def data(self) -> Data:
        """Inputs and targets, a batch after the other, as loaders yield them."""
        return [(torch.tensor([number]), torch.zeros(1)) for number in range(len(self.batches))]

    @property
    def products(self) -> float:
        """How many passes over all batches there were."""
        return self.calls / len(self.batches)


class Given(nn.Module):
    """The criterion of a model that returns its loss."""

    reduction = "mean"

    def forward(self, loss: Tensor, target: Tensor) -> Tensor:
        return loss


@dataclass(frozen=True)
class Peer:
    """A peer's operator.

    Attributes:
        product: v, shape (n,), to Hv.
        eigenpairs: a tolerance and a number of steps to eigenvalues and eigenvectors, shape (5, n).
    """

    product: Callable[[Tensor], Tensor]
    eigenpairs: Callable[[float, int], tuple[Tensor, Tensor]]


def with_pyhessian(model: LossOfBatch) -> Peer:
    operator = hessian(model, Given(), dataloader=model.data, cuda=False)
    shapes = [p.shape for p in operator.params]

    def product(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        _, found = operator.dataloader_hv_product([p.view(s) for p, s in zip(parts, shapes, strict=True)])
        return torch.cat([part.flatten() for part in found])

    def eigenpairs(tol: float, steps: int) -> tuple[Tensor, Tensor]:
        values, vectors = operator.eigenvalues(tol=tol, top_n=TOP)
        return torch.tensor(values), torch.stack([torch.cat([p.flatten() for p in v]) for v in vectors])

    return Peer(product, eigenpairs)


def with_eigenthings(model: LossOfBatch) -> Peer:
    operator = HessianOperator(model, model.data, supervised_loss(Given()))

    def eigenpairs(tol: float, steps: int) -> tuple[Tensor, Tensor]:
        found = lanczos(operator, max_iter=steps, tol=tol, **LANCZOS)
        return found.eigenvalues, found.eigenvectors

    return Peer(operator.matvec, eigenpairs)


def with_curvlinops(model: LossOfBatch) -> Peer:
    operator = HessianLinearOperator(model, Given(), list(model.parameters()), model.data)

    def eigenpairs(tol: float, steps: int) -> tuple[Tensor, Tensor]:
        values, vectors = eigsh(operator.to_scipy(), k=TOP, which="LA", tol=tol, rng=0)
        return torch.from_numpy(values).flip(0), torch.from_numpy(vectors.T.copy()).flip(0).float()

    return Peer(operator.__matmul__, eigenpairs)


PEERS = {
    "PyHessian": with_pyhessian,
    "hessian-eigenthings": with_eigenthings,
    "curvlinops-for-pytorch": with_curvlinops,
}


def fewest_steps(model: LossOfBatch, tol: float) -> int:
    """Return the fewest steps with which hessian-eigenthings says that all five have converged.

    One seed makes one sequence of vectors, so that the products of a shorter run serve in the longer ones.
    """
    operator = HessianOperator(model, model.data, supervised_loss(Given()))
    known: list[Tensor] = []

    def product(left: Iterator[Tensor], vector: Tensor) -> Tensor:
        found = next(left, None)
        if found is None:
            known.append(found := operator.matvec(vector))
        return found

    for steps in range(TOP, MOST_STEPS):
        again = LambdaOperator(partial(product, iter(known.copy())), operator.size)
        if lanczos(again, max_iter=steps, tol=tol, **LANCZOS).converged.all():
            return steps
    return MOST_STEPS


def seconds_of(task: Callable[[Tensor], Tensor], vector: Tensor) -> float:
    """Time a product."""
    started = time.perf_counter()
    task(vector)
    return time.perf_counter() - started


def forget_peak() -> None:
    """Let the peak memory start from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Return the peak memory of this process, in gigabytes; unlike rusage's, it is not inherited."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def residuals(frozen: Objective, values: Tensor, vectors: Tensor) -> list[float]:
    """Measure ‖Hv - λv‖ / |λ| of each pair with the products of our objective."""
    units = vectors.double() / vectors.double().norm(dim=1, keepdim=True)
    return [
        float((frozen.hvp(v).double() - value * v).norm() / value.abs())
        for value, v in zip(values.double(), units, strict=True)
    ]


def measure(
    peer: str, what: str, layout: str, ckpt: Path, data: Path, users: int, threads: int, tol: float
) -> dict[str, object]:
    """Time the peer's eigenvalues, or its product."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    checkpoint = load(ckpt)
    frozen = objective(ckpt, TaskOptions(users=users, data=data, device="cpu"))
    loss = loss_of(checkpoint.config.loss, checkpoint.config.calibration)

    def seen(batches: list[Batch]) -> LossOfBatch:
        return LossOfBatch(checkpoint.model().eval(), batches, loss, frozen.weight)

    model = seen([padded(batch) for batch in frozen.batches] if layout == "padded" else frozen.batches)
    vector = torch.randn(frozen.params.numel)
    vector /= vector.norm()
    operator = PEERS[peer](model)
    exact, ahead = frozen.hvp(vector), operator.product(vector)
    found: dict[str, object] = {
        "peer": peer,
        "version": version(peer),
        "layout": layout,
        "users": users,
        "threads": threads,
        "product_differs_from_ours_by": float((ahead - exact).norm() / exact.norm()),
    }
    forget_peak()
    if what == "product":
        seconds = [seconds_of(operator.product, vector) for _ in range(PRODUCTS)]
        return found | {"seconds_per_product": round(median(seconds), 4), "gigabytes": round(peak(), 3)}

    steps = fewest_steps(seen(frozen.batches), tol) if peer == "hessian-eigenthings" else None
    model.calls = 0
    forget_peak()
    started = time.perf_counter()
    values, vectors = operator.eigenpairs(tol, steps or 0)
    return found | {
        "seconds": round(time.perf_counter() - started, 2),
        "products": round(model.products, 2),
        "gigabytes": round(peak(), 3),
        "tol": tol,
        "steps": steps,
        "eigenvalues": values.tolist(),
        "residuals": residuals(frozen, values, vectors),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--what", choices=["eigenvalues", "product"], default="eigenvalues")
    parser.add_argument("--layout", choices=["padded", "packed"], default="padded")
    parser.add_argument("--ckpt", type=Path, required=True, help="best.pt of a run")
    parser.add_argument("--data", type=Path, required=True, help="what it was trained on")
    parser.add_argument("--users", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tol", type=float, default=1e-3, help="the tolerance that the peer is given")
    with redirect_stdout(sys.stderr):
        found = measure(**vars(parser.parse_args()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
