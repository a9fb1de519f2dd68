"""An option that would be ignored is refused in one line, which says what to do."""

import pytest

from landscape.cli.app import Commands, _declared
from landscape.flatness.measures import MEASURES

NEEDED = {
    "hessian": "--ckpt a.pt",
    "surface": "--ckpt a.pt",
    "path": "--ckpt a.pt --ckpt b.pt",
    "compare": "--ckpt a.pt",
    "sharpness": "--ckpt a.pt",
    "sweep": "--data d.txt --vary seed=0 --out o",
    "train": "--data d.txt",
}
WITH = [
    ("hessian", "--trace-method xtrace", "--trace"),
    ("hessian", "--trace-tol 0.1", "--trace"),
    ("hessian", "--probes 30", "--trace"),
    ("hessian", "--steps 80", "--density"),
    ("hessian", "--ridge 1", "--density"),
    ("hessian", "--gamma 1", "--density"),
    ("hessian", "--memory 8GB --method power", "--method lanczos"),
    ("surface", "--normalization filter --directions eigen", "--directions random"),
    ("surface", "--biases --directions between", "--directions random"),
    ("surface", "--radius 1 --directions between", "--directions random, eigen, eigen-ends"),
    ("surface", "--trajectory steps", "--directions trajectory"),
    ("surface", "--animate", "--directions trajectory"),
    ("surface", "--metric hr@10", "--dim 1"),
    ("path", "--steps 9", "--bezier"),
    ("sharpness", "--rho 1 --measure trace", "--measure sam, m-sharpness, worst, asam, worst-adaptive"),
    ("sharpness", "--sigma 1 --measure sam", "--measure average, lpf, average-adaptive"),
    ("sharpness", "--epsilon 1 --measure sam", "--measure keskar"),
    ("sharpness", "--rise 1 --measure sam", "--measure pac-bayes-sigma, pac-bayes-sigma-adaptive"),
    ("sharpness", "--steps 9 --measure sam", "--measure worst, keskar, worst-adaptive"),
    (
        "sharpness",
        "--samples 9 --measure sam",
        "--measure average, lpf, average-adaptive, pac-bayes-sigma, pac-bayes-sigma-adaptive",
    ),
    (
        "sharpness",
        "--probes 9 --measure sam",
        "--measure trace, frobenius, relative-flatness-embedding, relative-flatness-last",
    ),
]
"""A command, an option that would be ignored, and what it is for."""
WITHOUT = [
    ("surface", "--tol 0.1", "--grid", "3"),
    ("surface", "--split 2", "--grid", "3"),
    ("path", "--tol 0.1", "--grid", "3"),
    ("compare", "--tol 0.1", "--grid", "3"),
    ("sweep", "--jobs 2", "--ray", "auto"),
    ("train", "--heads 2", "--method gru4rec", ""),
    ("train", "--loss ce", "--method s3rec-pretraining", ""),
    ("train", "--negatives 2", "--method s3rec-pretraining", ""),
    ("train", "--calibration 0.5", "--method s3rec-pretraining", ""),
    ("train", "--eval-every 2", "--method s3rec-pretraining", ""),
    ("train", "--patience 9", "--method s3rec-pretraining", ""),
    ("train", "--attributes a.json", "--pretrained", "last.pt"),
    ("train", "--pretrain-epochs 9", "--pretrained", "last.pt"),
    ("train", "--associated-attribute 1", "--pretrained", "last.pt"),
    ("train", "--masked-item 1", "--pretrained", "last.pt"),
    ("train", "--masked-attribute 1", "--pretrained", "last.pt"),
    ("train", "--segment 1", "--pretrained", "last.pt"),
    ("train", "--mask 0.5", "--pretrained", "last.pt"),
]
"""A command, an option that would be ignored, with what, and the value of that."""
IN_FILES = [
    ('method = "gru4rec"', "heads = 4", "heads is not a setting of gru4rec"),
    ('method = "s3rec"\npretrained = "last.pt"', 'attributes = "a.json"', "attributes is of a pre-training"),
    (
        'method = "s3rec"\npretrained = "last.pt"',
        "pretrain_epochs = 9",
        "pretrain_epochs is of a pre-training",
    ),
    ('method = "s3rec"\npretrained = "last.pt"', "masked_item = 0.5", "masked_item is of a pre-training"),
    ('method = "s3rec"\npretrained = "last.pt"', "mask = 0.5", "mask is of a pre-training"),
]
"""Settings, another one that they leave no effect, and what is said of it."""


@pytest.fixture
def refused(landscape, tmp_path, monkeypatch):
    """Run a command where there are no files, and return its one line of error."""
    monkeypatch.chdir(tmp_path)

    def run(command, *options):
        words = " ".join([command, NEEDED[command], *options]).split()
        code, out, err = landscape(*words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        return err.removeprefix("landscape: ").rstrip()

    return run


def first(texts):
    return texts.partition(",")[0]


@pytest.mark.parametrize(("command", "options", "other"), WITH)
def test_an_option_without_the_one_it_is_for(refused, command, options, other):
    option = options.split()[0]
    assert refused(command, options) == f"{option} is for {other}; add {first(other)}"
    assert "cannot read" in refused(command, options, first(other))  # it is enough to do as it says


@pytest.mark.parametrize(("command", "options", "other", "value"), WITHOUT)
def test_an_option_with_one_that_takes_its_effect(refused, command, options, other, value):
    option = options.split()[0]
    said = f"{option} has no effect with {other}; leave one of them out"
    assert refused(command, options, other, value) == said
    assert refused(command, options) != said


@pytest.mark.parametrize(("settings", "ignored", "said"), IN_FILES)
@pytest.mark.parametrize("where", ["file", "--set", "--vary"])
def test_a_setting_that_would_be_ignored_wherever_it_stands(
    landscape, tmp_path, monkeypatch, settings, ignored, said, where
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text(f'data = "d.txt"\n{settings}\n{ignored if where == "file" else ""}\n')
    name, value = ignored.replace('"', "").split(" = ")
    command = (
        ["train", "--config", "a.toml", "--out", "run"]
        if where == "file"
        else ["sweep", "--config", "a.toml", "--out", "o", where, f"{name}={value}"]
    )
    if where == "--set":
        command += ["--vary", "seed=0,1"]
    code, out, err = landscape(*command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def declared():
    """Yield the name of each command, the command, and its options that have a condition, with that."""
    group = Commands()
    for name in group.list_commands(None):
        made = _declared(name, group.get_command(None, name).found)
        for command in getattr(made, "commands", {"": made}).values():
            for option, condition in command.conditions():
                yield name, command, option, condition


def test_every_condition_is_tried_and_is_of_an_option_and_values_that_there_are():
    tried = {(command, options.split()[0]) for command, options, *_ in (*WITH, *WITHOUT)}
    assert tried == {(name, option.opts[0]) for name, _, option, _ in declared()}
    for name, command, _, condition in declared():
        assert any(condition.option in other.opts for other in command.params)
        for value in condition.values:
            command.make_context(name, [*NEEDED[name].split(), condition.option, value])


def test_help_says_what_an_option_is_for():
    for _, _, option, condition in declared():
        assert option.help.endswith(f"{'Only' if condition.wanted else 'Not'} with {condition}.")


def test_options_of_sharpness_are_for_the_measures_that_use_them():
    for name, _, option, condition in declared():
        if name == "sharpness":
            uses = {measure for measure, row in MEASURES.items() if option.name in row.uses}
            assert set(condition.values) == uses
