"""All of one matrix at once: what each part alone says, and its blocks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import landscape as ll
from landscape.cli.output import _plain
from landscape.curvature.eigenpairs import Eigenpairs
from landscape.curvature.operators import MATRICES
from landscape.plots.tables import of_spectra
from landscape.runtime.rounding import UNSURE
from tests.worlds import signs, world


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
    ways = {"method": "power", "tol": 0.01, "max_products": 200}
    other = ll.spectrum(
        objective,
        **ways,
        trace=True,
        trace_method="xtrace",
        trace_tol=0.5,
        probes=8,
        matrix="hessian",
        seed=1,
    )
    assert other.pairs.settings == ll.top_eigenpairs(objective, 5, **ways, seed=1).settings
    assert other.trace.settings == ll.trace(objective, method="xtrace", tol=0.5, probes=8, seed=1).settings
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
    assert found.density_facts(ridge=ridge)["gamma"] == pytest.approx(largest)
    by_magnitude = replace(found, pairs=pairs([-2 * largest, largest], [0.0, 0.0], [], []))
    assert by_magnitude.density_facts(gamma=9.0)["ridge"] == largest


@pytest.mark.parametrize("matrix", MATRICES)
def test_each_part_is_of_the_matrix_that_was_asked_for(matrix):
    found = ll.spectrum(world("MLP"), matrix=matrix, top=1, trace=True, probes=2, density=True, steps=2)
    parts = found.pairs, found.trace, found.density
    assert {part.settings["matrix"] for part in parts} == {found.facts()["matrix"]} == {matrix}


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


def pairs(values, residuals, low, low_residuals, tol=1e-3, rounding=0.0):
    """Eigenpairs with their vectors left out."""
    return Eigenpairs(
        eigenvalues=np.array(values),
        eigenvectors=np.empty((0, 9)),
        residuals=np.array(residuals),
        converged=[r <= tol for r in residuals],
        smallest_eigenvalues=np.array(low),
        smallest_eigenvectors=np.empty((0, 9)),
        smallest_residuals=np.array(low_residuals),
        products=9,
        gradient_norm=0.0,
        settings={"matrix": "hessian", "tol": tol, "rounding": rounding},
        provenance={},
        seconds=0.1,
    )


def test_a_negative_eigenvalue_speaks_against_a_minimum_where_it_exceeds_its_error():
    """The error of a smallest one is its residual times ‖H‖ = 100, and that of a top one times |λ|."""
    for residual, tol, said in ((2e-4, 1e-3, None), (5e-5, 1e-3, ""), (5e-5, 1e-5, UNSURE)):
        found = pairs([100.0], [0.0], [-0.01], [residual], tol)
        assert found.why_not_a_minimum == (None if said is None else f"λmin = -0.01{said}")
    assert pairs([-0.01], [0.5], [], []).why_not_a_minimum == f"λmin = -0.01{UNSURE}"
    assert pairs([-0.01], [2.0], [], []).why_not_a_minimum is None
    assert pairs([1.0], [0.0], [-100.0], [2e-4]).smallest_errors == pytest.approx([0.02])


def test_what_has_not_converged_is_not_called_zero():
    """A vector's λ may be small by chance, and a far larger eigenvalue in its residual."""
    found = pairs([100.0, 1e-6, 1e-6], [0.0, 1e-7, 5.0], [], [], rounding=1e-4)
    assert found.zero == [False, True, False]
    assert found.errors == pytest.approx([0, 1e-7 * 100, 5.0 * 1e-6])
    assert found.written()[0][1:] == ["1e-06 (zero to rounding)", f"1e-06{UNSURE}"]


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
