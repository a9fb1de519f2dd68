"""Public data are downloaded whole and right, or not at all."""

import gc
import hashlib
import re
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

import pytest

from landscape.errors import InputError
from landscape.storage.files import sha256
from samrec.data import catalog
from samrec.data.catalog import CATALOG, Entry, Fetched, File, fetch, find
from samrec.data.readers import read

CONTENT = b"".join(f"{user} {user} {user + 1} {user + 2}\n".encode() for user in range(1, 1001))
FILES = [pytest.param(f, id=f.name) for e in CATALOG.values() for f in (e.sequences, e.attributes)]


class Handler(BaseHTTPRequestHandler):
    """Sends `server.content`, as faithfully as the server's other attributes say."""

    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        with suppress(ConnectionError):  # a client that has seen enough
            if server.status != 200 and self.path != "/moved":
                self.send_response(server.status)
                self.send_header("Location", server.location)
                self.end_headers()
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
            if start and start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                last = len(server.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
            if server.says_length:
                self.send_header("Content-Length", str(len(server.content) - start))
            self.end_headers()
            self.wfile.write(server.content[start : server.cut])
            if server.silent:
                self.rfile.read(1)  # until the client has left
            while server.endless:
                self.wfile.write(b"0" * 4096)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.cut, server.asked = CONTENT, None, []
        server.status, server.location = 200, ""
        server.ranges = server.says_length = True
        server.endless = server.silent = False
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def file(server):
    digest = hashlib.sha256(CONTENT).hexdigest()
    return File("Small.txt", f"{server.url}/Small.txt", digest, len(CONTENT))


@pytest.fixture
def part(tmp_path):
    return tmp_path / "Small.txt.part"


def files(folder):
    return {path.name for path in folder.rglob("*")}


def refused(file, folder, message):
    """One line, which is returned, and nothing under the final name."""
    with pytest.raises(InputError, match=message) as error:
        fetch(file, folder)
    assert "\n" not in str(error.value)
    assert not (folder / file.name).exists()
    return str(error.value)


def test_a_whole_download(server, file, tmp_path):
    folder = tmp_path / "new" / "data"
    assert fetch(file, folder) == Fetched(folder / "Small.txt", len(CONTENT))
    assert (folder / "Small.txt").read_bytes() == CONTENT
    assert files(folder) == {"Small.txt"}
    assert server.asked == [None]


def test_what_is_there_is_not_asked_for(server, file, tmp_path):
    (tmp_path / "Small.txt").write_bytes(CONTENT)
    assert fetch(file, tmp_path) == Fetched(tmp_path / "Small.txt", 0)
    assert server.asked == []


def test_another_file_of_the_name_is_not_overwritten(server, file, tmp_path):
    (tmp_path / "Small.txt").write_text("mine")
    with pytest.raises(InputError, match=r"Small\.txt is not the file of .*; move it"):
        fetch(file, tmp_path)
    assert (tmp_path / "Small.txt").read_text() == "mine"
    assert server.asked == []


@pytest.mark.parametrize("says_length", [True, False])
def test_a_broken_download_continues(server, file, tmp_path, part, says_length):
    server.cut, server.says_length = 5000, says_length
    said = refused(file, tmp_path, "the connection was closed")
    assert said.endswith(f"run it again to continue at 5,000 of {len(CONTENT):,} bytes")
    assert part.read_bytes() == CONTENT[:5000]
    server.cut = None
    assert fetch(file, tmp_path).downloaded == len(CONTENT) - 5000
    assert server.asked == [None, "bytes=5000-"]
    assert (tmp_path / "Small.txt").read_bytes() == CONTENT
    assert files(tmp_path) == {"Small.txt"}


def test_a_server_that_falls_silent(server, file, tmp_path, part, monkeypatch):
    monkeypatch.setattr(catalog, "TIMEOUT", 3)  # enough for the first part to come on a busy machine
    server.cut, server.silent = 4096, True
    refused(file, tmp_path, "timed out; run it again to continue at 4,096 of")
    assert part.read_bytes() == CONTENT[:4096]


def test_a_server_that_knows_no_parts_sends_the_whole(server, file, tmp_path, part):
    server.ranges = False
    part.write_bytes(CONTENT[:5000])
    assert fetch(file, tmp_path).downloaded == len(CONTENT)
    assert server.asked == ["bytes=5000-"]
    assert (tmp_path / "Small.txt").read_bytes() == CONTENT


def test_a_part_that_is_whole_needs_no_server(server, file, tmp_path, part):
    part.write_bytes(CONTENT)
    assert fetch(file, tmp_path).downloaded == 0
    assert server.asked == []
    assert files(tmp_path) == {"Small.txt"}


@pytest.mark.parametrize("old", [b"x" * 5000, b"x" * len(CONTENT), CONTENT + b"x"])
def test_a_part_of_another_file_is_removed(server, file, tmp_path, part, old):
    part.write_bytes(old)
    refused(file, tmp_path, r"has the SHA-256 .*; it is removed: run it again to start anew")
    assert files(tmp_path) == set()
    assert fetch(file, tmp_path).downloaded == len(CONTENT)


def test_a_wrong_hash(server, file, tmp_path):
    server.content = CONTENT[::-1]
    refused(file, tmp_path, f"expected {file.sha256}")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("content", [CONTENT + b"1", CONTENT[:-1]])
def test_a_wrong_length_is_refused_before_it_is_read(server, file, tmp_path, content):
    server.content = content
    refused(file, tmp_path, f"has {len(content):,} bytes, expected {len(CONTENT):,}")
    assert files(tmp_path) == set()


def test_a_file_that_has_become_shorter_than_the_part(server, file, tmp_path, part):
    part.write_bytes(CONTENT[:5000])
    server.content = CONTENT[:4000]
    refused(file, tmp_path, "has 4,000 bytes, expected")
    assert server.asked == ["bytes=5000-", None]
    assert files(tmp_path) == set()


def test_a_download_that_never_ends_is_left(server, file, tmp_path):
    server.says_length, server.endless = False, True
    refused(file, tmp_path, "it is removed")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("status", [404, 416, 500])
def test_an_error_of_the_server_leaves_nothing(server, file, tmp_path, status):
    server.status = status
    refused(file, tmp_path / "data", f"cannot download {file.url}: HTTP {status}$")
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/Small.txt",
        "https://127.0.0.1/Small.txt",  # another scheme
        "http://example.org/Small.txt",  # not encrypted
        "http://127.0.0.1.example.org/Small.txt",
        "data:,1",
    ],
)
def test_a_redirect_elsewhere_is_not_followed(server, file, tmp_path, location):
    server.status, server.location = 302, location
    refused(file, tmp_path, f"HTTP 302 to {re.escape(repr(location))}, which is not followed$")
    assert server.asked == [None]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_redirect_to_no_address(server, file, tmp_path):
    server.status, server.location = 302, "http://[1/"
    refused(file, tmp_path, "ValueError")
    gc.collect()  # urllib does not close this answer, and warns here rather than in another test


