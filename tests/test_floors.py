"""How the tree is built: an import only ever points down, a file is short, an exception has a reason."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = {
    f"landscape{part}"
    for part in ("", ".errors", ".files", ".devices", ".lazy", ".parallel", ".progress", ".training_log")
}


def imports(path):
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module):
    """Height of a module of `landscape`: the higher may import the lower."""
    parts = module.split(".")
    if parts[:2] == ["landscape", "cli"]:
        return 5
    if parts[:2] == ["landscape", "plots"]:
        return 4
    if parts[1] in ("surface", "flatness", "curvature", "paths"):
        return 3
    if parts[1] in ("directions", "chebyshev", "results"):
        return 2
    if parts[1] in ("objective", "params", "frozen", "derivatives", "supervision", "tasks"):
        return 1
    return 0


def modules(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize(("path", "module"), [pytest.param(*m, id=m[1]) for m in modules("landscape")])
def test_landscape_points_down(path, module):
    if module in ("landscape", "landscape.__main__"):
        return  # the public names, and the way in
    known = {name for _, name in modules("landscape")}
    for imported in imports(path):
        if imported in known - {"landscape"}:
            assert floor(imported) <= floor(module), f"{module} imports {imported}"
        if not module.startswith("landscape.cli"):
            assert not imported.startswith("samrec"), f"{module} imports {imported}"


@pytest.mark.parametrize(("path", "module"), [pytest.param(*m, id=m[1]) for m in modules("samrec")])
def test_the_trainer_meets_the_landscape_in_one_file(path, module):
    if module == "samrec.task":
        return
    known = {name for _, name in modules("landscape")}
    assert {i for i in imports(path) if i in known} <= GROUND


@pytest.mark.parametrize("package", ["landscape", "samrec"])
def test_what_is_installed_needs_nothing_of_the_checkout(package):
    for path, module in modules(package):
        outside = {imported.split(".")[0] for imported in imports(path)}
        assert not outside & {"benchmarks", "examples", "figures", "tests", "website"}, module


@pytest.mark.parametrize("solver", ["lanczos", "power", "solver"])
def test_solvers_know_a_product_not_a_model(solver):
    path = ROOT / "landscape" / "curvature" / f"{solver}.py"
    assert not {"landscape.objective", "landscape.params"} & set(imports(path))


@pytest.mark.parametrize("package", ["landscape", "samrec", "figures", "benchmarks", "examples", "tests"])
def test_what_a_checker_is_told_to_ignore_has_a_reason(package):
    for path in (ROOT / package).rglob("*.py"):
        for line in path.read_text("utf-8").splitlines():
            if told := re.search(r"# (?:type: ignore|noqa)(?:\[[\w, -]+\]|: \w+)?(.*)", line):
                assert re.search(r"\w", told[1]), f"{path.name}: {line.strip()}"


@pytest.mark.parametrize("package", ["landscape", "samrec", "figures", "benchmarks", "examples", "tests"])
def test_no_file_is_beyond_400_lines(package):
    for path in (ROOT / package).rglob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 400, path.name
