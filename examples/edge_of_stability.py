"""The edge of stability: the sharpness rises until the step size can just bear it, and stays there.

python examples/edge_of_stability.py
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import landscape as ll
from landscape import plots
from samrec import SAM

STEPS = 1500
EVERY = 10
RATES = (0.04, 0.06, 0.08)
ADAM, RHO = 3e-5, 0.03
POINTS, WIDTH = 20, 40
PICTURES = Path(__file__).parent / "pictures"


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))


def watched(make, steps):
    """Train on all data at once, and return what the monitor saw."""
    model = network()
    x = torch.linspace(-1, 1, POINTS)[:, None]
    y = (4 * x**5 - 5 * x**3 + x) * 2
    optimizer = make(model.parameters())
    loss = nn.MSELoss()
    monitor = ll.Monitor(model, [(x, y)], loss, optimizer=optimizer, every=EVERY, at_most=None, k=2)

    def closure():
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(closure)
        monitor.step()
    return monitor.history


def main(folder=PICTURES):
    found = {
        f"gradient descent, η = {rate:g}": watched(lambda p, rate=rate: torch.optim.SGD(p, lr=rate), STEPS)
        for rate in RATES
    }
    found["Adam"] = watched(lambda p: torch.optim.Adam(p, lr=ADAM), STEPS)
    found["SAM, η = " + f"{RATES[0]:g}"] = watched(lambda p: SAM(p, torch.optim.SGD, rho=RHO, lr=RATES[0]), STEPS)
    plots.save_figure(plots.sharpness_figure(found), folder / "edge_of_stability.png", dpi=130)
    for name, history in found.items():
        half = len(history.steps) // 2
        top = history.preconditioned if name == "Adam" else history.eigenvalues[:, 0]
        ratio = top[half:] / history.thresholds[half:]
        print(name, "first", top[0] / history.thresholds[0], "mean", ratio.mean(), ratio.min(), ratio.max(), "loss", history.losses[-1], history.eigenvalues[-1], history.products.mean())


if __name__ == "__main__":
    main()
