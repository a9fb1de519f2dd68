"""Every command in a poor environment: what it prints, its exit code, and at most one line of error.

LC_ALL=C and PYTHONIOENCODING=ascii hold for all; a terminal of 40 columns can show UTF-8. Pictures are
drawn in `make soak` alone, which also shows every --help and every error on every stream.
"""

import re
from typing import NamedTuple

import pytest
from rich.cells import cell_len

from landscape.cli.app import Commands, _declared
from tests.streams import COLUMNS, Forking


class Case(NamedTuple):
    """A command that works, a line of what it prints, and what its error says where an input is missing."""

    works: str
    prints: str
    fails: str
    says: str


BOTH = "--ckpt A --ckpt B --device cpu --users 8"
RUN = "--heads 1 --layers 1 --dim 4 --max-length 4 --epochs 1 --eval-every 1 --device cpu"
SET = re.sub(
    r"--(\S+) (\S+)",
    r"--set \1=\2",
    RUN.removesuffix(" --device cpu").replace("x-l", "x_l").replace("l-e", "l_e"),
)
MISSING = "cannot read checkpoint lambda.pt: No such file or directory"
TABLE = {
    "train": Case(
        f"train --data d.txt --out A --resume {RUN}",
        "A: best epoch 1 of 1",
        "train --data λ.txt",
        "cannot read data file lambda.txt: No such file or directory",
    ),
    "surface": Case(
        f"surface {BOTH} --dim 1 --grid 3 --out s", "Written to s:", "surface --ckpt λ.pt", MISSING
    ),
    "path": Case(f"path {BOTH} --grid 3 --out p", "Paths from A", "path --ckpt A --ckpt λ.pt", MISSING),
    "hessian": Case(f"hessian {BOTH} --top 1 --tol .5", "Hessian", "hessian --ckpt λ.pt", MISSING),
    "sharpness": Case(f"sharpness {BOTH} --measure sam", "Sharpness", "sharpness --ckpt λ.pt", MISSING),
    "bound": Case(f"bound {BOTH} --samples 2", "PAC-Bayes bounds", "bound --ckpt λ.pt", MISSING),
    "compare": Case(
        f"compare {BOTH} --grid 2 --top 1 --no-density --out c",
        "Comparison",
        "compare --ckpt A --ckpt λ.pt",
        MISSING,
    ),
    "report": Case("report c", "Report: c/report.html", "report λ", "lambda holds no comparison"),
    "export": Case(
        "export s/A.surface.npz a.csv", "3 points", "export λ.npz a.csv", "cannot read result file lambda.npz"
    ),
    "doctor": Case("doctor", "torch", "doctor λ", "extra argument(s) (lambda); see: landscape doctor"),
    "baselines": Case("baselines --data d.txt", "popularity", "baselines --data λ.txt", "cannot read data"),
    "data": Case("data --help", "Usage: landscape data", "data λ", "No such command 'lambda'"),
    "data list": Case("data list", "beauty", "data list λ", "extra argument(s) (lambda)"),
    "data info": Case("data info d.txt", "users", "data info λ.txt", "cannot read data file lambda.txt"),
    "data get": Case("data get --help", "Usage: landscape data get", "data get λ", "lambda"),
    "demo": Case("demo --help", "Usage: landscape demo", "demo --epochs λ", "Invalid value for '--epochs'"),
    "evaluate": Case("evaluate --ckpt A", "A/best.pt: test", "evaluate --ckpt λ.pt", MISSING),
    "recommend": Case("recommend --ckpt A --user 1", "rank", "recommend --ckpt A --user λ", "lambda"),
    "sweep": Case(
        f"sweep --data d.txt --vary seed=0 --out w --device cpu {SET}",
        "w: 1 runs",
        "sweep --data d.txt --vary λ=1 --out v",
        "lambda",
    ),
}  # fmt: skip
STREAMS = {
    "a pipe": (0, ""),
    "a terminal": (0, None),  # which has bars of progress
    "closed": (1, ""),
    "full": (2, "landscape: No space left on device: output\n"),
}
"""What standard output is, and how a command that works ends there."""
LONG = ("surface", "path", "hessian", "bound", "compare", "report")
"""Commands that take seconds and print as `sharpness` does: three of their streams are left to the soak."""


