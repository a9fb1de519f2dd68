"""What is installed is all that is needed, and nothing else."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = ("landscape", "samrec")
USE = """
import importlib.metadata, pathlib, sys
import landscape, samrec
for package in (landscape, samrec):
    assert pathlib.Path(package.__file__).is_relative_to(sys.prefix), package.__file__
    for name in package.__all__:
        getattr(package, name)
for group, count in (("landscape.tasks", 1), ("landscape.commands", 7)):
    points = importlib.metadata.entry_points(group=group)
    assert len(points) == count
    assert all(callable(point.load()) for point in points)
"""


def run(*command, **options):
    """Run in an environment that does not know this checkout; return standard output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=clean, **options
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, built of the sdist, built of a copy of the checkout; nothing is asked of the network."""
    pytest.importorskip("build.__main__")  # a folder build/ in the checkout is no package
    copy = tmp_path_factory.mktemp("package") / "copy"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "results", "gallery")
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in (*PACKAGES, "benchmarks", "figures", "tests", "website"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", copy.parent, copy]
    subprocess.run(build, check=True, capture_output=True)
    (sdist,), (wheel,) = copy.parent.glob("*.tar.gz"), copy.parent.glob("*.whl")
    assert sdist.name.startswith("samrec_landscape-")
    return wheel


def test_the_wheel_holds_the_two_packages_whole_and_nothing_else(built):
    held = {name for name in zipfile.ZipFile(built).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == wanted
    assert {f"{package}/py.typed" for package in PACKAGES} <= held


def test_it_runs_from_outside_of_the_checkout(built, tmp_path):
    environment = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python, command = environment / "bin" / "python", environment / "bin" / "landscape"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", built)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # torch is not installed again
    assert run(command, "--version", cwd=tmp_path) == f"landscape {PROJECT['version']}\n"
    assert "hessian" in run(command, "--help", cwd=tmp_path)
    run(python, "-c", USE, cwd=tmp_path)


def test_no_message_asks_an_index_for_the_package_itself():
    """The README says that there is none which has it."""
    assert "not on PyPI" in (ROOT / "README.md").read_text("utf-8")
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        assert not re.search(f"pip install '?{PROJECT['name']}", path.read_text("utf-8")), path


def test_all_say_one_version():
    version = PROJECT["version"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), flags=re.MULTILINE)
    assert cited
    assert cited[1] == version
    assert f"version = {{{version}}}" in (ROOT / "docs" / "citing.md").read_text("utf-8")
    changes = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert changes[0] == version
