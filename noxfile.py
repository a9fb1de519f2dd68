"""Other Pythons, and the lowest versions that pyproject.toml allows: `pipx run --with uv nox`.

Sessions whose interpreter is not to be had are skipped, and said to be.
"""

import nox

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
CORE = ("tests/commands", "tests/landscape/storage", "tests/robustness", "tests/samrec/data")
"""What of the tests depends on other libraries most."""


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite, with the newest versions."""
    session.install("--editable", ".[test]")
    session.run("python", "-m", "pytest", *(session.posargs or ("-n", "2", "--dist", "loadfile")))


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The lowest versions of what the package itself names; what tests need is as new as it may be."""
    pinned = f"{session.create_tmp()}/lowest.txt"
    compiled = ("--resolution", "lowest-direct", "--extra", "hdf5", "--python-version", PYTHONS[0])
    session.run("uv", "pip", "compile", "pyproject.toml", *compiled, "--output-file", pinned, external=True)
    session.install("--requirement", pinned, "pytest>=9", "hypothesis>=6.100", "coverage")
    session.install("--no-deps", "--editable", ".")
    session.run("python", "-m", "pytest", *(session.posargs or CORE))