def commands():
    """Yield the words of every command and of those below it."""
    group = Commands()
    for name in group.list_commands(None):
        yield name
        below = getattr(_declared(name, group.get_command(None, name).found), "commands", {})
        yield from (f"{name} {each}" for each in below)


def made(folder, patch, draws):
    """Start the process that forks the commands, where they find data, two runs and a sweep's."""
    folder.joinpath("d.txt").write_text(
        "".join(
            f"{u} {' '.join(str(1 + (u + k * (1 + u % 3)) % 9) for k in range(6))}\n" for u in range(1, 25)
        )
    )
    patch.chdir(folder)
    forking = Forking(draws=draws, LC_ALL="C", PYTHONIOENCODING="ascii")
    for out, method in (("A", "sasrec"), ("B", "samrec"), ("w/seed=0", "sasrec")):
        ended = forking.run(
            ["train", "--data", "d.txt", "--out", out, "--method", method, *RUN.split()], "a pipe"
        )
        assert ended.code == 0, ended.err
    for name in ("surface", "compare"):  # which others read
        forking.known[name, "a pipe"] = forking.run(TABLE[name].works.split(), "a pipe")
    return forking


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def forking(tmp_path_factory, module_patch):
    found = made(tmp_path_factory.mktemp("every"), module_patch, draws=False)
    yield found
    found.end()


def plain(written):
    """The lines that a terminal shows, one after another, some in the same place."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written.decode("utf-8")))


def checked(ended, stream, prints):
    """Check the exit code, that there is one line of error or none, and what is printed."""
    code, said = STREAMS[stream]
    err = ended.err.decode("ascii" if said is not None else "utf-8")
    assert ended.code == code, err
    assert "Traceback" not in err
    assert said is None or err == said
    if code:
        assert not ended.out
        return
    if stream == "a pipe":
        assert prints in ended.out.decode("ascii")
        return
    lines = plain(ended.out)
    assert prints in " ".join(" ".join(lines).split())
    bars = [line for line in plain(ended.err) if not line.startswith("landscape: ")]
    assert max(map(cell_len, lines + bars)) <= COLUMNS


def refused(ended, case):
    """Check that there is one line of error, in ASCII, and nothing else."""
    assert (ended.code, ended.out) == (2, b"")
    (line,) = ended.err.decode("ascii" if b"lambda" in ended.err else "utf-8").splitlines()
    assert line.startswith("landscape: ")
    assert case.says in line.replace("λ", "lambda")


def test_the_table_has_every_command():
    assert set(TABLE) == set(commands())


@pytest.mark.parametrize(
    ("name", "stream"), [(n, s) for n in TABLE for s in STREAMS if s == "a pipe" or n not in LONG]
)
def test_a_command_that_works(forking, name, stream):
    ended = forking.known.get((name, stream)) or forking.run(TABLE[name].works.split(), stream)
    checked(ended, stream, TABLE[name].prints)


@pytest.mark.parametrize("name", TABLE)
def test_a_command_that_fails(forking, name):
    refused(forking.run(TABLE[name].fails.split(), "full"), TABLE[name])


@pytest.mark.parametrize("name", TABLE)
def test_help(forking, name):
    checked(forking.run([*name.split(), "--help"], "a pipe"), "a pipe", f"Usage: landscape {name}")


@pytest.mark.soak
def test_every_command_with_its_pictures_and_its_help_everywhere(tmp_path, monkeypatch):
    forking = made(tmp_path, monkeypatch, draws=True)
    for name, case in TABLE.items():
        for stream in STREAMS:
            checked(forking.run(case.works.split(), stream), stream, case.prints)
            checked(forking.run([*name.split(), "--help"], stream), stream, f"Usage: landscape {name}")
            refused(forking.run(case.fails.split(), stream), case)
    forking.end()
