"""SGD and Adam from one start: both ways on the one plane that holds the start and both ends.

python examples/two_optimizers.py
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape import plots

EPOCHS = 40
TOL = 3e-4
OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=5e-3),
}
PICTURES = Path(__file__).parent / "pictures"


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10))


def trained(name, x, y):
    """Train, and return the parameters before each epoch and at the end, shape (epochs + 1, numel)."""
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    way = [ll.ParamSpace(model).theta]
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        way.append(ll.ParamSpace(model).theta)
    return torch.stack(way)


def cross_entropy(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y, reduction="sum"), len(y)


def main(folder=PICTURES):
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    ways = {name: trained(name, x, y) for name in OPTIMIZERS}

    start = ll.Objective(network(), [(x, y)], cross_entropy)
    frame = ll.between_frame(start, {name: way[-1] for name, way in ways.items()}, 2, "start")
    steps = {
        name: np.array([ll.coordinates(point - start.theta, frame.directions) for point in way])
        for name, way in ways.items()
    }
    places = np.concatenate(list(steps.values()))
    spans = [(low - 0.25, high + 0.25) for low, high in zip(places.min(0), places.max(0), strict=True)]
    surface = ll.evaluate_slice(start, ll.Frame(frame.directions, spans, frame.marks), tol=TOL)

    figure = plots.surface_figure({"SGD and Adam": surface}, log=True)
    for step, color in zip(steps.values(), ("white", "#E69F00"), strict=True):
        figure.axes[0].plot(*step.T, ".-", color=color, ms=3, lw=0.8)
    plots.save_figure(figure, folder / "two_optimizers.png")

    ends = {mark["name"]: mark["loss"] for mark in surface.marks}
    lengths = {name: float((way[1:] - way[:-1]).norm(dim=1).sum()) for name, way in ways.items()}
    barrier = ll.barrier(*(ll.Objective(at(way), [(x, y)], cross_entropy) for way in ways.values()), tol=TOL)
    print(
        f"From one start of loss {ends['start']:.2f}, SGD ends at {ends['SGD']:.1e} after a way of "
        f"{lengths['SGD']:.1f}, Adam at {ends['Adam']:.1e} after {lengths['Adam']:.1f}; between the two ends "
        f"the loss rises by {barrier.height:.4f}. The plane holds the start and both ends exactly, the ways "
        f"between as their shadows; its losses are right to {surface.error:.0e}."
    )


def at(way):
    """Return the network at the end of a way."""
    model = network()
    nn.utils.vector_to_parameters(way[-1], model.parameters())
    return model


if __name__ == "__main__":
    main()
