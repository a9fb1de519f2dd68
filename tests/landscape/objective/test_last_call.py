"""What a model keeps of its last call, or makes in it, is never taken for what its loss computes now."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape import InputError, Objective

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(20, 4, generator=GENERATOR).double(), torch.arange(20) % 3
BATCHES = [(X[:12], Y[:12]), (X[12:], Y[12:])]


class Net(nn.Module):
    """Keeps its features in an attribute, or within one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)
        self.features = None
        self.kept = {"all": []}

    def save(self, features):
        self.features = features
        self.kept["all"][:] = [features.square().mean()]

    def saved(self):
        return self.features

    def forward(self, x):
        return self.b(self.a(x).tanh())


class Keeping(Net):
    def forward(self, x):
        features = self.a(x)
        self.save(features)
        return self.b(features.tanh())


class ByMethod(Net):
    def __init__(self):
        super().__init__()
        self.a.register_forward_hook(self.hook)

    def hook(self, module, inputs, outputs):
        self.save(outputs)


class ByClosure(Net):
    """Its hook writes to the model that made it, whose copy would read what was there before."""

    def __init__(self):
        super().__init__()

        def hook(module, inputs, outputs):
            self.save(outputs)

        self.a.register_forward_hook(hook)


class InADictionary(ByClosure):
    def save(self, features):
        self.kept["features"] = features

    def saved(self):
        return self.kept["features"]


class InAList(ByClosure):
    def __init__(self):
        super().__init__()
        self.last = []

    def save(self, features):
        self.last[:] = [features]

    def saved(self):
        return self.last[0]


class InAListOfADictionary(ByClosure):
    def __init__(self):
        super().__init__()
        self.kept["itself"] = self.kept

    def save(self, features):
        self.kept["all"][:] = [features]

    def saved(self):
        return self.kept["all"][0]


def plain(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


def penalized(model, batch):
    """The loss reads what its own call has left on the module."""
    summed, count = plain(model, batch)
    return summed + model.saved()[:count].square().sum(), count


def by_hand(model, batch):
    features = model.a(batch[0])
    logits = model.b(features.tanh())
    return F.cross_entropy(logits, batch[1], reduction="sum") + features.square().sum(), len(batch[1])


def called(model, how):
    """The model after a step of training, after an evaluation, or as it was made."""
    if how == "trained":
        plain(model, (X, Y))[0].backward()
    elif how == "evaluated":
        with torch.no_grad():
            model(X)
    return model


@pytest.mark.parametrize("how", ["made", "evaluated", "trained"])
@pytest.mark.parametrize("kind", [Keeping, ByMethod])
def test_what_a_call_leaves_is_that_of_each_evaluation(kind, how):
    objective = Objective(called(kind().double(), how), BATCHES, penalized)
    expected = Objective(Net().double(), BATCHES, by_hand)
    assert objective.value() == pytest.approx(expected.value(), rel=1e-12)
    torch.testing.assert_close(objective.grad(), expected.grad())
    v = torch.ones_like(expected.theta)
    torch.testing.assert_close(ll.hessian(objective)(v), ll.hessian(expected)(v))
    clone, moved = objective.clone(), 1.1 * objective.theta  # after calls that left graphs
    assert clone.value(moved) == pytest.approx(expected.value(moved), rel=1e-12)


@pytest.mark.parametrize("how", ["made", "evaluated", "trained"])
@pytest.mark.parametrize("kind", [ByClosure, InADictionary, InAList, InAListOfADictionary])
def test_a_hook_that_writes_to_the_model_itself_is_refused(kind, how):
    with pytest.raises(InputError, match=r"changed your model itself: make a hook a method .*self\.save"):
        Objective(called(kind().double(), how), BATCHES, penalized)


class Counting(Net):
    """Its hook counts on the model itself, as counters of calls and of FLOPs do, in a buffer too."""

    def __init__(self):
        super().__init__()
        self.calls, self.sizes = 0, []
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

        def hook(module, inputs, outputs):
            self.calls += 1
            self.seen += 1
            self.last = outputs.detach()
            self.sizes.append(inputs[0].numel())

        self.a.register_forward_hook(hook)


@pytest.mark.parametrize("how", ["made", "evaluated", "trained"])
@pytest.mark.parametrize("kind", [ByClosure, InADictionary, InAList, InAListOfADictionary, Counting])
@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: torch.compile(model, backend="eager")])
def test_a_hook_may_write_to_the_model_what_the_loss_does_not_read(wrap, kind, how):
    objective = Objective(wrap(called(kind().double(), how)), BATCHES, plain)
    expected = Objective(Net().double(), BATCHES, plain)
    for theta in (None, 1.1 * expected.theta):
        assert objective.value(theta) == expected.value(theta)
        torch.testing.assert_close(objective.grad(theta), expected.grad(theta))


