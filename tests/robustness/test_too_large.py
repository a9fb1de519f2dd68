"""Settings that no machine can carry out are refused in one line, before anything is taken or written."""

import inspect
from typing import get_args

import numpy as np
import pytest
import torch

from landscape import InputError, plane, top_eigenpairs
from landscape.cli import app
from landscape.runtime.devices import measured
from samrec.config import Config, configure
from samrec.data.interactions import Interactions
from samrec.data.split import leave_one_out
from samrec.methods import batches_of, initial_learner, new_model
from samrec.training import memory

DIGITS = "9" * 400
BEYOND = {
    "seed": (DIGITS, 2**63),
    "epochs": (DIGITS, 10**9 + 1),
    "dim": (10**9, 10**6),
    "layers": (10**6, 10**30),
    "heads": (10**9, DIGITS),
    "max_length": (10**7, DIGITS),
    "negatives": (10**7, DIGITS),
    "batch_size": (10**9, DIGITS),
    "micro_batches": (10**9,),
    "expansion": (10**6,),
    "warmup": (DIGITS,),
    "rho_warmup": (DIGITS,),
    "eval_every": (DIGITS,),
    "patience": (DIGITS,),
    "save_every": (DIGITS,),
    "every": (DIGITS,),
    "pretrain_epochs": (DIGITS,),
    "core": (DIGITS,),
    "lr": ("1e999", "nan"),
    "rho": ("inf",),
    "weight_decay": ("1" * 400,),
    "clip": ("inf",),
    "temperature": ("1e400",),
    "min_rating": ("nan",),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BEYOND.items() for v in values])
def test_settings_have_bounds(name, value):
    with pytest.raises(InputError, match=f"setting {name}: must be ") as error:
        configure({"data": "d.txt", name: value})
    assert len(str(error.value)) <= 300


def test_every_whole_number_has_an_upper_bound():
    for name, field in Config.model_fields.items():
        if "int" in str(field.annotation):
            assert any(hasattr(m, "le") or hasattr(m, "lt") for m in field.metadata), name


@pytest.mark.parametrize("name", app.MEASUREMENTS)
def test_every_whole_number_of_a_measurement_has_an_upper_bound(name, landscape):
    options = inspect.signature(app._measurement(name).found).parameters
    kinds = {option: get_args(of.annotation)[0] for option, of in options.items() if get_args(of.annotation)}
    for option in (option for option, kind in kinds.items() if kind in (int, int | None)):
        flag = f"--{option.replace('_', '-')}"
        code, out, err = landscape(name, flag, 2**63)
        assert (code, out) == (2, "")
        assert err.startswith(f"landscape: Invalid value for '{flag}': Input should be less than"), err


@pytest.mark.parametrize("grid", [10**7, 4000])
def test_a_grid_has_room(grid, sasrec_objective):
    with pytest.raises(InputError, match=r"points has more than 10,000,000; choose fewer"):
        plane(sasrec_objective, grid=grid, radius=1.0)


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_is_a_positive_number(tol, operator, symmetric):
    with pytest.raises(InputError, match=r"tol is .*; it must be positive"):
        top_eigenpairs(operator(symmetric), k=1, tol=tol)


TOO_LARGE = {
    ("--dim", "65536"): "mostly because of dim 65,536",
    ("--layers", "1000", "--dim", "1024"): "mostly because of",
    ("--max-length", "60000", "--layers", "1"): "mostly because of max_length 60,000",
    ("--negatives", "1000000"): "mostly because of negatives 1,000,000",
    ("--method", "gru4rec", "--max-length", "60000", "--dim", "2048"): "mostly because of",
    (
        "--max-memory",
        "0.0001",
    ): "and there are 0.0 GiB; choose smaller settings, or say how much there is with",
    ("--dim", "65536", "--loss", "ce", "--method", "samrec"): "mostly because of dim 65,536",
    ("--seed", DIGITS): "setting seed: must be less than",
    ("--epochs", "9" * 5000): "Invalid value for '--epochs'",
}


