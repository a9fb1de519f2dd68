"""The one bridge to the landscape: a checkpoint's `Objective`, and what else samrec knows of it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from landscape.curvature.monitor import Monitor
from landscape.errors import InputError
from landscape.objective.evaluators import Forward, Loss
from landscape.objective.objective import Objective
from landscape.runtime import ranks as parallel
from landscape.runtime.devices import device_named
from landscape.runtime.ranks import ALONE, Ranks
from landscape.storage.files import sha256
from landscape.tasks import Facts, FactTable, TaskOptions
from samrec.catalogue import catalogue_metrics
from samrec.checkpoint import Checkpoint, load, trajectory
from samrec.choices import METRICS, VALIDATED, Sampled
from samrec.config import Config
from samrec.data.holdout import LEAVE_ONE_OUT
from samrec.data.interactions import Ints
from samrec.data.packing import Batch
from samrec.data.readers import read
from samrec.data.sources import last_change
from samrec.data.split import Part, Split, split_by
from samrec.data.tensors import Tensors
from samrec.evaluation import Candidates, Ranking, candidates, count_above, gain, ranks
from samrec.facts import RANKED, RANKING, curves, difference, ranked
from samrec.features import kept_features
from samrec.losses import drawn_scores, loss_of, parts_of
from samrec.methods import initial_model, recommendation_batches
from samrec.model import Recommender
from samrec.recommendation import WRITERS, save_items
from samrec.sampled import sampled_ranks
from samrec.scorer import save_scorer
from samrec.sharding import ShardedEmbedding
from samrec.training.log import read_log

Frozen = tuple[Ints, list[Any], Loss, Loss, tuple[Forward, Loss] | tuple[None, None]]
"""The users of an objective, its batches, its loss, the same by user, and as its two parts if it has them."""
BATCH = 256  # users at once: their activations stay in a CPU's cache, and the memory of a product bounded


def objective(checkpoint: Path, options: TaskOptions) -> Objective:
    """Freeze the training loss of a checkpoint: users and negatives drawn once, by `options.seed`.

    Two checkpoints of one data set and one seed get the same users, negatives and batches.

    `options.metric` may also be `valid-loss`, the same loss of the items held out for validation; a
    ranking metric (`hr@10`, `ndcg@10`, `mrr`) of those held out for the test, over all items; or `pairwise`,
    the share of a user's training positions at which a frozen negative scores at least what the target does.

    Raises:
        InputError: the checkpoint or its data cannot be used, the data are not what it was trained on, or
            there is no such metric.
    """
    options = replace(options, metric=options.metric.lower())  # HR@10, as papers write it
    loaded = load(checkpoint)
    device = device_named(options.device)
    config = loaded.config
    split = _split(loaded, options.data)
    frozen = _FROZEN.get(options.metric, _frozen_ranking)
    return _objective(
        loaded.model().to(device),
        config,
        split,
        options,
        frozen(config, split, options, device),
        checkpoint=str(checkpoint),
        checkpoint_sha256=sha256(checkpoint),
        epoch=str(loaded.epoch),
    )


def monitor_of(
    run: tuple[Config, Split], model: Recommender, optimizer: Optimizer, users: int = 2048, **settings: Any
) -> Monitor:
    """Return a monitor of a training, with the frozen loss that `objective` has for its checkpoints.

    Args:
        run: what is trained, and on what.
        users: number of users of the frozen loss.
        settings: arguments of `landscape.Monitor`, which also says what it raises.
    """
    options = TaskOptions(users=users)
    frozen = _frozen_loss(*run, options, model.device)
    return Monitor(model, _objective(model, *run, options, frozen), optimizer=optimizer, **settings)


def _objective(
    model: Recommender, config: Config, split: Split, options: TaskOptions, frozen: Frozen, **known: str
) -> Objective:
    users, batches, loss, by_user, (forward, criterion) = frozen
    return Objective(
        model,
        batches,
        loss,
        per_example=by_user,
        forward=forward,
        criterion=criterion,
        include=options.include,
        exclude=options.exclude,
        provenance={
            **known,
            "method": config.method,
            "data": split.interactions.source,
            "data_sha256": split.interactions.digest,
            "users": str(len(users)),
            "objective_seed": str(options.seed),
            "batches_sha256": _sha256(batches),
            "loss": _loss_name(config),
            "metric": options.metric,
            **({} if split.rule == LEAVE_ONE_OUT else {"split": split.rule}),
        },
    )


def _loss_name(config: Config) -> str:
    """Name a loss by all that decides its value, so that two which differ are not compared."""
    name = f"gbce (t = {config.calibration:g})" if config.loss == "gbce" else config.loss
    return name if config.drawn < 2 else f"{name} of {config.drawn} negatives"


def _sha256(batches: Sequence[Tensors]) -> str:
    """Identify what is frozen: other users, noise, negatives or lengths of history give another one."""
    digest = hashlib.sha256()
    for batch in batches:
        for tensor in batch.tensors():
            digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _frozen_loss(config: Config, split: Split, options: TaskOptions, device: torch.device) -> Frozen:
    """Freeze the training loss, on what it was trained on or, for `valid-loss`, on what comes after that."""
    valid = options.metric == "valid-loss"
    drawn = split.with_validation() if valid else split
    users = _drawn(split.evaluated("valid") if valid else split.trained, options)
    mask_last = 1.0 if valid else config.mask_last
    all_batches = recommendation_batches(config, drawn, device, config.drawn, mask_last)
    batches = list(all_batches.of_users(users, BATCH, (options.seed,)))
    if valid:
        batches = [replace(batch, used=_last_alone(batch)) for batch in batches]
    loss = loss_of(config.loss, config.calibration)

    def by_user(model: Recommender, batch: Batch) -> tuple[Tensor, Tensor]:
        # Every loss is Σ used · (loss of the slot), so its derivative by `used` is the loss of the slot.
        used = batch.used.clone().requires_grad_()
        differentiable = any(p.requires_grad for p in model.parameters())  # a value needs no graph
        with torch.enable_grad():
            total = loss(model, replace(batch, used=used))[0]
            (of_slot,) = torch.autograd.grad(total, used, create_graph=differentiable)
        return _summed_by_history(of_slot, batch)

    return users, batches, loss, by_user, parts_of(config.loss, config.calibration, split.num_items)


def _frozen_pairwise(config: Config, split: Split, options: TaskOptions, device: torch.device) -> Frozen:
    """Freeze the ranking loss of pairs: each user's share of positions at which the negative is not below.

    There is one negative per position, whatever the training loss draws. A tie is an error, and so is a score
    that is not a number: a user's loss is in [0, 1] whatever the weights, as a bound on it takes.
    """
    users = _drawn(split.trained, options)
    drawn = recommendation_batches(config, split, device, 1, config.mask_last)

    def by_user(model: Recommender, batch: Batch) -> tuple[Tensor, Tensor]:
        target, negative = drawn_scores(model, batch)
        errors, positions = _summed_by_history((~(target > negative)).to(target), batch)
        return errors / positions, torch.ones_like(errors)

    batches = list(drawn.of_users(users, BATCH, (options.seed,)))
    return users, batches, _over_users(by_user), by_user, (None, None)


def _frozen_ranking(config: Config, split: Split, options: TaskOptions, device: torch.device) -> Frozen:
    """Freeze a ranking metric of the test part: what each user adds to it, and a weight of 1."""
    gain(torch.zeros(1), options.metric)  # no such metric: to be said before anything is ranked
    users = _drawn(np.arange(len(split.evaluated("test"))), options)

    def by_user(model: Recommender, batch: Candidates) -> tuple[Tensor, Tensor]:
        gains = gain(count_above(model, batch), options.metric)
        return gains, torch.ones_like(gains)

    asks = split.num_items if config.method == "bert4rec" else None
    batches = list(candidates(split, "test", config.max_length, device, BATCH, users, asks))
    return users, batches, _over_users(by_user), by_user, (None, None)


_FROZEN = {"loss": _frozen_loss, "valid-loss": _frozen_loss, "pairwise": _frozen_pairwise}


def _over_users(by_user: Callable[[Recommender, Any], tuple[Tensor, Tensor]]) -> Loss:
    """Return what is known of each user as the sum and the weight of all of them."""

    def total(model: Recommender, batch: Any) -> tuple[Tensor, Tensor]:
        sums, weights = by_user(model, batch)
        return sums.sum(), weights.sum()

    return total


def _summed_by_history(of_slot: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum what the slots in use hold over each history, and count them, shape (histories,) both."""
    table = torch.stack([of_slot * batch.used, batch.used.to(of_slot)]).view(2, -1)
    history, count = batch.inputs.segments.flatten(), len(batch.inputs.last)
    sums, weights = table.new_zeros(2, count + 1).index_add_(1, history, table)[:, 1:]
    return sums, weights


