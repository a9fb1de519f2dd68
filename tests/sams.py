"""SAM in plain NumPy, and a training to compare `samrec.SAM` with it on; as a program, ranks of DDP."""

import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from samrec import SAM

BASES = {
    "sgd": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
}
L = torch.optim.lr_scheduler
SCHEDULERS = {
    "none": lambda o: None,
    "step": lambda o: L.StepLR(o, 3, 0.5),
    "cosine": lambda o: L.CosineAnnealingLR(o, 7),
    "one cycle": lambda o: L.OneCycleLR(o, max_lr=0.1, total_steps=20),
    "cyclic": lambda o: L.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "lambda": lambda o: L.LambdaLR(o, lambda n: 1 / (1 + n)),
    "restarts": lambda o: L.CosineAnnealingWarmRestarts(o, 4),
    "polynomial": lambda o: L.PolynomialLR(o, 10),
    "exponential": lambda o: L.ExponentialLR(o, 0.9),
    "chained": lambda o: L.ChainedScheduler([L.ConstantLR(o, 0.5, 3), L.MultiStepLR(o, [2, 5], 0.5)]),
    "sequential": lambda o: L.SequentialLR(
        o, [L.LinearLR(o, 0.1, total_iters=2), L.CosineAnnealingLR(o, 9)], [2]
    ),
}
SETTINGS = {"plain": {}, "every": {"every": 3}, "adaptive": {"adaptive": True}, "zero": {"rho": 0.0}}
STEPS, ROWS = 9, 8

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(4 * ROWS, 5)), rng.normal(size=(4 * ROWS, 1))
START = {
    "0.weight": rng.normal(size=(4, 5)),
    "0.bias": rng.normal(size=4),
    "2.weight": rng.normal(size=(1, 4)),
    "2.bias": rng.normal(size=1),
}


def rows(step):
    return slice(step % 4 * ROWS, (step % 4 + 1) * ROWS)


def gradient(w, x, y):
    """The gradient of the mean squared error of a network of one hidden layer, by hand."""
    h = np.tanh(x @ w["0.weight"].T + w["0.bias"])
    d = 2 * (h @ w["2.weight"].T + w["2.bias"] - y) / len(x)
    dh = d @ w["2.weight"] * (1 - h * h)
    return {"0.weight": dh.T @ x, "0.bias": dh.sum(0), "2.weight": d.T @ h, "2.bias": d.sum(0)}


def norm(g):
    return np.sqrt(sum((t * t).sum() for t in g.values()))


def settings_of(base, scheduler):
    """Yield each step's lr and decay of the first moment, as the plain optimizer has them."""
    kind, settings = BASES[base]
    p = nn.Parameter(torch.zeros(1))
    optimizer = kind([p], **settings)
    schedule = SCHEDULERS[scheduler](optimizer)
    for _ in itertools.count():
        group = optimizer.param_groups[0]
        yield group["lr"], group["betas"][0] if "betas" in group else group["momentum"]
        p.grad = torch.zeros(1)
        optimizer.step()
        if schedule:
            schedule.step()


def by_hand(base, scheduler="none", rho=0.3, adaptive=False, every=1, skipped=()):
    """SAM's weights after `STEPS` steps; those of `skipped` are not taken, and count for schedulers alone."""
    w = {name: a.copy() for name, a in START.items()}
    m = dict.fromkeys(w, 0.0)
    v = dict.fromkeys(w, 0.0)
    e, taken = None, 0
    for step, (lr, decay) in zip(range(STEPS), settings_of(base, scheduler), strict=False):
        if step in skipped:
            continue
        x, y = X[rows(step)], Y[rows(step)]
        if rho and taken % every == 0:
            t = {name: np.abs(a) + 0.01 if adaptive else 1.0 for name, a in w.items()}
            g = gradient(w, x, y)
            length = norm({name: t[name] * g[name] for name in w})
            e = {name: rho * t[name] ** 2 * g[name] / length for name in w}
        g = gradient({name: w[name] + (e[name] if rho else 0.0) for name in w}, x, y)
        taken += 1
        for name, old in w.items():
            q = g[name] + (0.0 if base == "adamw" else 0.1 * old)
            if base == "sgd":
                m[name] = q if taken == 1 else decay * m[name] + q
                w[name] = old - lr * m[name]
                continue
            m[name] = decay * m[name] + (1 - decay) * q
            v[name] = 0.999 * v[name] + 0.001 * q * q
            unbiased = m[name] / (1 - decay**taken), v[name] / (1 - 0.999**taken)
            shrunk = old * (1 - lr * 0.1) if base == "adamw" else old
            w[name] = shrunk - lr * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    return w


def network():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    model.load_state_dict({name: torch.tensor(a) for name, a in START.items()})
    return model


def optimizer_of(model, base, rho=0.3, **settings):
    kind, defaults = BASES[base]
    return SAM(model.parameters(), kind, rho=rho, **settings, **defaults)


def parts_of(step, accumulate):
    """The batch of a step as micro-batches, with the share of each."""
    x, y = torch.tensor(X[rows(step)]), torch.tensor(Y[rows(step)])
    if not accumulate:
        return [(x, y, 1.0)]
    return [(x[:3], y[:3], 3 / ROWS), (x[3:], y[3:], 5 / ROWS)]


STYLES = ("closure", "two")


def vector(*values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def closing(optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value.detach()

    return closure


def fit(model, optimizer, steps):
    for step in steps:
        ((x, y, _),) = parts_of(step, False)
        optimizer.step(closing(optimizer, lambda x=x, y=y: (model(x) - y).square().mean()))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(
    style, base, scheduler="none", accumulate=False, scaler=None, wrap=lambda m: m, share=None, **settings
):
    """Train the network; return its weights.

    Args:
        style: "closure", or "two" steps.
        scaler: of the losses, in two steps; an infinite loss in steps 2 and 5 then has to be skipped.
        wrap: what the loss calls in place of the network, DDP.
        share: of the rows of each batch.
    """
    model = network()
    called = wrap(model)
    optimizer = optimizer_of(model, base, **settings)
    schedule = SCHEDULERS[scheduler](optimizer)
    for step in range(STEPS):

        def backward(step=step):
            optimizer.zero_grad()
            total = torch.zeros((), dtype=torch.float64)
            for x, y, weight in parts_of(step, accumulate):
                mine = slice(None) if share is None else share
                loss = weight * (called(x[mine]) - y[mine]).square().mean()
                if scaler and step in (2, 5):
                    loss = loss * float("inf")
                (scaler.scale(loss) if scaler else loss).backward()
                total += loss.detach()
            return total

        if style == "closure":
            optimizer.step(backward)
        else:
            if optimizer.climbs:
                backward()
            optimizer.first_step()
            backward()
            if scaler:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.second_step()
        if schedule:
            schedule.step()
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def ranks_of_ddp(folder):
    """Train by DDP on two ranks, and write how far the weights are from NumPy's.

    Gradients are views of DDP's buckets; around one optimizer, copies too.
    """
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    found = {}
    viewed = itertools.product(BASES, SETTINGS, STYLES, (True,))
    copied = itertools.product(list(BASES)[:1], SETTINGS, STYLES, (False,))
    for base, setting, style, view in (*viewed, *copied):

        def wrap(model, view=view):
            return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=view)

        kept = trained(style, base, "one cycle", wrap=wrap, share=slice(rank, None, 2), **SETTINGS[setting])
        want = by_hand(base, "one cycle", **SETTINGS[setting])
        found[f"{base}, {setting}, {style}, {view}"] = max(np.abs(kept[n] - want[n]).max() for n in want)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    ranks_of_ddp(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)
