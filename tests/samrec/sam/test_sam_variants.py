"""Variants of SAM, each from its paper's formula, on quadratics: L = wᵀAw/2 has the gradient Aw."""

import copy

import pytest
import torch
from torch import nn

from samrec import SAM
from samrec.sam import GSAM, Friendly, LookSAM
from samrec.sam.variants import VARIANTS

A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
B = torch.tensor([[1.0, -1.0], [-1.0, 4.0]], dtype=torch.float64)
LR, RHO = 0.1, 0.5


class Quadratics:
    """A model whose batches are matrices, and SAM around SGD, which a test's formulas follow."""

    def __init__(self, **settings):
        self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        # one parameter in two tensors: inner products and norms are over all of them
        self.parts = [nn.Parameter(self.w.detach()[i : i + 1].clone()) for i in range(2)]
        self.optimizer = SAM(self.parts, torch.optim.SGD, rho=RHO, lr=LR, **settings)
        self.passes = 0
        self.scaler = torch.amp.GradScaler("cpu", growth_interval=2)

    @property
    def now(self):
        return torch.cat(self.parts).detach().clone()

    def step(self, matrix, style="closure"):
        def closure():
            self.passes += 1
            self.optimizer.zero_grad()
            w = torch.cat(self.parts)
            loss = w @ matrix @ w / 2
            (self.scaler.scale(loss) if scaled else loss).backward()
            return loss.detach()

        scaled = style in ("scaled", "unscaled")
        if style == "closure":
            return self.optimizer.step(closure)
        if self.optimizer.climbs:
            closure()
        self.optimizer.first_step(scale=self.scaler.get_scale() if scaled else None)
        closure()
        if style == "unscaled":
            self.scaler.unscale_(self.optimizer)
        if scaled:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.second_step()
        return None


def unit(v):
    return v / v.norm()


STYLES = pytest.mark.parametrize("style", ["closure", "two", "scaled", "unscaled"])


@STYLES
def test_friendly_climbs_by_what_the_batch_has_beyond_the_mean(style):
    """m ← λm + (1-λ)g, e = ρ (g - σm)/‖g - σm‖."""
    model, mean = Quadratics(variant=Friendly(sigma=0.7, decay=0.6)), torch.zeros(2, dtype=torch.float64)
    for matrix in (A, B, A, A, B):
        w = model.now
        g = matrix @ w
        mean = 0.6 * mean + 0.4 * g
        model.step(matrix, style)
        above = matrix @ (w + RHO * unit(g - 0.7 * mean))
        torch.testing.assert_close(model.now, w - LR * above, rtol=1e-12, atol=0)


@STYLES
def test_gsam_steps_across_the_gradient_above_too(style):
    """g⁺ - α g⊥, where g = g∥ + g⊥ along and across g⁺."""
    model = Quadratics(variant=GSAM(alpha=0.3))
    for matrix in (A, B, A):
        w = model.now
        g = matrix @ w
        above = matrix @ (w + RHO * unit(g))
        across = g - (g @ unit(above)) * unit(above)
        model.step(matrix, style)
        torch.testing.assert_close(model.now, w - LR * (above - 0.3 * across), rtol=1e-12, atol=0)


