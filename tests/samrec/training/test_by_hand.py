"""A run is what a loop by hand makes of the same batches: SAM, clipping, Adam and the schedules."""

import math
from itertools import islice
from pathlib import Path

import pytest
import torch

from samrec.checkpoint import load
from samrec.config import Config
from samrec.data.readers import read
from samrec.data.split import leave_one_out
from samrec.methods import batches_of, initial_learner
from samrec.methods.learner import joined
from samrec.training.loop import train, train_together

pytestmark = pytest.mark.usefixtures("double")
SMALL = {
    "dim": 8,
    "max_length": 8,
    "batch_size": 16,
    "eval_every": 2,
    "dropout": 0.0,
    "epochs": 2,
    "lr": 0.01,
}
SETTINGS = [
    {"method": "sasrec", "loss": "ce", "weight_decay": 0.1, "lr_schedule": "cosine", "warmup": 1},
    {"method": "sasrec", "preset": "sasrec-bert", "micro_batches": 4, "clip": 0.05},
    {"method": "samrec", "loss": "gbce", "negatives": 40, "every": 3, "rho_schedule": "linear"},
    {"method": "samrec", "perturb": "no-embedding", "adaptive": True, "rho_warmup": 1, "clip": 0.05},
    {"method": "samrec", "perturb": "norm-only", "loss": "sampled", "weight_decay": 0.1, "rho": 0.3},
    {"method": "samrec", "preset": "sasrec-bert", "ascent": "micro-batch", "micro_batches": 4, "clip": 0.05},
    {"method": "cl4srec", "rho": 0.2, "adaptive": True, "micro_batches": 2, "rho_schedule": "cosine"},
    {"method": "bert4rec", "rho": 0.2, "every": 2, "perturb": "no-embedding", "lr_schedule": "linear"},
    {"method": "gru4rec", "rho": 0.2, "loss": "ce", "clip": 0.05},
]
EMBEDDINGS = ("item.", "position.", "token.")


def share(schedule, warmup, epochs, at):
    if at < warmup:
        return at / warmup
    gone = (at - warmup) / max(epochs - warmup, 1)
    return {"constant": 1.0, "linear": 1 - gone, "cosine": (1 + math.cos(math.pi * gone)) / 2}[schedule]


def length(vectors):
    return torch.stack([v.square().sum() for v in vectors]).sum().sqrt()


def gradient(learner, parts, weight):
    learner.zero_grad()
    for part in parts:
        (learner(part).sum() / weight).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in learner.named_parameters()
    }


def moved(name, perturb):
    embeds = name.removeprefix("model.").startswith(EMBEDDINGS)
    return {"all": True, "no-embedding": not embeds, "norm-only": "norm." in name}[perturb]


def by_hand(config):
    """The weights after a run, by name."""
    split = leave_one_out(read(Path(config.data)))
    learner = initial_learner(config, split).train()
    weights = dict(learner.named_parameters())
    first, second = ({name: torch.zeros_like(p) for name, p in weights.items()} for _ in range(2))
    batches, steps, e = batches_of(config, split, torch.device("cpu")), 0, {}

    def climb(slope):
        size = {
            n: p.detach().abs() + 0.01 if config.adaptive else torch.tensor(1.0) for n, p in weights.items()
        }
        norm = length(size[n] * g for n, g in slope.items() if moved(n, config.perturb))
        return {n: size[n] ** 2 * g / norm for n, g in slope.items() if moved(n, config.perturb)}

    def above(parts, direction):
        with torch.no_grad():
            for name, d in direction.items():
                weights[name].add_(rho * d)
        found = gradient(learner, parts, weight)
        with torch.no_grad():
            for name in direction:
                weights[name].copy_(before[name])
        return found

    count = batches.steps(config.batch_size)
    for epoch in range(config.epochs):
        parts_of_epoch = batches.epoch(config.batch_size // config.micro_batches, (config.seed, epoch + 1))
        for step in range(count):
            parts = list(islice(parts_of_epoch, config.micro_batches))
            weight = sum(part.used.sum() for part in parts)
            before = {name: p.detach().clone() for name, p in weights.items()}
            at = epoch + step / count
            lr = config.lr * share(config.lr_schedule, config.warmup, config.epochs, at)
            rho = config.radius * share(config.rho_schedule, config.rho_warmup, config.epochs, at)
            if not config.radius:
                slope = gradient(learner, parts, weight)
            elif config.ascent == "micro-batch":
                each = [above([part], climb(gradient(learner, [part], weight))) for part in parts]
                slope = {name: sum(one[name] for one in each) for name in weights}
            else:
                e = e if steps % config.every else climb(gradient(learner, parts, weight))
                slope = above(parts, e)
            if config.clip:
                factor = min(1.0, config.clip / (float(length(slope.values())) + 1e-6))
                slope = {name: factor * g for name, g in slope.items()}
            steps += 1
            with torch.no_grad():
                for name, p in weights.items():
                    g = slope[name] + config.weight_decay * p
                    first[name].mul_(0.9).add_(0.1 * g)
                    second[name].mul_(0.999).add_(0.001 * g * g)
                    mean, square = first[name] / (1 - 0.9**steps), second[name] / (1 - 0.999**steps)
                    p.sub_(lr * mean / (square.sqrt() + 1e-8))
    return {name: p.detach() for name, p in weights.items()}


def check(out, expected):
    found = load(out / "last.pt")
    found = joined(found.weights, found.extra)
    for name, tensor in expected.items():
        own = slice(None)
        if name.endswith("qkv.bias"):  # that of the keys changes no softmax: its gradient is rounding alone
            own = [*range(8), *range(16, 24)]
        torch.testing.assert_close(found[name][own], tensor[own], rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_run_is_a_loop_by_hand(data_file, tmp_path, settings):
    config = Config(data=str(data_file), **SMALL, **settings)
    check(train(config, tmp_path / "run", "cpu").out, by_hand(config))


@pytest.mark.parametrize("settings", [one for one in SETTINGS if "micro_batches" not in one])
def test_runs_that_train_together_are_loops_by_hand(data_file, tmp_path, settings):
    radii = [{}, {"rho": 0.05}] if settings["method"] != "sasrec" else [{}, {}]
    both = [
        Config(data=str(data_file), seed=seed, **SMALL, **settings | own) for seed, own in enumerate(radii)
    ]
    outs = [tmp_path / "0", tmp_path / "1"]
    train_together(both, outs, "cpu")
    for config, out in zip(both, outs, strict=True):
        check(out, by_hand(config))
