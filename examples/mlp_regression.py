"""A regression MLP: its surface with an error bar, and how far out a quadratic model of it holds.

python examples/mlp_regression.py
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import landscape as ll
from landscape import plots

STEPS = 2000
TOL = 1e-3
PICTURES = Path(__file__).parent / "pictures"


def data():
    """Return noisy values of a function on the plane: x of shape (512, 2), y of shape (512, 1)."""
    torch.manual_seed(0)
    x = 2 * torch.rand(512, 2) - 1
    y = torch.sin(3 * x[:, :1]) * torch.cos(2 * x[:, 1:])
    return x, y + 0.1 * torch.randn_like(y)


def trained(x, y):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        schedule.step()
    return model


def squared(model, batch):
    """The sum over a batch, and how many examples it has: so batches of any size average exactly."""
    x, y = batch
    return (model(x) - y).square().sum(), len(y)


def by_example(model, batch):
    """The same of each example: it gives the surface an error over the draw of the examples."""
    x, y = batch
    return (model(x) - y).square().sum(1), torch.ones(len(y))


def main(folder=PICTURES):
    x, y = data()
    objective = ll.Objective(trained(x, y), [(x, y)], squared, per_example=by_example)

    # Filter-normalized (Li et al. 2018): a step of 1 moves every unit's weights by their own norm.
    directions = [ll.random_direction(objective.params, seed=0, index=index) for index in range(2)]
    surface = ll.plane(objective, radius=0.5, tol=TOL, directions=directions)
    model = ll.quadratic_model(objective, directions)
    figure = plots.quadratic_figure(surface, model)
    figure.axes[0].title.set_text(f"loss, ± {surface.error:.0e}")
    plots.save_figure(figure, folder / "mlp_regression.png")

    apart = np.abs(surface.losses - model.at(surface.coordinates)) / surface.losses
    near = np.hypot(*np.meshgrid(*surface.coordinates, indexing="ij"))
    holds = near[apart > 0.1].min() if (apart > 0.1).any() else near.max()
    print(
        f"{surface.evaluations} evaluations give the surface, {surface.statement}; the quadratic model "
        f"is within 10% of the loss for steps up to {holds:.2f}, and off by {apart.max():.0%} at worst."
    )


if __name__ == "__main__":
    main()
