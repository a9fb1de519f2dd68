"""`supervised` takes a criterion as people write one, and equals its own mean over all data at once."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import landscape as ll
from landscape import InputError

pytestmark = pytest.mark.filterwarnings("ignore:reduction. .mean. divides")  # torch, of kl_div


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


X, SCORES = drawn(40, 5), drawn(40, 4).roll(7, 0)
Y = torch.randint(4, (40,), generator=torch.Generator().manual_seed(0))
IGNORED = torch.where(torch.arange(40) < 24, -100, Y)  # the first batches of none but ignored targets
RATES = torch.tensor([10.0, 1.0, 1.0, 0.1], dtype=torch.float64)
MODEL = nn.Linear(5, 4).double()


def batches(targets):
    return [(X[part], targets[part]) for part in (slice(0, 7), slice(7, 20), slice(20, 40))]


def focal(outputs, targets):
    """A loss of one's own, with a reduction of its own."""
    costs = F.cross_entropy(outputs, targets, reduction="none")
    return ((1 - torch.exp(-costs)) ** 2 * costs).mean()


class Focal(nn.Module):
    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs, targets):
        costs = F.cross_entropy(outputs, targets, reduction="none") ** 2
        return costs if self.reduction == "none" else getattr(costs, self.reduction)()


def named(reduction="mean", **options):
    return lambda o, t, reduction=reduction: F.cross_entropy(o, t, reduction=reduction, **options)


