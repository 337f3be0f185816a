"""The errors of auditdb: each says what happened, to which object, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg


class AuditError(Exception):
    """Base of every error that auditdb raises.

    Where PostgreSQL refused something, the error of the driver is the `__cause__`.
    """


class ConnectionFailed(AuditError):
    """The server could not be reached, or refused the login."""


class Refused(AuditError):
    """The server was reached and refused the request: a privilege, a name, a mapping."""


class InvalidInput(AuditError, ValueError):
    """An invalid value: a malformed key, cursor, time or file."""


def describe(error: psycopg.Error) -> str:
    r"""Return one line for a PostgreSQL error: its message, and its hint if it has one.

    >>> describe(psycopg.OperationalError("connection failed:\n  no such host"))
    'connection failed: no such host'
    """
    diag = error.diag
    text = diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    return _in_a_line(text, diag.message_detail, diag.message_hint)


def from_psycopg(error: psycopg.Error) -> AuditError:
    """Return the AuditError for a psycopg error, to be raised `from` it; see `from_message`."""
    from psycopg import OperationalError

    diag = error.diag
    if error.sqlstate is None:
        text = describe(error)
        return ConnectionFailed(text) if isinstance(error, OperationalError) else Refused(text)
    message = diag.message_primary or describe(error)
    return from_message(message, diag.message_detail, diag.message_hint, error.sqlstate)


def from_message(
    message: str,
    detail: str | None,
    hint: str | None,
    sqlstate: str | None,
    writer: str | None = None,
) -> AuditError:
    """Return the AuditError for what a server said, of any driver.

    Args:
        message: its message.
        detail: its detail.
        hint: its hint.
        sqlstate: its SQLSTATE, or None if the error is not from a server.
        writer: the login, if the statement needs the role `audit_writer`.

    A lost or refused connection becomes `ConnectionFailed`, an invalid interval `InvalidInput`,
    everything else `Refused`.
    """
    if sqlstate is None or sqlstate[:2] in {"08", "28", "57"}:
        return ConnectionFailed(_in_a_line(message, detail, hint))
    if sqlstate in {"22007", "22008"} and "interval" in message:
        return InvalidInput(f"{message}. Give one such as '1 hour' or '24 months'")
    text = _in_a_line(message, detail, hint)
    if _is_missing(sqlstate, message):
        text = f"{message}. Is auditdb installed in this database? Run: auditdb install"
    elif sqlstate == "42501" and writer is not None:
        name = '"' + writer.replace('"', '""') + '"'
        text = f"{text}; run: grant audit_writer to {name}"
    elif sqlstate == "42501" and "schema audit" in message:
        text = (
            f"{message}. Have an administrator grant audit_writer, audit_reader, audit_auditor or "
            "audit_operator, whichever the work needs"
        )
    elif sqlstate == "25006":
        text = (
            f"{message}. Either this is a standby, or default_transaction_read_only is on for the "
            "database or the role"
        )
    return Refused(text)


def lacks_character(error: UnicodeEncodeError) -> InvalidInput:
    """Return the error for a character that client_encoding cannot represent."""
    return InvalidInput(
        f"the client_encoding of the connection has no {error.object[error.start]!r}, which "
        "was to be sent"
    )


def _in_a_line(*parts: str | None) -> str:
    return ". ".join(" ".join(part.split()).rstrip(".") for part in parts if part)


def _is_missing(sqlstate: str | None, message: str) -> bool:
    """Return whether the error means that auditdb is not installed, not that a name is misspelt."""
    return (
        (sqlstate == "3F000" and 'schema "audit' in message)
        or (sqlstate == "42883" and message.startswith("function audit.version()"))
        or (sqlstate == "42P01" and 'relation "audit.event"' in message)
        or (sqlstate == "42P01" and 'relation "audit.archive"' in message)
        or (sqlstate == "42704" and 'role "audit_auditor"' in message)
        or (sqlstate == "22023" and 'role "audit_' in message)
    )
