import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape import InputError, Objective
from landscape.flatness.measures import sharpness_by_group
from landscape.objective import noise
from samrec.data.packing import TrainingBatches
from samrec.losses import cross_entropy
from tests.conftest import small_sasrec


def squared(model, batch):
    x, y = batch
    return ((model(x) - y) ** 2).sum(), y.numel()


def regression(sizes, dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype)
    batches = [(torch.randn(n, 3, dtype=dtype), torch.randn(n, 1, dtype=dtype)) for n in sizes]
    return model, batches


def test_weights_that_are_not_numbers_give_no_loss():
    """And do not pass for a model that changes its own weights."""
    model, batches = regression([3])
    nn.init.constant_(model[0].weight, float("nan"))
    with pytest.raises(InputError, match="the loss is nan on batch 0"):
        Objective(model, batches, squared)


def test_batches_of_different_sizes_average_exactly():
    model, batches = regression([1, 2, 30])
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    objective = Objective(model, batches, squared)
    assert objective.value() == pytest.approx(F.mse_loss(model(x), y).item(), rel=1e-14)


def test_gradient_is_that_of_the_mean():
    model, batches = regression([1, 2, 30])
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    F.mse_loss(model(x), y).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(Objective(model, batches, squared).grad(), expected, rtol=1e-12, atol=1e-14)


def test_hessian_products_agree_with_a_dense_hessian_of_a_transformer(sasrec_objective, dense_hessian):
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        v = torch.randn(sasrec_objective.params.numel, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(sasrec_objective.hvp(v), dense_hessian @ v, rtol=1e-10, atol=1e-10)


def test_values_at_many_points_equal_those_one_by_one(sasrec_objective):
    thetas = torch.stack([sasrec_objective.theta * s for s in (0.9, 1.0)])
    expected = [sasrec_objective.value(theta) for theta in thetas]
    np.testing.assert_allclose(sasrec_objective.values(thetas), expected, rtol=1e-12)


def test_units_add_up_to_the_loss(sasrec_objective):
    sums, weights = sasrec_objective.per_example()
    assert len(sums) == 3
    assert sums.sum() / weights.sum() == pytest.approx(sasrec_objective.value(), rel=1e-14)


def test_a_part_of_the_parameters_is_measured_where_the_others_are():
    model, batches = regression([5])
    objective = Objective(model, batches, squared)
    other, _ = regression([5])
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.3)
    fresh, last = Objective(other, batches, squared), ["2.weight", "2.bias"]
    for at_other in (objective.moved(fresh.theta), objective.follow(other)):
        part = at_other.restrict(last)
        assert part.value() == fresh.value()
        assert torch.equal(part.grad(), fresh.restrict(last).grad())
        assert part.in_float64().restrict(["2.bias"]).value() == fresh.value()
        assert part.moved(part.theta + 1).restrict(["2.bias"]).value() == part.value(part.theta + 1)
    assert objective.restrict(last).value() == objective.value()


def test_an_objective_follows_the_weights_that_are_held_fixed_too():
    model, batches = regression([5])
    objective = Objective(model, batches, squared, include=["0.*"])
    for p in model.parameters():
        p.data.mul_(2)
    assert objective.follow(model).value() == Objective(model, batches, squared).value()
    with pytest.raises(InputError, match=r"2\.weight has shape"):
        objective.follow(nn.Sequential(model[0], nn.Tanh(), nn.Linear(4, 2)))


def test_there_is_no_derivative_in_inference_mode():
    """Torch records no graph there: each would be 0."""
    model, batches = regression([5])
    with torch.inference_mode():
        made = [tuple(t.clone() for t in batch) for batch in batches]
        with pytest.raises(InputError, match="inference_mode"):
            Objective(model, batches, squared)
    objective = Objective(model, made, squared)  # of tensors from there
    gradient = objective.grad()
    torch.testing.assert_close(gradient, Objective(model, batches, squared).grad())
    with torch.inference_mode():
        value = objective.value()
        for measure in (
            objective.grad,
            lambda: objective.hvp(gradient),
            lambda: ll.top_eigenpairs(objective),
        ):
            with pytest.raises(InputError, match="inference_mode"):
                measure()
    assert value == objective.value()


def defaults(device, dtype):
    torch.set_default_device(device)
    torch.set_default_dtype(dtype)


