"""What all commands share: help, options, one line for what goes wrong; and the shorter of them."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import landscape as ll
from landscape.cli.app import _commands, _declared
from landscape.cli.options import names_of
from landscape.report import compare
from landscape.report.compare import Measurements
from samrec.cli import demo, train
from samrec.cli.settings import with_settings
from samrec.config import Config, configure
from samrec.data import synthetic
from tests import forked
from tests.conftest import ROOT, RUN

DRAWING = [
    "demo",
    "train",
    "sweep",
    "evaluate",
    "surface",
    "path",
    "hessian",
    "sharpness",
    "bound",
    "compare",
]
"""Commands that draw at random, on a device."""
COMMANDS = ["data", "baselines", "doctor", "recommend", "export", "report", *DRAWING]


def test_help_waits_for_nothing_heavy():
    """Neither the import of the command line nor the list of all commands, with those that samrec adds."""
    heavy = ["torch", "numpy", "scipy", "matplotlib", "plotly", "polars", "jinja2", "pydantic"]
    code = (
        "import sys, landscape.cli.app as app\n"
        "try: app.app(['--help'])\n"
        f"finally: print([m for m in {heavy} if m in sys.modules], 'samrec.cli.train' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.splitlines()[-1] == "[] True"


@pytest.mark.parametrize(
    "command",
    [["data", "list"], ["data", "get"], ["data", "info"], *([c] for c in COMMANDS[1:])],
    ids=" ".join,
)
def test_every_command_has_examples_and_the_common_options(landscape, command, monkeypatch):
    """No command has a --seed or a --device that changes nothing."""
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = landscape(*command, "--help")
    assert code == 0
    assert f"\n   landscape {' '.join(command)}" in out  # an example is indented
    assert len(re.findall(r"^ +(?:landscape|torchrun) ", out, re.MULTILINE)) <= 5  # the options come soon
    assert "--json" in out
    assert ("--seed" in out) == (command[0] in (*DRAWING, "baselines"))
    assert ("--device" in out) == (command[0] in (*DRAWING, "recommend"))


@pytest.mark.parametrize("command", COMMANDS[1:])
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_help_cuts_no_name_no_choice_and_no_example(landscape, command, columns, monkeypatch):
    """Typer's tables wrote --residual-dropo… and gru|4rec at 80 columns, and beside them 24 of text."""
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = landscape(command, "--help")
    declared = _declared(command, _commands()[command].found)
    for option in declared.params:
        for name in (*option.opts, *option.secondary_opts):
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", out), name
    longest = max(out.splitlines(), key=len)
    assert len(longest) <= columns or "|" in longest  # choices stay whole
    assert "922337203685477" not in out
    whole = " ".join(out.replace("\\\n", " ").split())
    for example in re.findall(r"^ +((?:landscape|torchrun) .*)$", declared.help, re.MULTILINE):
        assert " ".join(example.split()) in whole
    if command == "surface":
        assert "--directions <random|eigen|eigen-ends|between|trajectory>\n" in out


def test_the_doctor_names_versions_memory_and_extras(answer):
    found = answer("doctor")
    assert found["torch"] == torch.__version__
    assert found["cores"] >= 1
    assert found["free_memory"] > 2**20
    assert found["extras"]["hdf5"] == {"h5py": version("h5py")}
    assert not {"all", "test"} & found["extras"].keys()


def test_the_doctor_says_of_each_package_of_an_extra_whether_it_is_there(landscape, answer, monkeypatch):
    """Two tables side by side became two below each other at 80 columns, with empty rows."""
    monkeypatch.setenv("COLUMNS", "80")
    rows = [line.split() for line in landscape("doctor")[1].partition("Extras")[2].splitlines()]
    for extra, packages in answer("doctor")["extras"].items():
        first, *others = [[package, found or "missing"] for package, found in packages.items()]
        assert [extra, *first] in rows
        assert all(other in rows for other in others)


def test_a_shell_can_complete_commands_and_their_options(landscape, monkeypatch):
    monkeypatch.setenv("_LANDSCAPE_COMPLETE", "complete_bash")
    for typed, completed in {"landscape hess": "hessian", "landscape hessian --dens": "--density"}.items():
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
        assert landscape()[1].split() == [completed]


