"""The methods: one file for what each adds to SASRec. This file builds them from a run's settings."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from samrec.config import Config
from samrec.data.attributes import attributes_of
from samrec.data.packing import TrainingBatches
from samrec.data.split import Split
from samrec.features import FeaturedEmbedding, read_features
from samrec.losses import loss_of
from samrec.methods.bert4rec import BERT4Rec, ClozeBatches
from samrec.methods.cl4srec import Augmentation, CL4SRec, ContrastiveBatches
from samrec.methods.gru4rec import GRU4Rec
from samrec.methods.learner import Learner, NextItem
from samrec.methods.s3rec import Pretraining, PretrainingBatches, Weights
from samrec.model import Recommender, SASRec


def new_model(config: Config, num_items: int, features: Tensor | None = None) -> Recommender:
    """Build an untrained recommender as the settings say.

    Args:
        features: each item's attributes, as `FeaturedEmbedding` takes them.
    """
    shape = num_items, config.dim, config.max_length, config.layers
    model: Recommender
    if config.method == "gru4rec":
        model = GRU4Rec(*shape, config.dropout)
    else:
        kind = BERT4Rec if config.method == "bert4rec" else SASRec
        model = kind(*shape, config.heads, config.dropout, config.architecture)
    if features is not None:
        assert isinstance(model.item, nn.Embedding)
        model.item = FeaturedEmbedding(model.item, features)
    return model


class _NothingDrawn(TorchFunctionMode):
    """Initial weights are left as they are.

    PyTorch draws normal numbers for the meta device too, by a decomposition that imports its whole compiler:
    2 s in every command that opens a checkpoint.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def outline(config: Config, num_items: int, features: Tensor | None = None) -> Recommender:
    """Return `new_model` on the meta device: shapes alone, nothing is drawn or allocated."""
    with torch.device("meta"), _NothingDrawn():
        return new_model(config, num_items, features)


def initial_learner(config: Config, split: Split, fused: bool = False) -> Learner:
    """Build what a run trains. Its weights depend only on the seed; the caller's random state is kept.

    Args:
        fused: use the form of the loss that can be differentiated once, where that is faster.
    """
    given = config.item_features
    features = read_features(Path(given), split.interactions) if given else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = new_model(config, split.num_items, features)
        if config.method == "s3rec-pretraining":
            path = config.attributes
            attributes = attributes_of(Path(path), split.interactions) if path else None
            weights = Weights(
                config.associated_attribute, config.masked_item, config.masked_attribute, config.segment
            )
            assert isinstance(model, SASRec)
            return Pretraining(model, attributes, weights)
        criterion = loss_of(config.loss, config.calibration, fused)
        if config.method == "cl4srec":
            # products of vectors whose squared length is about d, scaled as attention scales them
            temperature = config.temperature or config.dim**0.5
            return CL4SRec(model, criterion, config.contrast, temperature)
        return NextItem(model, criterion)


def initial_model(config: Config, num_items: int, features: Tensor | None = None) -> Recommender:
    """Build the recommender that a run begins with, before any pre-training, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return new_model(config, num_items, features)


def batches_of(config: Config, split: Split, device: torch.device) -> TrainingBatches:
    """Return what a run trains on."""
    if config.method == "s3rec-pretraining":
        return PretrainingBatches(split, config.max_length, device, config.hidden)
    if config.method == "cl4srec":
        augmentation = Augmentation(config.crop, config.hidden, config.reorder)
        return ContrastiveBatches(split, config.max_length, device, config.drawn, augmentation)
    return recommendation_batches(config, split, device, config.drawn, config.mask_last)


def recommendation_batches(
    config: Config, split: Split, device: torch.device, negatives: int, mask_last: float
) -> TrainingBatches:
    """Return the batches of the recommendation loss: of next items, or of masked ones for BERT4Rec."""
    shape = split, config.max_length, device, negatives
    if config.method == "bert4rec":
        return ClozeBatches(*shape, config.hidden, mask_last)
    return TrainingBatches(*shape)
