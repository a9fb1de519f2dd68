"""Variants of SAM, each from its paper's formula, on quadratics: L = wᵀAw/2 has the gradient Aw."""

import copy

import pytest
import torch
from torch import nn

from samrec import SAM
from samrec.sam import GSAM, Friendly, LookSAM
from samrec.sam.variants import VARIANTS
from tests.quadratics import LR, RHO, A, B, Quadratics, unit

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


@pytest.mark.parametrize("exponent", [-40, 40])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loss_in_other_units_is_climbed_as_far(variant, adaptive, exponent):
    """With the learning rate in those units too, the path is the same: a power of two changes no digit."""

    def trained(unit):
        w = nn.Parameter(torch.tensor([0.7, -1.3, 0.2]))
        optimizer = SAM([w], torch.optim.SGD, 0.3, adaptive=adaptive, variant=variant, lr=0.1 / unit)
        for _ in range(6):

            def closure():
                optimizer.zero_grad()
                loss = unit * (w.exp().sum() - w.prod())
                loss.backward()
                return loss

            optimizer.step(closure)
        return w.detach()

    assert torch.equal(trained(2.0**exponent), trained(1.0))
