"""Eigenpairs that are followed from matrix to matrix are those of a dense solver, at fewer products."""

import numpy as np
import torch

from landscape.curvature.tracking import Tracker
from tests.worlds import rotated, with_spectrum

N = 120
BULK = np.linspace(-0.5, 1, N - 4)


def drifting(steps, speed):
    """Yield symmetric matrices, each a little rotated and scaled against the last."""
    matrix, _ = rotated([*BULK, 5.0, 4.0, 3.0, 2.5])
    turn = torch.from_numpy(np.random.default_rng(3).standard_normal((N, N)))
    turn = torch.linalg.matrix_exp(speed * (turn - turn.T))
    for _ in range(steps):
        yield matrix
        matrix = 1.01 * turn @ matrix @ turn.T


def test_a_drifting_matrix_is_followed():
    tracker = Tracker(4, tol=1e-4)
    for matrix in drifting(5, 1e-4):
        found = tracker.solve(lambda v, a=matrix: a @ v, torch.ones(N, dtype=torch.float64))
        expected = torch.linalg.eigvalsh(matrix).flip(0)[:4].numpy()
        np.testing.assert_allclose(found.values, expected, rtol=1e-7)
        lengths = (found.vectors @ matrix - torch.from_numpy(found.values)[:, None] * found.vectors).norm(
            dim=1
        )
        np.testing.assert_allclose(found.residuals, lengths.numpy() / found.values, rtol=1e-5, atol=1e-12)
        assert found.residuals.max() <= 1e-4


def test_a_warm_solve_takes_at_most_a_third_of_the_products_of_a_cold_one():
    warm, cold = Tracker(4), 0
    products = []
    for matrix in drifting(4, 1e-4):
        near = torch.ones(N, dtype=torch.float64)
        products.append(warm.solve(lambda v, a=matrix: a @ v, near).products)
        cold += Tracker(4).solve(lambda v, a=matrix: a @ v, near).products
    assert sum(products[1:]) <= (cold - products[0]) / 3


def test_an_eigenvector_that_comes_up_elsewhere_is_found():
    """No residual shows it: all matrices have the same eigenvectors."""
    tracker = Tracker(2, tol=1e-8)  # so exact that the others hold nothing of it to be amplified
    tracker.solve(lambda v: rotated([*BULK, 5.0, 4.0, 3.0, 2.5])[0] @ v, torch.ones(N, dtype=torch.float64))
    tracker.tol = 1e-3
    values, vectors = np.array([*BULK, 5.0, 4.0, 3.0, 2.5]), rotated([*BULK, 5.0, 4.0, 3.0, 2.5])[1]
    found = []
    for rise in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10):
        values[40] = rise
        matrix = torch.from_numpy(vectors * values @ vectors.T)
        solved = tracker.solve(lambda v, a=matrix: a @ v, torch.ones(N, dtype=torch.float64))
        found.append(solved.values)
    np.testing.assert_allclose(found[-1], [10.0, 5.0], rtol=1e-6)


def test_a_matrix_smaller_than_the_basis_has_all_its_eigenpairs():
    tracker = Tracker(5)
    for scale in (1.0, 2.0):
        matrix = scale * with_spectrum([3.0, 1.0, -2.0])
        found = tracker.solve(lambda v, a=matrix: a @ v, torch.ones(3, dtype=torch.float64))
        np.testing.assert_allclose(found.values, scale * np.array([3.0, 1.0, -2.0]))


def test_a_solve_stops_at_the_maximum_and_says_what_is_left():
    tracker = Tracker(2, tol=1e-9, max_products=60)
    first, second = list(drifting(2, 0.5))
    tracker.solve(lambda v: first @ v, torch.ones(N, dtype=torch.float64))
    tracker.max_products = 12
    found = tracker.solve(lambda v: second @ v, torch.ones(N, dtype=torch.float64))
    assert found.products == 12
    assert found.residuals.max() > 1e-9


def test_a_basis_that_is_full_restarts():
    tracker = Tracker(2, tol=1e-8)
    for matrix in (
        with_spectrum([*np.linspace(0, 1, N - 2), 1.05, 1.1]),
        with_spectrum(np.linspace(0, 1, N)[::-1]),
    ):
        found = tracker.solve(lambda v, a=matrix: a @ v, torch.ones(N, dtype=torch.float64))
    np.testing.assert_allclose(found.values, np.linspace(0, 1, N)[:-3:-1], rtol=1e-9)


def test_copies_of_an_eigenvalue_are_followed_however_fast_the_matrix_turns():
    """A Krylov space holds one vector of each eigenspace. The unit of the matrix plays no part in that."""
    spectrum = [*np.linspace(-1, 1, N - 4), 1.2, 1.3, 1.5, 1.5]  # so close that rounding makes no copy
    turn = torch.from_numpy(np.random.default_rng(3).standard_normal((N, N)))
    turn = torch.linalg.matrix_exp(0.02 * (turn - turn.T))  # by some 18 degrees
    products = []
    for unit in (2.0**-60, 2.0**60):
        matrix, tracker = unit * rotated(spectrum)[0], Tracker(4)
        for _ in range(3):
            found = tracker.solve(lambda v, a=matrix: a @ v, torch.ones(N, dtype=torch.float64))
            np.testing.assert_allclose(found.values / unit, spectrum[:-5:-1], rtol=1e-5)
            matrix = turn @ matrix @ turn.T
            products.append(found.products)
    assert products[:3] == products[3:]


def test_a_matrix_that_turns_far_takes_no_more_products_than_a_cold_start():
    warm, cold = Tracker(4), 0
    products = []
    for matrix in drifting(3, 0.02):
        near = torch.ones(N, dtype=torch.float64)
        products.append(warm.solve(lambda v, a=matrix: a @ v, near).products)
        cold += Tracker(4).solve(lambda v, a=matrix: a @ v, near).products
    assert sum(products) <= cold


def test_a_krylov_space_that_closes_is_no_end():
    """The mixture of eigenvectors of a multiple of the identity is one itself."""
    tracker = Tracker(3)
    for values in ([3.0, 2.0, 1.0, *[0.5] * 7], [2.0] * 10, [4.0, *[1.0] * 9]):
        matrix = with_spectrum(values)
        found = tracker.solve(lambda v, a=matrix: a @ v, torch.ones(10, dtype=torch.float64))
        np.testing.assert_allclose(found.values, values[:3], rtol=1e-6)


def test_an_eigenvalue_that_comes_up_while_the_matrix_turns_is_found_at_once():
    """Other pairs converge before it, since only the gradient and the turn bring it in."""
    values, vectors = np.array([*BULK, 2.4, 2.0, 1.8, 1.6]), rotated([*BULK, 2.4, 2.0, 1.8, 1.6])[1]
    turn = torch.from_numpy(np.random.default_rng(3).standard_normal((N, N)))
    turn = torch.linalg.matrix_exp(0.01 * (turn - turn.T)).numpy()
    tracker, near = Tracker(4), torch.ones(N, dtype=torch.float64)
    for rise in np.linspace(0.5, 2.5, 9):
        values[40] = rise
        matrix = torch.from_numpy(vectors * values @ vectors.T)
        found = tracker.solve(lambda v, a=matrix: a @ v, near)
        np.testing.assert_allclose(found.values, np.sort(values)[:-5:-1], rtol=1e-5)
        vectors = turn @ vectors
