"""Matrix factorization: a change of scale that changes no prediction, and the sharpness that it changes.

R ≈ U Vᵀ is the same model as (cU)(V/c)ᵀ. A measure of sharpness that tells the two apart says something of
the scale of the weights, not of the function. python examples/matrix_factorization.py
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import landscape as ll
from landscape import plots

USERS, ITEMS, RANK, OBSERVED = 60, 40, 3, 900
STEPS = 1500
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)
MEASURES = ("lambda-max", "trace", "sam", "asam", "average-adaptive", "relative-flatness-embedding")
INVARIANT = MEASURES[3:]
PICTURES = Path(__file__).parent / "pictures"


class Factors(nn.Module):
    def __init__(self):
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, RANK), nn.Embedding(ITEMS, RANK)

    def forward(self, users, items):
        return (self.user(users) * self.item(items)).sum(1)


def data():
    """Return users, items and ratings: some entries of a matrix of rank 3, with noise."""
    torch.manual_seed(0)
    truth = torch.randn(USERS, RANK) @ torch.randn(RANK, ITEMS)
    entries = torch.randperm(USERS * ITEMS)[:OBSERVED]
    return entries // ITEMS, entries % ITEMS, truth.flatten()[entries] + 0.3 * torch.randn(OBSERVED)


def trained(users, items, ratings):
    model = Factors()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(users, items) - ratings).square().mean().backward()
        optimizer.step()
        schedule.step()
    return model


def squared(model, batch):
    users, items, ratings = batch
    return (model(users, items) - ratings).square().sum(), len(ratings)


def objective_at(model, batch, scale):
    """Return L of the same function, with U larger by `scale` and V smaller."""
    scaled = Factors()
    weights = {"user.weight": scale * model.user.weight, "item.weight": model.item.weight / scale}
    scaled.load_state_dict(weights)
    return ll.Objective(scaled, [batch], squared)


def main(folder=PICTURES):
    batch = data()
    model = trained(*batch)
    objectives = {scale: objective_at(model, batch, scale) for scale in SCALES}
    found = {scale: ll.sharpness(o, MEASURES, rho=0.05).measures for scale, o in objectives.items()}
    ends = {f"c = {scale:g}": objectives[scale] for scale in (SCALES[0], SCALES[-1])}
    densities = {name: ll.spectral_density(objective) for name, objective in ends.items()}
    λ, _, curves = plots.broadened(densities, {})

    with plots.paper():
        figure = Figure(figsize=(plots.PAGE, 2.6))
        left, right = figure.subplots(1, 2)
        for (name, curve), color in zip(curves.items(), plots.COLORS, strict=False):
            left.plot(λ, curve, color=color, label=name)
        left.set(yscale="log", ylim=(1e-1, None), xlabel="eigenvalue λ", ylabel="eigenvalues per unit of λ")
        left.legend(title="the same function, at")
        for measure, color in zip(MEASURES, plots.COLORS, strict=False):
            values = np.array([found[scale][measure]["value"] for scale in SCALES])
            style = "o--" if measure in INVARIANT else "o-"
            right.plot(SCALES, values / values[0], style, color=color, ms=3, label=measure)
        right.set(xscale="log", yscale="log", xlabel="scale c of U (and 1/c of V)", ylabel="relative to c = 1")
        right.set_xticks(SCALES, [f"{scale:g}" for scale in SCALES], minor=False)
        right.minorticks_off()
        right.legend()
    plots.save_figure(figure, folder / "matrix_factorization.png")

    def ratio(measure):
        return found[SCALES[-1]][measure]["value"] / found[SCALES[0]][measure]["value"]

    moved = ", ".join(f"{m} ×{ratio(m):.3g}" for m in MEASURES if m not in INVARIANT)
    still = ", ".join(f"{m} ×{ratio(m):.4f}" for m in INVARIANT)
    values = [objectives[scale].value() for scale in (SCALES[0], SCALES[-1])]
    print(
        f"With U ×{SCALES[-1]:g} and V ÷{SCALES[-1]:g} the loss is {values[0]:.6f} as before ({values[1]:.6f}), "
        f"but {moved}; measures that no rescaling changes stay: {still}."
    )


if __name__ == "__main__":
    main()
