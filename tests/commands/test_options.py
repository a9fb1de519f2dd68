"""Groups of options: declared once, spread on the command line, handed over as one object."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import torch
import typer
from typer.testing import CliRunner

from landscape import InputError
from landscape.cli.options import CheckpointOptions, CommonOptions, MeasurementOptions, with_options


@dataclass(frozen=True, kw_only=True)
class Own:
    size: Annotated[int, typer.Option(min=1, help="Size.")] = 3
    flag: Annotated[bool, typer.Option("--flag")] = False


def run(command, *arguments):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture
def handed():
    """A command with two groups of options and one of its own, and what it was last called with."""
    calls = []

    @with_options
    def command(*, own: Own, name: str = "x", of: MeasurementOptions) -> None:
        """Do it."""
        calls.append((own, name, of))

    return command, calls


def test_each_field_is_an_option_and_those_that_are_required_come_first(handed):
    options = list(inspect.signature(handed[0]).parameters)
    assert options[:5] == ["context", "ckpt", "size", "flag", "name"]
    assert {"users", "data", "include", "exclude", "task", "seed", "device", "json"} == set(options[5:])


def test_the_command_gets_objects_with_what_was_said_or_the_defaults(handed):
    command, calls = handed
    said = ["--ckpt", "x/a/best.pt", "--ckpt", "x/b/best.pt", "--size", 5, "--include", "item*", "--seed", 7]
    assert run(command, *said).exit_code == 0
    own, name, of = calls.pop()
    assert (own, name, of.json) == (Own(size=5), "x", False)
    assert of.checkpoints == {"a": Path("x/a/best.pt"), "b": Path("x/b/best.pt")}
    asked = of.task_options
    assert (asked.users, asked.seed, asked.include, asked.exclude) == (2048, 7, ("item*",), ())


def test_a_missing_checkpoint_or_a_size_out_of_bounds_is_refused(handed):
    assert "--ckpt" in run(handed[0]).output
    assert run(handed[0], "--ckpt", "a.pt", "--size", 0).exit_code == 2
    assert not handed[1]


def test_one_checkpoint_twice_is_refused():
    of = CheckpointOptions(context=None, ckpt=[Path("a.pt"), Path("./a.pt")])
    with pytest.raises(InputError, match="given twice"):
        of.checkpoints  # noqa: B018 # a property that raises


def test_a_folder_is_held_until_the_command_has_ended(tmp_path):
    @with_options
    def command(*, of: CommonOptions) -> None:
        of.hold(tmp_path / "out")
        with pytest.raises(InputError, match="another"):
            of.hold(tmp_path / "out")

    assert run(command).exit_code == 0
    assert run(command).exit_code == 0


@pytest.mark.parametrize(
    ("names", "parts", "shared"),
    [("a a.b", "c b.c", "a.b.c"), ("a a.b", "b", "a.b"), ("a b", "c c d", None), ("a a-b", "b", None)],
)
def test_no_two_results_of_parts_are_in_one_file(names, parts, shared, tmp_path):
    of = CheckpointOptions(context=None, ckpt=[tmp_path / f"{name}.pt" for name in names.split()])
    if shared is None:
        of.need_own_files(parts.split())
        return
    with pytest.raises(InputError, match=f"results of two would be in one file, {shared}; rename"):
        of.need_own_files(parts.split())


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (["hessian", "--by-group"], "other"),
        (["sharpness", "--by-group", "--measure", "sam"], "other"),
        (["surface", "--dim", "1", "--metric", "valid-loss"], "valid-loss"),
    ],
)
def test_results_of_a_part_and_of_another_checkpoint_are_not_in_one_file(landscape, tmp_path, command, part):
    """M.other.pt, and the group `other` of M.pt: both would be M.other.hessian.npz."""
    for name in ("m.pt", f"m.{part}.pt"):
        torch.save({"weights": torch.nn.Linear(4, 2).state_dict()}, tmp_path / name)
    both = [word for name in ("m.pt", f"m.{part}.pt") for word in ("--ckpt", tmp_path / name)]
    out = "--out", tmp_path / "out"
    code, said, err = landscape(*command, *both, "--task", "tests.tasks:regression", *out)
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert f"results of two would be in one file, m.{part}; rename the file" in err
    assert not (tmp_path / "out").exists()