CRITERIA = {
    "function": (F.cross_entropy, Y),
    "module": (nn.CrossEntropyLoss(), Y),
    "module, ignored": (nn.CrossEntropyLoss(), IGNORED),
    "another ignored": (nn.CrossEntropyLoss(ignore_index=2), Y),
    "weights": (nn.CrossEntropyLoss(RATES), Y),
    "weights and ignored": (nn.CrossEntropyLoss(RATES), IGNORED),
    "smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), Y),
    "smoothing, weights and ignored": (nn.CrossEntropyLoss(RATES, label_smoothing=0.1), IGNORED),
    "partial": (partial(F.cross_entropy, weight=RATES, ignore_index=2), Y),
    "closure": (lambda o, t: F.cross_entropy(o, t, weight=RATES), IGNORED),
    "closure that passes reduction on": (named(weight=RATES), IGNORED),
    "likelihood": (lambda o, t: F.nll_loss(o.log_softmax(1), t, RATES), IGNORED),
    "probabilities": (F.cross_entropy, SCORES.softmax(1)),
    "masked by hand": (lambda o, t: F.cross_entropy(o[t >= 0], t[t >= 0]), torch.where(Y == 0, -1, Y)),
    "regression": (nn.MSELoss(), SCORES),
    "regression, smooth": (nn.SmoothL1Loss(), SCORES),
    "regression by hand": (lambda o, t: (o - t).square().mean(), SCORES),
    "absolute, weighted": (lambda o, t: F.l1_loss(o, t, weight=torch.ones_like(o)), SCORES),
    "labels": (nn.BCEWithLogitsLoss(pos_weight=RATES), (SCORES > 0).double()),
    "divergence per entry": (nn.KLDivLoss(), SCORES.softmax(1)),
    "divergence per row": (nn.KLDivLoss(reduction="batchmean"), SCORES.softmax(1)),
    "divergence, partial": (partial(F.kl_div, reduction="batchmean"), SCORES.softmax(1)),
    "own scalar": (focal, Y),
    "own module": (Focal(), Y),
    "scaled": (lambda o, t: 0.5 * F.cross_entropy(o, t), Y),
    "with a penalty": (lambda o, t: F.cross_entropy(o, t) + 0.1 * o.square().mean(), Y),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_it_is_the_criterions_own_mean_over_all_data(name):
    criterion, targets = CRITERIA[name]
    own = criterion(MODEL(X), targets)
    objective = ll.supervised(MODEL, batches(targets), criterion)
    assert objective.value() == pytest.approx(own.item(), rel=1e-9)
    expected = torch.autograd.grad(own, list(MODEL.parameters()))
    torch.testing.assert_close(objective.grad(), torch.cat([g.flatten() for g in expected]))
    sums, weights = objective.per_example()
    assert sums.sum() / weights.sum() == pytest.approx(own.item(), rel=1e-9)
    v = torch.randn_like(objective.theta)
    torch.testing.assert_close(ll.gauss_newton(objective)(v), ll.hessian(objective)(v))  # the model is linear


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_another_reduction_is_the_same_mean(reduction):
    found = ll.supervised(MODEL, batches(IGNORED), nn.CrossEntropyLoss(reduction=reduction)).value()
    assert found == pytest.approx(nn.CrossEntropyLoss()(MODEL(X), IGNORED).item(), rel=1e-9)


def test_a_criterion_that_must_be_told_its_reduction_weighs_targets_as_torch_does():
    def told(outputs, targets, reduction):
        return F.cross_entropy(outputs, targets, RATES, reduction=reduction)

    expected = F.cross_entropy(MODEL(X), IGNORED, RATES).item()
    assert ll.supervised(MODEL, batches(IGNORED), told).value() == pytest.approx(expected, rel=1e-9)


def test_the_loss_of_each_example_and_a_sum_by_hand_are_means_too():
    own = F.mse_loss(MODEL(X), SCORES).item()
    each = ll.supervised(MODEL, batches(SCORES), lambda o, t: (o - t).square().mean(1))
    summed = ll.supervised(MODEL, batches(SCORES), lambda o, t: (o - t).square().sum())
    assert each.value() == pytest.approx(own, rel=1e-9)
    assert summed.value() == pytest.approx(4 * own, rel=1e-9)  # per example, of four entries each
    assert [len(o.per_example()[0]) for o in (each, summed)] == [40, 40]


def test_a_sum_of_a_loss_per_row_and_one_per_entry_is_a_mean_too():
    """Without their reductions they have different shapes, which do not add up."""
    torch.manual_seed(0)
    x, y = torch.randn(9, 4), torch.randint(3, (9,))
    model = torch.nn.Linear(4, 3)

    def both(outputs, targets):
        return F.cross_entropy(outputs, targets) + F.mse_loss(outputs, F.one_hot(targets, 3).float())

    found = ll.supervised(model, [(x[:5], y[:5]), (x[5:], y[5:])], both)
    assert found.value() == pytest.approx(float(both(model(x), y).detach()), rel=1e-6)


def test_tokens_that_stand_end_to_end_belong_to_their_sentences():
    model = nn.Embedding(9, 9).double()
    tokens = torch.randint(9, (6, 5), generator=torch.Generator().manual_seed(1))
    labels = torch.where(tokens > 6, -100, tokens)

    def criterion(outputs, targets):
        return F.cross_entropy(outputs.view(-1, 9), targets.view(-1))

    objective = ll.supervised(model, [(tokens[:4], labels[:4]), (tokens[4:], labels[4:])], criterion)
    assert objective.value() == pytest.approx(criterion(model(tokens), labels).item(), rel=1e-9)
    assert objective.per_example()[1].tolist() == (labels >= 0).sum(1).tolist()


def layouts(classes):
    """Criteria of tokens whose losses lie in other orders, or leave some out."""

    def masked(o, t, reduction="mean"):
        return F.cross_entropy(o[t >= 0], t[t >= 0], reduction=reduction)

    def by_position(o, t):
        return F.cross_entropy(o.transpose(0, 1).reshape(-1, classes), t.t().reshape(-1))

    return {
        "end to end": lambda o, t: F.cross_entropy(o.reshape(-1, classes), t.reshape(-1)),
        "one position after another": by_position,
        "a row per position": lambda o, t: F.cross_entropy(o.permute(1, 2, 0), t.t()),
        "masked": masked,
        "masked, summed": partial(masked, reduction="sum"),
        "masked, not reduced": lambda o, t: masked(o, t, "none"),
    }


@pytest.mark.parametrize("lengths", [(1, 5, 3, 2, 5), (5, 5, 5, 5, 5), (4, 4, 2, 2, 4)])
@pytest.mark.parametrize("sizes", [(2, 3), (5,), (1, 4)])  # (5,): as many examples as positions
@pytest.mark.parametrize("layout", layouts(4))
def test_whatever_the_order_of_tokens_the_loss_of_each_example_is_its_own(layout, sizes, lengths):
    model = nn.Embedding(9, 4).double()
    tokens = torch.randint(9, (5, 5), generator=torch.Generator().manual_seed(1))
    used = torch.arange(5) < torch.tensor(lengths)[:, None]
    labels = torch.where(used, tokens % 4, -100)
    parts = list(zip(tokens.split(sizes), labels.split(sizes), strict=True))
    objective = ll.supervised(model, parts, layouts(4)[layout])
    expected = F.cross_entropy(model(tokens).transpose(1, 2), labels, reduction="none").sum(1)
    sums, weights = objective.per_example()
    assert weights.tolist() == list(lengths)
    torch.testing.assert_close(torch.from_numpy(sums), expected.detach())
    assert objective.value() == pytest.approx(float(expected.detach().sum()) / sum(lengths), rel=1e-12)


@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_whose_loss_it_is_does_not_depend_on_its_unit(unit):
    """In small units all losses are close to one another, as far as an absolute tolerance tells."""

    def by_position(o, t):
        return F.mse_loss(o.t().reshape(-1), t.t().reshape(-1))

    model, targets = nn.Linear(5, 3, bias=False).double(), unit * drawn(8, 3)
    nn.init.constant_(model.weight, unit)
    parts = [(X[:4], targets[:4]), (X[4:8], targets[4:])]
    sums, _ = ll.supervised(model, parts, by_position).per_example()
    expected = (model(X[:8]) - targets).square().sum(1).detach()
    torch.testing.assert_close(torch.from_numpy(sums), expected, rtol=1e-9, atol=0)


def test_losses_that_are_all_alike_do_not_tell_whose_they_are():
    """A table of zeros gives each token the same loss, whichever place that has."""
    model, tokens = nn.Embedding(9, 4).double(), torch.arange(12).reshape(4, 3) % 9
    nn.init.zeros_(model.weight)
    objective = ll.supervised(model, [(tokens, tokens % 4)], layouts(4)["one position after another"])
    theta = drawn(9, 4)
    for there in (objective.theta, theta.flatten()):
        expected = F.cross_entropy(there.view(9, 4)[tokens].mT, tokens % 4, reduction="none").sum(1)
        torch.testing.assert_close(torch.from_numpy(objective.per_example(there)[0]), expected)


def test_an_example_whose_targets_are_all_hidden_counts_as_one_without_weight():
    targets = torch.where(torch.arange(40) < 22, -1, Y)  # the first two batches hide all and most
    found = ll.supervised(
        MODEL, batches(targets), lambda o, t: F.cross_entropy(o[t >= 0], t[t >= 0], reduction="sum")
    )
    assert found.per_example()[1].tolist() == (targets >= 0).double().tolist()


def test_outputs_that_lie_end_to_end_themselves_belong_to_their_examples():
    model = nn.Sequential(nn.Linear(5, 12), nn.Unflatten(1, (3, 4)), nn.Flatten(0, 1)).double()
    targets = torch.stack([Y, Y.roll(1), Y.roll(2)], 1)
    found = ll.supervised(model, batches(targets), lambda o, t: F.cross_entropy(o, t.flatten()))
    costs = F.cross_entropy(model(X), targets.flatten(), reduction="none").detach()
    torch.testing.assert_close(torch.from_numpy(found.per_example()[0]), costs.view(40, 3).sum(1))


def test_examples_that_depend_on_one_another_in_several_rows_are_one_unit():
    """Two views of each example, all first ones before all second ones, as contrastive losses have them."""

    def views(outputs, targets):
        both = torch.cat([outputs, outputs.roll(1, 1)])
        return F.cross_entropy(both @ both.T, torch.arange(len(both)).roll(len(outputs)))

    sums, weights = ll.supervised(MODEL, batches(Y), views).per_example()
    assert weights.tolist() == [14, 26, 40]
    assert sums / weights == pytest.approx([float(views(MODEL(x), y).detach()) for x, y in batches(Y)])


def test_utterances_are_the_units_of_a_loss_of_alignments():
    targets = torch.randint(1, 4, (9,), generator=torch.Generator().manual_seed(0))
    frames, lengths = torch.tensor([6, 6, 6]), torch.tensor([2, 3, 4])
    x = drawn(6, 3, 5)

    def alignments(outputs, targets):
        return F.ctc_loss(outputs.log_softmax(2), targets, frames, lengths)

    found = ll.supervised(MODEL, [(x, targets)], alignments)
    costs = F.ctc_loss(MODEL(x).log_softmax(2), targets, frames, lengths, reduction="none").detach()
    torch.testing.assert_close(torch.from_numpy(found.per_example()[0]), costs / lengths)


def test_class_weights_follow_to_float64():
    model = nn.Linear(5, 4)
    objective = ll.supervised(model, [(X.float(), Y)], nn.CrossEntropyLoss(RATES.float()))
    assert objective.in_float64().value() == pytest.approx(objective.value(), rel=1e-6)


def test_a_packed_sequence_is_one_input():
    """It is a tuple by its type, and its parts are no arguments of a model."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.GRU(5, 3), nn.Linear(3, 4)

        def forward(self, packed):
            return self.out(self.rnn(packed)[1][-1])

    packed = nn.utils.rnn.pack_sequence([drawn(n, 5) for n in (2, 4, 3)], enforce_sorted=False)
    model, y = Last().double(), torch.tensor([0, 3, 1])
    found = ll.supervised(model, [(packed, y)], F.cross_entropy)
    assert found.value() == pytest.approx(float(F.cross_entropy(model(packed), y).detach()))
    assert found.in_float64().value() == pytest.approx(found.value())


@pytest.mark.parametrize("kind", ["mapping", "object"])
def test_outputs_with_logits(kind):
    class Answering(nn.Linear):
        def forward(self, x):
            found = {"logits": super().forward(x)}
            return found if kind == "mapping" else SimpleNamespace(**found)

    model = Answering(5, 4).double()
    expected = F.cross_entropy(F.linear(X, model.weight, model.bias), Y).item()
    assert ll.supervised(model, batches(Y), nn.CrossEntropyLoss()).value() == pytest.approx(expected)


def contrast(outputs, _):
    return (outputs @ outputs.T).logsumexp(1).mean()


def test_examples_that_depend_on_one_another_have_a_loss_on_one_batch_only():
    objective = ll.supervised(MODEL, [(X, Y)], contrast)
    assert objective.value() == pytest.approx(contrast(MODEL(X), Y).item())
    with pytest.raises(InputError, match="not given the per_example"):
        ll.empirical_fisher(objective)
    with pytest.raises(InputError, match="not the mean over a batch's examples"):
        ll.supervised(MODEL, batches(Y), contrast)


def test_a_mean_that_ignores_targets_of_a_later_batch_is_not_taken_for_one_over_all():
    with pytest.raises(InputError, match=r"nan|not the mean"):
        ll.supervised(MODEL, batches(IGNORED.flip(0)), lambda o, t: 0.5 * F.cross_entropy(o, t))


def test_a_mean_over_tokens_is_none_over_examples_where_batches_have_more_and_fewer():
    def mean(outputs, targets):
        return (F.cross_entropy(outputs, targets, reduction="none")).sum() / (targets != -100).sum()

    targets = torch.arange(24).reshape(6, 4) % 3
    inputs = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Conv1d(3, 3, 1)
    assert ll.supervised(model, [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])], mean).count == 2
    targets[3:, 1:] = -100
    with pytest.raises(InputError, match="not the mean over a batch's examples"):
        ll.supervised(model, [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])], mean)


@pytest.mark.parametrize(
    ("data", "criterion", "message"),
    [
        (batches(SCORES[:, :1]), nn.MSELoss(), r"\(7, 4\) and targets of \(7, 1\)"),
        (
            batches(Y),
            nn.CrossEntropyLoss,
            r"CrossEntropyLoss is a class; give one of its objects, CrossEntropyLoss\(\)",
        ),
        (batches(Y), "mse", "str cannot be called"),
        (nn.CrossEntropyLoss(), batches(Y), "list cannot be called"),
        (batches(Y), lambda o, t: F.cross_entropy(o, t).item(), "returned float, not a tensor"),
        (TensorDataset(X, Y), nn.CrossEntropyLoss(), "DataLoader"),
        (batches(torch.full_like(Y, -100)), nn.CrossEntropyLoss(), "all targets are ignored"),
        (batches(Y.float()), nn.CrossEntropyLoss(), "the loss cannot be evaluated: "),
        ((X, Y), nn.CrossEntropyLoss(), r"must be a pair .*a loss that returns \(sum, weight\)$"),
    ],
)
def test_what_cannot_be_a_mean_is_refused_in_a_line(data, criterion, message):
    with pytest.raises(InputError, match=message) as refused:
        ll.supervised(MODEL, data, criterion)
    assert "\n" not in str(refused.value)
