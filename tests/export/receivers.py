"""Receivers that take deliveries, and do all that goes wrong between machines."""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme


@dataclass(frozen=True)
class Answer:
    """What a receiver does with one request."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    act: str = "answer"
    """answer; hang; reset before an answer; half: break off within the answer; drip."""


@dataclass(frozen=True)
class Request:
    """What came."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> bytes:
        """The body as it was before it was compressed."""
        packed = self.headers.get("content-encoding") == "gzip"
        return gzip.decompress(self.raw) if packed else self.raw


Decide = Callable[[Request], Answer]


@dataclass
class Receiver:
    """An HTTP server whose answers a test decides."""

    decide: Decide = field(default=lambda request: Answer())
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def script(self, *answers: Answer) -> None:
        """Give these answers, and then take everything."""
        left = iter(answers)
        self.decide = lambda request: next(left, Answer())


def _act(handler: BaseHTTPRequestHandler, receiver: Receiver, answer: Answer) -> None:
    sock = handler.connection
    if answer.act == "hang":
        receiver.ended.wait(30)
    elif answer.act == "drip":
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not receiver.ended.wait(0.1):
            handler.wfile.write(b"x: y\r\n")
    elif answer.act == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif answer.act == "half":
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
    if answer.act != "answer":
        handler.close_connection = True
        sock.close() if answer.act == "reset" else None
        return
    handler.send_response(answer.status)
    for name, value in answer.headers:
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(answer.body)))
    handler.end_headers()
    handler.wfile.write(answer.body)


@contextmanager
def receiver(trust: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver, over TLS if there is a context."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, raw)
            state.requests.append(request)
            try:
                _act(self, state, state.decide(request))
            except OSError:
                self.close_connection = True

        do_PUT = do_GET = do_HEAD = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if trust is not None:
        server.socket = trust.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        state.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Authority:
    """A certificate authority of a test, and a server's context under it."""

    file: Path
    server: ssl.SSLContext


def authority(folder: Path, name: str = "localhost") -> Authority:
    """Make an authority, and a certificate for a name."""
    made = trustme.CA()
    file = folder / "ca.pem"
    made.cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert(name).configure_cert(context)
    return Authority(file, context)


@dataclass
class Collector:
    """A collector of syslog: what it read of each connection."""

    port: int = 0
    received: list[bytes] = field(default_factory=list)
    resets_after: int | None = None


@contextmanager
def collector(trust: ssl.SSLContext) -> Iterator[Collector]:
    """Run a collector of syslog over TLS."""
    state = Collector()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    state.port = listener.getsockname()[1]
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                plain, _ = listener.accept()
            except TimeoutError:
                continue
            with plain:
                _collect(trust, plain, state)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield state
    finally:
        ended.set()
        thread.join()
        listener.close()


def _collect(trust: ssl.SSLContext, plain: socket.socket, state: Collector) -> None:
    plain.settimeout(10)
    data = b""
    try:
        with trust.wrap_socket(plain, server_side=True) as conn:
            while part := conn.recv(65536):
                data += part
                if state.resets_after is not None and len(data) >= state.resets_after:
                    linger = struct.pack("ii", 1, 0)
                    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return
            state.received.append(data)
    except OSError:
        pass