@pytest.mark.parametrize("defaults_of_torch", [("meta", torch.float32), (None, torch.float64)])
def test_torchs_defaults_change_nothing(defaults_of_torch):
    """A tensor that is made on the default device, such as a GPU, does not mix with a model elsewhere."""
    model, batches = regression([5, 3], torch.float32)

    def measured():
        of = Objective(model, batches, squared)
        top = [ll.top_eigenpairs(of, 2, method) for method in ("lanczos", "power")]
        pieces = ll.spectral_density(of, probes=2, steps=3).nodes
        return [of.value(), of.grad(), *(t.eigenvalues for t in top), ll.trace(of).samples, *pieces]

    before = measured()
    noise._signs.cache_clear()
    defaults(*defaults_of_torch)
    try:
        after = measured()
    finally:
        defaults(None, torch.float32)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_float64_is_the_same_loss_more_exactly():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    batch = {"x": [torch.randn(5, 3)], "n": 5}
    objective = Objective(model, [batch], lambda m, b: (m(b["x"][0]).square().sum(), b["n"]))
    double = objective.in_float64()
    assert double.theta.dtype == torch.float64
    assert double.value() == pytest.approx(objective.value(), rel=1e-6)
    assert objective.theta.dtype == torch.float32
    assert batch["x"][0].dtype == torch.float32


def test_a_twin_shares_tensors_and_nothing_else(sasrec_objective):
    twin = sasrec_objective.clone()
    assert twin._bound is not sasrec_objective._bound
    own, shared = (dict(o._bound.named_parameters()) for o in (twin, sasrec_objective))
    assert all(own[name] is shared[name] for name in shared)
    assert twin.value() == sasrec_objective.value()


def test_a_loss_that_is_linear_has_no_curvature(quadratic):
    objective = quadratic(torch.zeros(3, 3).double(), torch.ones(3).double(), torch.arange(3).double())
    assert not objective.hvp(torch.ones(3).double()).any()


def test_products_of_the_full_softmax_are_differences_of_its_gradient(split):
    batches = TrainingBatches(split, 6, torch.device("cpu")).of_users(split.trained[:20], 8, (0,))
    objective = Objective(small_sasrec(split), batches, cross_entropy)
    v = torch.randn(objective.params.numel, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = 1e-6
    difference = (objective.grad(objective.theta + h * v) - objective.grad(objective.theta - h * v)) / (2 * h)
    torch.testing.assert_close(objective.hvp(v), difference, rtol=1e-5, atol=1e-6)


class HalfUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Parameter(torch.ones(2).double())
        self.unused = nn.Parameter(torch.ones(2).double())


def test_unused_parameters_have_zero_derivatives():
    objective = Objective(HalfUsed(), [None], lambda model, _: ((model.used**3).sum(), 1))
    assert objective.grad().tolist() == [3, 3, 0, 0]
    assert objective.hvp(torch.ones(4).double()).tolist() == [6, 6, 0, 0]


def test_padding_idx_does_not_hide_a_gradient():
    model = nn.Embedding(3, 1, padding_idx=0).double()
    with torch.no_grad():
        model.weight.fill_(2.0)
    objective = Objective(model, [torch.tensor([0, 1])], lambda m, batch: ((m(batch) ** 2).sum(), 1))
    step = 1e-6 * torch.tensor([1.0, 0, 0]).double()
    difference = (objective.value(objective.theta + step) - objective.value(objective.theta - step)) / 2e-6
    assert objective.grad()[0].item() == pytest.approx(difference, rel=1e-8)
    assert model.padding_idx == 0  # the caller's model is as it was


def test_dropout_is_off_and_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 1)).double()
    _, batches = regression([4])
    objective = Objective(model, batches, squared)
    assert objective.value() == objective.value()
    assert model.training


def test_a_model_that_goes_on_with_its_own_statistics_is_refused():
    class Centered(nn.Linear):
        def __init__(self):
            super().__init__(3, 2)
            self.register_buffer("mean", torch.zeros(2))

        def forward(self, x):
            y = super().forward(x)
            self.mean.lerp_(y.mean(0).detach(), 0.1)
            return y - self.mean

    model = Centered()
    with pytest.raises(InputError, match=r"differs between two evaluations of batch 0.* no buffer"):
        Objective(model, [torch.ones(4, 3)], lambda m, x: (m(x).sum(), len(x)))
    assert not model.mean.any()


