"""What the benchmarks compare with must be the same work."""

import torch

from benchmarks.padded import Padded
from benchmarks.train import Ours, in_turns, ratio
from samrec.config import Config
from samrec.losses import cross_entropy


def test_the_padded_model_has_the_loss_of_the_packed_one(split):
    config = Config(data="", dim=8, max_length=6, dropout=0.0)
    padded = Padded(config, split)
    ours = Ours(config, split, torch.device("cpu"))
    users = split.trained[:20]
    (packed,) = ours.batches.of_users(users, 20, (0,))
    wide = padded.batch(users, torch.Generator().manual_seed(0))
    assert wide.targets.shape == (20, 6)
    expected, weight = cross_entropy(ours.engine.learner.model, packed)
    found, same = cross_entropy(padded.model, wide)
    assert weight == same
    torch.testing.assert_close(found, expected)


def test_the_padded_model_trains_with_torchs_own_dropout(split):
    padded = Padded(Config(data="", dim=8, max_length=6), split)
    before = padded.model.item.weight.detach().clone()
    assert padded.epoch(16, 0) == 4
    assert padded.epoch(16, 0, steps=2) == 2
    assert not torch.equal(padded.model.item.weight, before)
    batch = padded.batch(split.trained[:9], torch.Generator())
    assert not torch.equal(*(padded.model(batch.inputs) for _ in range(2)))


def test_turns_alternate_and_the_first_is_not_counted():
    seen = []
    seconds = in_turns({"a": lambda n: seen.append(f"a{n}"), "b": lambda n: seen.append(f"b{n}")}, 2)
    assert seen == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert [len(values) for values in seconds.values()] == [2, 2]
    assert ratio({"a": [2.0, 6.0, 3.0], "b": [1.0, 2.0, 1.0]}, "a", "b") == 3.0