@STYLES
def test_looksam_takes_its_part_across_again(style):
    """Every k-th step is SAM's and keeps gᵥ = g⁺ - ‖g⁺‖ cos θ g/‖g‖; between, g + α ‖g‖/‖gᵥ‖ gᵥ."""
    model = Quadratics(variant=LookSAM(alpha=0.7), every=3)
    for step, matrix in enumerate((A, B, A, B, A, B, A)):
        w = model.now
        g = matrix @ w
        if step % 3 == 0:
            driving = matrix @ (w + RHO * unit(g))
            across = driving - (driving @ unit(g)) * unit(g)
        else:
            driving = g + 0.7 * g.norm() / across.norm() * across
        loss = model.step(matrix, style)
        torch.testing.assert_close(model.now, w - LR * driving, rtol=1e-12, atol=0)
        if style == "closure":
            torch.testing.assert_close(loss, w @ matrix @ w / 2)
    assert model.passes == 7 + 3


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_parameter_without_a_gradient_is_not_stepped(variant, frozen):
    """Whether a batch does not use it or it is frozen: as by the wrapped optimizer, also by what is kept."""
    torch.manual_seed(0)
    used, other = (nn.Parameter(torch.randn(2, dtype=torch.float64)) for _ in range(2))
    optimizer = SAM([used, other], torch.optim.SGD, rho=RHO, lr=LR, momentum=0.9, variant=variant)

    def step(*parts):
        def closure():
            optimizer.zero_grad()
            w = torch.cat(parts)
            loss = w.square().square().sum() + w.sum()
            loss.backward()
            return loss

        before = used.detach().clone(), other.detach().clone()
        optimizer.step(closure)
        return [not torch.equal(p, old) for p, old in zip((used, other), before, strict=True)]

    assert step(used, other) == [True, True]
    other.requires_grad_(not frozen)
    parts = (used, other) if frozen else (used,)
    assert [step(*parts) for _ in range(3)] == 3 * [[True, False]]


@pytest.mark.parametrize("variant", ["friendly", "looksam"])
def test_what_is_remembered_of_a_sparse_gradient_has_each_row_once(variant):
    torch.manual_seed(0)
    table = nn.Embedding(6, 3, sparse=True)
    optimizer = SAM(table.parameters(), torch.optim.SGD, rho=RHO, lr=LR, variant=variant)
    for rows in torch.randint(6, (9, 5)):

        def closure(rows=rows):
            optimizer.zero_grad()
            loss = table(rows).exp().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        (kept,) = optimizer.state_dict()[variant]
        assert kept._nnz() <= 6


@pytest.mark.parametrize("variant", ["friendly", "gsam"])
def test_a_variant_that_adds_gradients_asks_for_their_scale(variant):
    """GSAM's α would be multiplied by it; Friendly's mean would be of gradients of several scales."""
    w, scaler = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)), torch.amp.GradScaler("cpu")
    optimizer = SAM([w], torch.optim.SGD, rho=RHO, lr=LR, variant=variant)
    before = w.detach().clone()
    scaler.scale(w @ A @ w).backward()
    optimizer.first_step()
    scaler.scale(w @ A @ w).backward()
    with pytest.raises(ValueError, match=f"variant {variant} needs first_step\\(scale=scaler.get_scale"):
        scaler.step(optimizer)
    assert torch.equal(w, before)


def test_gsam_of_weight_0_is_sam():
    ours, plain = Quadratics(variant=GSAM(alpha=0.0)), Quadratics()
    for matrix in (A, B):
        ours.step(matrix)
        plain.step(matrix)
    assert torch.equal(ours.now, plain.now)


@pytest.mark.parametrize(("name", "kind"), [("friendly", Friendly), ("gsam", GSAM), ("looksam", LookSAM)])
def test_a_name_is_the_variant_with_its_defaults(name, kind):
    named, built = Quadratics(variant=name), Quadratics(variant=kind())
    assert named.optimizer.every == (5 if name == "looksam" else 1)
    for matrix in (A, B, A):
        named.step(matrix)
        built.step(matrix)
    assert torch.equal(named.now, built.now)


@pytest.mark.parametrize("variant", ["friendly", "looksam"])
@pytest.mark.parametrize("how", ["saved", "copied"])
def test_what_a_variant_remembers_is_saved(variant, how):
    whole, first = Quadratics(variant=variant), Quadratics(variant=variant)
    for matrix in (A, B, A):
        whole.step(matrix)
        first.step(matrix)
    if how == "copied":
        second = copy.deepcopy(first)
    else:
        second = Quadratics(variant=variant)
        for p, q in zip(second.parts, first.parts, strict=True):
            p.data.copy_(q)
        second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    for matrix in (B, A, B, A):
        whole.step(matrix)
        second.step(matrix)
    assert torch.equal(whole.now, second.now)
    assert not torch.equal(whole.now, first.now)


