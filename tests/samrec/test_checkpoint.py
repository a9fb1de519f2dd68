"""What a run writes of its best epoch: one checkpoint, and the same weights in safetensors."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import landscape as ll
from landscape import InputError
from samrec.checkpoint import load, save_best
from samrec.concerns import heeded
from tests.samrec.training.test_training import same_weights

SAME = ("config", "digest", "num_items", "epoch", "valid", "best")


@pytest.fixture
def best(runs):
    return runs / "samrec" / "best.pt"


def test_the_weights_alone_are_the_same_model(best):
    whole, alone = load(best), load(best.with_suffix(".safetensors"))
    assert same_weights(whole, alone)
    assert all(getattr(whole, name) == getattr(alone, name) for name in SAME)
    assert alone.optimizer == {}


def test_they_say_what_they_are_to_whoever_reads_safetensors(best):
    with safe_open(best.with_suffix(".safetensors"), "pt") as file:
        known = file.metadata()
    whole = load(best)
    assert (known["format"], known["task"], known["method"]) == ("pt", "samrec", "samrec")
    assert known["data_sha256"] == whole.digest
    found = ll.weights_of(best.with_suffix(".safetensors"))
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.weights.items())


def test_load_weights_fills_a_model_of_ones_own(best):
    model = load(best).model()
    nn.init.zeros_(model.item.weight)
    ll.load_weights(model, best.with_suffix(".safetensors"))
    assert torch.equal(model.item.weight, load(best).weights["item.weight"])


@pytest.mark.parametrize("task", [(), ("--task", "samrec.task:objective")])
def test_a_command_measures_them_as_the_checkpoint(task, best, answer):
    how = ("--measure", "gradient-norm", "--users", 20, "--device", "cpu", *task)
    found = [answer("sharpness", "--ckpt", path, *how) for path in (best, best.with_suffix(".safetensors"))]
    values = [entry["checkpoints"][0]["measures"] for entry in found]
    assert values[0] == values[1]


def test_other_safetensors_are_refused_in_a_line(tmp_path):
    path = tmp_path / "a.safetensors"
    for metadata in (None, {"samrec": "x"}, {"samrec": "[1]"}, {"samrec": "[" * 10**5}):
        save_file({"w": torch.ones(1)}, path, metadata)
        with pytest.raises(InputError, match="not a samrec checkpoint"):
            load(path)
    save_file({"w": torch.ones(1)}, path, {"samrec": "{}"})
    with pytest.raises(InputError, match="not a samrec checkpoint"):
        load(path)


@pytest.mark.parametrize("killed_at", range(4))
def test_weights_never_lie_beside_another_checkpoint(best, tmp_path, monkeypatch, killed_at):
    """Whatever is the last change to the folder: a rename, a removal."""
    old = load(best)
    new = replace(old, epoch=old.epoch + 1, weights={name: t + 1 for name, t in old.weights.items()})
    save_best(old, tmp_path)
    done = 0

    def counted(change):
        def changed(*arguments, **options):
            nonlocal done
            if done == killed_at:
                raise KeyboardInterrupt
            done += 1
            return change(*arguments, **options)

        return changed

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    with pytest.raises(KeyboardInterrupt):
        save_best(new, tmp_path)
    monkeypatch.undo()
    found = load(tmp_path / "best.pt")
    assert found.epoch in (old.epoch, new.epoch)
    if (beside := tmp_path / "best.safetensors").exists():
        assert load(beside).epoch == found.epoch
        assert same_weights(load(beside), found)


def test_a_full_disk_leaves_both(best, tmp_path, monkeypatch):
    save_best(load(best), tmp_path)
    before = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.iterdir()}

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"cannot write .*best\.pt: the disk is full"):
        save_best(replace(load(best), epoch=99), tmp_path)
    assert {path.name: hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.iterdir()} == before


def test_settings_that_once_were_accepted_without_an_effect_are_left_out(best, tmp_path):
    """Files of GRU4Rec that name heads, and of a fine-tuning that names a part of the pre-training, load."""
    content = torch.load(best, weights_only=True)
    assert "heads" in heeded(content["config"])
    assert "heads" not in heeded({**content["config"], "method": "gru4rec", "heads": 4})
    tuned = {"method": "s3rec", "pretrained": "last.pt", "mask": 0.5, "dim": 8}
    assert heeded(tuned) == {name: value for name, value in tuned.items() if name != "mask"}
    content["config"] |= {"segment": 0.25}  # of another method
    torch.save(content, tmp_path / "old.pt")
    assert load(tmp_path / "old.pt").config == load(best).config
