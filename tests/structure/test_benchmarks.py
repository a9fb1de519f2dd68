"""What the benchmarks compare with must be the same work."""

import sys
from functools import partial

import pytest
import torch

from benchmarks import cuda
from benchmarks.compare import lines, main, ratios
from benchmarks.models import MODELS, Known, resnet
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


def test_what_a_gpu_is_asked_runs_on_a_cpu(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", Known(partial(resnet, [2, 3], 1), (2, 3, 8, 8)))
    found = cuda.measured("tiny", torch.device("cpu"))
    assert found["parameters"] > 100
    assert {"value", "product", "trace, 30 probes"} <= found.keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cuda.py"])
    with pytest.raises(SystemExit, match="2"):
        cuda.main()
    assert capsys.readouterr().err == "torch finds no CUDA device here\n"


OLD = {
    "where": {"commit": "a", "day": "1", "cpu": "x", "threads": 2, "gpu": None, "python": "3", "torch": "2"},
    "seconds": {"sam": 2.0, "gone": 1.0, "zero": 0.0, "same": 5},
    "runs": [{"run": "first", "hr@10": 0.05}],
    "all_seconds": [1.0, 3.0],
}


def test_ratios_are_of_what_both_results_hold_and_of_no_single_rounds():
    new = OLD | {"seconds": {"sam": 3.0, "zero": 1.0, "same": 5}, "runs": [{"run": "first", "hr@10": 0.1}]}
    assert list(ratios(OLD, new)) == [("seconds / sam", 2, 3, 1.5), ("runs / first / hr@10", 0.05, 0.1, 2)]
    other = new | {"where": OLD["where"] | {"cpu": "y"}}
    assert any("not the same cpu: x -> y" in line for line in lines(OLD, other))
    assert not any("cpu" in line for line in lines(OLD, new))


@pytest.mark.parametrize("bad", [["not.json"] * 2, ["missing.json"] * 2, ["--against", "no-such-commit"], []])
def test_a_comparison_of_what_is_no_result_is_one_line_and_code_2(bad, tmp_path, monkeypatch, capsys):
    (tmp_path / "not.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare.py", *bad])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.err.splitlines()[-1].startswith("compare.py: error: ")
    assert not captured.out
