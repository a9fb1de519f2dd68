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

STEPS = 3200
EVERY = 40
RATES = (0.08, 0.11, 0.15)
ADAM, RHO = 2e-3, 0.03
POINTS, WIDTH = 20, 40
PICTURES = Path(__file__).parent / "pictures"


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(1, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1)
    )


def watched(make):
    """Train on all data at once, and return what the monitor saw."""
    model = network()
    x = torch.linspace(-1, 1, POINTS)[:, None]
    y = torch.cos(4 * torch.acos(x.clamp(-1, 1)))  # the Chebyshev polynomial T₄
    optimizer = make(model.parameters())
    loss = nn.MSELoss()
    monitor = ll.Monitor(model, [(x, y)], loss, optimizer=optimizer, every=EVERY, at_most=None, k=2)

    def closure():
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        return value

    for _ in range(STEPS):
        optimizer.step(closure)
        monitor.step()
    return monitor.history


def main(folder=PICTURES):
    slow = RATES[0]
    found = {
        f"gradient descent, η = {rate:g}": watched(lambda p, rate=rate: torch.optim.SGD(p, lr=rate))
        for rate in RATES
    }
    found["Adam"] = watched(lambda p: torch.optim.Adam(p, lr=ADAM))
    found[f"SAM, η = {slow:g}"] = watched(lambda p: SAM(p, torch.optim.SGD, rho=RHO, lr=slow))
    plots.save_figure(plots.sharpness_figure(found), folder / "edge_of_stability.png", dpi=130)

    *descents, adam, sam = found.values()
    means, furthest = zip(*map(at_edge, descents), strict=True)
    lowest = sam.eigenvalues[:, 0][len(sam.steps) // 2 :].mean() / (2 / slow)
    said = ", ".join(f"{mean:.3f}" for mean in means)
    print(
        f"Over the second half of the training, λmax is {said} times 2/η on average for the three step "
        f"sizes, and at most {max(furthest):.0%} away from it at any measurement; Adam's λmax of P⁻¹H is "
        f"{at_edge(adam)[0]:.3f} times its threshold, and SAM's λmax {lowest:.2f} times 2/η and "
        f"{at_edge(sam)[0]:.3f} times its own edge."
    )


def at_edge(history):
    """Return the mean sharpness in units of the edge over the second half, and the largest deviation."""
    adaptive = np.isfinite(history.preconditioned).any()
    top = history.preconditioned if adaptive else history.eigenvalues[:, 0]
    ratio = (top / history.thresholds)[len(history.steps) // 2 :]
    return ratio.mean(), np.abs(ratio - 1).max()


if __name__ == "__main__":
    main()