@pytest.mark.slow
def test_training_and_curvature_need_neither_plots_nor_tables(data_file, tmp_path):
    """On a machine with torch, numpy, scipy, pydantic and typer alone.

    Nor do measurements need torch's compiler, which takes 2 s to import; torch's optimizers import it.
    """
    code = (
        "import sys\n"
        "absent = ['matplotlib', 'plotly', 'polars', 'jinja2', 'pandas']\n"
        "if sys.argv[1] != 'train': absent.append('torch._dynamo')\n"
        "for name in absent: sys.modules[name] = None\n"
        "from landscape.cli.app import main\n"
        "main()"
    )
    for arguments in (
        ["train", "--data", data_file, "--out", tmp_path / "run", *RUN],
        ["hessian", "--ckpt", tmp_path / "run" / "best.pt", "--top", "1", "--trace"],
        ["sharpness", "--ckpt", tmp_path / "run" / "best.pt", "--measure", "sam"],
    ):
        subprocess.run([sys.executable, "-c", code, *arguments, "--json"], check=True, capture_output=True)


def test_train(answer, data_file, tmp_path):
    found = answer("train", "--data", data_file, "--out", tmp_path / "run", *RUN)
    assert found.keys() >= {"out", "epochs", "seconds", "seconds_per_epoch", "valid", "test"}
    assert found["epochs"] == 4
    assert found["test"].keys() >= {"hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr"}
    assert Path(found["out"], "best.pt").exists()


def test_train_reads_settings_from_a_file_and_options_win(answer, data_file, tmp_path):
    (tmp_path / "c.toml").write_text(f'data = "{data_file}"\nepochs = 9\ndim = 8\neval_every = 1\n')
    found = answer(
        "train", "--config", tmp_path / "c.toml", "--epochs", 2, "--out", tmp_path / "run", "--device", "cpu"
    )
    assert found["epochs"] == 2
    resumed = answer("train", "--epochs", 3, "--out", tmp_path / "run", "--resume")
    assert resumed["epochs"] == 3


def test_short_users_are_one_line_of_warning(tmp_path):
    (tmp_path / "a.txt").write_text("1 1 2 3 4 5\n2 2 3\n")
    train = ["train", "--data", tmp_path / "a.txt", "--out", tmp_path / "run", *RUN, "--json"]
    forked.ended(train, tmp_path / "said.txt")
    warning, found = (tmp_path / "said.txt").read_text("utf-8").splitlines()
    assert (
        warning == "landscape: warning: 1 of 2 users have fewer than three items: trained on, not evaluated"
    )
    json.loads(found)


def test_data_info(answer, data_file, tmp_path):
    found = answer("data", "info", data_file)
    assert found["users"] == 60
    assert found["time_ties"] is None
    (tmp_path / "a.csv").write_text("user,item,time\n1,1,1\n1,2,1\n2,1,1\n")
    assert answer("data", "info", tmp_path / "a.csv")["time_ties"] == 1 / 3


def test_training_from_a_table(answer, interactions, tmp_path):
    users = np.repeat(np.arange(interactions.num_users), interactions.lengths)
    rows = [f"{u},i{i},{t}" for t, (u, i) in enumerate(zip(users, interactions.items, strict=True))]
    (tmp_path / "a.csv").write_text("\n".join(["user,item,time", *rows]))
    out = answer("train", "--data", tmp_path / "a.csv", "--core", 2, "--out", tmp_path / "run", *RUN)["out"]
    assert answer("evaluate", "--ckpt", f"{out}/best.pt")["users"] > 50
    assert answer("hessian", "--ckpt", f"{out}/best.pt", "--top", 1)["checkpoints"][0]["converged"] == [True]


def test_evaluate(answer, runs):
    found = answer("evaluate", "--ckpt", runs / "sasrec" / "best.pt")
    assert found.keys() >= {"path", "split", "users", "hr@5", "mrr"}
    assert found["users"] == 60


