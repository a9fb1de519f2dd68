"""`--task`: any model, by every command that measures a checkpoint."""

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch

import landscape as ll
from examples import task
from landscape.tasks import objective_of, task_of, theta_of

OWN = ["--task", "examples.task:objective", "--users", 100]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Two checkpoints of the example's network, and those on the way to the second."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "steps").mkdir()
    first, second = task.network(), task.network()
    torch.save(first.state_dict(), folder / "a.pt")
    torch.save({"pytorch-lightning_version": "2", "state_dict": {}}, folder / "none.ckpt")
    weights = {name: t.clone() for name, t in second.state_dict().items()}
    for step in (1, 2, 10):
        moved = {f"model.{n}": t + step * torch.randn_like(t) / 50 for n, t in weights.items()}
        torch.save(
            {"pytorch-lightning_version": "2", "state_dict": moved}, folder / f"steps/step={step}.ckpt"
        )
    torch.save(weights, folder / "b.pt")
    return folder


@pytest.fixture
def two(digits):
    return ["--ckpt", digits / "a.pt", "--ckpt", digits / "b.pt", *OWN]


def test_hessian_and_sharpness(answer, two):
    found = answer("hessian", *two, "--top", 1, "--tol", 0.1)["checkpoints"]
    assert [entry["parameters"] for entry in found] == [2410, 2410]
    rows = answer("sharpness", *two, "--measure", "sam", "--measure", "fisher-rao")["comparison"]["rows"]
    assert rows[2]["checkpoints"]["b"]["low"] is not None  # paired by example


def test_path_and_another_metric(answer, two, tmp_path):
    extra = ["--grid", 5, "--metric", "error", "--bezier", "--steps", 3, "--out", tmp_path]
    straight, curved = answer("path", *two, *extra)["paths"]
    assert len(straight["metrics"]["error"]["values"]) == len(curved["metrics"]["error"]["values"]) == 5


def test_a_trajectory_in_the_order_of_its_numbers(answer, landscape, digits, tmp_path):
    last = ["--ckpt", digits / "steps/step=10.ckpt", *OWN, "--grid", 3, "--out", tmp_path]
    along = ["--directions", "trajectory", "--trajectory", digits / "steps"]
    (entry,) = answer("surface", *last, *along)["checkpoints"]
    way = ll.load(entry["file"]).trajectory
    torch.testing.assert_close(torch.from_numpy(way[-1]), torch.zeros(2).double(), atol=1e-4, rtol=0)
    for options, said in (
        (["--directions", "trajectory", "--trajectory", tmp_path / "no"], "is not a folder of checkpoints"),
        (["--trajectory", digits / "steps"], "add --directions trajectory"),
    ):
        code, _, err = landscape("surface", *last, *options)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err


def test_a_bound_on_a_loss_of_ones_own(answer, landscape, two):
    found = answer("bound", *two[:2], *OWN, "--metric", "error", "--guess", 0.9, "--samples", 1)
    assert found["checkpoints"][0]["guess"] == 0.9
    code, _, err = landscape("bound", *two[:2], *OWN)
    assert code == 2
    assert "does not provide the metric 'pairwise'" in err


def test_a_module_beside_the_user(answer, digits, tmp_path, monkeypatch):
    """As `python -m landscape` finds it, whose path begins with the folder; that of the script does not."""
    (tmp_path / "beside_the_user.py").write_text("from examples.task import objective as mine")
    monkeypatch.chdir(tmp_path)
    root = str(Path(task.__file__).parents[1])
    monkeypatch.setattr(sys, "path", [root, *(p for p in sys.path if p not in ("", str(tmp_path)))])
    options = ["--task", "beside_the_user:mine", "--users", 9, "--top", 1, "--tol", 0.5]
    assert answer("hessian", "--ckpt", digits / "a.pt", *options)["checkpoints"][0]["parameters"] == 2410


@pytest.fixture
def of_a_file(tmp_path, monkeypatch):
    """A function that writes a file of a task into a folder that nothing is imported from, beside another."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def written(name, text="from beside_the_task import mine"):
        folder = tmp_path / "some where"
        folder.mkdir(exist_ok=True)
        (folder / "beside_the_task.py").write_text("from examples.task import objective as mine")
        (folder / name).write_text(text)
        return folder / name

    yield written
    for name in sys.modules.keys() - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("relative", [False, True])
def test_a_file_and_its_function(answer, digits, of_a_file, monkeypatch, relative):
    file = of_a_file("my_task.py")
    monkeypatch.chdir(file.parents[1])
    name = file.relative_to(file.parents[1]) if relative else file
    options = ["--task", f"{name}:mine", "--users", 9, "--top", 1, "--tol", 0.5]
    for _ in range(2):
        assert answer("hessian", "--ckpt", digits / "a.pt", *options)["checkpoints"][0]["parameters"] == 2410


@pytest.mark.parametrize("name", ["json.py", "landscape.py"])
def test_a_file_that_is_called_like_another_module_is_not_mistaken_for_it(of_a_file, name):
    file = of_a_file(name, "raise ValueError('was run')")
    with pytest.raises(ll.InputError, match=r"another module is called .*; rename the file"):
        task_of(file, f"{file}:mine")


def test_a_file_that_fails_is_not_half_imported(of_a_file):
    file = of_a_file("half_a_task.py", "raise ValueError('the data are not here')\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="the data are not here"):
            task_of(file, f"{file}:mine")


OFFERS = """
from pathlib import Path
from examples.task import network, objective
from landscape import load_weights
class Task:
    def __call__(self, checkpoint, options):
        assert "step" not in checkpoint.name, "an objective of a checkpoint on the way"
        return objective(checkpoint, options)
    def theta(self, checkpoint):
        return load_weights(network(), checkpoint).state_dict()
    def initial(self, checkpoint):
        return self.theta(checkpoint.parent / "a.pt")
    def trajectory(self, checkpoint):
        return [checkpoint.parent / f"steps/step={step}.ckpt" for step in (1, 2, 10)]
