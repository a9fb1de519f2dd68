"""A task: it tells the commands of `landscape` what the loss of your checkpoint is. Copy it, put in your own.

    python examples/task.py           # trains the network below twice: digits-0.pt and digits-1.pt
    landscape hessian --ckpt digits-0.pt --task examples.task:objective --density --out spectrum
    landscape surface --ckpt digits-0.pt --ckpt digits-1.pt --task examples.task:objective
    landscape bound   --ckpt digits-0.pt --task examples.task:objective --metric error --guess 0.9

The module is found from the folder you are in. A task loads the weights and says what the loss is.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import landscape as ll

BATCH = 256
EPOCHS = 30


def network():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def images():
    digits = load_digits()
    return torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)


def cross_entropy(model, batch):
    """The loss of each example, and its weight: the commands make means, and their errors, of these."""
    x, y = batch
    return F.cross_entropy(model(x), y, reduction="none"), torch.ones(len(y), device=y.device)


def error(model, batch):
    """Another metric, by `--metric error`: 1 for a digit that is taken for another."""
    x, y = batch
    return (model(x).argmax(1) != y).float(), torch.ones(len(y), device=y.device)


METRICS = {"loss": cross_entropy, "error": error}


def objective(checkpoint, options):
    """Return L(θ) of a checkpoint; `options` are those of the command line, see `landscape.TaskOptions`.

    The checkpoint may be a state_dict, one of Lightning's or a .safetensors file: `load_weights` reads them.
    """
    device = ll.device_named(options.device)
    model = ll.load_weights(network(), checkpoint).to(device)
    x, y = images()
    drawn = torch.randperm(len(y), generator=torch.Generator().manual_seed(options.seed))[: options.users]
    of_example = METRICS.get(options.metric, cross_entropy)
    return ll.Objective(
        model,
        list(zip(x[drawn].to(device).split(BATCH), y[drawn].to(device).split(BATCH), strict=True)),
        lambda model, batch: tuple(part.sum() for part in of_example(model, batch)),
        per_example=of_example,
        include=options.include,
        exclude=options.exclude,
        provenance={"metric": options.metric if options.metric in METRICS else "loss"},
    )


def trained(seed):
    torch.manual_seed(seed)
    model, (x, y) = network(), images()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


if __name__ == "__main__":
    for seed in (0, 1):
        torch.save(trained(seed).state_dict(), f"digits-{seed}.pt")