def test_surface_draws_all_on_one_scale(answer, both, tmp_path):
    found = answer("surface", *both, "--grid", 3, "--out", tmp_path)
    for entry in found["checkpoints"]:
        assert entry.keys() >= {
            "path",
            "center",
            "min",
            "max",
            "evaluations",
            "seconds",
            "certificate",
            "file",
        }
        result = ll.load(entry["file"])
        assert result.losses.shape == (3, 3)
        assert result.losses[1, 1] == entry["center"]
    assert {p.name for p in tmp_path.iterdir()} == {
        "sasrec.surface.npz",
        "samrec.surface.npz",
        "sasrec.points.jsonl",
        "samrec.points.jsonl",
        "surface.png",
        "surface.pdf",
        "surface.html",
    }


def test_surface_along_a_line(answer, both, tmp_path):
    options = ["--dim", 1, "--radius", 0.5, "--grid", 5, "--exclude", "item*"]
    found = answer("surface", *both, *options, "--out", tmp_path)
    result = ll.load(found["checkpoints"][0]["file"])
    assert result.coordinates[0].tolist() == [-0.5, -0.25, 0, 0.25, 0.5]


def test_equal_seeds_print_equal_numbers(answer, both):
    some = ["--measure", "average", "--measure", "worst", "--users", 20]
    a, b, c = (answer("sharpness", *both, "--seed", seed, *some) for seed in (1, 1, 2))
    assert a == b != c