def test_what_a_hook_writes_to_the_model_is_never_read_in_another_batch():
    """The first batch does not read it, and the second does."""

    def sometimes(model, batch):
        return penalized(model, batch) if len(batch[1]) == 8 else plain(model, batch)

    model = ByClosure().double()
    with torch.no_grad():
        model(X)
    with pytest.raises(InputError, match="the loss is nan on batch 1"):
        Objective(model, BATCHES, sometimes)


def test_what_is_wrong_with_a_loss_is_told_before_a_hook():
    def broken(model, batch):
        model(batch[0])
        raise LookupError("of the loss")

    with pytest.raises(InputError, match="LookupError: of the loss"):
        Objective(Counting().double(), BATCHES, broken)
    model = Counting().double()
    with pytest.raises(InputError, match=r"the loss uses '.*' of your model itself"):
        Objective(model, BATCHES, lambda _, batch: plain(model, batch))


def test_a_graph_of_an_earlier_call_is_not_a_constant():
    class Cached(nn.Linear):
        doubled = None

        def forward(self, x):
            if self.doubled is None:
                self.doubled = 2 * self.weight
            return x @ self.doubled.T

    model = Cached(4, 3).double()
    model(X)
    with pytest.raises(InputError, match="NaN without 'doubled', which an earlier call of the model has"):
        Objective(model, BATCHES, plain)


def test_layers_that_a_call_makes_are_asked_for():
    """Each copy would make others, at random."""

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.head = nn.Linear(4, 5), None

        def forward(self, x):
            h = self.a(x).tanh()
            if self.head is None:
                self.head = nn.Linear(h.shape[1], 3).double()
            return self.head(h)

    model = Late().double()
    with pytest.raises(InputError, match=r"makes head\.weight when it is called; call it once: model\(inp"):
        Objective(model, BATCHES, plain)
    model(X)
    assert Objective(model, BATCHES, plain).params.numel == sum(p.numel() for p in model.parameters())


def on_what_is_trained(model, batch):
    summed, count = plain(model, batch)
    return summed + count * sum(p.square().sum() for p in model.parameters() if p.requires_grad), count


@pytest.mark.parametrize("include", [("*",), ("b.*",)])
@pytest.mark.parametrize("frozen", [(), ("a.weight",), ("b.bias", "a.bias")])
def test_a_loss_may_ask_what_is_trained(frozen, include):
    model = Net().double()
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    moved = {name for name, _ in model.named_parameters() if include == ("b.*",) and name.startswith("b")}
    trained = {name for name, _ in model.named_parameters() if name not in frozen} | moved

    def written_out(model, batch):
        summed, count = plain(model, batch)
        own = dict(model.named_parameters())
        return summed + count * sum(own[name].square().sum() for name in trained), count

    objective, expected = (
        Objective(model, BATCHES, loss, include=include) for loss in (on_what_is_trained, written_out)
    )
    for theta in (None, 1.3 * expected.theta):
        assert objective.value(theta) == pytest.approx(expected.value(theta), rel=1e-12)
        torch.testing.assert_close(objective.grad(theta), expected.grad(theta))
    assert ll.line(objective, grid=5).losses == pytest.approx(ll.line(expected, grid=5).losses)


