"""SAM is an optimizer like any other: groups, copies, state dicts, scalers, all kinds of models."""

import copy

import pytest
import torch
from torch import nn

from samrec import SAM
from samrec.sam.variants import VARIANTS
from samrec.sam.vectors import dot, moved, norm
from tests.quadratics import unit
from tests.sams import BASES, closing, fit, network, optimizer_of, parts_of, vector, weights

A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)


# Groups


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("every", [1, 3])
def test_a_group_that_is_added_is_as_if_it_had_been_there(base, every):
    kind, settings = BASES[base]
    one, two = network(), network()
    whole = SAM(
        [{"params": one[0].parameters()}, {"params": one[2].parameters()}], kind, every=every, **settings
    )
    grown = SAM(two[0].parameters(), kind, every=every, **settings)
    grown.add_param_group({"params": two[2].parameters()})
    assert grown.param_groups is grown.base.param_groups
    assert grown.param_groups[1].keys() == whole.param_groups[1].keys()
    for model, optimizer in ((one, whole), (two, grown)):
        fit(model, optimizer, range(5))
    assert torch.equal(weights(one), weights(two))


@pytest.mark.parametrize("variant", ["sam", "looksam"])
def test_a_group_added_between_climbs_takes_part_at_once(variant):
    """What the step finds then serves as many steps as ever."""
    p, q = vector(3.0), vector(4.0)
    optimizer = SAM([p], torch.optim.SGD, rho=1.0, every=3, lr=0.0, variant=variant)
    seen = []

    def loss():
        seen.append([p.item(), q.item()])
        return 3 * p.sin().sum() + 4 * q.sin().sum()

    optimizer.step(closing(optimizer, loss))
    optimizer.add_param_group({"params": [q]})
    climbed = []
    for _ in range(4):
        climbed.append(optimizer.climbs)
        optimizer.step(closing(optimizer, loss))
    assert climbed == [True, False, False, True]
    slope = torch.tensor([3.0, 4.0]) * torch.tensor([3.0, 4.0]).cos()
    assert seen[3] == pytest.approx((torch.tensor([3.0, 4.0]) + unit(slope)).tolist())


@pytest.mark.parametrize("set_later", [False, True])
def test_each_group_has_its_own_radius(set_later):
    """e_i = ρ_i g_i / ‖g‖, with ‖g‖ over all that is perturbed, of radius 0 too."""
    p, q, r, still = vector(1.0, -2.0), vector(3.0), vector(4.0), vector(5.0)
    rhos = (0.5, 0.2, 0.0)
    groups = [
        {"params": [t], "rho": 9.0 if set_later else rho} for t, rho in zip((p, q, r), rhos, strict=True)
    ]
    optimizer = SAM([*groups, {"params": [still], "perturb": False}], torch.optim.SGD, lr=0.1)
    if set_later:
        for group, rho in zip(optimizer.param_groups, rhos, strict=False):
            group["rho"] = rho
    before = [t.detach().clone() for t in (p, q, r, still)]
    optimizer.step(
        closing(optimizer, lambda: p @ A @ p / 2 + sum(t.square().sum() / 2 for t in (q, r, still)))
    )
    w, x, y, z = before
    norm = torch.cat([A @ w, x, y]).norm()
    torch.testing.assert_close(p.detach(), w - 0.1 * A @ (w + 0.5 * A @ w / norm))
    torch.testing.assert_close(q.detach(), x - 0.1 * (x + 0.2 * x / norm))
    torch.testing.assert_close(r.detach(), y - 0.1 * y)
    torch.testing.assert_close(still.detach(), z - 0.1 * z)


def test_rho_is_that_of_all_groups_or_of_none():
    optimizer = SAM(
        [{"params": [vector(1.0)]}, {"params": [vector(1.0)], "rho": 0.3}], torch.optim.SGD, lr=0.1
    )
    with pytest.raises(ValueError, match="the groups differ in rho"):
        _ = optimizer.rho
    optimizer.rho = 0.7
    assert [group["rho"] for group in optimizer.param_groups] == [0.7, 0.7]
    assert optimizer.rho == 0.7


def test_a_radius_in_two_tensors_is_not_that_of_all_groups():
    """Equal now, they may be set apart."""
    one, other = torch.tensor(0.5), torch.tensor(0.5)
    for second, fits in ((one, True), (other, False)):
        groups = [{"params": [vector(1.0)], "rho": one}, {"params": [vector(2.0)], "rho": second}]
        optimizer = SAM(groups, torch.optim.SGD, lr=0.1)
        if fits:
            assert optimizer.rho is one
        else:
            with pytest.raises(ValueError, match="the groups differ in rho"):
                _ = optimizer.rho


