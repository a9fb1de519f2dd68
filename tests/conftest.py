"""Small worlds in which the answers are known."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

import landscape as ll
from landscape import Objective
from landscape.cli import app
from landscape.curvature.matrix import Operator
from landscape.curvature.operators import hessian
from landscape.report import compare
from landscape.storage.apart import apart
from samrec.architecture import Architecture
from samrec.data.interactions import Interactions
from samrec.data.packing import TrainingBatches
from samrec.data.split import Split, leave_one_out
from samrec.data.synthetic import markov, write_sequences
from samrec.losses import bce
from samrec.model import SASRec
from tests import forked

ROOT = Path(__file__).parents[1]
settings.register_profile(  # how long an example takes says something of the machine
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("suite")
RUN = [
    "--dim",
    "8",
    "--max-length",
    "8",
    "--epochs",
    "4",
    "--eval-every",
    "2",
    "--batch-size",
    "16",
    "--device",
    "cpu",
]


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Let what a file of tests draws as it is read be the same whatever was read before it."""
    if isinstance(collector, pytest.Module):
        torch.manual_seed(seed_of(collector.nodeid))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let what a test draws be the same whatever ran before in this process."""
    torch.manual_seed(seed_of(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Iterator[None]:
    """Let what several tests share be the same whichever of them is the first."""
    if fixturedef.scope == "function":
        return (yield)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(f"{request.node.nodeid} {fixturedef.argname} {request.param_index}"))
        return (yield)


def seed_of(name: str) -> int:
    """A seed for each file, test and fixture: with one for all, what should differ could be the same."""
    return crc32(name.encode())


@pytest.fixture(scope="session", autouse=True)
def reading_process():
    """Let one process read the Parquet and HDF5 of all tests, which would else start Python for each."""
    with apart() as process:
        yield process


@pytest.fixture(scope="session", autouse=True)
def current_folder(tmp_path_factory):
    """Stand where all tests have their files: a checkpoint's data are only read from there."""
    os.chdir(tmp_path_factory.getbasetemp())


class Quadratic(nn.Module):
    """L(θ) = θᵀAθ/2 + bᵀθ, whose every property has a closed form."""

    def __init__(self, matrix: Tensor, at: Tensor, slope: Tensor | None = None) -> None:
        super().__init__()
        self.theta = nn.Parameter(at)
        self.register_buffer("matrix", matrix)
        self.register_buffer("slope", torch.zeros_like(at) if slope is None else slope)

    def forward(self) -> Tensor:
        theta = self.theta
        return theta.flatten() @ self.matrix @ theta.flatten() / 2 + (self.slope * theta).sum()


QuadraticObjective = Callable[..., Objective]


@pytest.fixture
def quadratic() -> QuadraticObjective:
    """Return an objective that is a quadratic, from its matrix, the point θ and the slope b."""

    def build(matrix: Tensor, at: Tensor, slope: Tensor | None = None) -> Objective:
        return Objective(Quadratic(matrix, at, slope), [None], lambda model, _: (model(), 1))

    return build


@pytest.fixture
def operator(quadratic: QuadraticObjective) -> Callable[[Tensor], Operator]:
    """Return the Hessian of a quadratic, from its matrix."""
    return lambda matrix: hessian(quadratic(matrix, torch.ones(len(matrix)).to(matrix)))


@pytest.fixture
def symmetric() -> Tensor:
    """An indefinite symmetric matrix of order 12, in float64."""
    root = torch.from_numpy(np.random.default_rng(0).standard_normal((12, 12)))
    return root + root.T


@pytest.fixture
def positive(symmetric):
    return symmetric @ symmetric / 12


@pytest.fixture(scope="session")
def interactions() -> Interactions:
    return markov(users=60, items=30, mean_length=8, seed=0).interactions


@pytest.fixture(scope="session")
def split(interactions: Interactions) -> Split:
    return leave_one_out(interactions)


@pytest.fixture(scope="session")
def data_file(interactions: Interactions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "synthetic.txt"
    write_sequences(interactions, path)
    return path


def small_sasrec(split: Split, seed: int = 0) -> SASRec:
    """A trained-looking SASRec in float64: weights far enough from 0 that every term of a Hessian counts."""
    torch.manual_seed(seed)
    large = Architecture(init="xavier")
    model = SASRec(split.num_items, 4, 6, layers=1, heads=2, dropout=0.5, architecture=large).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="session")
def sasrec_objective(split: Split) -> Objective:
    """The BCE of a small SASRec in float64 on three batches of different sizes."""
    batches = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:40], 17, (0,))
    return Objective(small_sasrec(split), batches, bce)


@pytest.fixture(scope="session")
def dense_hessian(sasrec_objective: Objective) -> Tensor:
    """The Hessian of `sasrec_objective` by `torch.func`, from the mean loss as one function of one vector."""
    objective = sasrec_objective

    def mean_loss(theta: Tensor) -> Tensor:
        weights = {f"model.{name}": t for name, t in objective.params.split(theta).items()}
        bound = objective._bound
        sums = [torch.func.functional_call(bound, weights, (batch,))[0] for batch in objective.batches]
        return torch.stack(sums).sum() / objective.weight

    return torch.func.jacrev(torch.func.grad(mean_loss), chunk_size=32)(objective.theta).detach()


@pytest.fixture(scope="session")
def real_data(pytestconfig: pytest.Config) -> Path:
    """The folder of real data; skips, saying so, where LANDSCAPE_DATA names none."""
    folder = os.environ.get("LANDSCAPE_DATA")
    if not folder:
        pytest.skip("LANDSCAPE_DATA names no folder of real data")
    return (pytestconfig.invocation_params.dir / folder).resolve()  # the tests stand elsewhere by now


@pytest.fixture
def landscape(monkeypatch, capsys):
    """Run the command line in this process; return (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["landscape", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def answer(landscape):
    """Run with --json, and return the one object on standard output."""

    def run(*arguments):
        code, out, err = landscape(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture(scope="session")
def runs(data_file, tmp_path_factory):
    """Two trained runs, by the command in a process of its own."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("sasrec", "samrec"):
        train = ["train", "--data", data_file, "--method", method, "--out", folder / method, *RUN]
        forked.ended(train, folder / "said.txt")
    return folder


@pytest.fixture
def few_measures(monkeypatch):
    """Let `compare` and `demo` take two measures of sharpness and a short density: all take half a minute."""
    monkeypatch.setattr(ll, "sharpness", partial(ll.sharpness, measures=("sam", "asam")))
    monkeypatch.setattr(compare, "PROBES", 2)
    monkeypatch.setattr(compare, "STEPS", 5)


@pytest.fixture
def both(runs):
    return ["--ckpt", runs / "sasrec" / "best.pt", "--ckpt", runs / "samrec" / "best.pt"]
