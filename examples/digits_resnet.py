"""A small ResNet with BatchNorm on handwritten digits: is the minimum that SAM finds flatter than SGD's?

python examples/digits_resnet.py
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape import plots
from samrec import SAM

EPOCHS, WIDTH, IMAGES, TOL = 20, 12, 512, 3e-4
PICTURES = Path(__file__).parent / "pictures"


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return F.gelu(x + self.norm2(self.conv2(F.gelu(self.norm1(self.conv1(x))))))  # smooth: fewer points


def network():
    torch.manual_seed(0)
    stem = nn.Conv2d(1, WIDTH, 3, padding=1)
    head = nn.Linear(WIDTH, 10)
    return nn.Sequential(
        stem, Block(WIDTH), nn.AvgPool2d(2), Block(WIDTH), nn.AvgPool2d(4), nn.Flatten(), head
    )


def trained(optimizer_of, x, y):
    model = network()
    optimizer = optimizer_of(model.parameters())
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(y)).split(64):

            def closure(rows=rows):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x[rows]), y[rows])
                loss.backward()
                return loss

            optimizer.step(closure)
    return model.eval()


def cross_entropy(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y, reduction="sum"), len(y)


def by_image(model, batch):
    """The loss of each image: measures then have errors over the draw of the images."""
    x, y = batch
    return F.cross_entropy(model(x), y, reduction="none"), torch.ones(len(y))


def main(folder=PICTURES):
    digits = load_digits()
    x, y = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target)
    models = {
        "SGD": trained(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), x[:1297], y[:1297]),
        "SAM": trained(lambda p: SAM(p, torch.optim.SGD, rho=0.1, lr=0.05, momentum=0.9), x[:1297], y[:1297]),
    }
    # BatchNorm is measured as it is used: in eval mode, with the running statistics of the training.
    frozen = list(zip(x[:IMAGES].split(128), y[:IMAGES].split(128), strict=True))
    objectives = {
        name: ll.Objective(model, frozen, cross_entropy, per_example=by_image)
        for name, model in models.items()
    }
    surfaces = {name: ll.plane(objective, radius=0.25, tol=TOL) for name, objective in objectives.items()}
    plots.save_figure(plots.surface_figure(surfaces, log=True), folder / "digits_resnet.png", dpi=150)

    top = {name: ll.top_eigenpairs(objective, k=3) for name, objective in objectives.items()}
    flatness = {name: ll.sharpness(o, ["sam", "asam"], rho=0.1) for name, o in objectives.items()}
    correct = {name: (model(x[1297:]).argmax(1) == y[1297:]).float().mean() for name, model in models.items()}
    for name, pairs in top.items():
        values = ", ".join(f"{value:.3g}" for value in pairs.eigenvalues)
        at = objectives[name].value()
        print(f"{name}: loss {at:.4f}, {correct[name]:.1%} of new digits right, top eigenvalues {values}")
    print(*ll.verdict(ll.compare(flatness)), sep="\n")
    ratio = top["SAM"].eigenvalues[0] / top["SGD"].eigenvalues[0]
    rises = {name: surface.range[1] - surface.center for name, surface in surfaces.items()}
    print(
        f"λmax of SAM's minimum is {ratio:.2f} of SGD's, and its plane rises by {rises['SAM']:.2f} where "
        f"SGD's rises by {rises['SGD']:.2f}, give or take {max(s.error for s in surfaces.values()):.1g}."
    )


if __name__ == "__main__":
    main()
