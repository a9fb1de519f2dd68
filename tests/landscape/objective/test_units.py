"""The losses of examples are parts of the loss that is measured."""

import pytest
import torch
from torch.nn import functional as F

import landscape as ll
from landscape import InputError, Objective
from tests.landscape.objective.test_objective import regression, squared


@pytest.mark.parametrize("wrong", ["a penalty in the loss alone", "other weights", "means"])
def test_units_that_do_not_add_up_to_the_loss_are_refused(wrong):
    """Averages over them, and their standard errors, would be those of another loss."""
    model, batches = regression([5, 3])

    def loss(model, batch):
        total, weight = squared(model, batch)
        penalty = weight * sum((p**2).sum() for p in model.parameters())
        return total + penalty * (wrong == "a penalty in the loss alone"), weight

    def units(model, batch):
        each = (model(batch[0]) - batch[1]).flatten() ** 2
        weights = torch.ones(len(each)) * (2 if wrong == "other weights" else 1)
        return each / (len(each) if wrong == "means" else 1), weights

    objective = Objective(model, batches, loss, per_example=units)
    assert objective.value() > 0
    for measure in (lambda o: o.per_example(), lambda o: ll.sharpness(o, ["average"], samples=2), ll.line):
        with pytest.raises(InputError, match="per_example adds up to"):
            measure(Objective(model, batches, loss, per_example=units))


def test_a_weight_that_depends_on_the_model_is_refused():
    """Elsewhere than at θ, the sum would be divided by the weight at θ."""
    model, batches = regression([8, 8])

    def above(model, batch):
        outputs = model(batch[0])
        chosen = (outputs > 0).double()
        return (chosen * (outputs - batch[1]) ** 2).sum(), chosen.sum() + 1

    with pytest.raises(InputError, match="the weight of a batch depends on the weights of the model"):
        Objective(model, batches, above)


@pytest.mark.parametrize("sizes", [[8, 2], [5, 5]])
def test_units_of_batches_whose_means_are_averaged_are_refused(sizes):
    """Each batch agrees with its own units, but their mean is not L, or the Fisher matrix not theirs."""
    model, batches = regression(sizes)

    def loss(model, batch):
        return F.mse_loss(model(batch[0]), batch[1]), 1

    def units(model, batch):
        each = (model(batch[0]) - batch[1]).flatten() ** 2
        return each, torch.ones(len(each))

    objective = Objective(model, batches, loss, per_example=units)
    for measure in (ll.empirical_fisher, lambda of: ll.sharpness(of, ["average"], samples=2)):
        with pytest.raises(InputError, match="the weights of per_example add up to"):
            measure(objective)


def test_units_that_go_wrong_on_a_later_batch_are_refused():
    model, batches = regression([5, 3])

    def units(model, batch):
        each = (model(batch[0]) - batch[1]).flatten() ** 2
        return each * (1 if len(each) == 5 else 2), torch.ones(len(each))

    with pytest.raises(InputError, match="per_example adds up to"):
        Objective(model, batches, squared, per_example=units).per_example()


def test_units_are_compared_with_the_loss_once():
    model, batches = regression([5, 3])
    calls = []

    def loss(model, batch):
        calls.append(len(batch[0]))
        return squared(model, batch)

    def units(model, batch):
        each = (model(batch[0]) - batch[1]).flatten() ** 2
        return each, torch.ones(len(each))

    objective = Objective(model, batches, loss, per_example=units)
    calls.clear()
    for _ in range(3):
        objective.per_example()
    assert calls == [5, 3]
