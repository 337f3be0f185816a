"""Serves the page on this machine, to one person."""

from __future__ import annotations

import socket
from collections.abc import Callable
from secrets import token_urlsafe
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount

from auditdb.errors import AuditError


def listen(port: int) -> socket.socket:
    """Take a port of 127.0.0.1; 0 for one that is free.

    Raises:
        AuditError: it cannot be taken.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        # listen() fails now if another process has bound the port too.
        listening.listen(1)
    except OSError as error:
        listening.close()
        raise AuditError(
            f"port {port} cannot be taken: {error.strerror}; give another with --port"
        ) from error
    return listening


def serve(application: Starlette, listening: socket.socket, say: Callable[[str], object]) -> None:
    """Serve an application on a port that was taken, until it is interrupted.

    Other host names are refused, because another site could use them to read the log (DNS
    rebinding). The address contains a secret, so that other users of this machine cannot read the
    log.

    Args:
        application: what `auditdb.web.app` returned.
        listening: what `listen` returned.
        say: called with the address.
    """
    place = f"/{token_urlsafe(16)}"
    placed = Starlette(routes=[Mount(place, application)])
    guarded: Any = TrustedHostMiddleware(placed, ["127.0.0.1", "localhost"])
    say(f"http://127.0.0.1:{listening.getsockname()[1]}{place}/")
    config = uvicorn.Config(guarded, log_level="error", lifespan="off", server_header=False)
    uvicorn.Server(config).run(sockets=[listening])
