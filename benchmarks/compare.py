"""`python -m benchmarks.compare A.json B.json`: what two result files share, as ratios.

    python -m benchmarks.compare old.json new.json           two files
    python -m benchmarks.compare --against main              all of benchmarks/results/ with those of a commit
    python -m benchmarks.compare --against main train.json   some of them

Times of two runs differ by up to 40% on a shared machine; ratios that were taken within one run differ less.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from landscape.errors import InputError

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MACHINE = ("cpu", "threads", "gpu", "python", "torch")


def numbers(found: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of a result and where it stands, but for the single rounds of a measurement.

    Args:
        found: a result as JSON holds it. Entries of a list are known by their first value, if that is a word.
        path: where it stands itself.
    """
    if isinstance(found, dict):
        for key, value in found.items():
            if key != "where":
                yield from numbers(value, f"{path} / {key}" if path else key)
    elif isinstance(found, list):
        for entry in found:
            name = next(iter(entry.values()), None) if isinstance(entry, dict) else None
            if isinstance(name, str):
                yield from numbers(entry, f"{path} / {name}")
    elif isinstance(found, int | float) and not isinstance(found, bool):
        yield path, found


def ratios(old: Any, new: Any) -> Iterator[tuple[str, float, float, float]]:
    """Yield where a number stands, what it was, is, and the ratio, for those of both that differ."""
    before = dict(numbers(old))
    for path, now in numbers(new):
        if path in before and before[path] not in (now, 0):
            yield path, before[path], now, now / before[path]


def lines(old: Any, new: Any) -> Iterator[str]:
    """Yield what is to be printed of two results."""
    was, now = old["where"], new["where"]
    yield f"{was['commit']} ({was['day']}) -> {now['commit']} ({now['day']})"
    yield from (f"  not the same {key}: {was[key]} -> {now[key]}" for key in MACHINE if was[key] != now[key])
    rows = list(ratios(old, new))
    width = max((len(path) for path, *_ in rows), default=0)
    yield from (f"  {path:{width}} {a:12.5g} {b:12.5g} {ratio:8.3f}×" for path, a, b, ratio in rows)


def read(path: Path) -> Any:
    """Return a result file's content.

    Raises:
        InputError: there is no such file, or it is no result of a benchmark.
    """
    try:
        return checked(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def at(commit: str, name: str) -> Any:
    """Return a stored result as a commit has it; None where it has none.

    Raises:
        InputError: there is no such commit, or the file there is no result.
    """
    if git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}") is None:
        raise InputError(f"no commit {commit!r} in this repository")
    text = git("show", f"{commit}:{(RESULTS / name).relative_to(HERE.parent).as_posix()}")
    return None if text is None else checked(text, f"{commit}:{name}")


def checked(text: str, name: str) -> Any:
    """Return what JSON holds.

    Raises:
        InputError: it does not say where it was measured, as every result does.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"commit", "day", *MACHINE} <= set(found.get("where") or ()):
        raise InputError(f"{name} is no result of a benchmark")
    return found


def git(*arguments: str) -> str | None:
    """Return what git says; None where it fails."""
    ran = subprocess.run(["git", *arguments], cwd=HERE.parent, check=False, capture_output=True, text=True)
    return None if ran.returncode else ran.stdout


def pairs(files: list[Path], against: str | None) -> Iterator[tuple[str, Any, Any]]:
    """Yield a title, the old result and the new one, for all that were asked for."""
    if against is None:
        yield " -> ".join(map(str, files)), read(files[0]), read(files[1])
        return
    for path in [RESULTS / file.name for file in files] or sorted(RESULTS.glob("*.json")):
        if (old := at(against, path.name)) is not None:
            yield path.name, old, read(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="two; with --against, any in benchmarks/results/")
    parser.add_argument(
        "--against", metavar="COMMIT", help="compare stored results with those of this commit"
    )
    asked = parser.parse_args()
    if asked.against is None and len(asked.files) != 2:
        parser.error("give two files, or --against COMMIT")
    try:
        for title, old, new in pairs(asked.files, asked.against):
            print(title, *lines(old, new), sep="\n")
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