@pytest.mark.parametrize("variant", ["friendly", "gsam", "looksam"])
def test_of_a_quadratic_of_one_dimension_nothing_is_across(variant):
    """There e is ρ g/|g| for all of them, and g⊥ = gᵥ = 0."""
    p, q = (nn.Parameter(torch.tensor([2.0], dtype=torch.float64)) for _ in range(2))
    for parameter, choice in ((p, variant), (q, "sam")):
        optimizer = SAM([parameter], torch.optim.SGD, rho=0.5, lr=0.1, variant=choice)

        def closure(parameter=parameter, optimizer=optimizer):
            optimizer.zero_grad()
            loss = parameter.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    torch.testing.assert_close(p, q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("how", ["one dimension", "no radius", "not perturbed"])
def test_where_nothing_is_across_looksam_steps_by_the_gradient(how, dtype):
    """g⁺ is along g but for rounding, whether by the loss (a multiple of g) or as w did not move."""
    torch.manual_seed(0)
    p, scales = nn.Parameter(torch.randn(1 if how == "one dimension" else 5, dtype=dtype)), []
    groups = [{"params": [p], "perturb": how != "not perturbed"}]
    rho = torch.tensor(0.0) if how == "no radius" else 0.5
    optimizer = SAM(groups, torch.optim.SGD, rho=rho, lr=0.1, variant="looksam", every=2)

    def closure():
        optimizer.zero_grad()
        scales.append(float(1 + torch.rand(())))  # of each pass its own
        (scales[-1] * (p.square().square() / 4 + p).sum()).backward()
        return torch.zeros(())

    for step in range(8):
        w = p.detach().clone()
        optimizer.step(closure)
        if step % 2:
            torch.testing.assert_close(p.grad, scales[-1] * (w**3 + 1))


def test_friendly_climbs_by_no_rounding():
    """Where every batch has one gradient, nothing of it is beyond the mean, once the mean has arrived."""
    p = nn.Parameter(torch.tensor([0.3, -0.7, 0.1]))
    optimizer = SAM([p], torch.optim.SGD, rho=0.5, lr=0.1, variant=Friendly(decay=0.5))
    climbed = []
    for _ in range(60):
        before = p.detach().clone()
        (p * torch.tensor([1 / 3, 0.7, 1.1])).sum().backward()
        optimizer.first_step()
        climbed.append(float((p.detach() - before).norm()))
        (p * torch.tensor([1 / 3, 0.7, 1.1])).sum().backward()
        optimizer.second_step(zero_grad=True)
    assert climbed[0] == pytest.approx(0.5, rel=1e-5)
    assert climbed[-20:] == 20 * [0.0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"variant": "gsma"}, "variant is 'gsma'; choose from 'sam', 'friendly', 'gsam', 'looksam'"),
        ({"variant": "gsam", "every": 2}, "every is 2; GSAM needs"),
        ({"variant": "looksam", "every": 1}, "every is 1; LookSAM"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Quadratics(**settings)


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"decay": -0.1}, {"decay": 0.0}])
def test_a_mean_that_leaves_nothing_is_refused(settings):
    with pytest.raises(ValueError, match="decay"):
        Friendly(**settings)


def test_several_closures_are_sams_alone():
    optimizer = Quadratics(variant="gsam").optimizer
    with pytest.raises(ValueError, match="several closures"):
        optimizer.step([lambda: None, lambda: None])


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
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_plain_step_after_one_that_was_skipped_knows_nothing_of_it(variant, where):
    found = []
    for skips in (True, False):
        model = Quadratics(variant=variant, **({"every": 3} if variant == "looksam" else {}))
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
