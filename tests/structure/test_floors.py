"""How the tree is built: an import only ever points down, a file is short, an exception has a reason.

And no statement stands where it is never reached.
"""

import ast
import re
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "cli": 6,
    "report": 5,
    "plots": 4,
    "flatness": 3,
    "surface": 3,
    "curvature": 3,
    "tasks": 2,
    "objective": 1,
    "statistics": 1,
    "storage": 1,
    "runtime": 1,
    "errors": 0,
}
"""Height of what `landscape` holds: the higher may import the lower, and what stands beside it."""
ACROSS = {
    "landscape.surface.frames": {"landscape.curvature.eigenpairs"},  # planes along eigenvectors
    "landscape.surface.geometry": {  # the quadratic model of a slice is its projected Hessian
        "landscape.curvature.operators",
        "landscape.curvature.solver",
    },
    "landscape.flatness.point": {  # λmax, traces and norms are measures of sharpness
        "landscape.curvature.operators",
        "landscape.curvature.matrix",
        "landscape.curvature.probes",
        "landscape.curvature.basis",
    },
    "landscape.flatness.second_order": {
        "landscape.curvature.eigenpairs",
        "landscape.curvature.operators",
        "landscape.curvature.basis",
    },
    "landscape.flatness.first_order": {"landscape.curvature.products"},  # slopes along a vector
    "landscape.flatness.words": {  # the sentences on a comparison speak of spectra and traces too
        "landscape.curvature.eigenpairs",
        "landscape.curvature.trace",
    },
}
"""Where the mathematics of one measurement needs another's; else the three are apart."""
GROUND = ("landscape.errors", "landscape.runtime", "landscape.storage")
"""What the trainer may use of `landscape`, beside its one bridge and its commands."""
COMMANDS = (
    *GROUND,
    "landscape.cli.compare",
    "landscape.cli.options",
    "landscape.cli.output",
    "landscape.report.compare",
    "landscape.tasks",
)
"""What the trainer's commands may use of `landscape`."""


def imports(path):
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module):
    return FLOORS[module.split(".")[1]]


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


@pytest.mark.parametrize("path", sorted((ROOT / "landscape").rglob("*.*")), ids=lambda path: path.name)
def test_landscape_knows_nothing_of_its_guest(path):
    """Neither a module, also not in a text that is run, nor a metric, nor the file of a log."""
    if path.suffix in (".py", ".j2", ".js", ".css"):
        text = path.read_text("utf-8")
        assert not re.search(r"(import|from) samrec|samrec\.\w|\bhr@|ndcg|metrics\.jsonl", text, flags=re.I)


def test_measurements_stand_side_by_side():
    found = {}
    known = {name for _, name in modules("landscape")}
    for path, module in modules("landscape"):
        if module == "landscape":
            continue
        room = module.split(".")[1:2]
        for imported in set(imports(path)) & known:
            other = imported.split(".")[1:2]
            if room != other and {*room, *other} <= {"surface", "curvature", "flatness"}:
                found.setdefault(module, set()).add(imported)
    assert found == ACROSS


@pytest.mark.parametrize(("path", "module"), [pytest.param(*m, id=m[1]) for m in modules("samrec")])
def test_the_trainer_meets_the_landscape_in_one_file(path, module):
    """And says what a report shows in another, `samrec.facts`."""
    if module in {"samrec.task", "samrec.facts"}:
        return
    known = {name for _, name in modules("landscape")}
    allowed = COMMANDS if module.startswith("samrec.cli") else GROUND
    for imported in {i for i in imports(path) if i in known} - {"landscape", "landscape.cli"}:
        assert imported.startswith(allowed), imported


@pytest.mark.parametrize("package", ["landscape", "samrec"])
def test_no_modules_import_one_another_in_a_circle(package):
    known = {name: path for path, name in modules(package) if path.name != "__init__.py"}
    ahead = {name: set(imports(path)) & known.keys() for name, path in known.items()}
    assert list(TopologicalSorter(ahead).static_order())  # raises a CycleError that names the circle


def test_the_package_has_few_rooms():
    held = {
        path.name
        for path in (ROOT / "landscape").iterdir()
        if path.name.isidentifier() or path.suffix == ".py"
    }
    assert len(held - {"__init__.py", "__main__.py", "__pycache__"}) <= 12, sorted(held)


@pytest.mark.parametrize("package", ["landscape", "samrec"])
def test_what_is_installed_needs_nothing_of_the_checkout(package):
    for path, module in modules(package):
        outside = {imported.split(".")[0] for imported in imports(path)}
        assert not outside & {"benchmarks", "examples", "figures", "tests", "website"}, module


@pytest.mark.parametrize("solver", ["lanczos", "power", "solver", "linear"])
def test_solvers_know_a_product_not_a_model(solver):
    path = ROOT / "landscape" / "curvature" / f"{solver}.py"
    assert not {"landscape.objective.objective", "landscape.objective.params"} & set(imports(path))


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


@pytest.mark.parametrize("package", ["landscape", "samrec", "figures", "benchmarks", "examples", "tests"])
def test_every_statement_can_be_reached(package):
    """A line that slips behind a `return` is silent: once it was the setting that a test was about."""
    ends = ast.Return | ast.Raise | ast.Continue | ast.Break
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(block, list):
                    for one, after in pairwise(block):
                        assert not isinstance(one, ends), f"{path.name}:{after.lineno}"
