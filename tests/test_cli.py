import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import landscape as ll
from landscape.cli import sharpness, train
from landscape.cli.options import names_of
from landscape.flatness.measures import MEASURES
from samrec.config import Config
from tests.conftest import ROOT, RUN

COMMANDS = [
    "data",
    "demo",
    "train",
    "sweep",
    "evaluate",
    "baselines",
    "surface",
    "path",
    "export",
    "hessian",
    "sharpness",
    "bound",
    "compare",
    "report",
]


def test_help_waits_for_nothing_heavy():
    heavy = ["torch", "numpy", "scipy", "matplotlib", "plotly", "polars", "jinja2", "pydantic"]
    code = f"import sys, landscape.cli.app; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [["data", "info"], *([name] for name in COMMANDS[1:])], ids=" ".join)
def test_every_command_has_examples_and_the_common_options(landscape, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = landscape(*command, "--help")
    assert code == 0
    assert "Example" in out
    for option in ("--json", "--seed", "--device"):
        assert option in out


def test_training_and_curvature_need_neither_plots_nor_tables(data_file, tmp_path):
    """On a machine with torch, numpy, scipy, pydantic and typer alone."""
    code = (
        "import sys\n"
        "for name in ('matplotlib', 'plotly', 'polars', 'jinja2', 'pandas'): sys.modules[name] = None\n"
        "from landscape.cli.app import main\n"
        "main()"
    )
    for arguments in (
        ["train", "--data", data_file, "--out", tmp_path / "run", *RUN],
        ["hessian", "--ckpt", tmp_path / "run" / "best.pt", "--top", "1", "--trace"],
        ["sharpness", "--ckpt", tmp_path / "run" / "best.pt", "--measure", "sam"],
    ):
        subprocess.run(
            [sys.executable, "-c", code, *arguments, "--json"], check=True, capture_output=True, cwd=ROOT
        )


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
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "landscape",
            "train",
            "--data",
            tmp_path / "a.txt",
            "--out",
            tmp_path / "run",
            *RUN,
            "--json",
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ran.stderr == (
        "landscape: warning: 1 of 2 users have fewer than three items: trained on, not evaluated\n"
    )
    json.loads(ran.stdout)


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


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_hessian(answer, both, method, tmp_path):
    found = answer(
        "hessian", *both, "--top", 2, "--method", method, "--trace", "--tol", 0.01, "--out", tmp_path
    )
    for entry in found["checkpoints"]:
        assert entry.keys() >= {
            "path",
            "eigenvalues",
            "smallest",
            "residuals",
            "converged",
            "products",
            "gradient_norm",
            "seconds",
            "trace",
            "trace_se",
        }
        assert len(entry["eigenvalues"]) == 2
    assert (
        ll.load(tmp_path / "sasrec.hessian.npz").eigenvalues.tolist()
        == found["checkpoints"][0]["eigenvalues"]
    )


@pytest.mark.parametrize("matrix", ["gauss-newton", "fisher"])
def test_matrices_akin_to_the_hessian_with_blocks_and_spectrum(answer, both, matrix, tmp_path):
    asked = ["--top", 1, "--tol", 0.01, "--by-group", "--density", "--steps", 5, "--out", tmp_path]
    found = answer("hessian", *both, "--matrix", matrix, *asked)["checkpoints"]
    for entry in found:
        assert entry["matrix"] == matrix
        assert entry["smallest"] > -1e-6
        assert sum(block["parameters"] for block in entry["groups"].values()) == entry["parameters"]
        largest = max(block["eigenvalues"][0] for block in entry["groups"].values())
        assert largest <= entry["eigenvalues"][0] * 1.01  # Cauchy's interlacing
        assert entry["density"]["moment_error"] < 1e-4
        assert entry["density"]["effective_dimension"] > 0
    assert {p.name for p in tmp_path.iterdir()} >= {"density.png", "density.pdf", "sasrec.density.npz"}
    block = ll.load(tmp_path / "samrec.norm.hessian.npz")
    assert block.eigenvalues.tolist() == found[1]["groups"]["norm"]["eigenvalues"]


def test_the_top_alone(answer, both):
    entry = answer("hessian", *both[:2], "--top", 2, "--bottom", 0, "--tol", 0.01)["checkpoints"][0]
    assert entry["smallest"] is None
    assert entry["bottom"] == []


def test_a_checkpoint_that_is_no_minimum_is_said_to_be_none(landscape, both):
    code, out, err = landscape("hessian", *both[:2], "--top", 1, "--tol", 0.01)
    assert code == 0, err
    assert "sasrec is no minimum of this loss: ‖∇L‖ is" in out


def test_questions_of_the_hessian_that_have_no_answer(landscape, both, tmp_path):
    torch.save({"weights": torch.nn.Linear(4, 2).state_dict()}, tmp_path / "linear.pt")
    own = ["--ckpt", tmp_path / "linear.pt", "--task", "tests.tasks:regression"]
    for asked, said in (
        ([*both[:2], "--density", "--ridge", -1], "ridge and gamma must be positive"),
        ([*own, "--matrix", "fisher"], "not given the units of its loss"),
        ([*own, "--matrix", "gauss-newton"], "not given the halves of its loss"),
    ):
        code, out, err = landscape("hessian", *asked)
        assert code == 2
        assert said in err
        assert not out


def test_sharpness(answer, both):
    found = answer("sharpness", *both, "--measure", "sam", "--measure", "average")
    for entry in found["checkpoints"]:
        assert entry.keys() >= {"path", "loss", "weight_norm", "measures"}
        assert entry["measures"].keys() == {"sam", "average"}
        assert entry["measures"]["average"].keys() >= {"value", "se"}
    assert found["comparison"]["reference"] == "sasrec"
    rows = {row["measure"]: row["checkpoints"]["samrec"] for row in found["comparison"]["rows"]}
    assert rows.keys() == {"loss", "weight_norm", "sam", "average"}
    assert rows["sam"]["low"] <= rows["sam"]["ratio"] <= rows["sam"]["high"]
    assert min(row["difference_se"] for name, row in rows.items() if name != "weight_norm") > 0
    assert found["comparison"]["verdict"][0].startswith("samrec against sasrec: ")
    assert answer("sharpness", *both[:2], "--measure", "sam").keys() == {"checkpoints"}


def test_sharpness_by_group(answer, landscape, both):
    arguments = ["sharpness", *both, "--measure", "sam", "--by-group", "--users", 20]
    found = answer(*arguments)
    assert {"embedding", "attention", "norm"} <= found["groups"].keys()
    rows = {(row["measure"], row["group"]): row["checkpoints"] for row in found["comparison"]["rows"]}
    for group, entries in found["groups"].items():
        assert [entry["path"] for entry in entries] == [str(path) for path in both[1::2]]
        assert rows["sam", group]["samrec"]["value"] == entries[1]["measures"]["sam"]["value"]
    squared = sum(entries[0]["weight_norm"] ** 2 for entries in found["groups"].values())
    assert squared**0.5 == pytest.approx(found["checkpoints"][0]["weight_norm"])
    assert "\n    embedding " in landscape(*arguments)[1]


def test_sharpness_writes_folders_and_tables(answer, both, tmp_path):
    places = [tmp_path / name for name in ("results", "tables/a.tex", "a.csv", "a.JSON")]
    out = [option for place in places for option in ("--out", place)]
    options = ["--measure", "sam", "--users", 20, "--by-group"]
    found = answer("sharpness", *both, *options, *out)
    assert json.loads(places[3].read_text("utf-8")) == found["comparison"]
    assert r"samrec / sasrec \\" in places[1].read_text("utf-8")
    assert places[2].read_text("utf-8").startswith("measure,group,")
    files = {path.name for path in places[0].iterdir()}
    assert files >= {"sasrec.sharpness.npz", "samrec.sharpness.npz", "samrec.embedding.sharpness.npz"}
    kept = ll.load(places[0] / "samrec.sharpness.npz")
    assert kept.measures == found["checkpoints"][1]["measures"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table.xlsx", "a table ends in .json, .csv, .tex, and a folder in none"),
        ("file/table.tex", "is a file"),
        ("file", "is a file"),
    ],
)
def test_sharpness_refuses_a_place_before_it_measures(landscape, both, tmp_path, monkeypatch, name, message):
    monkeypatch.setattr("landscape.tasks.objectives_of", None)
    (tmp_path / "file").write_text("")
    code, out, err = landscape("sharpness", *both, "--out", tmp_path / "a.csv", "--out", tmp_path / name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sharpness_has_an_option_for_each_setting_and_names_each_measure():
    options = inspect.signature(sharpness.command).parameters
    for name, setting in inspect.signature(ll.sharpness).parameters.items():
        if setting.kind is setting.KEYWORD_ONLY:
            assert options[name].default == setting.default
    said = re.findall(r"[\w-]+", sharpness.command.__doc__)
    assert set(MEASURES) <= set(said)


def test_sharpness_of_three_is_two_tables(landscape, both, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    third = shutil.copy(runs / "samrec" / "last.pt", tmp_path / "third.pt")
    code, out, err = landscape("sharpness", *both, "--ckpt", third, "--measure", "sam", "--users", 20)
    assert code == 0, err
    assert "Ratios, with 95% intervals" in out
    assert "third / sasrec" in out
    assert max(map(len, out.splitlines())) <= 100


def test_equal_seeds_print_equal_numbers(answer, both):
    some = ["--measure", "average", "--measure", "worst", "--users", 20]
    a, b, c = (answer("sharpness", *both, "--seed", seed, *some) for seed in (1, 1, 2))
    assert a == b != c


def test_tables_for_people(landscape, both, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for arguments, expected in (
        (["evaluate", "--ckpt", runs / "sasrec" / "best.pt"], "ndcg@10"),
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


@pytest.mark.filterwarnings("ignore:33 points")  # of a model that has hardly been trained
def test_the_demo_ends_in_a_report(answer, few_measures, tmp_path):
    found = answer("demo", "--out", tmp_path, "--epochs", 2, "--users", 20, "--device", "cpu")
    assert Path(found["report"]) == tmp_path / "report.html"
    again = answer("demo", "--out", tmp_path, "--epochs", 2, "--users", 20, "--device", "cpu")
    assert again == found


def test_checkpoints_are_named_by_their_run(tmp_path):
    for run in ("x/a", "x/b", "y/a"):
        (tmp_path / run).mkdir(parents=True)
    best = [tmp_path / run / "best.pt" for run in ("x/a", "x/b", "y/a")]
    assert names_of(best[:2]) == ["a", "b"]
    assert names_of([best[0], best[2]]) == ["x-a-best", "y-a-best"]
    assert names_of([tmp_path / "mine.pt"]) == ["mine"]


def test_an_interrupt_is_no_traceback(landscape, monkeypatch, runs):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("landscape.tasks.objective_of", interrupted)
    code, out, err = landscape("hessian", "--ckpt", runs / "sasrec" / "best.pt")
    assert (code, out, err) == (130, "", "")


def test_it_says_its_version(landscape):
    code, out, _ = landscape("--version")
    assert code == 0
    assert out.startswith("landscape 0.")


def test_the_installed_command_answers():
    command = shutil.which("landscape", path=str(Path(sys.executable).parent))
    assert command, "the console script is not installed"
    ran = subprocess.run([command, "--help"], check=True, capture_output=True, text=True)
    assert all(name in ran.stdout for name in COMMANDS)


def test_json_has_no_nan(landscape, capsys):
    from landscape.cli.output import show

    show(True, {"a": float("nan"), "b": [np.float64(1.0), float("inf")]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.0, None]}


def test_every_setting_is_an_option_of_train_with_its_choices():
    """And the default that its help names is the setting's."""
    options = inspect.signature(train.command, eval_str=True).parameters
    for name, setting in Config.model_fields.items():
        kind, said = get_args(options[name].annotation)
        if get_origin(setting.annotation) is Literal:
            assert setting.annotation in get_args(kind)
        default = re.search(r"\((\S+)\)\.$", said.help)
        if default and setting.default is not None:
            assert type(setting.default)(default[1]) == setting.default, name
