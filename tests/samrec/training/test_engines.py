"""Several runs as one, and a step as a graph: each must be the plain step of one run."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from landscape import InputError
from samrec.checkpoint import load
from samrec.config import Config
from samrec.data.packing import TrainingBatches
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.methods import batches_of, initial_learner
from samrec.model import Draws
from samrec.training.engines.graph import Captured
from samrec.training.engines.solo import Solo, load_optimizer
from samrec.training.engines.stacked import Stacked
from samrec.training.log import read_log
from samrec.training.loop import train, train_together
from samrec.training.run import Run

pytestmark = pytest.mark.usefixtures("double")
CPU = torch.device("cpu")
SMALL = {
    "dim": 8,
    "max_length": 8,
    "batch_size": 16,
    "eval_every": 2,
    "patience": 50,
    "dropout": 0.3,
    "epochs": 4,
}


def configs(data_file, **settings):
    """Runs that may train together: other seeds, radii, methods."""
    rest = {"data": str(data_file), **SMALL, **settings}
    sam = {
        name: rest.pop(name)
        for name in ("adaptive", "every", "perturb", "rho_schedule", "rho_warmup")
        if name in rest
    }
    return [
        Config(seed=0, method="samrec", rho=0.0, **sam, **rest),
        Config(seed=1, method="samrec", rho=0.2, **sam, **rest),
        Config(seed=1, method="samrec", rho=0.5, **sam, **rest),
    ]


def nearly_the_same(a, b):
    for name, tensor in a.weights.items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(tensor, b.weights[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "ce", "dropout": 0.0},
        {"loss": "gbce", "negatives": 4},
        {"adaptive": True, "clip": 0.5},
        {"every": 2, "perturb": "no-embedding"},
        {"every": 3, "rho_warmup": 2},
        {"preset": "sasrec-bert", "lr_schedule": "cosine", "warmup": 2, "rho_schedule": "linear"},
        {"preset": "sasrec-original"},
    ],
)
def test_each_of_several_runs_equals_its_solo_twin(data_file, tmp_path, settings):
    runs = configs(data_file, **settings)
    together = train_together(runs, [tmp_path / f"together-{i}" for i in range(3)], "cpu")
    for i, config in enumerate(runs):
        alone = train(config, tmp_path / f"alone-{i}", "cpu")
        for name in ("last.pt", "best.pt"):
            nearly_the_same(load(alone.out / name), load(together[i].out / name))
        losses = [
            [line["loss"] for line in read_log(o.out / "metrics.jsonl") if "loss" in line]
            for o in (alone, together[i])
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        assert together[i].epochs == alone.epochs
        sizes = [(o.out / "last.pt").stat().st_size for o in (alone, together[i])]
        assert sizes[1] < 1.6 * sizes[0]  # its own part of the three that are stacked


def test_runs_of_sasrec_take_plain_steps_together(data_file, tmp_path):
    runs = [Config(data=str(data_file), seed=seed, **SMALL) for seed in (0, 1)]
    together = train_together(runs, [tmp_path / "a", tmp_path / "b"], "cpu")
    nearly_the_same(
        load(train(runs[1], tmp_path / "c", "cpu").out / "last.pt"), load(together[1].out / "last.pt")
    )


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
def test_a_run_may_go_on_alone_or_together(data_file, tmp_path, every):
    """Checkpoints are the same whoever wrote them."""
    runs = configs(data_file, every=every)
    half = [config.model_copy(update={"epochs": 2}) for config in runs]
    whole = [train(config, tmp_path / f"whole-{i}", "cpu") for i, config in enumerate(runs)]
    for i, config in enumerate(half):
        train(config, tmp_path / f"alone-first-{i}", "cpu")
    train_together(half, [tmp_path / f"together-first-{i}" for i in range(3)], "cpu")
    train_together(runs, [tmp_path / f"alone-first-{i}" for i in range(3)], "cpu", resume=True)
    for i, config in enumerate(runs):
        train(config, tmp_path / f"together-first-{i}", "cpu", resume=True)
        for how in ("alone", "together"):
            nearly_the_same(load(whole[i].out / "last.pt"), load(tmp_path / f"{how}-first-{i}" / "last.pt"))


def test_runs_of_radius_zero_keep_no_direction(data_file, tmp_path):
    rest = {"data": str(data_file), **SMALL, "epochs": 2, "method": "samrec", "rho": 0.0, "every": 2}
    runs = [Config(seed=seed, **rest) for seed in (0, 1)]
    outs = [tmp_path / "a", tmp_path / "b"]
    train_together(runs, outs, "cpu")
    train_together([c.model_copy(update={"epochs": 4}) for c in runs], outs, "cpu", resume=True)
    alone = train(runs[1].model_copy(update={"epochs": 4}), tmp_path / "c", "cpu")
    nearly_the_same(load(alone.out / "last.pt"), load(outs[1] / "last.pt"))


def test_one_that_has_ended_does_not_stop_the_others(data_file, tmp_path):
    rest = {"data": str(data_file), **SMALL, "epochs": 12, "lr": 0.02}
    runs = [Config(**rest | {"seed": seed, "patience": patience}) for seed, patience in ((0, 2), (1, 12))]
    outs = [tmp_path / "short", tmp_path / "long"]
    short, long = train_together(runs, outs, "cpu")
    assert short.epochs == short.best_epoch + 2 < long.epochs
    assert [line["epoch"] for line in read_log(outs[0] / "metrics.jsonl")][-2] == short.epochs


def test_runs_at_different_steps_are_not_mixed(data_file, tmp_path):
    runs = configs(data_file)
    train(runs[0].model_copy(update={"epochs": 2}), tmp_path / "0", "cpu")
    with pytest.raises(InputError, match="must stand at the same step"):
        train_together(runs[:2], [tmp_path / "0", tmp_path / "1"], "cpu", resume=True)


class Recorded:
    """Stands in for a CUDA graph: what was recorded is run again, on the recorded inputs, into one output."""

    def __init__(self):
        self.replays = 0

    def replay(self):
        self.replays += 1
        self.output.copy_(self.run())


@pytest.fixture
def recording(monkeypatch):
    """Let a CPU record and replay; return the graphs that were recorded."""
    graphs = []

    def of(device):  # not the current device's: work of another would not be recorded
        assert device == CPU
        return stream

    @contextmanager
    def record(graph, stream):
        assert stream is of(CPU)
        graphs.append(graph)
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", of)
    monkeypatch.setattr(torch.cuda, "current_stream", of)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", record)
    return graphs


def remembering(step, graphs, parts=1):
    """Recording does not compute: let it remember what to do, and leave the weights alone."""

    def wrapped(batches):
        if graphs and not hasattr(graphs[-1], "run"):
            graphs[-1].run = lambda: step(batches)
            graphs[-1].output = torch.zeros(parts + 2)
            return graphs[-1].output
        return step(batches)

    return wrapped


@pytest.mark.parametrize("method", ["sasrec", "samrec", "cl4srec", "s3rec-pretraining"])
def test_replayed_steps_are_the_steps(split, recording, method):
    """On one shape, whatever number of rows a batch needs, with weights that go on from one to the next."""
    config = Config(data="", method=method, **SMALL)
    batches = batches_of(config, split, CPU)
    rows = batches.rows(16)
    plain, graphed = (Solo(config, initial_learner(config, split), CPU, rows) for _ in range(2))
    graphed.captured = Captured(remembering(graphed._step, recording, len(graphed.learner.parts)))
    for number, batch in enumerate([b for epoch in range(3) for b in batches.epoch(16, (0, epoch))]):
        expected, found = (e.step([[batch]], [number], 1e-2, [config.radius]) for e in (plain, graphed))
        torch.testing.assert_close(found, expected)
    assert len(recording) == 1
    assert recording[0].replays == number + 1 - Captured.WARM_UP
    for a, b in zip(plain.learner.parameters(), graphed.learner.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_batch_of_another_shape_is_computed_without_the_graph(split, recording):
    config = Config(data="", **SMALL)
    engine = Solo(
        config, initial_learner(config, split), CPU, rows=0
    )  # every batch then has the rows that it needs
    engine.captured = Captured(remembering(engine._step, recording))
    for number, batch in enumerate(
        [b for epoch in range(6) for b in TrainingBatches(split, 8, CPU).epoch(16, (0, epoch))]
    ):
        engine.step([[batch]], [number], 1e-2, [0.0])
    assert 0 < recording[0].replays < number + 1 - Captured.WARM_UP


def test_a_step_that_cannot_be_recorded_is_taken_all_the_same(split, recording, monkeypatch):
    def refuse(graph, stream):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    captured = Captured(lambda batches: torch.ones(3))
    (batch,) = list(TrainingBatches(split, 8, CPU).epoch(60, (0,)))
    for call in range(6):
        if call == Captured.WARM_UP:
            with pytest.warns(UserWarning, match="without a CUDA graph: operation not permitted when stream"):
                assert captured([batch]).sum() == 3
        else:
            assert captured([batch]).sum() == 3


@pytest.mark.parametrize("preset", ["sasrec", "sasrec-bert"])
def test_a_rank_that_is_dealt_no_row_takes_part(split, preset):
    """As in the last batch of an epoch: its gradients are zeros, of every parameter that others have."""
    config = Config(data="", preset=preset, **{**SMALL, "dropout": 0.0})
    learner = initial_learner(config, split)
    (batch,) = TrainingBatches(split, 8, CPU).of_users(split.trained[:1], 1, (0,))
    found = []
    for part in (batch, batch.dealt(0, 2), batch.dealt(1, 2)):
        learner.zero_grad()
        learner(part).sum().backward()
        found.append({name: p.grad for name, p in learner.named_parameters() if p.grad is not None})
    whole, first, none = found
    torch.testing.assert_close(first, whole)
    torch.testing.assert_close(none, {name: torch.zeros_like(g) for name, g in whole.items()})


@pytest.mark.parametrize("method", ["sasrec", "cl4srec"])
def test_dropout_that_depends_on_the_shape_is_that_of_the_run_alone(data_file, tmp_path, monkeypatch, method):
    """As on CUDA, where a run alone pads its batches too; shares of the users differ in their lengths."""

    def by_shape(rows, count, device, generator):
        generator.manual_seed(generator.initial_seed() + rows)
        return fresh(rows, count, device, generator)

    fresh, begin = Draws.fresh, Solo.__init__
    monkeypatch.setattr(Draws, "fresh", by_shape)
    monkeypatch.setattr(
        Solo, "__init__", lambda self, *given: (begin(self, *given), vars(self).update(pads=True))[0]
    )
    rest = {**SMALL, "max_length": 24, "train_fraction": 0.4}
    each = [Config(data=str(data_file), method=method, seed=seed, **rest) for seed in range(3)]
    split = leave_one_out(read(data_file))
    shares = [split.fraction(0.4, config.seed) for config in each]
    assert len({batches_of(c, share, CPU).rows(16) for c, share in zip(each, shares, strict=True)}) > 1
    together = train_together(each, [tmp_path / f"t{config.seed}" for config in each], "cpu")
    for config, outcome in zip(each, together, strict=True):
        alone = train(config, tmp_path / f"a{config.seed}", "cpu")
        nearly_the_same(load(outcome.out / "last.pt"), load(alone.out / "last.pt"))


def test_each_part_of_each_step_draws_dropout_of_its_own(split, monkeypatch):
    """Micro-batches, their views, and steps; one seed is one draw."""
    config = Config(data="", method="cl4srec", micro_batches=2, **SMALL)
    engine, drawn = Solo(config, initial_learner(config, split), CPU, rows=0), []

    def look(parts):
        drawn.append([row for part in parts for packed in (part.inputs, part.views) for row in packed.bits])
        return torch.zeros(4)

    monkeypatch.setattr(engine, "_step", look)
    parts = list(batches_of(config, split, CPU).epoch(8, (0, 1)))[:2]
    for seed in (0, 100, 0):
        engine.step([parts], [seed], 1e-2, [0.0])
    first, other, again = (torch.stack([row[:256] for row in rows]) for rows in drawn)
    assert torch.equal(first, again)
    assert len(torch.cat([first, other]).unique(dim=0)) == 2 * len(first) > 8


def test_no_two_steps_of_any_run_have_one_seed_and_a_step_has_its_own(split, tmp_path):
    seeds = []
    for seed in (0, 1):
        config = Config(data="", **SMALL, seed=seed)
        run = Run(config, tmp_path, split, batches_of(config, split, CPU))
        for run.epoch in range(3):
            seeds += [own for _, own in run.steps()]
    assert len(set(seeds)) == len(seeds) == 2 * 3 * 4
    run.sums = [torch.zeros(3)]  # resumed after its first step
    assert [own for _, own in run.steps()] == seeds[-3:]


def test_settings_stay_when_an_optimizers_state_is_loaded(split):
    """A state may be of another machine, whose groups say other things."""
    config = Config(data="", method="samrec", perturb="no-embedding", rho=0.3, weight_decay=0.1, **SMALL)
    engine, other = (Solo(config, initial_learner(config, split), CPU, rows=0) for _ in range(2))
    (batch,) = TrainingBatches(split, 8, CPU).epoch(60, (0,))
    other.step([[batch]], [0], 1e-2, [0.3])
    state = other.optimizer.state_dict()
    state["param_groups"] = [
        group
        | {"lr": 9.0, "rho": 9.0, "weight_decay": 9.0, "betas": (0.0, 0.0), "fused": None, "perturb": True}
        for group in state["param_groups"]
    ]
    before = [dict(group) for group in engine.optimizer.param_groups]
    load_optimizer(engine.optimizer, state)
    for group, own in zip(engine.optimizer.param_groups, before, strict=True):
        assert {name: value for name, value in group.items() if name != "params"} == {
            "perturb": True,
            **{name: value for name, value in own.items() if name != "params"},
        }
    assert engine.optimizer.rho is before[0]["rho"]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_history_ends_in_the_part_that_holds_it_and_in_slot_0_of_the_others(split, every):
    """So no part points beyond its own rows, of which the last may have none."""
    (batch,) = TrainingBatches(split, 8, CPU).epoch(60, (0,))
    numbers = 1 + torch.arange(len(batch.inputs.last))
    for first in range(every):
        part = batch.dealt(first, every).inputs
        held = torch.isin(numbers, part.segments)
        assert torch.equal(part.segments.flatten()[part.last[held]], numbers[held])
        assert torch.equal(
            part.items.flatten()[part.last[held]], batch.inputs.items.flatten()[batch.inputs.last[held]]
        )
        assert not part.last[~held].any()


def test_clipping_several_runs_is_clipping_each_alone(split):
    """Of a run with short gradients, one with long ones, and one with none."""
    configs = [Config(data="", seed=seed, clip=0.5, **SMALL) for seed in range(3)]
    engine = Stacked(configs, [initial_learner(config, split) for config in configs], CPU, [0] * 3)
    alone = [[] for _ in configs]
    for weight in engine.weights.values():
        lengths = torch.tensor([1e-4, 1.0, 0.0]).view(-1, *[1] * (weight.dim() - 1))
        weight.grad = lengths * torch.randn(weight.shape)
        for own, gradient in zip(alone, weight.grad, strict=True):
            own.append(torch.nn.Parameter(torch.zeros_like(gradient)))
            own[-1].grad = gradient.clone()
    for own in alone:
        torch.nn.utils.clip_grad_norm_(own, 0.5)
    engine._clip()
    for number, weight in enumerate(engine.weights.values()):
        expected = torch.stack([own[number].grad for own in alone])
        torch.testing.assert_close(weight.grad, expected, rtol=1e-12, atol=0)