def test_a_rho_of_the_wrapped_optimizers_own_is_left_alone():
    optimizer = SAM([vector(1.0)], torch.optim.Adadelta, rho=0.3)
    assert (optimizer.param_groups[0]["rho"], optimizer.param_groups[0]["sam_rho"]) == (0.9, 0.3)
    optimizer.rho = 0.1
    assert (optimizer.param_groups[0]["rho"], optimizer.param_groups[0]["sam_rho"]) == (0.9, 0.1)


def test_a_bad_group_is_refused_and_not_added():
    p = vector(1.0)
    optimizer = SAM([p], torch.optim.SGD, lr=0.1)
    twin = nn.Parameter(torch.zeros(1))
    twin.data = p.data
    for bad, said in (
        ({"params": [vector(1.0)], "rho": -1.0}, "rho is"),
        ({"params": [twin]}, "share their storage"),
    ):
        with pytest.raises(ValueError, match=said):
            optimizer.add_param_group(bad)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam])
def test_to_maximize_is_to_minimize_the_negative(base):
    found = []
    for sign, maximize in ((1.0, True), (-1.0, False)):
        p = vector(1.0, -2.0)
        optimizer = SAM([p], base, rho=0.5, lr=0.1, maximize=maximize)
        for _ in range(3):
            optimizer.step(closing(optimizer, lambda p=p, sign=sign: sign * (p @ A @ p).cos()))
        found.append(p.detach())
    torch.testing.assert_close(*found)


# Passes


def test_a_radius_of_zero_in_two_steps_is_the_plain_optimizer():
    p, q = vector(1.0, -2.0), vector(1.0, -2.0)
    optimizer, plain = SAM([p], torch.optim.SGD, rho=0.0, lr=0.1), torch.optim.SGD([q], lr=0.1)
    for _ in range(2):
        (p @ A @ p).backward()
        optimizer.first_step()
        (p @ A @ p).backward()
        optimizer.second_step(zero_grad=True)
        plain.zero_grad()
        (q @ A @ q).backward()
        plain.step()
    assert torch.equal(p, q)
    assert p.grad is None


def test_a_second_step_needs_a_first():
    optimizer = SAM([vector(1.0)], torch.optim.SGD, lr=0.1)
    with pytest.raises(RuntimeError, match="second_step comes after first_step"):
        optimizer.second_step()


@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_a_closure_without_backward_is_refused(rho):
    p = vector(1.0)
    optimizer = SAM([p], torch.optim.SGD, rho=rho, lr=0.1)
    with pytest.raises(ValueError, match=r"it has to call loss\.backward"):
        optimizer.step(p.sum)
    p.sum().backward()  # its gradient is no closure's
    if rho:
        with pytest.raises(ValueError, match=r"it has to call loss\.backward"):
            optimizer.step(p.sum)
    assert p.item() == 1.0


@pytest.mark.parametrize("every", [1, 2])
def test_gradients_gathered_outside_of_the_closure_are_refused(every):
    """As Lightning accumulates: the second pass would miss them."""
    model = network()
    optimizer = optimizer_of(model, "sgd", every=every)
    fit(model, optimizer, range(1))
    (x, y, _), (u, v, _) = parts_of(1, True)
    optimizer.zero_grad()
    (model(x) - y).square().mean().backward()
    before = weights(model)

    def closure():
        loss = (model(u) - v).square().mean()
        loss.backward()
        return loss.detach()

    with pytest.raises(ValueError, match="accumulate inside of the closure"):
        optimizer.step(closure)
    assert torch.equal(weights(model), before)
    fit(model, optimizer, range(1, 4))  # a closure that clears them is as well as ever


