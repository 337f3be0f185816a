"""The event of an attempt that is denied or fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from auditdb.errors import AuditError, from_message
from auditdb.write.event import NewEvent

Denied: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]
_INSUFFICIENT_PRIVILEGE = "42501"
# Quotation marks in messages of any language: symmetric ones, and pairs.
_SAME, _PAIRED = "'\"`", "«»‹›„“”‚‘’「」『』"
_QUOTED = re.compile(f"([{_SAME}]).*\\1|[{_PAIRED}].*[{_PAIRED}]")
_UNCLOSED = re.compile(f"[{_SAME}{_PAIRED}].*")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What was given to `auditdb.attempt`."""

    event: NewEvent
    denied: Denied = ()
    connect: Callable[[], Any] | None = None
    success: bool = False

    def __post_init__(self) -> None:
        """Check the arguments before the action, because later the event would be lost."""
        try:
            isinstance(None, self.denied)
        except TypeError:
            raise TypeError(
                f"denied is {self.denied!r}; give exception types, such as (Forbidden, Expired)"
            ) from None

    def failed(self, error: Exception) -> NewEvent:
        """Return the event of an attempt that ended with an error."""
        state = sqlstate(error)
        is_refusal = isinstance(error, PermissionError) or isinstance(error, self.denied)
        result = "denied" if is_refusal or state == _INSUFFICIENT_PRIVILEGE else "failure"
        details = {"type": type(error).__name__, "message": mask_values(str(error))}
        if state:
            details["sqlstate"] = state
        return replace(self.event, result=result).with_details({"error": details})

    def note(self, error: Exception, unrecorded: Exception) -> None:
        """Add a note to an error that its event could not be recorded, and why."""
        error.add_note(
            f"auditdb could not record that {self.event.action} failed: "
            f"{type(unrecorded).__name__}: {unrecorded}"
        )


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error of a driver, also of one that a framework wraps, or None."""
    for found in (error, getattr(error, "orig", None), error.__cause__):
        state = getattr(found, "sqlstate", None) or getattr(found, "pgcode", None)
        if isinstance(state, str):
            return state
    return None


def from_wrapped(error: BaseException, writer: str | None) -> AuditError:
    """Return the AuditError for a driver's error that a framework wraps.

    Args:
        error: it.
        writer: the login, which has to be an `audit_writer`, or None where nobody knows it.
    """
    original: Any = getattr(error, "orig", None) or error.__cause__ or error
    # SQLAlchemy wraps the errors of asyncpg twice.
    source = original if hasattr(original, "diag") else original.__cause__ or original
    diag = getattr(source, "diag", None)
    message, detail, hint = (
        getattr(diag, f"message_{of_diag}", None) or getattr(source, name, None)
        for of_diag, name in (("primary", "message"), ("detail", "detail"), ("hint", "hint"))
    )
    return from_message(
        message or str(source), detail, hint, sqlstate(source) or sqlstate(original), writer
    )


def mask_values(message: str) -> str:
    r"""Return the first line of an error's message without what it quotes, which may be a value.

    >>> mask_values("invalid input syntax for type integer: \"hunter2\"\nLINE 1")
    'invalid input syntax for type integer: …'
    """
    line, newline, _ = message.strip().partition("\n")
    line = _QUOTED.sub("…", line)
    # A quoted value may continue on the next line.
    return (_UNCLOSED.sub("…", line) if newline else line)[:200]