def test_tables_for_people(landscape, both, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for arguments, expected in (
        (["evaluate", "--ckpt", runs / "sasrec" / "best.pt"], "NDCG@10"),
        (["hessian", *both, "--top", 1, "--tol", 0.1], "λmin"),
        (["sharpness", *both, "--measure", "sam"], "‖θ‖"),
        (["surface", *both, "--grid", 2, "--out", tmp_path], "surface.png"),
    ):
        code, out, err = landscape(*arguments)
        assert code == 0, err
        assert expected in out


def test_a_model_of_ones_own(answer, few_measures, tmp_path):
    torch.save({"weights": torch.nn.Linear(4, 2).state_dict()}, tmp_path / "mine.pt")
    task = ["--ckpt", tmp_path / "mine.pt", "--task", "tests.tasks:regression"]
    found = answer("hessian", *task, "--top", 3)
    assert found["checkpoints"][0]["converged"] == [True] * 3
    assert Path(answer("compare", *task, "--grid", 3, "--out", tmp_path / "out")["report"]).exists()


@pytest.mark.slow
def test_the_demo_ends_in_a_report(answer, few_measures, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "markov", partial(synthetic.markov, users=60))
    monkeypatch.setitem(demo.DATA, "items", 40)
    monkeypatch.setattr(compare, "Measurements", lambda tol: Measurements(grid=3, top=1))
    found = answer("demo", "--out", tmp_path, "--epochs", 2, "--users", 20, "--device", "cpu")
    assert Path(found["report"]) == tmp_path / "report.html"
    again = answer("demo", "--out", tmp_path, "--epochs", 2, "--users", 20, "--device", "cpu")
    assert again == found


def test_checkpoints_are_named_by_their_run(tmp_path):
    for run in ("x/a", "x/b", "y/a"):
        (tmp_path / run).mkdir(parents=True)
    best = [tmp_path / run / "best.pt" for run in ("x/a", "x/b", "y/a")]
    assert names_of(best[:2]) == ["a", "b"]
    assert names_of([best[0], best[2]]) == ["x-a", "y-a"]
    assert names_of([best[0], best[0].with_name("last.pt")]) == ["a-best", "a-last"]
    assert names_of([tmp_path / "x.pt", tmp_path / "x.ckpt"]) == ["x-1", "x-2"]
    assert names_of([tmp_path / "mine.pt"]) == ["mine"]
    assert names_of([tmp_path / "x/A/best.pt", best[2]]) == ["x-A", "y-a"]  # files of both are in one folder
    assert names_of([tmp_path / "A.pt", tmp_path / "a.pt"]) == ["A-1", "a-2"]
    assert names_of([tmp_path / "caf\udce9.pt", tmp_path / "ä.pt"]) == ["caf?", "ä"]  # bytes that are no text
    assert names_of([tmp_path / f"x/caf{byte}/best.pt" for byte in ("\udce8", "\udce9")]) == [
        "best-1",
        "best-2",
    ]


def test_an_interrupt_is_no_traceback(landscape, monkeypatch, runs):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("landscape.tasks.objective_of", interrupted)
    code, out, err = landscape("hessian", "--ckpt", runs / "sasrec" / "best.pt")
    assert (code, out, err) == (130, "", "landscape: interrupted\n")


def test_it_says_its_version(landscape):
    code, out, _ = landscape("--version")
    assert code == 0
    assert out.startswith("landscape 0.")


def test_the_installed_command_answers():
    command = shutil.which("landscape", path=str(Path(sys.executable).parent))
    assert command, "the console script is not installed"
    ran = subprocess.run([command, "--help"], check=True, capture_output=True, text=True)
    assert all(name in ran.stdout for name in COMMANDS)


def test_json_has_no_nan(capsys):
    from landscape.cli.output import show

    show(True, {"a": float("nan"), "b": [np.float64(1.0), float("inf")]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.0, None]}


def options_of(command):
    """The options of a command by name: their type, what typer knows of them, and their default."""
    found = inspect.signature(command).parameters
    return {name: (*get_args(p.annotation), p.default) for name, p in found.items() if get_args(p.annotation)}


@pytest.mark.parametrize("name", Config.model_fields)
def test_every_setting_is_an_option_of_train_with_its_choices(name):
    """Without a default of its own, so that a file's value stands; its help names the setting's."""
    kind, said, *_, default = options_of(train.command)[name]
    setting = Config.model_fields[name]
    assert default is None
    assert said.help.endswith(".")
    if get_origin(setting.annotation) is Literal:
        assert setting.annotation in get_args(kind)
    (flags,) = (said.default, *(said.param_decls or ()))
    assert name.replace("_", "-") in flags
    if name == "data" or setting.default in (None, False):
        assert "--no-" not in flags
    elif "preset" not in said.help or name == "preset":
        assert f"(default: {setting.default})" in said.help


def given(monkeypatch, answer, *options):
    """The settings that train gets of some options."""
    seen: list[Any] = []

    def trained(config, *_):
        seen.append(config)
        raise ll.InputError("enough")

    monkeypatch.setattr("samrec.training.loop.train", trained)
    with pytest.raises(AssertionError, match="enough"):
        answer("train", "--data", "d.txt", *options)
    return seen[0]


def test_options_are_the_settings_they_name(monkeypatch, answer, tmp_path):
    (tmp_path / "c.toml").write_text('data = "e.txt"\nheads = 4\nscaled = false\nnegatives = 3\n')
    options = ["--method", "samrec", "--adaptive", "--scaled", "--heads", 8]
    found = given(monkeypatch, answer, "--config", tmp_path / "c.toml", *options)
    assert found == configure(
        {
            "data": "d.txt",
            "method": "samrec",
            "adaptive": True,
            "scaled": True,
            "heads": 8,
            "negatives": 3,
        }
    )
    found = given(monkeypatch, answer, "--unscaled", "--residual-dropout", "--init", "xavier", "--clip", 2)
    assert (found.scaled, found.residual_dropout, found.init, found.clip) == (False, True, "xavier", 2.0)
    found = given(monkeypatch, answer, "--method", "s3rec", "--pretrained", "p.pt", "--inner-dropout")
    assert (found.pretrained, found.residual_dropout) == ("p.pt", False)


def test_an_option_out_of_bounds_is_one_line(landscape):
    for option, value in (("--dim", 0), ("--noise", 2), ("--rho", "nan"), ("--core", -1)):
        code, out, err = landscape("train", "--data", "d.txt", "--method", "samrec", option, value)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"setting {option[2:]}: " in err


def test_a_command_takes_the_settings_that_it_names(monkeypatch):
    seen = []

    @with_settings("core", "columns")
    def command(settings, other=1):
        """Do it."""
        seen.append((settings, other))

    assert list(inspect.signature(command).parameters) == ["other", "core", "columns"]
    assert (command.__doc__, command.__name__) == ("Do it.", "command")
    command(core=3, columns=None, other=2)
    assert seen == [({"core": 3}, 2)]
