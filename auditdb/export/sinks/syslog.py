"""Syslog: messages of RFC 5424 in frames of RFC 5425, over TLS; at least once.

The protocol has no response. So each delivery has its own connection, which both sides close: when
the receiver has closed its side, it has read everything.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

from auditdb.export.sinks.base import Delivery, Line, Retry
from auditdb.export.sinks.threads import in_thread

# Facility 13, "log audit", and severity 6, "informational".
_PRIORITY = 13 * 8 + 6


class Syslog:
    """Sends each event as a message to one collector."""

    def __init__(self, host: str, port: int = 6514, *, timeout: float = 30) -> None:
        self._host, self._port, self._timeout = host, port, timeout
        self._trust = ssl.create_default_context()
        self._from = socket.gethostname()[:255] or "-"

    async def put(self, delivery: Delivery) -> None:
        """Send all messages, and wait until the receiver has read everything."""
        data = b"".join([self._frame(line) for line in delivery.lines])
        place = f"{self._host}:{self._port}"
        try:
            async with asyncio.timeout(self._timeout):
                await in_thread(self._exchange, data)
        except TimeoutError as error:
            raise Retry(f"{place} did not take the messages in {self._timeout:g} s") from error
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message
            raise Retry(f"the certificate of {place} is not valid: {reason}") from error
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise Retry(f"{place} cannot be reached, or closed the connection: {reason}") from error

    def _exchange(self, data: bytes) -> None:
        with (
            socket.create_connection((self._host, self._port), self._timeout) as plain,
            self._trust.wrap_socket(plain, server_hostname=self._host) as conn,
        ):
            conn.sendall(data)
            try:
                conn.unwrap()
            except ssl.SSLError as error:
                # A normal close means that everything was read: unread bytes would cause a reset.
                if not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                    raise

    def _frame(self, line: Line) -> bytes:
        message = b"<%d>1 %s %s auditdb %d %s - %s" % (
            _PRIORITY, (line.at or "-").encode(), self._from.encode(), os.getpid(),
            line.key.rpartition(":")[2].encode()[-32:] or b"-", line.data,
        )  # fmt: skip
        return b"%d %s" % (len(message), message)

    async def close(self) -> None:
        """Do nothing: each connection ends with its delivery."""
