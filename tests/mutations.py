"""Files that somebody damaged, or wrote to do harm: made from sound ones, by what is drawn.

Hypothesis shrinks to the first of several choices, which leave least of a file. A chance is a whole number
below another, since `random()` is then often 0 or something else that is special.
"""

import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import torch

NUMBERS = [
    *(b"0", b"-1", b"1e400", b"-0.0", b"NaN", b"Infinity", b"null", b"true", b'"x"', b"[]", b"{}"),
    *(str(n).encode() for n in (2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**12, 10**400)),
    b"9" * 5000,
]
WORDS = [
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b"\r",
    b'"',
    b"::",
    b",",
    b"\t",
    b"\x1b[31m",
    "é漢\u2028".encode(),
    b"'''",
    b"#",
]


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Change a few places of a file: what a bad disk does, or a bad editor."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        numbers = list(re.finditer(rb"-?\d+(\.\d+)?", content)) if rng.randrange(10) < 3 else []
        if numbers:
            start, end = rng.choice(numbers).span()
            content = content[:start] + rng.choice(NUMBERS) + content[end:]
        else:
            content = _edited(rng, content)[:200_000]
    return content


def _edited(rng: random.Random, content: bytes) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    end = min(end, start + rng.choice((1, 8, 64, 10**6)))
    before, piece, after = content[:start], content[start:end], content[end:]
    edits: list[Callable[[], bytes]] = [
        lambda: before,
        lambda: before + after,
        lambda: before + rng.choice(WORDS) + after,
        lambda: before + _noise(rng).randbytes(rng.choice((1, 4, 100))) + after,
        lambda: before + _flipped(_noise(rng), piece) + after,
        lambda: before + piece * rng.choice((2, 50)) + after,
        lambda: before + rng.choice((b"[", b'{"a":', b"(")) * 20_000 + piece + after,
    ]
    return rng.choice(edits)()


def _noise(rng: random.Random) -> random.Random:
    """Many numbers of one draw: Hypothesis keeps all of its draws, and has room for some thousand."""
    return random.Random(rng.getrandbits(32))


def _flipped(rng: random.Random, content: bytes) -> bytes:
    """Change one bit of each byte."""
    return bytes(
        byte ^ 1 << bit for byte, bit in zip(content, rng.choices(range(8), k=len(content)), strict=True)
    )


def hostile(rng: random.Random, deep: bool = True) -> Any:
    """Return a value where another was expected; what JSON can write, unless it is `deep`."""
    values: list[Callable[[], Any]] = [
        *(lambda v=v: v for v in (None, True, -1, 0, 0.5, 10**12, 2**63, 10**30, float("nan"), float("inf"))),
        *(lambda v=v: v for v in ("", "x" * 10**5, "\x1b[2J\n", "../../x", "\x00", [], {}, [[]], {"a": 1})),
    ]
    if deep:
        values += [
            lambda: (1, (2, 3)),
            lambda: nested(rng.choice((50, 5000))),
            lambda: shared(60),
            lambda: torch.ones(()).expand(10**6, 10**6),
            lambda: torch.full((3, 2), torch.nan),
            lambda: torch.zeros(2, dtype=torch.int64),
            lambda: torch.zeros(0, 10**6),
            lambda: torch.ones(4, dtype=torch.complex64),
            lambda: torch.eye(3).to_sparse(),
        ]
    return rng.choice(values)()


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def shared(depth: int) -> Any:
    """A list that would have 2^depth entries if it were written out."""
    value: Any = []
    for _ in range(depth):
        value = [value, value]
    return value


def changed(rng: random.Random, tree: Any, deep: bool = True) -> Any:
    """Replace, remove or move something in a tree of dictionaries and lists."""
    if not isinstance(tree, dict | list) or not tree or rng.randrange(20) < 3:
        return hostile(rng, deep)
    tree = copy(tree)
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    key = rng.choice(keys)
    what = rng.randrange(20)
    if what < 3:
        del tree[key]
    elif what < 5 and isinstance(tree, dict):
        tree[rng.choice(("x", "", "format", "\x1b[2J"))] = tree.pop(key)
    elif what < 7:
        tree[key] = tree[rng.choice(keys)]
    else:
        tree[key] = changed(rng, tree[key], deep)
    return tree


def rezipped(rng: random.Random, content: bytes) -> bytes:
    """Change a member of an archive, or its directory, with checksums that are right."""
    source = zipfile.ZipFile(io.BytesIO(content))
    target = io.BytesIO()
    method = rng.choice((source.infolist()[0].compress_type,) * 6 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    chosen = rng.choice(source.namelist()[:3] * 5 + source.namelist())
    with zipfile.ZipFile(target, "w", method) as out:
        for name in source.namelist():
            member = source.read(name)
            written = damaged(rng, member) if name == chosen else member
            out.writestr(zipfile.ZipInfo(name), written, method)  # of 1980 and not of today
    return target.getvalue()


def resaved(rng: random.Random, content: bytes) -> bytes:
    """Change what a checkpoint holds, and let torch write it."""
    tree = torch.load(io.BytesIO(content), weights_only=True)
    for _ in range(rng.choice((1, 1, 2))):
        tree = changed(rng, tree)
    target = io.BytesIO()
    try:
        torch.save(tree, target)
    except RecursionError:  # too deep to be written
        return rezipped(rng, content)
    return target.getvalue()


def redescribed(rng: random.Random, content: bytes) -> bytes:
    """Change the metadata of safetensors, or what JSON in them says."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    known = header["__metadata__"]
    name = rng.choice(list(known))
    try:
        known[name] = json.dumps(changed(rng, json.loads(known[name]), deep=False))
    except ValueError:
        known[name] = rng.choice(WORDS).decode("latin-1")
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def remeasured(rng: random.Random, content: bytes) -> bytes:
    """Change the header or an array of a result."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    name = rng.choice(list(arrays))
    if name == "header":
        arrays["header"] = np.array(json.dumps(changed(rng, header, deep=False)))
    else:
        array = arrays[name]
        arrays[name] = rng.choice(
            (
                lambda: array.astype("<U8"),
                lambda: array.astype(complex),
                lambda: array.astype(bool),
                lambda: array[None],
                lambda: array.reshape(-1)[:-1],
                lambda: array * np.nan,
                lambda: np.full_like(array, 1e308),
                lambda: np.zeros(10**6),
                lambda: np.empty((0, 3)),
                lambda: np.array("x"),
            )
        )()
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)
    return target.getvalue()


def rewritten(rng: random.Random, content: bytes) -> bytes:
    """Change what a line of JSON says, or the whole file where it is one."""
    try:
        return json.dumps(changed(rng, json.loads(content), deep=False)).encode("utf-8", "surrogatepass")
    except ValueError:
        lines = content.splitlines()
        number = rng.randrange(len(lines))
        try:
            changed_line = json.dumps(changed(rng, json.loads(lines[number]), deep=False)).encode()
        except ValueError:
            return damaged(rng, content)
        return b"\n".join([*lines[:number], changed_line, *lines[number + 1 :]]) + b"\n"
