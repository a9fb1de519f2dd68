"""The methods: one file for what each adds to SASRec. This file builds them from a run's settings."""

from pathlib import Path

import torch

from samrec.config import Config
from samrec.data.attributes import read_attributes
from samrec.data.packing import TrainingBatches
from samrec.data.split import Split
from samrec.losses import loss_of
from samrec.methods.bert4rec import BERT4Rec, ClozeBatches
from samrec.methods.cl4srec import Augmentation, CL4SRec, ContrastiveBatches
from samrec.methods.gru4rec import GRU4Rec
from samrec.methods.learner import Learner, NextItem
from samrec.methods.s3rec import Pretraining, PretrainingBatches, Weights
from samrec.model import Recommender, SASRec


def new_model(config: Config, num_items: int) -> Recommender:
    """Build an untrained recommender as the settings say."""
    if config.method == "gru4rec":
        return GRU4Rec(num_items, config.dim, config.max_length, config.layers, config.dropout)
    return new_sasrec(config, num_items)


def new_sasrec(config: Config, num_items: int) -> SASRec:
    """Build the Transformer, which all methods but GRU4Rec train."""
    kind = BERT4Rec if config.method == "bert4rec" else SASRec
    return kind(
        num_items,
        config.dim,
        config.max_length,
        config.layers,
        config.heads,
        config.dropout,
        config.architecture,
    )


def initial_learner(config: Config, split: Split, fused: bool = False) -> Learner:
    """Build what a run trains. Its weights depend only on the seed; the caller's random state is kept.

    Args:
        fused: use the form of the loss that can be differentiated once, where that is faster.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.method == "s3rec-pretraining":
            path = config.attributes
            attributes = read_attributes(Path(path), split.interactions) if path else None
            weights = Weights(
                config.associated_attribute, config.masked_item, config.masked_attribute, config.segment
            )
            return Pretraining(new_sasrec(config, split.num_items), attributes, weights)
        model = new_model(config, split.num_items)
        criterion = loss_of(config.loss, config.calibration, fused)
        if config.method == "cl4srec":
            # products of vectors whose squared length is about d, scaled as attention scales them
            temperature = config.temperature or config.dim**0.5
            return CL4SRec(model, criterion, config.contrast, temperature)
        return NextItem(model, criterion)


def initial_model(config: Config, num_items: int) -> Recommender:
    """Build the recommender that a run begins with, before any pre-training, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return new_model(config, num_items)


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
