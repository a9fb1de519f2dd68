"""Public data sets: where they lie, what they must be, and how to get them whole."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from landscape.errors import InputError
from landscape.runtime.progress import bar
from landscape.storage.files import existing, locked, replacing, sha256, writable

HOME = "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/master/data/"
TIMEOUT = 30.0  # seconds without a byte
KIB = 1024  # bytes a step of the progress bar


@dataclass(frozen=True)
class File:
    """A public file: its name in the folder it is put in, where it lies, its hash and its length."""

    name: str
    url: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Entry:
    """A data set: its sequences, its items' attributes (an item's categories and brand), what it holds."""

    name: str
    users: int
    items: int
    interactions: int
    source: str
    sequences: File
    attributes: File


@dataclass(frozen=True)
class Fetched:
    """A file that is whole and right, and how many bytes came for it: 0 if it was there already."""

    path: Path
    downloaded: int


def _s3rec(
    name: str, stem: str, source: str, counts: tuple[int, int, int], *files: tuple[str, int]
) -> tuple[str, Entry]:
    """Return a data set of S3Rec by its name; `files` are the hashes and lengths of its two files."""
    names = (f"{stem}.txt", f"{stem}_item2attributes.json")
    return name, Entry(
        name, *counts, source, *(File(n, HOME + n, *f) for n, f in zip(names, files, strict=True))
    )


# The 5-core files of S3Rec (Zhou et al. 2020), which ICLRec and CoSeRec share. The branch may move: the
# hashes are what says which files these are.
CATALOG: Mapping[str, Entry] = dict(
    (
        _s3rec(
            "beauty",
            "Beauty",
            "Amazon 2014, Beauty",
            (22_363, 12_101, 198_502),
            ("226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8", 1_090_094),
            ("129e40f67486f6877eff0f5318cfa8530ee8ac23d8b0d1de04e1bb7a2ba0b2d4", 305_674),
        ),
        _s3rec(
            "toys",
            "Toys_and_Games",
            "Amazon 2014, Toys and Games",
            (19_412, 11_924, 167_597),
            ("176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f", 922_166),
            ("d371acd25101eedac04afc727626464b7acec770c4eda708705d51eb76eb1ad0", 327_536),
        ),
        _s3rec(
            "sports",
            "Sports_and_Outdoors",
            "Amazon 2014, Sports and Outdoors",
            (35_598, 18_357, 296_337),
            ("2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2", 1_707_483),
            ("7fb10733ac4f1811384a52144cdefa7fcc7536fa80a7232c5da9bd789155c34b", 653_780),
        ),
        _s3rec(
            "yelp",
            "Yelp",
            "Yelp 2019",
            (30_431, 20_033, 316_354),
            ("724b219106b81dd2349027da997334ddb6da9fe2f152ad6e0d97a93170f7caed", 1_814_224),
            ("f25acd5e1e680e0b22fd4e3f4fb6be4b2a7461e9222610616e3e1ee6702dd58d", 600_360),
        ),
    )
)


def find(name: str) -> Entry:
    """Return the data set of this name, or whose sequence file has it for a stem; case does not count.

    Raises:
        InputError: there is none.
    """
    for entry in CATALOG.values():
        if name.lower() in (entry.name, Path(entry.sequences.name).stem.lower()):
            return entry
    raise InputError(f"no data set {name!r}; expected {', '.join(CATALOG)}")


def fetch(file: File, folder: Path) -> Fetched:
    """Put `file` into `folder`, which this process then holds, and check it against its hash.

    What has arrived is kept in `NAME.part` there, from which the next call continues. Only a file of
    the right hash gets its name, in one step. One that is already there is not downloaded.

    Args:
        file: what to get, as an `Entry` of the `CATALOG` has it. Nothing is unpacked.
        folder: where to put it; made when the first bytes come.

    `pooch` would check the hash too, but begins a broken download anew and follows redirects to anywhere.

    Raises:
        InputError: another process writes to the folder, another file has the name, the name leads out of the
            folder, the folder is not ours to write to, the server cannot be reached, refuses, sends elsewhere
            than https or breaks off (what has arrived is kept), or what came is not the file (nothing is
            kept, so that the next call starts anew).
    """
    path = writable(folder) / file.name
    if path.parent != folder or path.name in ("", ".."):
        raise InputError(f"{file.name!r} is not the name of a file in {folder}")
    if path.exists():
        if sha256(existing(path, "data file")) != file.sha256:
            raise InputError(f"{path} is not the file of {file.url}; move it, or choose another folder")
        return Fetched(path, 0)
    part = path.with_name(f"{path.name}.part")
    if part.is_symlink():
        raise InputError(f"{part} leads elsewhere; remove it")
    with locked(folder):  # two that append to one part would make neither file
        downloaded = _download(file, part)
        with replacing(path) as whole:
            shutil.copyfile(part, whole)
            if (found := sha256(whole)) != file.sha256:
                part.unlink(missing_ok=True)
                raise InputError(
                    f"the download from {file.url} has the SHA-256 {found}, expected {file.sha256}; it is "
                    "removed: run it again to start anew"
                )
        part.unlink(missing_ok=True)
    return Fetched(path, downloaded)


def _download(file: File, part: Path) -> int:
    """Append to `part` what it lacks of `file`, and return how many bytes came."""
    have = part.stat().st_size if part.exists() else 0
    if have >= file.bytes:  # whole, or of another file: the hash will tell
        return 0
    response = _ask(file, have)
    with response:
        # A server that cannot send a part sends the whole (200). One that sends another part than was
        # asked for is caught by the length or by the hash.
        continued = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        start = have = have if continued else 0
        if response.length is not None and start + response.length != file.bytes:
            part.unlink(missing_ok=True)
            raise InputError(
                f"{file.url} has {start + response.length:,} bytes, expected {file.bytes:,}: another file"
            )
        part.parent.mkdir(parents=True, exist_ok=True)
        with (
            part.open("ab" if continued else "wb") as out,
            bar(f"{file.name}, KiB", -(-file.bytes // KIB), start // KIB) as advance,
        ):
            while have <= file.bytes:  # one that never ends is left a step past its length
                try:
                    chunk = response.read(KIB)
                except (OSError, HTTPException) as error:
                    raise _broken(file, have, error) from error
                if not chunk:
                    break
                have += out.write(chunk)
                advance()
    if have < file.bytes:
        raise _broken(file, have, ConnectionError("the connection was closed"))
    return have - start


def _ask(file: File, start: int) -> HTTPResponse:
    """Ask for the bytes from `start` on."""
    if not _trusted(file.url):
        raise InputError(f"{file.url} is not https; nothing else is downloaded from")
    request = Request(file.url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:  # what lies there ends before `start`: see what it is
            return _ask(file, 0)
        place = f" to {error.headers['Location']!r}, which is not followed" if 300 <= error.code < 400 else ""
        raise InputError(f"cannot download {file.url}: HTTP {error.code}{place}") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a redirect to an invalid address
        raise _broken(file, start, error) from error
    return response


class _Redirects(HTTPRedirectHandler):
    """Follows a redirect only to where the download might have begun, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme or not _trusted(newurl):
            return None  # urllib then raises the HTTPError of `code`
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _trusted(url: str) -> bool:
    """Whether nobody between here and there can read or change what is sent."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1")
    )


def _broken(file: File, have: int, error: Exception) -> InputError:
    """Say why a download ended early, and from where it will go on."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, OSError) else error
    # Other errors may quote the server, over several lines.
    said = cause.strerror or str(cause) if isinstance(cause, OSError) else type(cause).__name__
    again = f"; run it again to continue at {have:,} of {file.bytes:,} bytes" if have else ""
    return InputError(f"cannot download {file.url}: {said}{again}")