class Peak(nn.Linear):
    """Divides by the largest output so far, which is kept as a buffer or outside of torch's sight."""

    def __init__(self, hidden):
        super().__init__(3, 2)
        self.hidden = hidden
        self.register_buffer("peak", torch.zeros(()))
        self.seen = [0.0]

    def forward(self, x):
        y = super().forward(x)
        self.peak.copy_(torch.maximum(self.peak, y.detach().abs().max()))
        self.seen[0] = max(self.seen[0], float(self.peak))
        return y / (self.seen[0] if self.hidden else self.peak)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_loss_that_an_evaluation_elsewhere_changes_is_refused(hidden):
    """Two evaluations at θ agree, since the first has left behind what the second would."""
    model, x = Peak(hidden), torch.randn(4, 3)
    with pytest.raises(InputError, match="keeps something of each evaluation"):
        Objective(model, [x], lambda m, x: (m(x).square().sum(), len(x)))
    assert not model.peak
    assert not model.seen[0]


def test_a_loss_that_draws_random_numbers_is_refused_by_its_batch():
    model, batches = regression([2, 2])

    def noisy(model, batch):
        total, weight = squared(model, batch)
        return (total + torch.rand(()) if batch is batches[1] else total), weight

    with pytest.raises(InputError, match="two evaluations of batch 1"):
        Objective(model, batches, noisy)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda m, b: (m(b[0]).sum() * math.nan, 1), "nan on batch 0"),
        (lambda m, b: (m(b[0]).sum(), 0), "weight of batch 0"),
        (lambda m, b: (m(b[0]), 1), "scalar"),
    ],
)
def test_losses_that_cannot_be_measured_are_refused(loss, message):
    model, batches = regression([3])
    with pytest.raises(InputError, match=message):
        Objective(model, batches, loss)


def test_no_batches_are_refused():
    with pytest.raises(InputError, match="at least one batch"):
        Objective(nn.Linear(1, 1), [], squared)


def test_an_embedding_that_rewrites_itself_is_refused():
    with pytest.raises(InputError, match="max_norm"):
        Objective(nn.Embedding(2, 2, max_norm=1.0), [torch.tensor([0])], lambda m, b: (m(b).sum(), 1))


def test_fused_attention_can_be_differentiated_twice():
    torch.manual_seed(0)
    model = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(1, 3, 4)
    objective = Objective(model, [x], lambda m, b: ((m(b, b, b, need_weights=False)[0] ** 2).sum(), 1))
    assert objective.hvp(torch.ones(objective.params.numel)).isfinite().all()


MEASUREMENTS = {
    "line": lambda o: ll.line(o, grid=3),
    "plane": lambda o: ll.plane(o, grid=3),
    "certified plane": lambda o: ll.plane(o, tol=0.1),
    "quadratic model": lambda o: ll.quadratic_model(o, [ll.random_direction(o.params)]),
    "path": lambda o: ll.bezier(o, o.theta + 1, steps=2, points=3),
    "lanczos": lambda o: ll.top_eigenpairs(o, 2),
    "power": lambda o: ll.top_eigenpairs(o, 1, method="power", tol=0.1),
    "trace": lambda o: ll.trace(o, probes=2),
    "sharpness": lambda o: ll.sharpness(o, steps=2, samples=2, probes=2),
    "sharpness by group": lambda o: sharpness_by_group(o, steps=2, samples=2, probes=2),
}


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_weights_are_bit_identical_after_every_measurement(measure):
    model, batches = regression([5, 3])
    before = {name: t.clone() for name, t in model.state_dict().items()}
    objective = Objective(model, batches, squared)
    theta = objective.theta.clone()
    measure(objective)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert torch.equal(objective.theta, theta)
    assert objective.value() == Objective(model, batches, squared).value()


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_weights_are_bit_identical_after_an_exception(measure):
    model, batches = regression([5, 3])
    before = {name: t.clone() for name, t in model.state_dict().items()}
    on_fire = False

    def failing(model, batch):
        if on_fire:
            raise RuntimeError("the machine is on fire")
        return squared(model, batch)

    objective = Objective(model, batches, failing)
    on_fire = True
    with pytest.raises(RuntimeError, match="on fire"):
        measure(objective)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(torch.equal(t, before[n]) for n, t in objective._bound.model.state_dict().items())
