import pytest
import torch

from samrec.config import Config
from samrec.data.packing import TrainingBatches
from samrec.methods import initial_learner
from samrec.training.engines.solo import Solo, parameter_groups
from samrec.training.schedule import share

EMBEDDINGS = "model.item.weight", "model.position.weight", "model.token.embedding", "token.embedding"


def test_a_constant_is_one_after_its_warm_up():
    assert [share("constant", 4, 10, at) for at in (0, 1, 2.5, 4, 9.9)] == [0, 0.25, 0.625, 1, 1]
    assert share("constant", 0, 10, 0) == 1


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 2])
def test_a_fall_is_from_one_to_zero_through_one_half(schedule, warmup):
    found = [share(schedule, warmup, 10, at) for at in (warmup, (warmup + 10) / 2, 10)]
    assert found == pytest.approx([1, 0.5, 0])
    falling = [share(schedule, warmup, 10, warmup + k / 10) for k in range(10 * (10 - warmup))]
    assert falling == sorted(falling, reverse=True)


def test_a_run_that_is_warm_up_alone_rises_to_its_end():
    assert share("cosine", 10, 10, 9.5) == 0.95


def test_a_step_uses_what_the_schedules_say(split):
    config = Config(data="", method="samrec", dim=8, max_length=8, lr_schedule="cosine")
    engine = Solo(config, initial_learner(config, split), torch.device("cpu"), 0)
    (batch,) = TrainingBatches(split, 8, torch.device("cpu")).epoch(60, (0,))
    engine.step([[batch]], [0], 0.25, [0.5])
    assert [group["lr"] for group in engine.optimizer.param_groups] == [0.25]
    assert engine.optimizer.rho == 0.5


@pytest.mark.parametrize(
    ("perturb", "moved"),
    [
        ("all", lambda name: True),
        ("no-embedding", lambda name: name not in EMBEDDINGS),
        ("norm-only", lambda name: "norm" in name),
    ],
)
@pytest.mark.parametrize("method", ["samrec", "cl4srec", "bert4rec"])
def test_groups_hold_every_parameter_once(split, method, perturb, moved):
    config = Config(data="", method=method, rho=0.1, perturb=perturb)
    named = dict(initial_learner(config, split).named_parameters())
    groups = parameter_groups(config, named)
    names = {id(p): name for name, p in named.items()}
    held = [[names[id(p)] for p in group["params"]] for group in groups]
    assert sorted(name for group in held for name in group) == sorted(named)
    assert held[0] == [name for name in named if moved(name)]
    assert [group.get("perturb", True) for group in groups] == [True, False][: len(groups)]