def _drawn(users: Ints, options: TaskOptions) -> Ints:
    return np.random.default_rng(options.seed).permutation(users)[: options.users]


def _last_alone(batch: Batch) -> Tensor:
    """Return `used` as 1 at the last slot of each history, and 0 elsewhere."""
    used = torch.zeros_like(batch.used).flatten()
    used[batch.inputs.last] = 1
    return used.view_as(batch.used)


def ranking(
    checkpoint: Path,
    part: Part,
    data: Path | None = None,
    device: str = "auto",
    noise: float = 0.0,
    seed: int = 0,
    among: Ranks = ALONE,
    shard_items: bool = False,
    catalogue: Sequence[str] = (),
    sampled: Sequence[Sampled] = (),
) -> Ranking:
    """Rank each evaluated user's held-out item with a checkpoint: `samrec.evaluation.ranks`.

    Args:
        noise: the share of random items inserted into the histories, drawn by `seed`: `Split.disturbed`.
        among: the processes that share the users, and all get the ranks of all.
        shard_items: they share the items instead, each holding its rows of the table.
        catalogue, sampled: metrics of `samrec.catalogue`, and ranks of `samrec.sampled`, that are wanted too;
            by one process. Negatives are drawn by `seed`.

    Raises:
        InputError: as `objective`, `Split.disturbed`, `ShardedEmbedding` and `catalogue_metrics`.
    """
    if among.size > 1 and (more := (*catalogue, *sampled)):
        raise InputError(f"{more[0]} is computed by one process; leave torchrun out")
    loaded = load(checkpoint)
    split = _split(loaded, data)
    shown = split.disturbed(part, noise, seed)
    model = loaded.model().eval()
    if shard_items:
        model.item = ShardedEmbedding(model.item.weight, among)
    model.to(device_named(device))
    of_users = ranks(model, shown, part, among=among)
    among_few: dict[str, Ints] = {
        kind: sampled_ranks(model, split, part, kind, seed, shown) for kind in sampled
    }
    return Ranking(of_users, split, catalogue_metrics(model, split, part, catalogue, shown), among_few)


