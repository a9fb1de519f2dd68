"""What people try first works, or is refused in one line that says what to write instead."""

import itertools
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import InitVar, dataclass, field
from threading import Lock
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

import landscape as ll
from landscape import InputError
from landscape.objective.batches import doubled
from tests.without import WithoutFloat64

X, Y = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def backbone_frozen():
    model = net()
    model[0].requires_grad_(False)
    return model


def supervised(model, batches=None):
    return ll.supervised(model, [(X, Y)] if batches is None else batches, nn.CrossEntropyLoss())


MEASUREMENTS = {
    "line": ll.line,
    "plane": ll.plane,
    "sharpness": ll.sharpness,
    "sharpness_by_group": ll.sharpness_by_group,
    "top_eigenpairs": ll.top_eigenpairs,
    "trace": ll.trace,
    "diagonal": ll.diagonal,
    "frobenius_norm": ll.frobenius_norm,
    "spectral_density": ll.spectral_density,
    "spectrum": ll.spectrum,
    "hessian": ll.hessian,
    "gauss_newton": ll.gauss_newton,
    "empirical_fisher": ll.empirical_fisher,
    "pac_bayes_bound": ll.pac_bayes_bound,
    "barrier": lambda model: ll.barrier(model, model),
    "barrier to a model": lambda model: ll.barrier(supervised(model), model),
    "bezier": lambda model: ll.bezier(model, model),
    "barriers": lambda model: ll.barriers({"a": model, "b": model}),
    "surfaces": lambda model: ll.surfaces({"a": model}),
    "quadratic_model": lambda model: ll.quadratic_model(model, []),
    "eigen_frame": lambda model: ll.eigen_frame(model, 1),
    "between_frame": lambda model: ll.between_frame(model, {"b": X}, 1, "a"),
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_model_in_place_of_its_objective(name):
    with pytest.raises(InputError, match=r"expected a landscape\.Objective, not Sequential.*supervised"):
        MEASUREMENTS[name](net())


def test_an_objective_in_place_of_its_parameters():
    with pytest.raises(InputError, match=r"objective\.params"):
        ll.random_direction(supervised(net()))


NAMELESS = {
    "surfaces": lambda of: ll.surfaces([of]),
    "barriers": lambda of: ll.barriers([of, of]),
    "between_frame": lambda of: ll.between_frame(of, [of], 1, "a"),
    "metrics": lambda of: ll.surfaces({"a": of}, metrics=[of]),
    "metrics of a path": lambda of: ll.barrier(of, of.theta + 1, metrics=[of]),
}


@pytest.mark.parametrize("name", NAMELESS)
def test_a_list_in_place_of_names(name):
    with pytest.raises(InputError, match=f"{name.split()[0]} takes objectives by name"):
        NAMELESS[name](supervised(net()))


class Endless(IterableDataset):
    def __iter__(self):
        yield from itertools.repeat((X, Y))


@pytest.mark.parametrize(
    "batches",
    [
        lambda: itertools.cycle([(X, Y)]),
        lambda: ((X, Y) for _ in itertools.count()),
        lambda: DataLoader(Endless(), batch_size=None),
    ],
)
def test_batches_without_end(batches, monkeypatch):
    monkeypatch.setattr("landscape.objective.batches.LARGE", 10**5)
    with pytest.raises(InputError, match=r"do not end after .*itertools\.islice"):
        supervised(net(), batches())


def test_batches_that_take_no_memory_end_too(monkeypatch):
    monkeypatch.setattr("landscape.objective.batches.MANY", 100)
    with pytest.raises(InputError, match="do not end after 100"):
        ll.Objective(net(), itertools.count(), lambda model, seed: (model(X).sum(), 1))


class Encoding(UserDict):
    """A batch as a tokenizer of Hugging Face gives it."""

    def __getattr__(self, name):
        return self.data[name]


class Output(OrderedDict):
    """An output of a model of Hugging Face, whose keys are attributes."""

    def update(self, *_):
        raise TypeError("set the keys one by one")


@pytest.mark.parametrize("kind", [Encoding, Output, dict])
def test_batches_keep_their_kind_in_float64(kind):
    batch = kind(x=X, y=Y)
    precise = ll.Objective(
        net(),
        [batch],
        lambda m, b: (F.cross_entropy(m(b.x if kind is Encoding else b["x"]), b["y"], reduction="sum"), 20),
    ).in_float64()
    assert type(precise.batches[0]) is kind
    assert (precise.batches[0]["x"].dtype, batch["x"].dtype) == (torch.float64, torch.float32)
    assert precise.value() == pytest.approx(supervised(net()).value(), rel=1e-6)


class Graph:
    """A batch of a user's own class, which has its tensors in a dictionary behind its attributes."""

    def __init__(self, x, y):
        self.__dict__["store"] = {"x": [x], "y": y}

    def __getattr__(self, name):
        if name not in ("x", "y"):
            raise AttributeError(name)
        return self.store["x"][0] if name == "x" else self.store["y"]


class Slotted:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y


@dataclass(frozen=True)
class Derived:
    """A data class that computes a field, and takes an argument which it does not keep."""

    given: torch.Tensor
    y: torch.Tensor
    x: torch.Tensor = field(init=False)
    factor: InitVar[float] = 1.0

    def __post_init__(self, factor):
        object.__setattr__(self, "x", factor * self.given)


OWN = {
    "plain": SimpleNamespace,
    "graph": Graph,
    "slots": Slotted,
    "frozen": Derived,
    "pair": namedtuple("Pair", ["x", "y"]),
    "within": lambda x, y: SimpleNamespace(
        x=Slotted([nn.Parameter(x)], y).x[0], y=y, rest={"a": Graph(x, y)}
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_batches_of_any_class_are_in_float64_where_the_model_is(name):
    def batch():
        return OWN[name](**{"given" if name == "frozen" else "x": X.clone(), "y": Y})

    def loss(model, batch):
        return F.cross_entropy(model(batch.x.cos()), batch.y, reduction="sum"), 20

    one = batch()
    objective = ll.Objective(net(), [one], loss)
    precise, expected = (of.in_float64() for of in (objective, supervised(net(), [(X.cos(), Y)])))
    held = precise.batches[0]
    assert type(held) is type(one)
    assert (held.x.dtype, held.y.dtype, one.x.dtype) == (torch.float64, torch.int64, torch.float32)
    assert precise.value() == pytest.approx(expected.value(), rel=1e-6)
    ll.hessian(objective)
    assert objective.provenance["derivatives"].startswith("checked against the loss, ")
    streamed = ll.Objective(net(), ll.streamed([batch()]), loss)
    assert streamed.in_float64().value() == precise.value()


def test_what_cannot_be_copied_or_holds_no_tensor_stays_itself_in_a_batch():
    for one in (SimpleNamespace(x=X, lock=Lock()), SimpleNamespace(y=[1, 2]), nn.Linear(2, 2), X.numpy()):
        batch = {"x": X, "rest": one}
        assert doubled(batch)["rest"] is one


@pytest.mark.parametrize("kind", [Encoding, Output, dict])
def test_batches_of_hugging_face_in_place_of_pairs(kind):
    with pytest.raises(InputError, match=r"\(sum, weight\), such as model\(\*\*batch\).*huggingface\.md\)$"):
        supervised(net(), [kind(input_ids=X, labels=Y)])


SPARSE = {
    "coo": lambda: X.relu().to_sparse(),
    "csr": lambda: X.relu().to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([*X.relu()[:, None]], layout=torch.jagged),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("kind", SPARSE)
def test_batches_that_are_sparse_or_nested(kind):
    def loss(model, batch):
        x, weight = batch[0], model[0].weight
        hidden = F.linear(x, weight).values() if x.is_nested else (x @ weight.T).squeeze()
        return F.cross_entropy(model[2](hidden.tanh()), batch[1], reduction="sum"), len(batch[1])

    def sources(make):
        one, same = [(make(), Y)], [(make(), Y)]
        objective = ll.Objective(net(), one, loss)
        streamed = ll.Objective(net(), ll.streamed(same), loss)
        assert objective.provenance["batches_sha256"] == streamed.provenance["batches_sha256"]
        return objective, streamed, ll.Objective(net(), one, ll.in_training_mode(loss))

    expected = ll.top_eigenpairs(sources(X.relu)[0]).eigenvalues
    for objective in sources(SPARSE[kind]):
        found = ll.top_eigenpairs(objective, memory="1 GB").eigenvalues
        assert found == pytest.approx(expected, rel=1e-3)


def test_a_generator_that_ends_is_frozen():
    assert supervised(net(), (pair for pair in [(X, Y), (X, Y)])).count == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Flatten(), "has no parameters"),
        (nn.Sequential(nn.LazyLinear(3)), r"0\.weight is lazy.*model\(inputs\)"),
        (net().state_dict(), "must be a torch.nn.Module, not OrderedDict.*load_weights"),
        ({"a": net(), "b": net()}, r"must be a torch\.nn\.Module, not dict.*several as a ModuleDict$"),
        ("a.pt", "must be a torch.nn.Module, not str"),
        (nn.Linear(5, 3, device="meta"), "weight is on the meta device and has no values.*to_empty"),
    ],
)
def test_what_is_no_model_with_parameters(model, message):
    with pytest.raises(InputError, match=message):
        supervised(model)


@pytest.mark.parametrize("copy", [True, False])
def test_a_device_without_float64(copy):
    model = net()
    before = [p.data_ptr() for p in model.parameters()]
    with WithoutFloat64(), pytest.raises(InputError, match=r"does not compute in float64.*\.cpu\(\)"):
        ll.supervised(model, [(X, Y)], nn.CrossEntropyLoss(), copy=copy)
    assert [p.data_ptr() for p in model.parameters()] == before


def test_a_lazy_model_that_was_called():
    model = nn.LazyLinear(3)
    model(X)
    assert supervised(model).value() == pytest.approx(F.cross_entropy(model(X), Y).item())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda m, b: F.cross_entropy(m(b[0]), b[1]), r"must return \(sum, weight\), not Tensor: write"),
        (lambda m, b: F.cross_entropy(m(b[0]), b[1]), r"mean \* count, count; or use landscape\.supervised"),
        (lambda m, b: (F.cross_entropy(m(b[0]), b[1]), 20), r"returns a mean .* the weight 20; .*count, cou"),
        (lambda m, b: (nn.CrossEntropyLoss()(m(b[0]), b[1]), len(b[1])), "returns a mean .*reduction=.sum"),
        (lambda m, b: (F.mse_loss(m(b[0]), b[0][:, :3]), torch.tensor(60)), "returns a mean over targets"),
        (lambda m, b: F.cross_entropy(m(b[0]), b[1]).item(), r"must return \(sum, weight\), not float"),
        (
            lambda m, b: (m(b[0]).sum().item(), 20),
            r"the sum a scalar tensor and not float; leave out \.item\(\)",
        ),
        (lambda m, b: (m(b[0]), 20), r"the sum a scalar tensor and not \(20, 3\)"),
        (lambda m, b: None, r"must return \(sum, weight\), not NoneType"),
        (lambda m, b: (m(b[0].double()).sum(), 1), "cannot be evaluated: RuntimeError: .*Double and Float"),
        (lambda m, b: (m(b["x"]).sum(), 1), "cannot be evaluated: TypeError(?!.*supervised)"),
        (lambda m, b: (m(*b).sum(), 1), "cannot be evaluated: TypeError: .*given(?!.*supervised)"),
        (F.cross_entropy, r"takes \(model, batch\): .* use landscape\.supervised"),
        (F.mse_loss, "use landscape.supervised"),
        (nn.CrossEntropyLoss(), "use landscape.supervised"),
        (nn.CrossEntropyLoss, "use landscape.supervised"),
        (lambda outputs, y: (outputs - y).square(), "use landscape.supervised"),
    ],
)
def test_a_loss_that_returns_something_else(loss, message):
    with pytest.raises(InputError, match=message) as refused:
        ll.Objective(net(), [(X, Y)], loss)
    assert "\n" not in str(refused.value)