whole = Task()
class Blind(Task):
    theta = initial = trajectory = None
blind = Blind()
"""


@pytest.fixture
def offers(digits, tmp_path, monkeypatch):
    """The options for the last checkpoint with a task of this name, which is an object."""
    (tmp_path / "offers.py").write_text(OFFERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: ["--ckpt", digits / "b.pt", "--task", f"offers:{name}", "--users", 100]
    sys.modules.pop("offers", None)


def flat(path):
    return torch.cat([p.detach().flatten() for p in ll.load_weights(task.network(), path).parameters()])


def test_a_trajectory_that_the_task_knows(answer, offers, tmp_path):
    along = ["--directions", "trajectory", "--grid", 2, "--out", tmp_path]
    (entry,) = answer("surface", *offers("whole"), *along)["checkpoints"]
    assert len(ll.load(entry["file"]).trajectory) == 3


FEW = ["--metric", "error", "--guess", 0.9, "--samples", 1]


def test_the_initial_weights_that_the_task_knows_are_a_prior(answer, offers, digits):
    found = answer("bound", *offers("whole"), *FEW, "--prior", "initial")["checkpoints"][0]["distance"]
    assert found == pytest.approx(float((flat(digits / "a.pt") - flat(digits / "b.pt")).norm()), rel=1e-5)


def test_what_a_task_does_not_know_is_said(landscape, offers, tmp_path):
    along = ["--directions", "trajectory", "--grid", 2, "--out", tmp_path / "out"]
    for command, message in (
        (["surface", *along], "has no trajectory; name its folder with --trajectory"),
        (["bound", *FEW, "--prior", "initial"], "does not know the initial weights of its training"),
    ):
        code, out, err = landscape(command[0], *offers("blind"), *command[1:])
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err


BAD = """
import landscape as ll
from landscape.tasks import objective_of
def wrapping(checkpoint, options): return objective_of(checkpoint, options, "bad_task:deaf")
from examples.task import network, cross_entropy
text = "objective"
def nothing(checkpoint, options): pass
def of_one(checkpoint): pass
def deaf(checkpoint, options):
    import torch
    batch = torch.ones(2, 64), torch.zeros(2, dtype=torch.long)
    return ll.Objective(network(), [batch], lambda m, b: (cross_entropy(m, b)[0].sum(), 2))
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "bad_task:nothing"], "returned NoneType, not a landscape.Objective"),
        (["--task", "bad_task:text"], "is not a function"),
        (["--task", "bad_task:of_one"], "does not take a checkpoint and options as arguments: too many"),
        (["--task", "bad_task:network"], "bad_task:network does not take a checkpoint and options"),
        (["--task", "bad_task:missing"], "no attribute 'missing'"),
        (["--task", "no_such_module:f"], "No module named"),
        (["--task", "some/where/bad_task.py:deaf"], "there is no file"),
        (["--task", "some/where/bad_task.py"], "write some/where/bad_task.py:objective"),
        (["--task", "bad_task.py:"], "write bad_task.py:objective"),
        (["--task", "some/where/bad_task:deaf"], "write bad_task:deaf, in the folder of the file"),
        (["--task", r"C:\where\bad_task.py:deaf"], "there is no file"),
        (["--task", r"C:\where\bad_task.py"], r"write C:\where\bad_task.py:objective"),
        (["--task", r"C:\where\bad_task:deaf"], "write bad_task:deaf, in the folder of the file"),
        (["--task", "C:/where/bad_task"], "write bad_task:objective, in the folder of the file"),
        (["--task", "bad_task"], "not 'bad_task'; write bad_task:objective, in the folder"),
        (["--task", "bad_task:"], "not 'bad_task:'; write bad_task:objective, in the folder"),
        (["--task", ".bad_task:deaf"], "--task takes package.module:function"),
        (["--task", ":deaf"], "--task takes package.module:function"),
        (["--task", "bad_task:deaf", "--exclude", "*bias"], "pass include=options.include"),
        (
            ["--task", "examples.task:objective", "--ckpt", "none.ckpt"],
            "no single state dict at 'state_dict'",
        ),
        (
            ["--ckpt", "none.ckpt"],
            "names no task; add --task package.module:function, as in examples/task.py",
        ),
    ],
)
def test_a_task_that_cannot_be_used_is_one_line(landscape, digits, tmp_path, monkeypatch, options, message):
    (tmp_path / "bad_task.py").write_text(BAD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(digits)
    code, out, err = landscape("hessian", *(() if "--ckpt" in options else ("--ckpt", "a.pt")), *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["hessian", "sharpness"])
def test_what_a_task_prints_is_no_part_of_the_json(landscape, digits, tmp_path, monkeypatch, command):
    (tmp_path / "loud_task.py").write_text(
        "import examples.task as quiet\n"
        "def objective(*given):\n"
        "    print('loading')\n"
        "    return quiet.objective(*given)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = {"hessian": ["--top", "1"], "sharpness": ["--measure", "sam"]}[command]
    asked = [command, "--ckpt", digits / "a.pt", "--task", "loud_task:objective", *own]
    code, out, err = landscape(*asked, "--json")
    assert (code, err.count("loading")) == (0, 1)
    assert json.loads(out).keys() == {"checkpoints"}
    assert "loading" in landscape(*asked)[1]


def test_an_option_that_a_task_does_not_read_is_said_to_be_ignored(digits, tmp_path, monkeypatch):
    (tmp_path / "bad_task.py").write_text(BAD)
    monkeypatch.syspath_prepend(tmp_path)
    options = ll.TaskOptions(users=100, data=Path("x.csv"))
    with pytest.warns(UserWarning, match="does not read") as said:
        objective_of(digits / "a.pt", options, "bad_task:deaf")
    assert [str(each.message).partition("does not read ")[2] for each in said] == [
        "data: x.csv is ignored",
        "users: 100 is ignored",
    ]
    with pytest.warns(UserWarning, match="does not read users"):
        objective_of(digits / "a.pt", ll.TaskOptions(users=100), "bad_task:wrapping")
    with warnings.catch_warnings(action="error"):
        objective_of(digits / "a.pt", ll.TaskOptions(), "bad_task:deaf")  # nothing was asked
        read = ll.TaskOptions(users=100), "examples.task:objective"
        theta_of(digits / "b.pt", objective_of(digits / "a.pt", *read), *read)
        theta_of(digits / "b.pt", objective_of(digits / "a.pt", *read), ll.TaskOptions(), "bad_task:deaf")


def test_as_many_parameters_of_another_model_are_not_those_of_a_trajectory(tmp_path, monkeypatch):
    """Its weights would be read in the places of others."""

    def built(checkpoint, _):
        sizes = (2, 6) if checkpoint.stem == "a" else (6, 2)
        model = torch.nn.Sequential(torch.nn.Linear(*sizes, bias=False))
        batch = torch.ones(3, sizes[0])
        return ll.Objective(model, [batch], lambda m, b: (m(b).square().sum(), 3))

    monkeypatch.setattr("landscape.tasks.task_of", lambda *_: built)
    one = objective_of(tmp_path / "a.pt", ll.TaskOptions())
    assert theta_of(tmp_path / "a.pt", one, ll.TaskOptions()).shape == (12,)
    with pytest.raises(ll.InputError, match="parameters of other names or shapes"):
        theta_of(tmp_path / "b.pt", one, ll.TaskOptions())


def test_an_error_of_the_module_itself_is_its_own(tmp_path, monkeypatch):
    """And not that there is no such task."""
    (tmp_path / "failing_task.py").write_text("raise ValueError('the data are not here')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="the data are not here"):
        task_of(tmp_path / "a.pt", "failing_task:objective")


def test_parameters_that_were_frozen_are_held_still_under_a_task(answer, digits, tmp_path, monkeypatch):
    (tmp_path / "frozen_task.py").write_text(
        """
import torch
import examples.task as task
import landscape as ll
def objective(checkpoint, options):
    model = ll.load_weights(task.network(), checkpoint)
    next(model.parameters()).requires_grad_(False)
    batches = [(torch.randn(5, 64, generator=torch.Generator().manual_seed(0)), torch.arange(5))]
    return ll.supervised(model, batches, torch.nn.CrossEntropyLoss(),
                         include=options.include, exclude=options.exclude)
"""
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = ["--ckpt", digits / "a.pt", "--task", "frozen_task:objective", "--top", 1]
    whole = sum(p.numel() for p in task.network().parameters())
    frozen = next(task.network().parameters()).numel()
    last = list(dict(task.network().named_parameters()))[-1]
    left = [
        answer("hessian", *asked, *more)["checkpoints"][0]["parameters"] for more in ([], ["--exclude", last])
    ]
    assert left == [whole - frozen, whole - frozen - dict(task.network().named_parameters())[last].numel()]
