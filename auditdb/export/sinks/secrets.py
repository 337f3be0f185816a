"""Secrets of sinks, which are not stored in the database: tokens and signing secrets."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditdb.errors import InvalidInput
from auditdb.export.sinks.webhook import check_masters

STREAM, VARIABLE = "stream_secret", "AUDITDB_STREAM_SECRET"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The secrets of one subscription.

    Attributes:
        token: authenticates the sender: a bearer token, a Splunk token, an API key.
        signing: signing secrets of requests; two during a rotation.
    """

    token: str | None = None
    signing: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "Secrets(…)"


def secrets_of_variables(variables: Mapping[str, str] = os.environ) -> Secrets:
    """Return the secrets in AUDITDB_SINK_TOKEN and AUDITDB_SINK_SECRET, separated by spaces."""
    return Secrets(
        token=variables.get("AUDITDB_SINK_TOKEN", "").strip() or None,
        signing=tuple(variables.get("AUDITDB_SINK_SECRET", "").split()),
    )


def read_secrets(path: Path) -> dict[str, Secrets]:
    """Return the secrets of a TOML file, by the name of their subscription.

    Raises:
        InvalidInput: the file cannot be read or is invalid; the message does not quote it.
    """
    found = _read(path)
    found.pop(STREAM, None)
    return {name: _secrets(path, name, given) for name, given in found.items()}


def read_masters(path: Path | None, variables: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the master secrets of streams: `stream_secret` of a TOML file.

    Without it, they are those in AUDITDB_STREAM_SECRET, separated by spaces.

    Raises:
        InvalidInput: the file cannot be read, or one is too short.
    """
    given = _read(path).get(STREAM) if path is not None else None
    return check_masters(variables.get(VARIABLE, "").split() if given is None else given)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidInput(f"cannot read the secrets in {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # Raised outside of the except clause, because the parser error may quote a secret.
        found = None
    if found is None:
        raise InvalidInput(f"the secrets in {path} are not valid TOML")
    return found


def _secrets(path: Path, name: str, given: Any) -> Secrets:
    if not isinstance(given, dict) or not given.keys() <= {"token", "secret"}:
        raise InvalidInput(f"[{name}] in {path} may have only the keys token and secret")
    token, secret = given.get("token"), given.get("secret", [])
    signing = [secret] if isinstance(secret, str) else secret
    if not (token is None or isinstance(token, str)) or not (
        isinstance(signing, list) and all(isinstance(one, str) for one in signing)
    ):
        raise InvalidInput(f"token and secret of [{name}] in {path} are texts, in quotes")
    return Secrets(token=token, signing=tuple(signing))