def initial_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return the weights that a checkpoint's run began from, by name: its seed fixes them, whatever the data.

    Those before any pre-training, which depends on the data.

    Raises:
        InputError: the checkpoint cannot be used.
    """
    loaded = load(checkpoint)
    loaded.model()  # fits its settings, which may say any size
    features = kept_features(loaded.weights, loaded.num_items)
    return _parameters(initial_model(loaded.config, loaded.num_items, features))


def _parameters(model: Recommender) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


class Recommendation:
    """The task of samrec's checkpoints: see `landscape.tasks.Task`."""

    def __call__(self, checkpoint: Path, options: TaskOptions) -> Objective:
        """Freeze the training loss, see `objective`."""
        return objective(checkpoint, options)

    def theta(self, checkpoint: Path) -> dict[str, Tensor]:
        """Return the parameters by name."""
        return _parameters(load(checkpoint).model())

    def initial(self, checkpoint: Path) -> dict[str, Tensor]:
        """Return the parameters before training, see `initial_weights`."""
        return initial_weights(checkpoint)

    def trajectory(self, checkpoint: Path) -> list[Path]:
        """Return the checkpoints that the run kept beside this one."""
        return trajectory(checkpoint.parent)

    def export(self, checkpoint: Path, target: Path, options: TaskOptions) -> str:
        """Write the items' embeddings with their ids, or the scorer (.pt2), and say what was written.

        Raises:
            InputError: the checkpoint cannot be used, another ending, or the file cannot be written.
        """
        loaded = load(checkpoint)
        if target.suffix.lower() == ".pt2":
            if options.data is not None:
                loaded.interactions(options.data)  # to be refused, where they are others
            save_scorer(loaded.model(), target)
            return f"scorer of {loaded.num_items:,} items"
        if target.suffix.lower() not in WRITERS:
            raise InputError(f"cannot write {target}: the ending must be {', '.join(WRITERS)} or .pt2")
        save_items(loaded, target, options.data)
        return f"embeddings of {loaded.num_items:,} items"

    def facts(self, checkpoint: Path, options: TaskOptions) -> Facts:
        """Rank the users of both parts, the ranks of torchrun together, and read the log of the run."""
        rows = tuple(
            ranked("validation" if part == "valid" else part, _ranks(checkpoint, part, options), options.seed)
            for part in get_args(Part)
        )
        table = FactTable(RANKING, METRICS, rows, RANKED, ("test", VALIDATED))
        return Facts((table,), curves(read_log(checkpoint.parent / "metrics.jsonl")))

    def differences(self, checkpoints: Mapping[str, Path], options: TaskOptions) -> list[str]:
        """Compare the ranking of the test items with that of the first checkpoint, user by user."""
        found = {name: _ranks(checkpoint, "test", options) for name, checkpoint in checkpoints.items()}
        gains = {name: gain(torch.from_numpy(own), VALIDATED).double().numpy() for name, own in found.items()}
        first, *others = gains
        return [difference(first, name, gains[first], gains[name]) for name in others]


task = Recommendation()


def _ranks(checkpoint: Path, part: Part, options: TaskOptions) -> Ints:
    return ranking(checkpoint, part, options.data, options.device, among=parallel.ranks()).ranks


def _split(checkpoint: Checkpoint, data: Path | None) -> Split:
    """Read what a checkpoint was trained on, its users and its noise, from where it was or from `data`."""
    config = checkpoint.config
    with checkpoint.claimed(data) as path:
        split = _read_split(path, last_change(path), config.split, **config.reading)
        checkpoint.check_data(split.interactions)
    return split.fraction(config.train_fraction, config.seed).noisy(config.noise, config.seed)


@lru_cache(maxsize=1)
def _read_split(path: Path, changed: int, rule: str, **reading: Any) -> Split:
    """Read and split a file; comparing checkpoints asks for the same one again and again.

    `changed` is when the file was written, so that one that has changed is read anew.
    """
    return split_by(rule, read(path, **reading))
