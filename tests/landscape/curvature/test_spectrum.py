"""All of one matrix at once: what each part alone says, and its blocks."""

import json

import numpy as np
import pytest
import torch

import landscape as ll
from landscape.cli.output import _plain
from landscape.plots.tables import of_spectra
from tests.worlds import signs


@pytest.fixture
def objective(quadratic, symmetric):
    return quadratic(symmetric, torch.ones(12).double())


def test_each_part_is_what_the_function_of_its_name_returns(objective):
    found = ll.spectrum(objective, top=3, smallest=2, trace=True, probes=5, density=True, steps=6, seed=1)
    pairs = ll.top_eigenpairs(objective, 3, smallest=2, seed=1)
    assert np.array_equal(found.pairs.eigenvalues, pairs.eigenvalues)
    assert np.array_equal(found.pairs.smallest_eigenvalues, pairs.smallest_eigenvalues)
    assert found.trace.value == ll.trace(objective, probes=5, seed=1).value
    assert found.density.moments.tolist() == ll.spectral_density(objective, steps=6, seed=1).moments.tolist()
    assert found.parameters == 12
    assert not found.blocks
    bare = ll.spectrum(objective)
    assert (bare.trace, bare.density, bare.density_facts()) == (None, None, {})


def test_the_density_tells_what_its_probes_do(objective, symmetric):
    """Where Lanczos has taken all n steps, zᵀ f(A) z of each probe z is exact."""
    matrix = symmetric.numpy()
    lowest, largest = np.linalg.eigvalsh(matrix)[[0, -1]]
    ridge, probes = 1 - lowest, signs(8, 12)
    found = ll.spectrum(objective, density=True, steps=12)
    said = found.density_facts(ridge=ridge, gamma=-lowest / 2)
    resolvent = matrix @ np.linalg.inv(matrix + ridge * np.eye(12))
    for key, of in (("trace", matrix), ("effective_dimension", resolvent)):
        samples = np.einsum("pi,ij,pj->p", probes, of, probes)
        assert said[key] == pytest.approx(samples.mean(), rel=1e-6)
        assert said[f"{key}_se"] >= samples.std(ddof=1) / 8**0.5 * (1 - 1e-6)
    squares = np.square(probes @ matrix).sum(1)
    assert said["frobenius"] == pytest.approx(squares.mean() ** 0.5, rel=1e-6)
    assert said["frobenius_se"] == pytest.approx(
        squares.std(ddof=1) / 8**0.5 / (2 * said["frobenius"]), rel=1e-6
    )
    assert (said["local_entropy"], said["local_entropy_se"]) == (None, None)  # -γ is above λmin
    assert found.density_facts()["ridge"] == pytest.approx(largest)


def test_a_negative_effective_dimension_is_explained(quadratic):
    """λ = 1, -1/2, -1/2 with a ridge of 1: the sum is 1/2 - 2 · 1."""
    for eigenvalues, said in (([1.0, -0.5, -0.5], True), ([1.0, 0.5, 0.25], False)):
        matrix = torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))
        found = ll.spectrum(quadratic(matrix, torch.ones(3).double()), top=1, density=True, steps=3)
        assert found.density_facts()["effective_dimension"] == pytest.approx(
            -1.5 if said else 1 / 2 + 1 / 3 + 1 / 5
        )
        told = " ".join(table.title for table in of_spectra({"a": found}))
        assert ("a: negative eigenvalues lower the effective dimension" in told) == said


@pytest.mark.parametrize("method", ["lanczos", "power"])
@pytest.mark.parametrize("seed", range(3))
def test_a_smallest_eigenvalue_next_to_zero_is_written_with_what_it_may_be_off_by(quadratic, method, seed):
    """A residual that is small against λ₁ = 100 is large against λmin, whose sign even may be another."""
    values = torch.cat([torch.tensor([100.0, 40.0]), torch.linspace(-1, 3, 20)]).double()
    drawn = torch.randn(22, 22, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turned = torch.linalg.qr(drawn).Q
    sharp = quadratic(turned @ values.diag() @ turned.T, torch.ones(22).double())
    found = ll.spectrum(sharp, top=1, method=method, tol=0.02)
    assert found.pairs.smallest_converged == [True]
    cell = dict(of_spectra({"a": found})[0].rows)["λmin"]
    value, error = map(float, cell.removesuffix(")").split(" (±"))
    assert float((values - value).abs().min()) <= error <= 1.5 * 0.02 * 100
    assert found.facts()["smallest_errors"] == found.pairs.smallest_errors.tolist()


def test_blocks_are_those_of_each_group_alone(sasrec_objective, tmp_path):
    found = ll.spectrum(sasrec_objective, top=2, trace=True, probes=4, by_group=True)
    assert found.blocks.keys() == sasrec_objective.params.groups.keys()
    assert sum(block.parameters for block in found.blocks.values()) == found.parameters
    for group, block in found.blocks.items():
        alone = ll.top_eigenpairs(sasrec_objective.restrict(group=group), 1)
        assert block.pairs.eigenvalues.tolist() == alone.eigenvalues.tolist()
        assert block.pairs.eigenvalues[0] <= found.pairs.eigenvalues[0] * (1 + 1e-3)  # Cauchy's interlacing
    found.save(tmp_path, "x")
    parts = [
        f"{stem}.{part}.npz"
        for stem in ("x", *(f"x.{g}" for g in found.blocks))
        for part in ("hessian", "trace")
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(parts)
    assert ll.load(tmp_path / "x.norm.trace.npz").value == found.blocks["norm"].trace.value
    facts = json.loads(json.dumps(_plain(found.facts())))
    assert facts["groups"]["norm"]["eigenvalues"] == found.blocks["norm"].pairs.eigenvalues.tolist()
