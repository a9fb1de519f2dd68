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
STEPS = 1000
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
    return entries // ITEMS, entries % ITEMS, truth.flatten()[entries].double() + 0.3 * torch.randn(OBSERVED)


def trained(users, items, ratings):
    """Go down to the very bottom, in float64: there, what changes nothing has the curvature 0."""
    model = Factors().double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (model(users, items) - ratings).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def squared(model, batch):
    users, items, ratings = batch
    return (model(users, items) - ratings).square().sum(), len(ratings)


def rescaled(model, batch, scale):
    """Return L of the same function, with U larger by `scale` and V smaller."""
    other = Factors().double()
    other.user.weight, other.item.weight = (
        nn.Parameter(weight.detach() * by)
        for weight, by in ((model.user.weight, scale), (model.item.weight, 1 / scale))
    )
    return ll.Objective(other, [batch], squared)


def spectrum(objective):
    """Return all eigenvalues, largest first: few parameters, so a product with each basis vector will do."""
    columns = [objective.hvp(vector) for vector in torch.eye(objective.params.numel)]
    return np.linalg.eigvalsh(torch.stack(columns).numpy())[::-1]


def main(folder=PICTURES):
    batch = data()
    model = trained(*batch)
    objectives = {scale: rescaled(model, batch, scale) for scale in SCALES}
    found = {scale: ll.sharpness(o, MEASURES, rho=0.05).measures for scale, o in objectives.items()}
    spectra = {scale: spectrum(objectives[scale]) for scale in (SCALES[0], SCALES[-1])}

    with plots.paper():
        figure = Figure(figsize=(plots.PAGE, 2.6))
        left, right = figure.subplots(1, 2)
        for (scale, values), color in zip(spectra.items(), plots.COLORS, strict=False):
            left.semilogy(np.abs(values), ".", ms=3, color=color, label=f"c = {scale:g}")
        left.set(xlabel="rank", ylabel="|eigenvalue| of the Hessian")
        left.legend(title="the same function")
        for index, measure in enumerate(MEASURES):
            values = np.array([found[scale][measure].value for scale in SCALES])
            still = {"ls": "--", "mfc": "none", "ms": 16 - 2.5 * index}  # they lie on one another
            style = still if measure in INVARIANT else {"ms": 3}
            right.loglog(
                SCALES, values / values[0], marker="o", color=plots.COLORS[index], label=measure, **style
            )
        right.set(xlabel="scale c of U, and 1/c of V", ylabel="relative to c = 1", ylim=(0.6, 200))
        right.set_xticks(SCALES, [f"{scale:g}" for scale in SCALES])
        right.minorticks_off()
        right.legend()
    plots.save_figure(figure, folder / "matrix_factorization.png")

    def ratio(measure):
        return found[SCALES[-1]][measure].value / found[SCALES[0]][measure].value

    moved = ", ".join(f"{m} ×{ratio(m):.3g}" for m in MEASURES if m not in INVARIANT)
    still = ", ".join(f"{m} ×{ratio(m):.4f}" for m in INVARIANT)
    last = objectives[SCALES[-1]].value()
    flat = np.count_nonzero(np.abs(spectra[SCALES[0]]) < 1e-6)
    print(
        f"{flat} of {len(spectra[SCALES[0]])} eigenvalues are 0, as a change of basis has {RANK}² free "
        f"numbers. With U ×{SCALES[-1]:g} and V ÷{SCALES[-1]:g} the loss is still {last:.6f}, but {moved}; "
        f"measures that no rescaling changes stay: {still}."
    )


if __name__ == "__main__":
    main()