def numbers_of(model, batch):
    logits = model(batch[0])
    assert len(logits.numpy()) == len(batch[1])
    return F.cross_entropy(logits, batch[1], reduction="sum"), len(batch[1])


def overwrites(model, batch):
    h = model(batch[0]).sigmoid()
    squares = h * h
    h.add_(1)
    return squares.sum(), len(batch[1])


def calls_backward(model, batch):
    summed, count = plain(model, batch)
    summed.backward()
    return summed, count


def forces(model, batch):
    x = batch[0].clone().requires_grad_()
    energy = model(x)[:, :1]
    (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=model.training)
    return energy.square().sum() + slope.square().sum(), len(batch[1])


def meets_inference(model, batch):
    with torch.inference_mode():
        targets = 2 * batch[0][:, :3]
    return F.mse_loss(model(batch[0]), targets, reduction="sum"), len(batch[1])


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (numbers_of, r"cannot be evaluated at these weights: RuntimeError: .*detach\(\)\.numpy\(\)"),
        (meets_inference, r"cannot be evaluated at these weights: RuntimeError: Inference tensors"),
        (overwrites, r"cannot be differentiated: RuntimeError: .*inplace operation"),
        (calls_backward, r"a derivative taken inside has freed its graph; .* leave out backward\(\)$"),
        (
            forces,
            r"has freed its graph; .*create_graph=True .*create_graph=self\.training, measure .*mode\(l",
        ),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_a_loss_that_cannot_be_differentiated_says_so_in_a_line(loss, said, check):
    objective = Objective(Net().double(), BATCHES, loss, check=check)
    for measure in (Objective.grad, ll.hessian, ll.sharpness, lambda of: ll.top_eigenpairs(of, k=1)):
        with pytest.raises(InputError, match=said) as refused:
            measure(objective)
        assert "\n" not in str(refused.value)


def test_a_force_field_that_keeps_its_graph_in_training_mode_is_measured_there():
    found = Objective(Net().double(), BATCHES, ll.in_training_mode(forces)).grad()
    assert found.any()  # compared with differences of the loss


def test_a_loss_that_other_weights_do_not_have_says_so_in_a_line():
    class Wide(nn.Linear):
        def forward(self, x):
            return torch.distributions.Normal(F.linear(x, self.weight), self.bias, validate_args=True)

    def unlikelihood(model, batch):
        return -model(batch[0]).log_prob(batch[1][:, None]).sum(), len(batch[1])

    model = Wide(4, 1).double()
    model.bias.data.fill_(0.05)
    objective = Objective(model, BATCHES, unlikelihood)
    with pytest.raises(
        InputError, match=r"^the loss cannot be evaluated at these weights: ValueError: .*scale"
    ):
        ll.sharpness(objective)


@pytest.mark.filterwarnings("ignore:.*differences of gradients", "ignore:.*torch.jit")
@pytest.mark.parametrize(
    "function",
    [lambda z: F.normalize(z, dim=-1), lambda z: z.norm(dim=-1), lambda z: torch.atan2(z[:, 0], z[:, 1])],
    ids=["normalize", "norm", "atan2"],
)
def test_a_row_of_zeros_has_the_curvature_of_a_constant(function):
    """Torch has NaN for the second derivative of a length at 0, where an isolated node or padding lies."""
    model, x = nn.Linear(4, 3, bias=False).double(), X.clone()
    x[3] = 0

    def loss(model, x):
        return function(model(x)).sin().sum(), 20

    objective, others = Objective(model, [x], loss), Objective(model, [x[x.any(1)]], loss)
    v = torch.linspace(-1, 1, 12).double()
    torch.testing.assert_close(ll.hessian(objective)(v), ll.hessian(others)(v), rtol=1e-5, atol=1e-7)


def test_a_curvature_that_is_infinite_is_not_replaced():
    model = nn.Linear(4, 1, bias=False).double()
    model.weight.data.zero_()
    objective = Objective(model, [X], lambda m, x: (m(x).abs().pow(1.5).sum(), 20))
    with pytest.raises(InputError, match="not finite"):
        ll.top_eigenpairs(objective, k=1)
