"""Standard output: lines, flushed after each delivery."""

from __future__ import annotations

import errno
import sys
from typing import BinaryIO

from auditdb.export.sinks.base import Delivery, Rejected
from auditdb.export.sinks.threads import in_thread


class StandardOutput:
    """Writes lines to standard output; the CSV header only once."""

    def __init__(self, out: BinaryIO | None = None) -> None:
        self._out = out or sys.stdout.buffer
        self._has_begun = False

    async def put(self, delivery: Delivery) -> None:
        """Write all lines, and flush."""
        body = delivery.body[len(delivery.head) if self._has_begun else 0 :]
        try:
            await in_thread(self._write, body)
        except BrokenPipeError as error:
            raise Rejected("the reader of standard output ended") from error
        except OSError as error:
            reason = error.strerror or errno.errorcode.get(error.errno or 0, "")
            raise Rejected(f"cannot write to standard output: {reason}") from error
        self._has_begun = True

    def _write(self, body: bytes) -> None:
        self._out.write(body)
        self._out.flush()

    async def close(self) -> None:
        """Do nothing: standard output stays open."""
