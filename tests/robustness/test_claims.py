"""A path that a checkpoint names is a claim; a link in a stranger's folder is not followed by what writes."""

import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from landscape import InputError
from samrec import checkpoint
from samrec.config import configure
from samrec.sweeps.jobs import plan
from samrec.sweeps.sweep import sweep
from samrec.training.loop import train

SMALL = {"dim": 2, "heads": 1, "layers": 1, "max_length": 3, "epochs": 1, "eval_every": 1}
SECRET = "root:$6$secret:19000:0:99999:7:::"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    (folder / "d.txt").write_text("1 1 2 3 4 5\n2 2 3 4 1\n3 5 4 1 2\n")
    return train(configure({"data": str(folder / "d.txt"), **SMALL}), folder / "run", "cpu").out


def claiming(run, folder, data):
    """A checkpoint that names other data."""
    found = checkpoint.load(run / "best.pt")
    path = folder / "a.pt"
    checkpoint.save(replace(found, config=found.config.model_copy(update={"data": data})), path)
    return path


def secrets(folder):
    for name in ("secret", "secret.csv", "secret.json", "secret.dat"):
        (folder / name).write_text(f"{SECRET}\n" * 3)
        yield folder / name, "is not the data of the checkpoint"
    (folder / "table.csv").write_text(f"user,item,{SECRET}\na,b,1\na,c,2\na,d,3\n")
    yield folder / "table.csv", "is not the data of the checkpoint"
    os.mkfifo(folder / "pipe")
    yield folder / "pipe", "is not a data file"
    yield folder / "missing", "no longer at"
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "parts").mkdir()
    (folder / "parts" / "a.csv").symlink_to("/etc/passwd")
    places = ("/proc/self/pagemap", "/dev/zero", "/etc/passwd", "/nonexistent", "../../../../etc/passwd")
    for name in (*places, folder / "link", folder / "parts", folder / "parts" / "*.csv"):
        yield (
            Path(name),
            "which is neither under its folder nor under the current one; if that is right, give",
        )


def test_what_a_checkpoint_names_is_not_quoted(run, tmp_path, landscape):
    for data, message in list(secrets(tmp_path)):
        path = claiming(run, tmp_path, str(data))
        for arguments in (("evaluate", "--ckpt", path), ("hessian", "--ckpt", path)):
            code, out, err = landscape(*arguments)
            assert (code, out) == (2, "")
            (line,) = err.splitlines()
            assert message in line
            assert "secret:" not in line


def test_what_the_user_names_is_quoted_and_warnings_of_true_data_are_heard(run, tmp_path, landscape):
    (tmp_path / "secret.txt").write_text(f"{SECRET}\n")
    path = claiming(run, tmp_path, "elsewhere.txt")
    code, _, err = landscape("evaluate", "--ckpt", path, "--data", tmp_path / "secret.txt")
    assert (code, SECRET[:20] in err) == (2, True)
    columns = checkpoint.load(run / "best.pt").config.model_copy(update={"columns": "0,1"})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        replace(checkpoint.load(run / "best.pt"), config=columns).interactions()
    assert "--columns has no effect" in str(said[0].message)


@pytest.mark.parametrize("name", ["metrics.jsonl", "monitor.jsonl", "epochs", "pretraining"])
def test_training_follows_no_link_of_its_folder(name, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "epoch-0001.pt").write_text("mine")
    (tmp_path / "log").write_text("mine\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "log" if "." in name else mine)
    (tmp_path / "d.txt").write_text("1 1 2 3 4 5\n")
    config = configure({"data": str(tmp_path / "d.txt"), "save_every": 1, **SMALL})
    with pytest.raises(InputError, match=f"{name} is a link; remove it"):
        train(config, tmp_path / "run", "cpu")
    assert (mine / "epoch-0001.pt").read_text() == "mine"
    assert (tmp_path / "log").read_text() == "mine\n"
    assert [path.name for path in (tmp_path / "run").iterdir()] == [name]


def test_a_sweep_follows_no_link_of_a_runs_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "d.txt").write_text("1 1 2 3 4 5\n")
    jobs = plan({"data": str(tmp_path / "d.txt"), **SMALL}, {"seed": ["0"]}, tmp_path / "sweep")
    jobs[0].out.mkdir(parents=True)
    (jobs[0].out / "log.txt").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(InputError, match=r"log\.txt is a link"):
        sweep(jobs, "cpu", 1)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("leads_to", ["a folder", "nothing"])
def test_a_sweep_and_a_demo_follow_no_link_in_place_of_a_runs_folder(leads_to, tmp_path, landscape):
    (tmp_path / "d.txt").write_text("1 1 2 3 4 5\n")
    (tmp_path / "mine").mkdir()
    for name in ("seed=0", "samrec"):
        (tmp_path / name).symlink_to(tmp_path / ("mine" if leads_to == "a folder" else "none"))
    with pytest.raises(InputError, match=r"seed=0 is a link"):
        plan({"data": str(tmp_path / "d.txt"), **SMALL}, {"seed": ["0"]}, tmp_path)
    code, _, err = landscape("demo", "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "samrec is a link; remove it" in err
    assert not (tmp_path / "none").exists()
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize("place", ["current", "own", "elsewhere"])
def test_data_are_read_where_the_checkpoint_or_the_user_is(place, run, tmp_path, landscape, monkeypatch):
    folders = {name: tmp_path / name for name in ("current", "own", "elsewhere")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.chdir(folders["current"])
    data = folders[place] / "d.txt"
    data.write_bytes((run.parent / "d.txt").read_bytes())
    path = claiming(run, folders["own"], str(data))
    code, _, err = landscape("evaluate", "--ckpt", path)
    assert (code, f"give --data {data}" in err) == ((2, True) if place == "elsewhere" else (0, False))
    if place == "elsewhere":
        code, _, _ = landscape("evaluate", "--ckpt", path, "--data", data)
        assert code == 0


@pytest.mark.parametrize("name", ["data", "attributes", "item_features", "pretrained"])
def test_the_settings_of_a_strangers_run_name_no_file_elsewhere(name, run, tmp_path, landscape):
    shutil.copytree(run, tmp_path / "run")
    settings = tmp_path / "run" / "config.toml"
    lines = [line for line in settings.read_text("utf-8").splitlines() if not line.startswith(name)]
    settings.write_text("\n".join([*lines, f'{name} = "/etc/passwd"']), "utf-8")
    code, _, err = landscape("train", "--out", tmp_path / "run", "--resume")
    assert code == 2
    assert "config.toml names /etc/passwd, which is neither under its folder" in err
    assert err.strip().endswith(f"give --{name.replace('_', '-')} /etc/passwd")
