"""A character GPT trained on the README of this project: its surface, and the spectrum of its Hessian.

python examples/char_gpt.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

import landscape as ll
from landscape import plots

TEXT = Path(__file__).parents[1] / "README.md"
STEPS, DIM, LAYERS, HEADS, CONTEXT = 600, 48, 2, 4, 48
WINDOWS, PROBES, LANCZOS, TOL = 32, 4, 40, 1e-2
PICTURES = Path(__file__).parent / "pictures"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.attention = nn.ModuleDict({"qkv": nn.Linear(DIM, 3 * DIM), "out": nn.Linear(DIM, DIM)})
        self.mlp = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))

    def forward(self, x):
        heads = self.attention["qkv"](self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.attention["out"](mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, characters):
        super().__init__()
        self.token, self.position = nn.Embedding(characters, DIM), nn.Embedding(CONTEXT, DIM)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, characters, bias=False)
        self.head.weight = self.token.weight  # tied: one tensor in the landscape too

    def forward(self, text):
        x = self.token(text) + self.position.weight[: text.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def next_character(model, windows):
    """The loss and how many characters it is of; a window holds one more than the model sees at once."""
    seen, to_come = windows[:, :-1], windows[:, 1:]
    logits = model(seen).flatten(0, 1)
    return F.cross_entropy(logits, to_come.flatten(), reduction="sum"), to_come.numel()


def trained(text):
    torch.manual_seed(0)
    model = GPT(int(text.max()) + 1)
    nn.init.normal_(model.token.weight, std=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)
    windows = text.unfold(0, CONTEXT + 1, 1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        total, count = next_character(model, windows[torch.randint(len(windows), (32,))])
        (total / count).backward()
        optimizer.step()
        schedule.step()
    return model, windows


def main(folder=PICTURES):
    letters = TEXT.read_text("utf-8")
    numbers = {letter: number for number, letter in enumerate(sorted(set(letters)))}
    model, windows = trained(torch.tensor([numbers[letter] for letter in letters]))
    frozen = windows[torch.linspace(0, len(windows) - 1, WINDOWS).long()].split(16)
    objective = ll.Objective(model, frozen, next_character)

    surface = ll.plane(objective, radius=1.0, tol=TOL)
    pairs = ll.top_eigenpairs(objective, k=5, smallest=1, tol=1e-2)
    density = ll.spectral_density(objective, probes=PROBES, steps=LANCZOS)
    with plots.paper():
        figure = Figure(figsize=(plots.PAGE, 2.6))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
        filled = plots.contours(left, surface.coordinates, surface.losses, *surface.range)
        left.plot(0, 0, "+", color="white", ms=6)
        left.set(xlabel="step along d₁ (filter-normalized)", ylabel="step along d₂")
        figure.colorbar(filled, ax=left, label="loss, nats per character", shrink=0.9)
        plots.spectrum(density, pairs, ax=right, title="marks: the largest five, and the smallest")
    plots.save_figure(figure, folder / "char_gpt.png")

    trace, error = density.moment(1)
    print(
        f"A GPT of {objective.params.numel:,} parameters at {objective.value():.2f} nats per character; its "
        f"plane is {surface.statement}. λmax = {pairs.eigenvalues[0]:.1f} and λmin = {pairs.smallest:.2f}, "
        f"but the mean eigenvalue is {trace / density.dimension:.4f}: the largest five make up "
        f"{pairs.eigenvalues.sum() / trace:.0%} of the trace, {trace:.0f} ± {error:.0f}."
    )


if __name__ == "__main__":
    main()