def test_no_redirect_leads_from_https_to_http():
    request = catalog.Request("https://localhost/a")
    redirects = catalog._Redirects()
    assert redirects.redirect_request(request, None, 302, "", {}, "http://localhost/b") is None
    assert redirects.redirect_request(request, None, 302, "", {}, "https://example.org/b") is not None


def test_a_redirect_is_followed_and_keeps_the_range(server, file, tmp_path, part):
    part.write_bytes(CONTENT[:5000])
    server.status, server.location = 302, f"{server.url}/moved"
    fetch(file, tmp_path)
    assert server.asked == ["bytes=5000-", "bytes=5000-"]
    assert (tmp_path / "Small.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://example.org/a", "file:///etc/passwd", "ftp://localhost/a"])
def test_only_https_is_downloaded_from(file, tmp_path, url):
    refused(replace(file, url=url), tmp_path, "is not https")


@pytest.mark.parametrize("name", ["../Small.txt", "/tmp/Small.txt", "a/Small.txt", "..", ""])
def test_a_name_that_leads_out_of_the_folder(server, file, tmp_path, name):
    with pytest.raises(InputError, match="is not the name of a file in"):
        fetch(replace(file, name=name), tmp_path / "data")
    assert server.asked == []
    assert files(tmp_path) == set()


