"""What SAM's passes owe to the loop around them: owners of gradients, closures, modes, what is left."""

import copy
import gc
import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooks

from samrec import SAM
from samrec.sam.variants import VARIANTS
from tests.sams import closing, vector

A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
B = torch.tensor([[1.0, -1.0], [-1.0, 4.0]], dtype=torch.float64)


def unit(v):
    return v / v.norm()


def backward(p, matrix=A):
    loss = p @ matrix @ p / 2
    loss.backward()
    return loss.detach()


def owned(p):
    """Let the gradients of `p` lie in one buffer, which each pass overwrites, as DDP's buckets are."""
    buffer = torch.zeros_like(p)

    def move(p):
        if p.grad is not buffer:
            p.grad = buffer.copy_(p.grad)

    p.register_post_accumulate_grad_hook(move)
    return buffer


@pytest.mark.parametrize(
    "settings",
    [
        *({"variant": name, "every": 3 if name == "looksam" else 1} for name in VARIANTS),
        {"every": 3},
        {"every": 3, "adaptive": True},
        {"every": 3, "variant": "friendly"},
    ],
)
@pytest.mark.parametrize("micro_batches", [False, True])
def test_gradients_may_lie_where_somebody_else_writes(settings, micro_batches):
    """Nothing that a later pass reads is in the owner's buffer, and what the base steps by is."""
    if micro_batches and settings != {"variant": "sam", "every": 1}:
        pytest.skip("several closures are plain SAM's")
    found = []
    for owns in (True, False):
        p = vector(1.0, -2.0)
        buffer = owned(p) if owns else None
        optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1, **settings)

        def look(*_, p=p, buffer=buffer):
            assert buffer is None or micro_batches or p.grad is buffer

        optimizer.base.register_step_pre_hook(look)
        for matrix in (A, B, A, B, A):
            if micro_batches:
                optimizer.step([lambda p=p, m=m: backward(p, m) for m in (matrix, A, B)])
            else:
                optimizer.step(closing(optimizer, lambda p=p, m=matrix: p @ m @ p / 2))
        found.append(p.detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_that_were_not_there_below_are_not_kept_by_reference(variant):
    """A parameter that the batch uses above w alone, in an owner's buffer."""
    found = []
    for owns in (True, False):
        p, q = vector(1.0, -2.0), vector(0.5, 1.0)
        if owns:
            owned(p), owned(q)
        settings = {"every": 3} if variant == "looksam" else {}
        optimizer = SAM([p, q], torch.optim.SGD, rho=0.5, lr=0.1, variant=variant, **settings)
        passes = []

        def loss(p=p, q=q, passes=passes):
            passes.append(1)
            return p @ A @ p / 2 + (q @ B @ p if len(passes) > 1 else 0.0)

        for _ in range(4):
            optimizer.step(closing(optimizer, loss))
        found.append(torch.cat([p, q]).detach())
    assert torch.equal(*found)


def test_gradients_that_are_not_cleared_are_added_to():
    """g(w) + g(w + e) drive the step; a direction that is kept is that of g(w) alone."""
    p = vector(1.0, -2.0)
    w = p.detach().clone()
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, every=2, lr=0.1)
    direction = unit(A @ w)
    backward(p)
    optimizer.first_step(zero_grad=False)
    backward(p)
    optimizer.second_step(zero_grad=True)
    w = w - 0.1 * (A @ w + A @ (w + 0.5 * direction))
    torch.testing.assert_close(p.detach(), w)
    optimizer.first_step()
    backward(p)
    optimizer.second_step()
    torch.testing.assert_close(p.detach(), w - 0.1 * A @ (w + 0.5 * direction))


def test_a_second_step_alone_is_a_plain_step_at_radius_0():
    p = vector(1.0, -2.0)
    w = p.detach().clone()
    optimizer = SAM([p], torch.optim.SGD, rho=0.0, lr=0.1)
    backward(p)
    optimizer.second_step()
    torch.testing.assert_close(p.detach(), w - 0.1 * A @ w)


