import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import landscape as ll
from landscape.cli import app
from landscape.cli.options import names_of

ROOT = Path(__file__).parents[1]
RUN = [
    "--dim",
    "8",
    "--max-length",
    "8",
    "--epochs",
    "4",
    "--eval-every",
    "2",
    "--batch-size",
    "16",
    "--device",
    "cpu",
]
COMMANDS = ["data", "demo", "train", "evaluate", "surface", "hessian", "sharpness", "compare", "report"]


@pytest.fixture
def landscape(monkeypatch, capsys):
    """Run the command line in this process; return (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["landscape", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def answer(landscape):
    """Run with --json, and return the one object on standard output."""

    def run(*arguments):
        code, out, err = landscape(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture(scope="session")
def runs(data_file, tmp_path_factory):
    """Two trained runs, by the command in a process of its own."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("sasrec", "samrec"):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "landscape",
                "train",
                "--data",
                data_file,
                "--method",
                method,
                "--out",
                folder / method,
                *RUN,
            ],
            check=True,
            capture_output=True,
            cwd=ROOT,
        )
    return folder


@pytest.fixture
def both(runs):
    return ["--ckpt", runs / "sasrec" / "best.pt", "--ckpt", runs / "samrec" / "best.pt"]


def refused(landscape, *arguments, message, tmp_path):
    """The command ends with code 2 and one line, and leaves no file."""
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    code, out, err = landscape(*arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("landscape: ")
    assert message in err
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == before


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
        ["sharpness", "--ckpt", tmp_path / "run" / "best.pt"],
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


def test_sharpness(answer, both):
    found = answer("sharpness", *both, "--measure", "sam", "--measure", "average")
    for entry in found["checkpoints"]:
        assert entry.keys() >= {"path", "loss", "weight_norm", "measures"}
        assert entry["measures"].keys() == {"sam", "average"}
        assert entry["measures"]["average"].keys() >= {"value", "se"}


def test_equal_seeds_print_equal_numbers(answer, both):
    a, b, c = (answer("sharpness", *both, "--seed", seed, "--users", 20) for seed in (1, 1, 2))
    assert a == b != c


def test_compare_and_report(answer, both, tmp_path):
    found = answer("compare", *both, "--out", tmp_path / "both", "--grid", 3, "--top", 2)
    page = Path(found["report"])
    text = page.read_text("utf-8")
    page.unlink()
    assert answer("report", tmp_path / "both") == {"report": str(page)}
    assert page.read_text("utf-8") == text


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


def test_a_model_of_ones_own(answer, tmp_path):
    torch.save({"weights": torch.nn.Linear(4, 2).state_dict()}, tmp_path / "mine.pt")
    task = ["--ckpt", tmp_path / "mine.pt", "--task", "tests.tasks:regression"]
    found = answer("hessian", *task, "--top", 3)
    assert found["checkpoints"][0]["converged"] == [True] * 3
    assert Path(answer("compare", *task, "--grid", 3, "--out", tmp_path / "out")["report"]).exists()


def test_the_demo_ends_in_a_report(landscape, answer, tmp_path):
    found = answer("demo", "--out", tmp_path, "--epochs", 2, "--users", 20, "--device", "cpu")
    assert Path(found["report"]) == tmp_path / "report.html"
    again = answer("demo", "--out", tmp_path, "--epochs", 2, "--users", 20, "--device", "cpu")
    assert again == found
    refused(landscape, "demo", "--out", tmp_path, "--seed", 1, message="another seed", tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "is empty"),
        ("1 2 3\n2 a b\n", "line 2: expected whole numbers"),
        ("1 2 0\n", "line 1: item id 0"),
        ("1 2 -1\n", "line 1: item id -1"),
        ("1 2 3\n2 4\n", "no user has three items"),
    ],
)
def test_bad_data(landscape, tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.txt").write_text(content)
    arguments = ["train", "--data", tmp_path / "a.txt", "--out", tmp_path / "run", "--format", "sequences"]
    refused(landscape, *arguments, message=message, tmp_path=tmp_path)


def test_divergence(landscape, data_file, tmp_path):
    arguments = ["train", "--data", data_file, "--out", tmp_path / "run", *RUN, "--lr", "1e30"]
    refused(landscape, *arguments, message="training diverged: the loss is", tmp_path=tmp_path)
    assert not (tmp_path / "run").exists()


class Trap:
    """A pickle that would leave a mark if it were run."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def bad_checkpoints(folder, good):
    """Yield (name, what the message says) of files that are no checkpoints."""
    (folder / "empty.pt").write_bytes(b"")
    yield "missing.pt", "No such file"
    yield "empty.pt", "is empty"
    (folder / "text.pt").write_text("hello")
    yield "text.pt", "not a readable checkpoint"
    (folder / "cut.pt").write_bytes(good.read_bytes()[:5000])
    yield "cut.pt", "not a readable checkpoint"
    torch.save({"weights": {}}, folder / "other.pt")
    yield "other.pt", "names no task"
    torch.save({"task": "os:system"}, folder / "task.pt")
    yield "task.pt", "names the task 'os:system'; installed are samrec"
    torch.save([1, 2], folder / "list.pt")
    yield "list.pt", "expected a dictionary, found list"
    torch.save({"a": Trap(folder / "mark")}, folder / "trap.pt")
    yield "trap.pt", "never loaded"
    (folder / "pickle.pt").write_bytes(pickle.dumps(Trap(folder / "mark")))
    yield "pickle.pt", "never loaded"
    content = torch.load(good, weights_only=True)
    torch.save({**content, "format": "samrec checkpoint 99"}, folder / "format.pt")
    yield "format.pt", "expected 'samrec checkpoint 1'"
    torch.save({**content, "config": {**content["config"], "dim": 16}}, folder / "shape.pt")
    yield "shape.pt", "do not fit its settings"
    torch.save({key: value for key, value in content.items() if key != "weights"}, folder / "keys.pt")
    yield "keys.pt", "damaged checkpoint"
    weights = {name: t * torch.nan for name, t in content["weights"].items()}
    torch.save({**content, "weights": weights}, folder / "nan.pt")
    yield "nan.pt", "not finite"


def test_bad_checkpoints(landscape, runs, tmp_path):
    for name, message in list(bad_checkpoints(tmp_path, runs / "sasrec" / "best.pt")):
        refused(landscape, "hessian", "--ckpt", tmp_path / name, message=message, tmp_path=tmp_path)
    assert not (tmp_path / "mark").exists()  # no code was run


def test_a_bad_checkpoint_beside_a_good_one_leaves_nothing(landscape, runs, tmp_path):
    pair = ["--ckpt", runs / "sasrec" / "best.pt", "--ckpt", tmp_path / "missing.pt"]
    for command in ("surface", "hessian", "sharpness", "compare"):
        refused(landscape, command, *pair, "--out", tmp_path, message="No such file", tmp_path=tmp_path)


def test_data_that_are_not_the_checkpoints(landscape, runs, tmp_path):
    (tmp_path / "other.txt").write_text("1 1 2 3 4\n2 2 3 4 5\n")
    for command in ("evaluate", "hessian"):
        arguments = [command, "--ckpt", runs / "sasrec" / "best.pt", "--data", tmp_path / "other.txt"]
        refused(landscape, *arguments, message="is not the data of the checkpoint", tmp_path=tmp_path)


def test_checkpoints_of_different_data_are_not_compared(landscape, answer, runs, tmp_path):
    (tmp_path / "other.txt").write_text("1 1 2 3 4\n2 2 3 4 1\n")
    other = answer("train", "--data", tmp_path / "other.txt", "--out", tmp_path / "run", *RUN)["out"]
    arguments = ["hessian", "--ckpt", runs / "sasrec" / "best.pt", "--ckpt", f"{other}/best.pt"]
    refused(landscape, *arguments, message="are of different data", tmp_path=tmp_path)


def test_data_that_have_moved(landscape, answer, data_file, tmp_path):
    moved = shutil.copy(data_file, tmp_path / "here.txt")
    out = answer("train", "--data", moved, "--out", tmp_path / "run", *RUN)["out"]
    Path(moved).rename(tmp_path / "there.txt")
    refused(
        landscape, "evaluate", "--ckpt", f"{out}/best.pt", message="say where with --data", tmp_path=tmp_path
    )
    assert answer("evaluate", "--ckpt", f"{out}/best.pt", "--data", tmp_path / "there.txt")["users"] == 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there(landscape, both, data_file, tmp_path):
    for arguments in (["train", "--data", data_file, "--out", tmp_path / "run"], ["hessian", *both]):
        message = "device cuda was asked for, but this machine has none"
        refused(landscape, *arguments, "--device", "cuda", message=message, tmp_path=tmp_path)


def test_other_bad_input(landscape, both, runs, data_file, tmp_path):
    out = ["--out", tmp_path / "out"]
    for arguments, message in (
        (["train", *out], "nothing to train on"),
        (["train", "--data", data_file, "--rho", "0.1", *out], "rho is SAMRec's"),
        (["train", "--config", data_file, *out], "is not TOML"),
        (["surface", *both, "--radius", "-1", *out], "must be positive"),
        (["surface", *both, "--exclude", "nothing", *out], "no parameter is named"),
        (["surface", *both[:2], *both[:2], *out], "given twice"),
        (["sharpness", *both, "--measure", "blunt"], "no sharpness measure"),
        (["hessian", *both, "--task", "nowhere:nothing"], "no task"),
        (["report", tmp_path / "nothing"], "holds no comparison"),
        (["train", "--data", data_file, "--out", data_file / "run"], "is a file"),
        (["surface", *both, "--out", data_file], "is a file"),
        (["compare", *both, "--out", data_file / "a" / "b"], "is a file"),
        (["hessian", *both, "--out", data_file], "is a file"),
    ):
        refused(landscape, *arguments, message=message, tmp_path=tmp_path)


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
