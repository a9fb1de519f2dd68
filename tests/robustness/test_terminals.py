"""Whatever the terminal, a command ends with its exit code and, where it fails, one line."""

import os
import subprocess
import sys

import pytest

from landscape import InputError
from landscape.cli import app, doctor
from tests.conftest import ROOT

PATHS = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def command(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, shell="", **environment):
    """Run `python -m landscape` in a process of its own, with redirections of the shell."""
    line = f'exec "$@" {shell}'
    return subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "landscape", *arguments],
        env=os.environ | {"PYTHONPATH": PATHS, **environment},
        stdout=stdout,
        stderr=stderr,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_an_encoding_lacks_is_written_in_other_words(encoding):
    found = command("hessian", "--help", LC_ALL="C", PYTHONIOENCODING=encoding)
    assert (found.returncode, found.stderr) == (0, b"")
    text = found.stdout.decode(encoding)
    assert "Largest residual ||Hv" in text
    assert "lambda" in text


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_closed_and_full_streams(shell):
    fails = command("hessian", "--ckpt", ".", shell=shell)  # a folder without checkpoints
    assert fails.returncode == 2
    assert fails.stderr.count(b"\n") <= 1
    works = command("--version", shell=shell)
    assert works.returncode == (2 if shell == ">/dev/full" else 0)
    assert b"Traceback" not in works.stderr


WRONG = {
    ("hessian", "--ckpt", "x", "--bogus"): "No such option: --bogus",
    ("hessian", "--tarce"): "--trace",
    ("hessian",): "Missing option '--ckpt'; see: landscape hessian --help",
    ("hessian", "--top"): "Option '--top' requires an argument; see: landscape hessian --help",
    ("--top",): "No such option: --top; see: landscape --help",
    ("hesian",): "No such command 'hesian'",
    ("train", "--data", "x", "--epochs", "many"): "Invalid value for '--epochs'",
    ("data", "get"): "Missing argument",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage_is_one_line_with_a_hint(landscape, arguments):
    code, out, err = landscape(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert WRONG[arguments] in line
    assert line.endswith("--help")


UNFORESEEN = {
    MemoryError(): "landscape: MemoryError (--traceback shows where)",
    RuntimeError("no\nmore"): "landscape: RuntimeError: no (--traceback shows where)",
    OverflowError("too large"): "landscape: OverflowError: too large (--traceback shows where)",
    UnicodeError("what?"): "landscape: UnicodeError: what? (--traceback shows where)",
    KeyboardInterrupt(): "landscape: interrupted",
}


@pytest.mark.parametrize("error", UNFORESEEN, ids=repr)
def test_what_nobody_foresaw_is_one_line_and_a_traceback_on_request(landscape, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(doctor, "_extras", fail)
    code, out, err = landscape("doctor")
    assert (code, out) == (130 if isinstance(error, KeyboardInterrupt) else 2, "")
    assert err.splitlines() == [UNFORESEEN[error]]
    if isinstance(error, app.UNFORESEEN):
        monkeypatch.setattr(sys, "argv", ["landscape", "doctor", "--traceback"])
        with pytest.raises(type(error)):
            app.main()


@pytest.mark.parametrize("into", [RuntimeError, InputError, OSError, ImportError, KeyError])
def test_an_interrupt_that_became_another_error_is_one(landscape, monkeypatch, into):
    """As one does that comes while a class is made, or while a library is imported."""

    def fail(*_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise into("Error calling __set_name__ on 'Field' instance") from error

    monkeypatch.setattr(doctor, "_extras", fail)
    assert landscape("doctor") == (130, "", "landscape: interrupted\n")


@pytest.mark.parametrize("imported", ["landscape.cli.app", "landscape.cli.options", "samrec.cli.demo"])
def test_ctrl_c_during_the_start_is_one_line(imported):
    """While a module is being imported, and not after some time: on a busy machine the start is long."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which `nohup … &` ignores
        "from landscape.__main__ import main\n"
        "sys.argv = ['landscape', 'demo', '--out', '/nonexistent/folder']\n"
        "def find_spec(name, *_):\n"
        f"    if name == {imported!r}:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, type('Finder', (), {'find_spec': staticmethod(find_spec)}))\n"
        "main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (found.returncode, found.stderr) == (130, "landscape: interrupted\n")


@pytest.mark.parametrize("moment", ["make_context", "invoke"])
def test_ctrl_c_before_and_within_the_command_is_one_line(landscape, monkeypatch, moment):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(app.Commands, moment, interrupted)
    assert landscape("doctor") == (130, "", "landscape: interrupted\n")
