"""Where a log is published: directories, object stores, web servers; and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import fsspec
import pytest

from auditdb.errors import InvalidInput
from auditdb.evidence.places import Published, Unpublished, open_place
from auditdb.evidence.tree import HASH, Problem, Tile


class Handler(BaseHTTPRequestHandler):
    files: dict[str, bytes] = {}  # noqa: RUF012
    kinds: dict[str, str | None] = {}  # noqa: RUF012

    def do_PUT(self) -> None:
        allowed = self.headers.get("Authorization") == "Bearer letmein"
        if allowed:
            self.files[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.kinds[self.path] = self.headers["Content-Type"]
        self._answer(204 if allowed else 403, b"")

    def do_GET(self) -> None:
        found = self.files.get(self.path)
        self._answer(404 if found is None else 200, found or b"")

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/log"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["file", "memory", "web"])
def url(request: pytest.FixtureRequest, tmp_path: Path, web: str) -> str:
    return {"file": tmp_path.as_uri(), "memory": f"memory://{tmp_path}", "web": web}[request.param]


def test_what_was_written_is_read_and_the_last_counts(url: str) -> None:
    place = open_place(url, "letmein")
    assert place.read("checkpoint") is None
    for data in (b"one", b"two"):
        place.write("checkpoint", data)
        place.write("tile/0/x001/067.p/3", data)
        assert place.read("checkpoint") == place.read("tile/0/x001/067.p/3") == data


def test_tiles_are_read_where_the_partial_one_is_gone(url: str) -> None:
    place = open_place(url, "letmein")
    full = bytes(range(256)) * HASH
    place.write("tile/0/000", full)
    tiles = Published(place)
    assert tiles.read(Tile(0, 0, 3)) == full[: 3 * HASH]
    place.write("tile/0/001.p/3", full[: 2 * HASH])
    for tile in (Tile(0, 1, 3), Tile(0, 1)):
        with pytest.raises(Problem, match="lacks tile/0/001"):
            tiles.read(tile)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    place = open_place(tmp_path.as_uri())
    place.write("checkpoint", b"one")
    (tmp_path / ".checkpoint.tmp").mkdir()
    with pytest.raises(Unpublished, match="checkpoint"):
        place.write("checkpoint", b"two")
    assert place.read("checkpoint") == b"one"


def test_a_server_that_refuses_or_is_gone_is_said_in_a_line(web: str) -> None:
    with pytest.raises(Unpublished, match=r"PUT http.*/log/checkpoint: 403"):
        open_place(web).write("checkpoint", b"one")
    assert Handler.kinds.get("/log/checkpoint") in {None, "text/plain; charset=utf-8"}
    with pytest.raises(Unpublished, match="refused"):
        open_place("http://127.0.0.1:9/log").read("checkpoint")


def test_a_store_that_fails_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place("memory://store")

    def fail(*args: object) -> None:
        raise RuntimeError("slow\ndown")

    monkeypatch.setattr(fsspec.filesystem("memory"), "pipe_file", fail)
    with pytest.raises(Unpublished, match="cannot write /store/checkpoint: slow down"):
        place.write("checkpoint", b"one")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://me:secret@example.com/log", "leave out user"),
        ("https://example.com/log?token=secret", "leave out user"),
        ("http://example.com/log", "not encrypted"),
        ("/var/log", "is invalid"),
        ("file://var/log", "is invalid"),
        ("file:///nowhere/at/all", "create it, or correct the path"),
        ("nothing://example.com/log", "needs a package"),
    ],
)
def test_what_is_no_place_is_refused(url: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        open_place(url)
    assert "secret" not in str(caught.value)