@pytest.mark.parametrize("arguments", TOO_LARGE, ids=lambda arguments: " ".join(arguments)[:60])
def test_memory_is_asked_for_before_it_is_taken(landscape, data_file, tmp_path, arguments, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**33)
    monkeypatch.setattr("samrec.training.loop._engine", None)  # nothing is built
    out = tmp_path / "run"
    code, said, err = landscape("train", "--data", data_file, "--out", out, *arguments)
    assert (code, said) == (2, "")
    (line,) = [text for text in err.splitlines() if "warning" not in text]
    assert TOO_LARGE[arguments] in line
    assert not out.exists()


def world(items=200, length=30):
    rng = np.random.default_rng(0)
    return leave_one_out(
        Interactions.from_histories([list(range(1, items + 1)), *rng.integers(1, items, (40, length))], "h")
    )


SHAPES = {
    "usual": {},
    "wide": {"dim": 256},
    "long": {"max_length": 200},
    "deep": {"layers": 6},
    "negatives": {"negatives": 64},
    "recurrent": {"method": "gru4rec", "layers": 2},
    "masked": {"method": "bert4rec"},
    "views": {"method": "cl4srec", "max_length": 30},
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_estimate_is_about_what_a_step_holds(name):
    """Before its backward pass, which takes up to twice as much again: both gradients of a product."""
    config = Config(data="", batch_size=32, **SHAPES[name])
    split, device = world(length=config.max_length), torch.device("cpu")
    batches = batches_of(config, split, device)
    learner = initial_learner(config, split).train()
    batch = next(batches.epoch(config.batch_size, (0, 1)))
    _, held = measured(lambda: learner(batch).sum(), device)
    weights = 4 * sum(p.numel() for p in learner.parameters())
    estimate = memory._need(config, batches, device) - (3 + bool(config.radius)) * weights
    assert 0.5 < estimate / (held + weights) < 3.5


def test_twice_the_items_are_twice_the_table():
    device, config = torch.device("cpu"), Config(data="", method="samrec", dim=512)
    split = world(items=4000)
    need = memory._need(config, batches_of(config, split, device), device)
    split = world(items=8000)
    more = memory._need(config, batches_of(config, split, device), device)
    assert more - need == pytest.approx(5 * 4 * 512 * 4000, rel=0.02)
    assert new_model(config, 8000).item.weight.numel() == 512 * 8000


def test_a_pre_training_needs_the_same_whatever_the_loss_that_ranks_later(split):
    """It draws one negative per slot; its settings name the loss that landscapes of it are of."""
    device = torch.device("cpu")
    rest = {"data": "d.txt", "method": "s3rec-pretraining"}
    losses = [{}, {"loss": "ce"}, {"loss": "gbce"}, {"negatives": 5000}]
    configs = [Config(**rest, **loss) for loss in losses]
    needs = {memory._need(config, batches_of(config, split, device), device) for config in configs}
    assert len(needs) == 1


def test_runs_that_train_together_need_the_same_in_any_order():
    """One that climbs lets all of them keep the weights before the climb."""
    device, plain = torch.device("cpu"), Config(data="", dim=512)
    climbing = plain.model_copy(update={"method": "samrec"})
    batches = batches_of(plain, world(items=4000), device)
    room = 2 * memory._need(climbing, batches, device)
    for configs in ([plain, climbing], [climbing, plain]):
        memory.check_memory(configs, batches, device, room / memory.GIB)
        with pytest.raises(InputError, match="training needs about"):
            memory.check_memory(configs, batches, device, 0.99 * room / memory.GIB)


def test_what_there_is_can_be_said(landscape, data_file, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 0)
    small = ("--epochs", "1", "--eval-every", "1", "--dim", "4", "--max-length", "4", "--json")
    arguments = ("train", "--data", data_file, "--out", tmp_path / "run", *small)
    code, _, err = landscape(*arguments)
    assert (code, "there are 0.0 GiB" in err) == (2, True)
    code, _, _ = landscape(*arguments, "--max-memory", "1")
    assert code == 0