def test_the_second_pass_may_be_a_closure():
    """As Lightning calls a step that it counts: e is that of the gradients before."""
    p = vector(1.0, -2.0)
    w = p.detach().clone()
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1)
    backward(p)
    optimizer.first_step()
    above = w + 0.5 * unit(A @ w)
    with torch.no_grad():
        loss = optimizer.step(closing(optimizer, lambda: p @ A @ p / 2))
    torch.testing.assert_close(loss, above @ A @ above / 2)
    torch.testing.assert_close(p.detach(), w - 0.1 * A @ above)


@pytest.mark.parametrize("bad", ["raises", "several"])
def test_weights_come_back_when_a_closure_after_first_step_fails(bad):
    p = vector(1.0, -2.0)
    before = p.detach().clone()
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1)

    def closure():
        raise RuntimeError("out of memory")

    backward(p)
    optimizer.first_step()
    with pytest.raises((RuntimeError, ValueError), match=r"out of memory|takes one closure, not several"):
        optimizer.step(closure if bad == "raises" else [closure, closure])
    assert torch.equal(p, before)
    optimizer.step(closing(optimizer, lambda: p @ A @ p / 2))


@pytest.mark.parametrize("closures", [1, 2])
def test_a_closure_needs_no_mode_of_the_caller(closures):
    p = vector(1.0, -2.0)
    w = p.detach().clone()
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1)
    each = closing(optimizer, lambda: p @ A @ p / 2)
    with torch.no_grad():
        optimizer.step(each if closures == 1 else [each, each])
    torch.testing.assert_close(p.detach(), w - 0.1 * closures * A @ (w + 0.5 * unit(A @ w)))


@pytest.mark.parametrize("how", ["in place", "to zero", "to none", "by hand"])
@pytest.mark.parametrize("left_by", ["a step", "a backward pass"])
def test_a_closure_may_clear_gradients_in_any_way(how, left_by):
    if (how, left_by) == ("in place", "a backward pass"):
        pytest.skip("SAM is not told, and refuses what may be mixed")
    p = vector(1.0, -2.0)
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1)

    def closure():
        if how == "in place":
            if p.grad is not None:
                p.grad.zero_()
        elif how == "by hand":
            p.grad = None
        else:
            optimizer.zero_grad(set_to_none=how == "to none")
        return backward(p)

    for _ in range(3):
        if left_by == "a backward pass":
            backward(p, B)
        w = p.detach().clone()
        optimizer.step(closure)
        torch.testing.assert_close(p.detach(), w - 0.1 * A @ (w + 0.5 * unit(A @ w)))


def test_what_is_perturbed_decides_whether_there_is_a_second_pass():
    """A radius of what does not move is none."""
    p, still = vector(1.0, -2.0), vector(3.0)
    groups = [{"params": [p], "rho": 0.0}, {"params": [still], "perturb": False}]
    optimizer = SAM(groups, torch.optim.SGD, rho=0.5, lr=0.1)
    passes = []

    def loss():
        passes.append(1)
        return p @ A @ p + still.square().sum()

    assert not optimizer.climbs
    optimizer.step(closing(optimizer, loss))
    assert len(passes) == 1


def test_a_step_leaves_neither_hook_nor_silence():
    p, before = vector(1.0), (len(hooks._global_forward_pre_hooks), list(warnings.filters))
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1)
    optimizer.step(closing(optimizer, lambda: p.square().sum()))
    assert (len(hooks._global_forward_pre_hooks), list(warnings.filters)) == before


def test_layers_that_share_their_statistics_have_those_of_the_first_pass():
    """The second is found when the first has changed them."""
    torch.manual_seed(0)
    first, second = (nn.BatchNorm1d(3).double() for _ in range(2))
    second.running_mean, second.running_var = first.running_mean, first.running_var
    x = torch.randn(8, 3).double()
    alone = copy.deepcopy(first)
    alone(x), alone(x)
    optimizer = SAM([*first.parameters(), *second.parameters()], torch.optim.SGD, rho=0.5, lr=0.1)
    optimizer.step(closing(optimizer, lambda: first(x).exp().sum() + second(x).exp().sum()))
    torch.testing.assert_close(first.running_mean, alone.running_mean)
    torch.testing.assert_close(first.running_var, alone.running_var)