def test_a_loop_that_calls_backward_before_a_closure_that_does_is_right():
    p, q = vector(1.0, -2.0), vector(1.0, -2.0)
    pasted, right = (SAM([t], torch.optim.SGD, rho=0.5, lr=0.1) for t in (p, q))

    def closure():
        loss = p @ A @ p
        loss.backward()
        return loss

    for _ in range(3):
        (p @ A @ p).backward()
        pasted.step(closure)
        pasted.zero_grad()
        right.step(closing(right, lambda: q @ A @ q))
    torch.testing.assert_close(p, q, rtol=1e-12, atol=0)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_an_overflow_skips_the_step(where):
    """In the first pass, the second, or both (a GradScaler's, or not): w is as it was, nothing is NaN."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).double()
    optimizer = SAM(model.parameters(), torch.optim.Adam, rho=0.3, every=2, lr=0.1)
    x = torch.randn(8, 4, dtype=torch.float64)
    before = weights(model)
    for number in range(2):
        huge = float("inf") if where in (number, 2) else 1.0
        (huge * model(x).square().mean()).backward()
        if number == 0:
            optimizer.first_step()
    with pytest.warns(UserWarning, match="the step is skipped"):
        optimizer.second_step()
    assert torch.equal(weights(model), before)
    assert all(t.isfinite().all() for t in model.state_dict().values())
    assert not optimizer.state
    assert optimizer.climbs
    optimizer.zero_grad()
    optimizer.step(closing(optimizer, lambda: model(x).square().mean()))
    assert weights(model).isfinite().all()


def test_a_scaler_takes_no_closure():
    p = vector(1.0)
    optimizer = SAM([p], torch.optim.SGD, lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(p.sum()).backward()
    with pytest.raises(ValueError, match="GradScaler takes no closure"):
        scaler.step(optimizer, p.sum)


def test_unscaled_gradients_may_be_clipped():
    found = []
    for scaled in (True, False):
        p = vector(1.0, -2.0)
        optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        scaler.scale(p @ A @ p).backward()
        optimizer.first_step()
        scaler.scale(p @ A @ p).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([p], 0.25)
        scaler.step(optimizer)
        scaler.update()
        found.append(p.detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


# Models


class Halves(nn.Module):
    """BatchNorm in a part that is called from a certain step on."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        self.second = nn.Sequential(
            nn.Conv1d(3, 3, 1),
            nn.InstanceNorm1d(3, track_running_stats=True),
            nn.BatchNorm1d(3, momentum=None, affine=False),
        )

    def loss(self, x, step):
        h = self.first(x)
        return (self.second(h.T[None]) if step else h).exp().mean()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("style", ["closure", "two", "compiled"])
def test_running_statistics_are_those_of_the_first_pass(style):
    torch.manual_seed(0)
    model = Halves()
    reference = copy.deepcopy(model)
    if style == "compiled":
        called = torch.compile(model.first, backend="eager")
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    for step in range(4):
        x = torch.randn(8, 4)

        def loss(x=x, step=step):
            return called(x).exp().mean() if style == "compiled" else model.loss(x, step)

        reference.load_state_dict({**reference.state_dict(), **dict(model.named_parameters())})
        with torch.no_grad():
            reference.loss(x, 0 if style == "compiled" else step)
        if style == "two":
            loss().backward()
            optimizer.first_step()
            loss().backward()
            optimizer.second_step(zero_grad=True)
        else:
            optimizer.step(closing(optimizer, loss))
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffer, dict(reference.named_buffers())[name], msg=name)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"every": 2},
        {"adaptive": True},
        {"variant": "friendly"},
        {"variant": "gsam"},
        {"variant": "looksam", "every": 2},
    ],
)
def test_a_sparse_gradient_is_the_dense_one(settings):
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(6, 3, sparse=sparse), nn.Linear(3, 1)).double()
        optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, **settings)
        for batch in ([1, 2, 2], [2, 5, 1], [0, 1, 1]):
            rows = torch.tensor(batch)
            optimizer.step(closing(optimizer, lambda model=model, rows=rows: model(rows).exp().sum()))
        shares = [lambda m=model, o=optimizer, r=r: shared(m, r) for r in ([1, 2], [2, 0])]
        if not settings:
            optimizer.step(shares)
        found.append(weights(model))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_in_float16_is_that_in_float32(variant, adaptive):
    """To rounding, where the gradient's entries are in the range of float16, and its length is not."""
    torch.manual_seed(0)
    start, curvatures = 0.5 + torch.rand(60), 1e4 * (1 + torch.rand(60))
    moves = []
    for dtype in (torch.float16, torch.float32):
        p = nn.Parameter(start.to(dtype, copy=True))
        settings = {"every": 2} if variant == "looksam" else {}
        optimizer = SAM(
            [p], torch.optim.SGD, rho=2.0, lr=1e-5, variant=variant, adaptive=adaptive, **settings
        )

        def loss(p=p):
            return (curvatures * p.float().square()).sum() / 2

        for _ in range(2):
            optimizer.step(closing(optimizer, loss))
        moves.append(p.detach().float() - start)
    half, single = moves
    assert (half - single).norm() < 0.02 * single.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_computed_of_halves_is_that_of_the_same_numbers_in_float32(dtype):
    p, scale = vector(0.0), torch.tensor(1e-8)  # which float16 does not hold
    a, b = (1e-3 * torch.randn(300)).to(dtype), (2e4 * torch.randn(300).clamp(-3, 3)).to(dtype)
    wide, other = a.float(), b.float()
    torch.testing.assert_close(dot({p: a}, {p: b}), dot({p: wide}, {p: other}))
    torch.testing.assert_close(norm([a, b]), norm([wide, other]))
    expected = torch.addcmul(wide, other, scale).to(dtype)
    assert torch.equal(moved(a, b, scale), expected)
    sparse = b[:, None].to_sparse(1)
    torch.testing.assert_close(moved(a[:, None], sparse, scale), expected[:, None])


def shared(model, rows):
    loss = model(torch.tensor(rows)).exp().sum()
    loss.backward()
    return loss.detach()
