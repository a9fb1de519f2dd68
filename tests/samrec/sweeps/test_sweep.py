"""Many runs: which they are, that each is what it would be alone, and that a stopped sweep goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import PureWindowsPath

import pytest
import torch

from landscape import InputError
from samrec.checkpoint import load
from samrec.choices import METRICS
from samrec.cli.sweep import _over_seeds, _table
from samrec.config import Config
from samrec.sweeps import sweep as sweeping
from samrec.sweeps.jobs import plan
from samrec.sweeps.processes import failure
from samrec.sweeps.sweep import sweep
from samrec.training.loop import train
from tests.conftest import ROOT
from tests.samrec.training.test_training import SMALL, same_weights

AXES = {"method": ["sasrec", "samrec"], "rho": ["0.1", "0.2"], "seed": ["0", "1"]}
NAMES = [
    "method=sasrec,seed=0",
    "method=sasrec,seed=1",
    *(f"method=samrec,rho={rho},seed={seed}" for rho in (0.1, 0.2) for seed in (0, 1)),
]


@pytest.fixture
def base(data_file):
    return {"data": str(data_file), **SMALL, "epochs": 4}


def test_a_plan_is_every_combination_once(base, tmp_path):
    jobs = plan(base, AXES, tmp_path)
    assert [job.name for job in jobs] == NAMES
    assert [job.config.radius for job in jobs] == [0, 0, 0.1, 0.1, 0.2, 0.2]
    assert jobs[0].config == Config(**base)


def test_what_all_runs_share_is_left_out_where_a_method_does_not_have_it_and_another_does(base, tmp_path):
    methods = {"method": ["sasrec", "samrec", "gru4rec"]}
    jobs = plan({**base, "rho": "0.2", "preset": "sasrec-bert"}, methods, tmp_path)
    assert [job.config.radius for job in jobs] == [0, 0.2, 0.2]
    assert jobs[0].config == Config(**base, preset="sasrec-bert")
    assert jobs[2].config == Config(**base, method="gru4rec", rho=0.2)
    with pytest.raises(InputError, match="contrast is not a setting of sasrec"):
        plan({**base, "contrast": "0.2"}, methods, tmp_path)
    for shared, varied in (({"rho": "0.2"}, {"seed": ["0"]}), ({}, {"rho": ["0.1", "0.2"]})):
        with pytest.raises(InputError, match="rho is not a setting of sasrec"):
            plan({**base, **shared}, varied, tmp_path)


def test_processes_share_the_cores_that_this_one_may_use(base, tmp_path, monkeypatch):
    """Not those of the machine, of which a scheduler gives some: there would be 64 runs on 6 cores."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    asked = []
    monkeypatch.setattr(sweeping, "_apart", lambda jobs, runner: asked.append(runner) or iter(()))
    jobs = plan(base, AXES, tmp_path)
    for processes in (None, 2):
        sweep(jobs, "cpu", processes)
    for runner in asked:
        runner.submit(jobs)
    assert [runner.at_once for runner in asked] == [6, 2]
    assert [runner.environment["OMP_NUM_THREADS"] for runner in asked] == ["1", "3"]


def test_two_spellings_of_a_value_are_one_run_too_many(base, tmp_path):
    with pytest.raises(InputError, match=r"dropout=0\.1 and dropout=0\.10 are the same run"):
        plan(base, {"dropout": ["0.1", "0.2", "0.10"]}, tmp_path)


def test_two_runs_do_not_share_a_folder(base, tmp_path):
    with pytest.raises(InputError, match=r"two runs would be in one folder, data=a_b\.txt"):
        plan(base, {"data": ["a/b.txt", "a_b.txt"]}, tmp_path)


@pytest.mark.parametrize("path", ["C:\\data\\a.txt", "C:/data/a.txt", "part-?/*.txt", '"a|b>".txt'])
def test_a_folder_has_a_name_on_every_system(path, base, tmp_path):
    """As Windows has it (PureWindowsPath takes `C:` for a drive), in one folder below that of the sweep."""
    (job,) = plan(base, {"data": [path]}, tmp_path)
    assert PureWindowsPath(job.name).name == job.name
    assert not set('<>:"/\\|?*') & set(job.name)
    assert job.out.parent == tmp_path
    assert job.varied == {"data": path}