def test_an_optimizer_that_is_dropped_above_w_leaves_no_hook():
    before = len(hooks._global_forward_pre_hooks)
    p = nn.Parameter(torch.ones(2))
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1)
    p.square().sum().backward()
    optimizer.first_step()
    assert len(hooks._global_forward_pre_hooks) == before + 1
    del optimizer
    gc.collect()
    assert len(hooks._global_forward_pre_hooks) == before


def test_a_gradient_that_overflowed_skips_the_step_whatever_became_of_it():
    """As with any optimizer: GradScaler has seen it before it was mended."""
    p = vector(1.0, -2.0)
    before = p.detach().clone()
    optimizer, scaler = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1), torch.amp.GradScaler("cpu")
    scaler.scale(p @ A @ p).backward()
    optimizer.first_step()
    scaler.scale(p @ A @ p * torch.inf).backward()
    scaler.unscale_(optimizer)
    p.grad.nan_to_num_(1.0, 1.0, 1.0)
    scaler.step(optimizer)
    assert torch.equal(p, before)


def test_a_radius_in_a_tensor_is_not_looked_at():
    """At 0 it does not move the weights, but finds the direction that is kept."""
    p = vector(1.0, -2.0)
    w = p.detach().clone()
    optimizer = SAM([p], torch.optim.SGD, rho=torch.tensor(0.0, dtype=torch.float64), every=3, lr=0.1)
    assert optimizer.climbs
    direction = unit(A @ w)
    for rho in (0.0, 0.5):
        optimizer.rho.fill_(rho)
        optimizer.step(closing(optimizer, lambda: p @ A @ p / 2))
        w = w - 0.1 * A @ (w + rho * direction)
        torch.testing.assert_close(p.detach(), w)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_gradient_that_is_not_finite_moves_nothing(sparse):
    table = nn.Embedding(6, 3, sparse=sparse)
    before = table.weight.detach().clone()
    optimizer = SAM(table.parameters(), torch.optim.SGD, rho=0.3, lr=0.1)
    (table(torch.tensor([1, 2])).sum() * torch.inf).backward()
    optimizer.first_step()
    assert torch.equal(table.weight, before)