class Detector(nn.Linear):
    """Returns losses in training mode, and what it found in eval mode."""

    def forward(self, x, targets):
        found = super().forward(x)
        if self.training:
            return {"boxes": F.mse_loss(found, targets, reduction="sum"), "scores": found.abs().sum()}
        return [{"boxes": row} for row in found]


def test_a_detector_in_eval_mode_is_pointed_to_its_training_mode():
    def loss(model, batch):
        return sum(model(*batch).values()), len(batch[0])

    batch = X, X[:, :3]
    with pytest.raises(InputError, match=r"no attribute 'values'; it can in training mode, see .*\(loss\)$"):
        ll.Objective(Detector(5, 3), [batch], loss)
    assert ll.Objective(Detector(5, 3), [batch], ll.in_training_mode(loss)).grad().any()


def test_a_mean_of_weight_1_is_the_mean_of_batches():
    batches = [(X[:12], Y[:12]), (X[12:], Y[12:])]
    objective = ll.Objective(net(), batches, lambda m, b: (F.cross_entropy(m(b[0]), b[1]), 1))
    means = [F.cross_entropy(net()(x), y).item() for x, y in batches]
    assert objective.value() == pytest.approx(sum(means) / 2)


def test_batches_without_values():
    with pytest.raises(InputError, match="a tensor of a batch is on the meta device"):
        supervised(net(), [(X.to("meta"), Y)])


@pytest.mark.parametrize("batches", [5, "data", {"x": X}])
def test_what_holds_no_batches(batches):
    with pytest.raises(InputError, match="the batches are a "):
        ll.Objective(net(), batches, lambda m, b: (m(b[0]).sum(), 1))


@pytest.mark.parametrize(
    "compiled", [torch.compile, lambda model: nn.DataParallel(torch.compile(model, backend="eager"))]
)
def test_a_compiled_model_with_frozen_layers(compiled):
    objective, plain = supervised(compiled(backbone_frozen())), supervised(backbone_frozen())
    assert objective.params.numel == plain.params.numel == 15
    v = torch.randn_like(plain.theta)
    assert torch.equal(ll.hessian(objective)(v), ll.hessian(plain)(v))


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_batch_without_examples(criterion, place):
    batches = [(X[:8], Y[:8]), (X[8:], Y[8:])]
    batches.insert(place, (X[:0], Y[:0]))
    with pytest.raises(InputError, match=r"^a batch has no examples; leave it out$"):
        ll.supervised(net(), batches, criterion)
