"""What variants of SAM keep from one step to the next, on quadratics."""

import pytest
import torch
from torch import nn

from samrec import SAM
from samrec.sam import Friendly, LookSAM
from samrec.sam.variants import VARIANTS
from tests.quadratics import LR, RHO, A, B, Quadratics, unit


@pytest.mark.parametrize("where", ["below", "above", "both"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_that_is_skipped_is_as_if_it_had_not_been(variant, where):
    """What a variant remembers is of steps that were taken: the first, one between and one that climbs."""
    settings = {"every": 3} if variant == "looksam" else {}
    found = []
    for skips in (True, False):
        model = Quadratics(variant=variant, **settings)
        for number, matrix in enumerate((A, B, A, B, A, A, B)):
            if skips and number in (0, 2, 3):
                optimizer = model.optimizer
                for above in (False, True):
                    overflows = where in ("both", "above" if above else "below") or not optimizer.climbs
                    w = torch.cat(model.parts)
                    (w @ B @ w * (torch.inf if overflows else 1.0)).backward()
                    if not above:
                        optimizer.first_step()
                with pytest.warns(UserWarning, match="the step is skipped"):
                    optimizer.second_step(zero_grad=True)
            model.step(matrix, "two")
        found.append(model.now)
    assert torch.equal(*found)


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize(
    ("variant", "every"), [*((v, 3 if v == "looksam" else 1) for v in VARIANTS), ("sam", 3)]
)
def test_a_plain_step_after_one_that_was_skipped_knows_nothing_of_it(variant, every, where):
    found = []
    for skips in (True, False):
        model = Quadratics(variant=variant, every=every)
        optimizer = model.optimizer
        for number in range(2 if skips else 0):
            w = torch.cat(model.parts)
            (w @ B @ w * (torch.inf if number == where else 1.0)).backward()
            if number == 0:
                optimizer.first_step()
            else:
                with pytest.warns(UserWarning, match="the step is skipped"):
                    optimizer.second_step(zero_grad=True)
        optimizer.rho = 0.0
        model.step(A, "two")
        optimizer.rho = RHO
        for matrix in (B, A):
            model.step(matrix, "two")
        found.append(model.now)
    assert torch.equal(*found)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_a_radius_every_variant_is_the_wrapped_optimizer(variant):
    """Also once it has something to remember."""
    model = Quadratics(variant=variant, **({"every": 3} if variant == "looksam" else {}))
    for matrix in (A, B):
        model.step(matrix)
    model.optimizer.rho = 0.0
    for matrix in (A, B, A):
        w = model.now
        model.step(matrix)
        torch.testing.assert_close(model.now, w - LR * matrix @ w, rtol=1e-12, atol=0)


def test_a_step_reuses_a_direction_where_it_moves_by_one_that_is_kept():
    for settings, expected in (
        ({"every": 3}, [False, True, True]),
        ({"variant": "looksam", "every": 3}, 3 * [False]),
    ):
        model, found = Quadratics(**settings), []
        for matrix in (A, B, A):
            found.append(model.optimizer.reuses)
            model.step(matrix)
        assert found == expected


@pytest.mark.parametrize("variant", ["friendly", "gsam"])
def test_the_scale_of_one_step_is_not_that_of_the_next(variant):
    found = []
    for style in ("scaled", "two"):
        model = Quadratics(variant=variant)
        model.step(A, style)
        for matrix in (B, A):
            model.step(matrix)
        found.append(model.now)
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_looksam_needs_no_scale():
    """Its part across is taken by its direction alone."""
    scaled, plain = (Quadratics(variant="looksam", every=3) for _ in range(2))
    for matrix in (A, B, A, B):
        optimizer, scaler = scaled.optimizer, scaled.scaler
        for above in (False, True):
            if above or optimizer.climbs:
                w = torch.cat(scaled.parts)
                scaler.scale(w @ matrix @ w / 2).backward()
            if not above:
                optimizer.first_step()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        plain.step(matrix)
    torch.testing.assert_close(scaled.now, plain.now, rtol=1e-12, atol=0)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("variant", ["friendly", "looksam"])
def test_what_is_remembered_of_a_parameter_that_a_batch_does_not_use_counts_nothing(variant, frozen):
    """Neither in e and its length nor in the step between: both are of the parameters with a gradient."""
    p, q = (nn.Parameter(torch.tensor(start, dtype=torch.float64)) for start in ([1.0, -2.0], [3.0, 0.5]))
    kind = Friendly(sigma=0.7, decay=0.6) if variant == "friendly" else LookSAM(alpha=0.7)
    optimizer = SAM([p, q], torch.optim.SGD, rho=RHO, lr=LR, variant=kind, every=kind.every)
    seen = []

    def closure(uses=True):
        optimizer.zero_grad()
        seen.append((p.detach().clone(), q.detach().clone()))
        loss = p @ A @ p / 2 + (p @ B @ q + q @ B @ q if uses else 0.0)
        loss.backward()
        return loss

    optimizer.step(closure)
    start, (above, y) = seen
    w, x = start
    first = A @ w + B @ x
    second = A @ above + B @ y
    later, still = p.detach().clone(), q.detach().clone()
    q.requires_grad_(not frozen)
    optimizer.step(lambda: closure(uses=False))
    g = A @ later
    if variant == "friendly":
        mean = 0.6 * 0.4 * first + 0.4 * g
        driving = A @ (later + RHO * unit(g - 0.7 * mean))
    else:
        below, of_q = torch.cat([first, B @ w + 2 * B @ x]), torch.cat([second, B @ above + 2 * B @ y])
        kept = (of_q - (of_q @ unit(below)) * unit(below))[:2]
        driving = g + 0.7 * g.norm() / kept.norm() * kept
    torch.testing.assert_close(p.detach(), later - LR * driving, rtol=1e-12, atol=0)
    assert torch.equal(seen[-1][1], still)
    if variant == "friendly" and not frozen:  # its mean went on, with a gradient of 0
        w, x = p.detach().clone(), still
        optimizer.step(closure)
        g = torch.cat([A @ w + B @ x, B @ w + 2 * B @ x])
        of_q = 0.6 * 0.6 * 0.4 * (B @ start[0] + 2 * B @ start[1])
        e = RHO * unit(g - 0.7 * (torch.cat([0.6 * mean, of_q]) + 0.4 * g))
        torch.testing.assert_close(torch.cat(seen[-1]), torch.cat([w, x]) + e, rtol=1e-12, atol=0)
