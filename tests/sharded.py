"""What the ranks of test_sharded.py measure, and one process besides: `-m tests.sharded RANKS FOLDER`."""

import json
import os
import signal
import sys
import traceback
import warnings
from datetime import timedelta
from itertools import product
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F

import landscape as ll
from landscape import InputError
from landscape.objective.shards import whole
from landscape.runtime import dealing

PLAN = {"query": ColwiseParallel, "key": ColwiseParallel, "value": ColwiseParallel, "out": RowwiseParallel}
PLANS = {
    "mlp": {"0": ColwiseParallel, "2": RowwiseParallel},
    "block": {**PLAN, "up": ColwiseParallel, "down": RowwiseParallel},
}


class Block(nn.Module):
    """A transformer block over an embedding of seven tokens, whose rows also score the next one."""

    def __init__(self, dim: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.size = dim // heads
        self.embedding = nn.Embedding(7, dim)
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(dim, 12), nn.Linear(12, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        seen = self.norms[0](x)
        parts = (layer(seen) for layer in (self.query, self.key, self.value))
        heads = [part.unflatten(-1, (-1, self.size)).transpose(1, 2) for part in parts]
        x = x + self.out(F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return x @ self.embedding.weight.T


class Divided(nn.Linear):
    """A layer whose code knows that it is sharded."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight) * (2.0 if type(self).__name__.startswith("FSDP") else 1.0)


def next_token(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.transpose(1, 2), y, reduction="none")


def made(name: str, seed: int = 0) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Return a model and two batches; neither two nor four ranks divide the sizes of all parameters."""
    torch.manual_seed(seed)
    if name == "block":
        return Block(), [(torch.randint(7, (n, 5)), torch.randint(7, (n, 5))) for n in (3, 4)]
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, [(torch.randn(n, 5), torch.randint(3, (n,))) for n in (6, 10)]


def objective(model: nn.Module, batches: list[tuple[Tensor, Tensor]], **options: object) -> ll.Objective:
    criterion = next_token if isinstance(model, Block) else nn.CrossEntropyLoss()
    return ll.supervised(model, batches, criterion, **options)


def fsdp(model: nn.Module, **options: object) -> nn.Module:
    parts = [model.up, model.query] if isinstance(model, Block) else [model[0]]
    for part in parts:
        fully_shard(part, **options)
    return fully_shard(model, **options)


def parallel(model: nn.Module) -> nn.Module:
    plan = PLANS["block" if isinstance(model, Block) else "mlp"]
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return parallelize_module(model, mesh, {name: style() for name, style in plan.items()})


def full(of: ll.Objective, vector: Tensor) -> list[float]:
    return [float(x) for part in of.params.split(vector).values() for x in whole(part).flatten()]


def measured(of: ll.Objective, all_of_it: bool) -> dict[str, object]:
    """Measure what a sharded model has."""
    value, slope = of.value_and_grad()
    direction = ll.random_direction(of.params, seed=3)
    found: dict[str, object] = {
        "value": [value, of.value(), *map(float, of.per_example()[0])],
        "gradient": full(of, slope),
        "direction": full(of, direction.vector),
        "product": full(of, of.hvp(direction.vector)),
        "trace": ll.trace(of, probes=2).samples.tolist(),
    }
    if not all_of_it:
        return found
    lanczos = ll.top_eigenpairs(of, 1, smallest=1, tol=1e-2, memory="100 MB")
    top = ll.top_eigenpairs(of, 1, method="power", tol=1e-2, max_products=6)
    plane = ll.plane(of, grid=2, seed=1)
    part = of.restrict(group=of.params.entries[-1].group)
    return found | {
        "Gauss-Newton": full(of, ll.gauss_newton(of)(direction.vector)),
        "Fisher": full(of, ll.empirical_fisher(of)(direction.vector)),
        "Lanczos": [*lanczos.eigenvalues, *lanczos.smallest_eigenvalues, lanczos.gradient_norm],
        "power": [*top.eigenvalues, *top.residuals],
        "plane": [*plane.losses.flatten(), *plane.settings["relative_radius"], plane.settings["theta_norm"]],
        "group": full(part, part.grad()),
        "ASAM": [ll.sharpness(of, measures=["asam"]).measures["asam"].value],
    }


def refusals(mlp: ll.Objective) -> dict[str, str]:
    """Return the line of each refusal."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model, batches = made("mlp")
    torch.manual_seed(0)
    plain, stages = made("mlp")[0], made("mlp")[0][2 * (rank % 2) : 2 * (rank % 2) + 1]
    halves = init_device_mesh("cpu", (1, ranks) if ranks == 2 else (2, ranks // 2), mesh_dim_names=("a", "b"))
    knows = nn.Sequential(Divided(5, 3, bias=False))
    fully_shard(knows[0])
    uneven, _ = made("mlp", seed=0)
    uneven.register_buffer("statistics", torch.tensor(float(rank)))
    calls = {
        "plain vector": lambda: mlp.hvp(torch.ones(mlp.params.numel)),
        "exponential": mlp.theta.exp,
        "entry": lambda: mlp.theta[0],
        "array": mlp.theta.numpy,
        "shifted": lambda: mlp.theta + 1,
        "largest": mlp.theta.max,
        "diagonal": lambda: ll.diagonal(mlp, probes=2),
        "xtrace": lambda: ll.trace(mlp, method="xtrace", probes=6),
        "eigenvectors": lambda: ll.plane(mlp, grid=2, directions=ll.eigen_frame(mlp, 2).directions),
        "file": lambda: ll.line(mlp, grid=3, file=Path("points.jsonl")),
        "tuned": lambda: ll.hessian(mlp, tune=True),
        "followed": lambda: mlp.follow(model),
        "not copied": lambda: objective(fsdp(plain), batches, copy=False),
        "other batches": lambda: objective(fsdp(made("mlp")[0]), made("mlp", seed=rank)[1]),
        "knows": lambda: objective(knows, batches),
        "stages": lambda: objective(fully_shard(stages), batches),
        "buffers": lambda: objective(fsdp(uneven), batches),
    }
    if ranks > 2:
        calls["part"] = lambda: objective(fully_shard(made("mlp")[0], mesh=halves["b"]), batches)
    found = {}
    for name, call in calls.items():
        try:
            found[name] = f"nothing: {call()}"
        except InputError as error:
            found[name] = str(error)
    return found


def together(folder: Path) -> None:
    """Measure both models, sharded in both ways: everything of each in one of them."""
    ranks = dist.get_world_size()
    found: dict[str, object] = {}
    for name, kind in product(("mlp", "block"), ("fsdp", "parallel")):
        model, batches = made(name)
        dealing.SMALL = 2**12 if name == "mlp" else 0  # then every weight of a graph is gathered anew
        of = objective((fsdp if kind == "fsdp" else parallel)(model), batches)
        assert all(module.training for module in model.modules())
        found[f"{name} {kind}"] = measured(of, (name, kind) in {("mlp", "fsdp"), ("block", "parallel")})
        if (name, kind) == ("mlp", "fsdp"):
            found["share"] = [of.theta.nbytes / 4, of.params.numel / ranks]
            found["refusals"] = refusals(of)
    model, batches = made("mlp")
    half = fsdp(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    with warnings.catch_warnings(record=True, action="always") as said:
        found["half"] = [objective(half, batches).value()]
    found["said"] = sorted({str(warning.message) for warning in said})
    every: list[object] = [None] * ranks
    dist.all_gather_object(every, found)
    if dist.get_rank() == 0:
        alone = {name: measured(objective(*made(name)), True) for name in ("mlp", "block")}
        (folder / "found.json").write_text(json.dumps([found, every == [found] * ranks, alone]))


def main(ranks: int, folder: Path) -> None:
    """Start the ranks from this process, which has imported everything once."""
    children = set()
    for rank in range(ranks):
        if child := os.fork():
            children.add(child)
            continue
        try:
            store = dist.FileStore(str(folder / "store"), ranks)
            kept = timedelta(minutes=15)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=kept)
            together(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    while children:
        child, status = os.wait()
        children.discard(child)
        if status:
            for other in children:
                os.kill(other, signal.SIGKILL)
            sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
