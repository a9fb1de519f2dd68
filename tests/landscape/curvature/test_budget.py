"""A solver keeps within a given memory, wherever its basis then lies, and finds the same eigenvalues."""

import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape.curvature import budget
from landscape.curvature.basis import Basis, gram, project_out, random_unit
from landscape.errors import InputError
from landscape.runtime.allocations import peak

N = 150_000
VECTOR = 8 * N


class Diagonal:
    """Has the eigenvalues 1, 0.8, 0.64, ... and, in between, a bulk around 0 and one value of -0.7."""

    shape, dtype, device = (N, N), torch.float64, torch.device("cpu")

    def __init__(self):
        self.values = torch.linspace(-0.2, 0.2, N, dtype=torch.float64)
        self.values[7:15] = 0.8 ** torch.arange(8, dtype=torch.float64)
        self.values[100] = -0.7

    def __call__(self, vector):
        return vector * self.values


def no_disk(_):
    return SimpleNamespace(free=0)


@pytest.mark.parametrize(
    ("vectors", "place", "disk"),
    [(150, "device", True), (75, "device", True), (30, "file", True), (60, "device", False)],
)
def test_the_peak_of_memory_is_below_the_budget_and_eigenvalues_are_exact(vectors, place, disk, monkeypatch):
    if not disk:
        monkeypatch.setattr(shutil, "disk_usage", no_disk)
    operator = Diagonal()
    found, taken = peak(
        lambda: ll.top_eigenpairs(operator, 4, tol=1e-7, memory=vectors * VECTOR),
        [operator.values],
    )
    assert taken <= vectors * VECTOR
    assert (found.settings["place"], found.settings["memory"]) == (place, vectors * VECTOR)
    assert all(found.converged)
    assert not found.copies_may_be_missing
    assert found.eigenvalues == pytest.approx([1, 0.8, 0.64, 0.512], abs=1e-12)
    assert found.smallest == pytest.approx(-0.7, abs=1e-12)


def network(batches):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 50), nn.Tanh(), nn.Linear(50, 3))
    pairs = [(torch.randn(100, 20), torch.randint(3, (100,))) for _ in range(batches)]
    return ll.supervised(model, pairs, nn.CrossEntropyLoss())


def test_what_each_thread_holds_of_a_product_counts(monkeypatch):
    """Operations are watched in one thread; what another holds was free of charge."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    operator = ll.hessian(network(4))
    assert operator.threads == 1
    alone = budget._peak(operator, operator.objective.theta)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    shared = ll.hessian(operator.objective)
    assert shared.threads == 2
    assert budget._peak(shared, operator.objective.theta) == 2 * alone
    assert shared.threads == 2


def test_no_more_products_of_batches_wait_than_there_are_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    operator, made = ll.hessian(network(6)), []
    found = operator._by_batch(lambda product: made.append(product) or [])
    for number, _ in enumerate(found, start=1):
        time.sleep(0.01)
        assert len(made) <= number + 1
    assert len(made) == 6


@pytest.mark.parametrize(("basis", "most"), [(None, 2 * (2 * 5 + 3)), (50, 50)])
def test_a_basis_in_a_file_is_short_unless_its_length_is_given(basis, most):
    operator = Diagonal()
    plan = budget.planned(operator, operator.values, 30 * VECTOR, 5, 1, basis)
    assert plan == ("file", most)


def test_a_full_basis_and_its_restarts_keep_within_the_budget(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", no_disk)
    operator = Diagonal()
    operator.values = torch.linspace(-1, 1, N, dtype=torch.float64)  # nothing converges
    memory = 60 * VECTOR
    found, taken = peak(
        lambda: ll.top_eigenpairs(operator, 2, memory=memory, max_products=60), [operator.values]
    )
    assert (found.settings["place"], any(found.converged)) == ("device", False)
    assert 0.4 * memory < taken <= memory


@pytest.mark.parametrize("memory", [10**9, 300_000, 180_000])
def test_eigenvalues_are_those_of_the_dense_hessian_whatever_the_budget(memory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    batches = [(torch.randn(20, 4).double(), torch.randint(3, (20,))) for _ in range(2)]
    objective = ll.supervised(model, batches, nn.CrossEntropyLoss())
    n = objective.params.numel
    dense = np.linalg.eigvalsh(torch.stack([objective.hvp(v) for v in torch.eye(n).double()]).numpy())
    found, taken = peak(lambda: ll.top_eigenpairs(objective, 3, smallest=2, tol=1e-10, memory=memory))
    assert taken <= memory
    assert found.eigenvalues == pytest.approx(dense[::-1][:3], rel=1e-10)
    assert found.smallest_eigenvalues == pytest.approx(dense[:2], abs=1e-10 * dense[-1])


def test_a_budget_too_small_for_the_eigenvectors_is_refused_with_what_they_take(monkeypatch):
    operator = Diagonal()
    with pytest.raises(InputError, match=r"memory is 9\.6 MB; a product and 5 eigenvectors take") as told:
        ll.top_eigenpairs(operator, 4, memory=8 * VECTOR)
    need = float(str(told.value).split()[-2]) * 1e6
    assert ll.top_eigenpairs(operator, 4, memory=int(1.01 * need)).settings["place"] == "file"
    monkeypatch.setattr(shutil, "disk_usage", no_disk)
    with pytest.raises(InputError, match="no disk has room for it"):
        ll.top_eigenpairs(operator, 4, memory=int(1.01 * need))
    with pytest.raises(InputError, match="memory is for lanczos"):
        ll.top_eigenpairs(operator, 4, "power", memory="1 GB")


@pytest.mark.parametrize(
    ("text", "size"),
    [("8 GB", 8 * 10**9), ("1.5kB", 1500), ("2 GiB", 2**31), ("300", 300), (7, 7), ("4m", 4 * 10**6)],
)
def test_a_budget_is_bytes_or_a_text(text, size):
    assert budget.bytes_of(text) == size


@pytest.mark.parametrize("text", ["much", "-1 GB", "8 XB", "0", 0, -5, True, "", "1e3", "GB"])
def test_another_budget_is_refused(text):
    with pytest.raises(InputError, match='a number of bytes or a text such as "8 GB"'):
        budget.bytes_of(text)


@pytest.mark.parametrize("place", ["host", "file"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_basis_has_the_same_digits_wherever_it_lies(place, dtype):
    like = torch.zeros(70_001, dtype=dtype)
    here, there = Basis(like), Basis(like, place)
    rng = np.random.default_rng(0)
    for _ in range(20):
        vector = random_unit(like, rng, here.blocks)[None]
        here.append(vector)
        there.append(vector)
    change = np.random.default_rng(1).standard_normal((20, 17))
    for compute in (
        lambda basis: project_out(torch.ones_like(like), basis.blocks),
        lambda basis: torch.from_numpy(gram(basis.blocks[0], torch.ones_like(like)[None])),
        lambda basis: basis.combined(change),
        lambda basis: (basis.mix(change), torch.cat(basis.blocks))[1],
        lambda basis: basis.rows(15),
    ):
        assert torch.equal(compute(here), compute(there))
    assert (len(there), len(there.another()), there.another().place) == (17, 0, place)
