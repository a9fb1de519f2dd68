"""A sweep on a Ray cluster of two nodes is the sweep of one machine: the same runs, failures and results."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from samrec.checkpoint import load
from samrec.sweeps import cluster as runner
from samrec.sweeps.jobs import plan
from samrec.sweeps.sweep import sweep
from tests.conftest import ROOT
from tests.samrec.training.test_training import SMALL, same_weights

pytestmark = pytest.mark.slow

NODE = {
    "num_cpus": 1,
    "node_ip_address": "127.0.0.1",
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
}
NAMES = ["method=sasrec,seed=3", "method=samrec,rho=0.2,seed=3"]
COMMAND = [sys.executable, "-m", "landscape", "sweep"]
AXES = {"method": ["sasrec", "samrec"], "rho": ["0.2"], "seed": ["3"]}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes, with room for one run each, that no other machine can reach."""
    utils = pytest.importorskip("ray.cluster_utils")
    short = tempfile.TemporaryDirectory(dir="/tmp", prefix="ray-")  # names of sockets have 107 characters
    with short as folder, pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_TMPDIR", folder)
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # or a driver takes 127.0.0.1 for eth0
        found = utils.Cluster()
        try:
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup ray start &` has it
            for _ in range(2):
                found.add_node(**NODE)
            signal.signal(signal.SIGINT, handler)
            yield found
        finally:
            found.shutdown()


@pytest.fixture(scope="module")
def base(data_file):
    return {"data": str(data_file), **SMALL, "epochs": 60, "patience": 60}  # to be caught running


@pytest.fixture(scope="module")
def local(base, tmp_path_factory):
    """The sweep of this machine, on one thread a run, as over Ray."""
    out = tmp_path_factory.mktemp("local") / "sweep"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        sweep(plan(base, AXES, out), "cpu", 2)
    return out


@pytest.fixture
def start(base, cluster, tmp_path):
    """Start the command on the cluster, in a folder of its own; the output folder is sweep."""

    def start(*more, vary=AXES, out="sweep", threads=1):
        arguments = [f"--set={name}={value}" for name, value in base.items()]
        arguments += [f"--vary={name}={','.join(values)}" for name, values in vary.items()]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            [*COMMAND, "--out", out, "--ray", cluster.address, *arguments, *more],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def ended(running, code=0):
    """Wait for the command; return what it printed and said."""
    printed, said = running.communicate(timeout=600)
    assert running.returncode == code, said
    return printed, said


def until_saved(running, out):
    """Wait until a run has saved anew."""
    before = saved(out)
    while saved(out) == before:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)


def saved(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("*/last.pt")}


def results(out):
    return [{**row, "seconds": 0} for row in json.loads((out / "results.json").read_text("utf-8"))]


def same_sweep(a, b):
    assert [row["run"] for row in results(a)] == NAMES
    assert results(a) == results(b)
    for name in NAMES:
        assert same_weights(load(a / name / "last.pt"), load(b / name / "last.pt"))
        assert (a / name / "config.toml").read_text() == (b / name / "config.toml").read_text()


@pytest.mark.soak  # a minute of starting processes
def test_what_one_machine_has_done_is_not_repeated_and_a_run_that_fails_is_one_line(start, local, tmp_path):
    out = shutil.copytree(local, tmp_path / "sweep")
    before = saved(out)
    _, said = ended(start(vary=AXES | {"rho": ["1e30", "0.2"]}), 2)
    told = [line for line in said.splitlines() if not line.startswith("landscape: sweep ")]  # after 30 s
    assert len(told) == 1
    assert told[0].startswith(
        "landscape: 1 of 3 runs failed; method=samrec,rho=1e30,seed=3: training diverged"
    )
    assert saved(out) == before
    assert [bool(row["test"]) for row in results(out)] == [True, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "/proc/self/cwd/sweep"}, "127.0.0.1 does not see /proc/self/cwd/sweep: "),
        ({"threads": 2}, "a run takes 2 CPUs, and no node of the Ray cluster has them"),
    ],
)
def test_a_cluster_that_cannot_do_it_is_one_line(start, tmp_path, options, message):
    """Of a path in /proc/self, each process sees another file: so it is with folders that are not shared."""
    _, said = ended(start(**options), 2)
    assert said.startswith(f"landscape: {message}")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_file_of_a_run_must_be_seen_by_all_nodes(start, tmp_path):
    (tmp_path / "features.json").write_text("{}")
    _, said = ended(start("--set=item_features=/proc/self/cwd/features.json"), 2)
    assert said.startswith("landscape: 127.0.0.1 does not see /proc/self/cwd/features.json: ")


@pytest.mark.soak  # half a minute of starting processes
def test_a_sweep_that_is_stopped_and_loses_a_node_equals_that_of_one_machine(start, cluster, local, tmp_path):
    out = tmp_path / "sweep"
    running = start()
    until_saved(running, out)
    running.send_signal(signal.SIGINT)
    _, said = ended(running, 128 + signal.SIGINT)
    assert said == "landscape: stopped by SIGINT; the same command continues the sweep\n"
    assert any("stopped by SIGTERM in epoch" in log.read_text("utf-8") for log in out.glob("*/log.txt"))
    running = start("--json")
    until_saved(running, out)
    (lost,) = cluster.worker_nodes
    assert not (out / "results.json").exists()  # no run has ended: one is carried on elsewhere
    cluster.remove_node(lost, allow_graceful=False)
    printed, said = ended(running)
    assert all(line.startswith("landscape: warning: (raylet) ") for line in said.splitlines())
    assert [run["run"] for run in json.loads(printed)["runs"]] == NAMES
    same_sweep(out, local)
    before = saved(out)
    ended(start())
    assert saved(out) == before


@pytest.mark.parametrize(
    ("arguments", "patience", "message"),
    [
        (["--ray", "127.0.0.1:9"], 0.5, "no Ray cluster answers at 127.0.0.1:9"),
        (["--ray", "nowhere"], 30, "cannot join a Ray cluster at 'nowhere': ValueError: "),
        (["--ray", "auto", "--jobs", "2"], 0, "--jobs has no effect with --ray"),
    ],
)
def test_a_cluster_that_is_none_is_one_line(
    landscape, tmp_path, data_file, monkeypatch, arguments, patience, message
):
    pytest.importorskip("ray")
    monkeypatch.setattr(runner, "PATIENCE", patience)
    out = tmp_path / "sweep"
    code, _, said = landscape("sweep", "--data", data_file, "--vary", "seed=0", "--out", out, *arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"landscape: {message}")
    assert not out.exists()


def test_without_ray_the_message_says_how_to_get_it(landscape, tmp_path, data_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "sweep"
    code, _, said = landscape("sweep", "--data", data_file, "--vary", "seed=0", "--out", out, "--ray", "auto")
    assert (code, said) == (2, "landscape: --ray needs ray: pip install ray\n")
    assert not out.exists()
