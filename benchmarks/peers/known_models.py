"""Measure a model of `benchmarks/models.py` with one of three other packages, for `benchmarks.known_models`.

All get the same weights, the same single batch and the same mean loss, and attention's backend MATH, without
which torch has no second derivative of a transformer and they fail. Each is asked as its documentation does:

- PyHessian takes the batch as `data`, so that it keeps the graph of the gradient. It finds eigenvalues one
  after another by power iteration; 20 products are 4 steps for each of the five. Its trace stops where the
  mean changes little, which is turned off here: four probes are four for everybody.
- hessian-eigenthings makes 20 steps of Lanczos and takes the largest Ritz values. Its trace is Hutchinson's.
- curvlinops hands its products to ARPACK (SciPy's `eigsh`) in float64, as its `to_scipy` does by default,
  with 20 basis vectors and a tolerance that is met after the first 20 products. Its trace multiplies the four
  probes at once. NumPy's arrays, ARPACK's basis of 40 θ among them, are not in the peak.
"""

import argparse
import json
import math
import sys
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from curvlinops import HessianLinearOperator, hutchinson_trace
from hessian_eigenthings import HessianOperator, lanczos, supervised_loss
from hessian_eigenthings.algorithms.trace import trace
from pyhessian import hessian
from pyhessian.utils import hessian_vector_product
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.models import MODELS, Batch, cross_entropy
from benchmarks.packages import PROBES, PRODUCTS, TOP, Package, flat, measured, split


class MeanLoss(nn.Module):
    """`cross_entropy` as a criterion."""

    reduction = "mean"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)


def _kept(model: nn.Module, batch: Batch) -> Any:
    model.zero_grad()  # to which it would add
    return hessian(model, MeanLoss(), data=batch, cuda=False)


def _by_kept(operator: Any, vector: Tensor) -> Tensor:
    return flat(hessian_vector_product(operator.gradsH, operator.params, split(vector, operator.model)))


def _by_power(operator: Any) -> tuple[Tensor, Tensor]:
    values, vectors = operator.eigenvalues(maxIter=PRODUCTS // TOP, tol=0, top_n=TOP)
    return torch.tensor(values), torch.stack([flat(vector) for vector in vectors])


def _by_lanczos(operator: HessianOperator) -> tuple[Tensor, Tensor]:
    found = lanczos(operator, k=TOP, max_iter=PRODUCTS, which="LA", seed=0)
    return found.eigenvalues, found.eigenvectors


def _by_arpack(operator: HessianLinearOperator) -> tuple[Tensor, Tensor]:
    values, vectors = eigsh(operator.to_scipy(), k=TOP, which="LA", ncv=PRODUCTS, tol=1e9, rng=0)
    return torch.from_numpy(values).flip(0), torch.from_numpy(vectors.T.copy()).flip(0).float()


PEERS = {
    "PyHessian": Package(_kept, _by_kept, _by_power, lambda of: of.trace(maxIter=PROBES, tol=-math.inf)),
    "hessian-eigenthings": Package(
        lambda model, batch: HessianOperator(model, [batch], supervised_loss(MeanLoss())),
        HessianOperator.matvec,
        _by_lanczos,
        partial(trace, num_matvecs=PROBES, method="hutchinson", seed=0),
    ),
    "curvlinops-for-pytorch": Package(
        lambda model, batch: HessianLinearOperator(model, MeanLoss(), list(model.parameters()), [batch]),
        HessianLinearOperator.__matmul__,
        _by_arpack,
        partial(hutchinson_trace, num_matvecs=PROBES),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--counted", action="store_true", help="also measure memory and residuals")
    parser.add_argument("--no-eigenvalues", action="store_true", help="leave them out")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with redirect_stdout(sys.stderr), sdpa_kernel(SDPBackend.MATH):
        found = measured(PEERS[asked.peer], asked.model, asked.counted, not asked.no_eigenvalues)
    print(json.dumps({"version": version(asked.peer)} | found))


if __name__ == "__main__":
    main()