@pytest.mark.parametrize("unscales", [False, True])
def test_a_sparse_gradient_under_a_scaler_is_the_dense_one(unscales):
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        table = nn.Embedding(6, 3, sparse=sparse).double()
        optimizer, scaler = (
            SAM(table.parameters(), torch.optim.SGD, rho=0.3, lr=0.1),
            torch.amp.GradScaler("cpu"),
        )
        for rows in ([1, 2, 2], [2, 5, 1]):
            for climbs in (True, False):
                scaler.scale(table(torch.tensor(rows)).exp().sum()).backward()
                if climbs:
                    optimizer.first_step()
            if unscales:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        found.append(table.weight.detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_complex_parameter_is_two_real_ones(variant):
    z = nn.Parameter(torch.tensor([1 + 2j, 0.5 - 1j], dtype=torch.complex128))
    pair = nn.Parameter(torch.view_as_real(z.detach()).clone())
    settings = {"every": 3} if variant == "looksam" else {}
    for parameter, of in ((z, lambda: z), (pair, lambda: torch.view_as_complex(pair))):
        optimizer = SAM([parameter], torch.optim.SGD, rho=0.1, lr=0.01, variant=variant, **settings)

        def closure(optimizer=optimizer, of=of):
            optimizer.zero_grad()
            w = of()
            loss = (w.abs() ** 2).sum().log() + (w[0] * w[1]).imag + ((1 + 2j) * w[0]).real.sin()
            loss.backward()
            return loss

        for _ in range(4):
            optimizer.step(closure)
    torch.testing.assert_close(torch.view_as_real(z.detach()), pair.detach(), rtol=1e-12, atol=0)


def test_a_group_that_maximizes_climbs_down_beside_one_of_the_same_radius():
    p, q = vector(1.0, -2.0), vector(0.5, 1.0)
    groups = [{"params": [p]}, {"params": [q], "maximize": True}]
    optimizer = SAM(groups, torch.optim.SGD, rho=0.5, lr=0.1)
    w, x = p.detach().clone(), q.detach().clone()
    optimizer.step(closing(optimizer, lambda: p @ A @ p / 2 - q @ B @ q / 2))
    e = 0.5 * unit(torch.cat([A @ w, -B @ x]))
    torch.testing.assert_close(p.detach(), w - 0.1 * A @ (w + e[:2]))
    torch.testing.assert_close(q.detach(), x - 0.1 * B @ (x - e[2:]))


@pytest.mark.parametrize("variant", ["gsam", "looksam"])
def test_what_is_across_is_of_all_parameters_of_those_held_still_too(variant):
    """The gap L(w + e) - L(w) changes with them as well."""
    p, q = vector(1.0, -2.0), vector(0.5, 1.0)
    settings = {"variant": variant, "every": 2 if variant == "looksam" else 1}
    groups = [{"params": [p]}, {"params": [q], "perturb": False}]
    optimizer = SAM(groups, torch.optim.SGD, rho=0.5, lr=0.1, **settings)
    loss = closing(optimizer, lambda: p @ A @ p / 2 + p @ B @ q)

    def slope(w, x):
        return torch.cat([A @ w + B @ x, B @ w])

    w, x = p.detach().clone(), q.detach().clone()
    below = slope(w, x)
    above = slope(w + 0.5 * unit(below[:2]), x)
    optimizer.step(loss)
    if variant == "gsam":
        expected = above - 0.4 * (below - (below @ unit(above)) * unit(above))
    else:
        w, x = p.detach().clone(), q.detach().clone()
        optimizer.step(loss)
        across, g = above - (above @ unit(below)) * unit(below), slope(w, x)
        expected = g + 0.7 * g.norm() / across.norm() * across
    moved = torch.cat([w, x]) - torch.cat([p, q]).detach()
    torch.testing.assert_close(moved, 0.1 * expected, rtol=1e-12, atol=1e-14)


def test_a_step_that_reuses_a_direction_adds_no_gradients_and_needs_no_scale():
    p = vector(1.0, -2.0)
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1, variant="friendly", every=2)
    scaler = torch.amp.GradScaler("cpu")
    for climbs in (True, False):
        if climbs:
            scaler.scale(p @ A @ p).backward()
        optimizer.first_step(scale=scaler.get_scale() if climbs else None)
        scaler.scale(p @ A @ p).backward()
        before = p.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert not torch.equal(p, before)


@pytest.mark.parametrize("variant", ["friendly", "gsam"])
def test_a_variant_climbs_in_the_adaptive_ball(variant):
    """e = ρ T² d / ‖T d‖, with the variant's own d."""
    p, mean = vector(1.0, -2.0), torch.zeros(2, dtype=torch.float64)
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1, variant=variant, adaptive=True)
    for matrix in (A, B, A):
        w = p.detach().clone()
        g, t = matrix @ w, w.abs() + 0.01
        mean = 0.9 * mean + 0.1 * g
        d = g - mean if variant == "friendly" else g
        above = matrix @ (w + 0.5 * t**2 * d / (t * d).norm())
        across = g - (g @ unit(above)) * unit(above) if variant == "gsam" else 0.0
        optimizer.step(closing(optimizer, lambda m=matrix: p @ m @ p / 2))
        torch.testing.assert_close(p.detach(), w - 0.1 * (above - 0.4 * across), rtol=1e-12, atol=0)