def test_runs_of_a_group_differ_in_their_seed_alone(base, tmp_path):
    """Whatever varies, epochs too: what came of a run has a number of that name."""
    for setting, values in {"epochs": ["5", "10"], "method": ["sasrec", "samrec"]}.items():
        jobs = plan(base, {setting: values, "seed": ["0", "1"]}, tmp_path / setting)
        for number, job in enumerate(jobs):
            job.out.mkdir(parents=True)
            epoch, metrics = {"epoch": job.config.epochs}, dict.fromkeys(METRICS, number / 10)
            lines = ({**epoch, "valid": metrics}, {**epoch, "test": metrics})
            (job.out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert [job.row[setting] for job in jobs] == [value for value in values for _ in (0, 1)]
        groups = _over_seeds(jobs)
        assert [group["settings"] for group in groups] == [{setting: value} for value in values]
        assert [group["mean"]["mrr"] for group in groups] == pytest.approx([0.05, 0.25])
        assert [group["standard_deviation"]["mrr"] for group in groups] == pytest.approx([0.005**0.5] * 2)
        rows = _table(groups, "").rows
        assert [row[:3] for row in rows] == [
            [f"{setting} {values[0]}", "2", "0.0500 ± 0.0707"],
            [f"{setting} {values[1]}", "2", "0.2500 ± 0.0707"],
        ]


def test_a_run_that_was_killed_says_by_what(base, tmp_path):
    (job,) = plan(base, {"seed": ["0"]}, tmp_path)
    job.out.mkdir()
    (job.out / "log.txt").write_text("landscape: sasrec 10/400 · 0:30 · 19:30 left\n")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process.kill()
    process.wait()
    assert failure(job, process) == "killed by SIGKILL"


def test_values_that_are_none_are_refused_before_anything_is_trained(base, tmp_path):
    with pytest.raises(InputError, match="setting rho: must be a valid number, not"):
        plan({**base, "method": "samrec"}, {"rho": ["0.1", "much"]}, tmp_path)
    with pytest.raises(InputError, match="setting colour"):
        plan(base, {"colour": ["red"]}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_settings_is_refused(base, tmp_path):
    job = plan(base, {"seed": ["0"]}, tmp_path)[0]
    train(job.config, job.out, "cpu")
    with pytest.raises(InputError, match="holds a run with dim 8, not 16"):
        plan({**base, "dim": 16}, {"seed": ["0"]}, tmp_path)


@pytest.mark.slow
def test_runs_on_a_gpu_train_as_one_model_and_equal_their_twins(base, tmp_path, monkeypatch):
    """The CPU stands in: what decides is the kind of device."""
    monkeypatch.setattr(sweeping, "device_named", lambda name: torch.device("cuda"))
    jobs = plan(base, AXES, tmp_path / "sweep")
    train(jobs[3].config, jobs[3].out, "cpu")  # one is done already
    done = (jobs[3].out / "last.pt").stat().st_mtime_ns
    sweep(jobs, "cpu")
    assert (jobs[3].out / "last.pt").stat().st_mtime_ns == done
    for job in jobs:
        alone = train(job.config, tmp_path / job.name, "cpu")
        a, b = (load(out / "last.pt").weights for out in (alone.out, job.out))
        # Rounding, which Adam makes a whole step of where a gradient is nothing else.
        for name in ("item.weight", "blocks.0.ffn.inner.weight"):
            assert float((a[name] - b[name]).norm() / a[name].norm()) < 2e-2
        assert job.result()["epochs"] == alone.epochs
        assert job.result()["test"].keys() == alone.test.keys()
    rows = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert [row["run"] for row in rows] == NAMES
    assert all(row["test"] for row in rows)


def test_one_run_that_diverges_leaves_the_others(base, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "device_named", lambda name: torch.device("cuda"))
    jobs = plan({**base, "method": "samrec"}, {"rho": ["0.1", "1e30"]}, tmp_path)
    with pytest.raises(InputError, match="1 of 2 runs failed; rho=1e30: training diverged"):
        sweep(jobs, "cpu")
    assert jobs[0].result() is not None


@pytest.mark.parametrize(
    ("arguments", "seed"), [([], 0), (["--set", "seed=3"], 3), (["--set", "seed=3", "--seed", "0"], 0)]
)
def test_a_seed_that_is_given_is_that_of_all_runs(
    landscape, data_file, tmp_path, monkeypatch, arguments, seed
):
    planned = []
    monkeypatch.setattr("samrec.sweeps.jobs.plan", lambda *given: planned.extend(plan(*given)) or planned)
    given = ["--data", data_file, "--vary", "rho=0.1,0.2", "--set", "method=samrec", "--out", tmp_path / "o"]
    assert landscape("sweep", *given, "--dry-run", *arguments)[0] == 0
    assert [job.config.seed for job in planned] == [seed, seed]


def command(base, out, *more):
    settings = [f"--set={key}={value}" for key, value in base.items()]
    return [
        *(sys.executable, "-m", "landscape", "sweep", "--out", out, "--device", "cpu", *settings),
        *("--vary", "method=sasrec,samrec", "--set=seed=1", "--jobs", "2", *more),
    ]


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_by_the_same_command(base, tmp_path, monkeypatch):
    """On a CPU each run is a process, and the same bit for bit as alone."""
    out, base = tmp_path / "sweep", {**base, "epochs": 100, "patience": 100}  # it is not done when it is seen
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # another number of threads adds up in another order
    running = subprocess.Popen(command(base, out), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not list(out.glob("*/last.pt")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 128 + signal.SIGINT, said
    assert said == "landscape: stopped by SIGINT; the same command continues the sweep\n"
    ended = subprocess.run(command(base, out, "--json"), cwd=ROOT, capture_output=True, text=True, check=True)
    runs = json.loads(ended.stdout)["runs"]
    assert [run["run"] for run in runs] == ["method=sasrec", "method=samrec"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = train(Config(**{**base, "method": "samrec", "seed": 1}), tmp_path / "alone", "cpu")
    finally:
        torch.set_num_threads(threads)
    assert same_weights(load(alone.out / "last.pt"), load(out / "method=samrec" / "last.pt"))
    assert runs[-1]["test"] == alone.test


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "rho", "--data", "DATA"], "'rho' is not NAME=VALUE"),
        (["--vary", "seed=0"], "nothing to train on"),
        (["--vary", "seed=0", "--vary", "seed=1", "--data", "DATA"], "seed is given twice"),
        (["--vary", "rho=0.1,0.2", "--set", "rho=0.1", "--data", "DATA"], "rho is given twice"),
        (["--vary", "seed=0", "--set", "dim=4", "--set", "dim=8", "--data", "DATA"], "dim is given twice"),
        (["--vary", "seed=0", "--set", "data=b.txt", "--data", "DATA"], "data is given twice"),
        (["--vary", "data=a.txt,b.txt", "--data", "DATA"], "data is given twice"),
        (["--vary", "seed=0,1", "--seed", "5", "--data", "DATA"], "--seed has no effect with --vary seed"),
        (["--vary", "seed=0,x", "--data", "DATA"], "setting seed: "),
        (["--vary", "seed=0", "--set", "epochs=0", "--data", "DATA"], "setting epochs: "),
    ],
)
def test_a_sweep_that_makes_no_sense_is_one_line(landscape, tmp_path, data_file, arguments, message):
    arguments = [str(data_file) if a == "DATA" else a for a in arguments]
    code, out, err = landscape("sweep", "--out", tmp_path / "sweep", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_a_dry_run_prints_the_plan_alone(answer, data_file, tmp_path):
    found = answer(
        "sweep", "--data", data_file, "--vary", "max-length=8,9", "--out", tmp_path / "s", "--dry-run"
    )
    assert found == {"runs": [{"run": f"max_length={n}", "done": False} for n in (8, 9)]}
    assert not os.path.exists(tmp_path / "s")