def test_a_part_that_is_a_link_is_not_written_through(server, file, tmp_path, part):
    (tmp_path / "mine").write_text("mine")
    part.symlink_to(tmp_path / "mine")
    refused(file, tmp_path, "leads elsewhere")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_server_that_is_not_there(server, file, tmp_path, part):
    with socket.create_server(("127.0.0.1", 0)) as other:  # whose port is then free
        file = replace(file, url=f"http://127.0.0.1:{other.getsockname()[1]}/Small.txt")
    refused(file, tmp_path, "cannot download .*: Connection refused$")
    part.write_bytes(CONTENT[:5000])
    refused(file, tmp_path, "Connection refused; run it again to continue at 5,000 of")
    assert files(tmp_path) == {"Small.txt.part"}


def test_a_folder_that_is_a_file(server, file, tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match="is a file"):
        fetch(file, tmp_path / "data")
    assert server.asked == []


@pytest.mark.parametrize("name", ["beauty", "BEAUTY", "Beauty"])
def test_names(name):
    assert find(name) is CATALOG["beauty"]
    assert find("sports_and_outdoors") is CATALOG["sports"]


@pytest.mark.parametrize("file", FILES)
def test_the_catalogue_is_sound(file):
    assert re.fullmatch(r"[A-Za-z0-9_]+\.(txt|json)", file.name)  # no path, nothing hidden
    assert PurePosixPath(file.url).name == file.name
    assert file.url.startswith("https://")
    assert re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert file.bytes > 0


@pytest.mark.parametrize("file", FILES)
def test_the_catalogue_names_the_real_files(real_data, file):
    path = real_data / file.name
    assert (sha256(path), path.stat().st_size) == (file.sha256, file.bytes)


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_the_catalogue_counts_right(real_data, entry):
    found = read(real_data / entry.sequences.name)
    assert (found.num_users, found.num_items, len(found.items)) == (
        entry.users,
        entry.items,
        entry.interactions,
    )


@pytest.fixture
def small(file, monkeypatch):
    """A catalogue of one, on this machine."""
    attributes = replace(file, name="Small_item2attributes.json", url=f"{file.url}.json")
    entry = Entry("small", 1000, 1002, 3000, "a test", file, attributes)
    monkeypatch.setattr(catalog, "CATALOG", {"small": entry})
    return entry


def test_list(answer, landscape, small):
    (found,) = answer("data", "list")["data"]
    assert (found["name"], found["users"], found["sequences"]["sha256"]) == (
        "small",
        1000,
        small.sequences.sha256,
    )
    code, out, _ = landscape("data", "list")
    assert code == 0
    assert re.search(r"small +1,000 +1,002 +3,000 +a test", out)


def test_get(answer, landscape, small, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = landscape("data", "get", "Small")
    assert (code, err) == (0, "")
    assert f"data/Small.txt: {len(CONTENT):,} bytes downloaded" in out
    assert "landscape train --data data/Small.txt" in out
    _, out, _ = landscape("data", "get", "small")
    assert "data/Small.txt: already there" in out
    assert answer("data", "get", "small") == {
        "name": "small",
        "path": "data/Small.txt",
        "sha256": small.sequences.sha256,
        "bytes": len(CONTENT),
        "downloaded": 0,
        "attributes": None,
    }
    assert server.asked == [None]
    found = answer("data", "get", "small", "--attributes", "--out", "here")
    assert found["attributes"]["path"] == "here/Small_item2attributes.json"
    assert files(tmp_path / "here") == {"Small.txt", "Small_item2attributes.json"}
    assert answer("data", "info", found["path"])["interactions"] == 3000


def test_bad_requests_are_one_line(landscape, small, server, tmp_path):
    out = ["--out", tmp_path / "data"]
    server.status = 404
    for name, message in (
        ("nothing", "no data set 'nothing'; expected small"),
        ("../small", "no data set '../small'; expected small"),
        ("small", f"cannot download {small.sequences.url}: HTTP 404"),
    ):
        assert landscape("data", "get", name, *out) == (2, "", f"landscape: {message}\n")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("command", ["get", "list"])
def test_help_has_examples_and_no_dead_options(landscape, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = landscape("data", command, "--help")
    assert "Example" in out
    assert "--json" in out
    assert "--seed" not in out  # nothing is drawn, nothing computed
