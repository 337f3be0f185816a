"""The claim of a context: who acts, checked and without secrets, and the statement that sets it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from psycopg.pq import Escaping
from psycopg.types.json import Jsonb

from auditdb.connection.state import AnyConnection
from auditdb.errors import InvalidInput
from auditdb.values.arguments import ACTOR_TYPES
from auditdb.values.convert import Id, as_text
from auditdb.values.details import details_without_secrets

# Names and texts of those that are given, and `details`.
Claim: TypeAlias = dict[str, Any]
_encode = json.JSONEncoder(ensure_ascii=False).encode
ARGUMENTS = frozenset(("actor_id", "actor_type", "impersonator_id", "source", "organization_id"))


def setting_statement(conn: AnyConnection, claim: Claim) -> bytes:
    """Return the statement that does as `audit.set_context` does, at less cost.

    Raises:
        InvalidInput: the connection's encoding lacks a character.
    """
    context = {"actor_type": "user", "source": "web", **claim}
    if claim["details"]:
        context["details"] = _without_nulls(claim["details"])
    else:
        del context["details"]
    # As psycopg: SQL_ASCII takes any bytes.
    encoding = conn.info.encoding.replace("ascii", "utf-8")
    try:
        literal = Escaping(conn.pgconn).escape_literal(_encode(context).encode(encoding))
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"the client_encoding of the connection has no {error.object[error.start]!r}, which "
            "the context holds"
        ) from error
    if conn.info.server_version >= 180000:
        # Takes no plan and returns no row; but older servers' pg_stat_statements would keep a line
        # for each value.
        return b"set local auditdb.context = " + bytes(literal)
    return b"select pg_catalog.set_config('auditdb.context', " + bytes(literal) + b", true)"


def _without_nulls(value: Any) -> Any:
    """Return what jsonb_strip_nulls would."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def default_actor_type(actor_id: Id | None) -> str | None:
    """Return the type of an actor given without one; that of an outer actor says nothing of it."""
    return None if actor_id is None else "user"


def check_actor_type(actor_type: str | None) -> None:
    """Refuse what is no type of an actor.

    Raises:
        InvalidInput: it is none of them.
    """
    if actor_type not in (None, *ACTOR_TYPES):
        raise InvalidInput(f"actor_type is {actor_type!r}; it is one of {', '.join(ACTOR_TYPES)}")


def make_claim(
    actor_id: Id | None,
    actor_type: str | None,
    impersonator_id: Id | None,
    source: str | None,
    organization_id: Id | None,
    details: Mapping[str, Any],
) -> Claim:
    """Return what was given, checked; without secrets."""
    claim: Claim = {"details": details_without_secrets(details)}
    if actor_id is not None:
        claim["actor_id"] = _identifier("actor_id", actor_id)
        claim["actor_type"] = "user"
    if actor_type:
        claim["actor_type"] = as_text("actor_type", actor_type)
        check_actor_type(claim["actor_type"])
    if impersonator_id is not None:
        claim["impersonator_id"] = _identifier("impersonator_id", impersonator_id)
    if source is not None:
        claim["source"] = _identifier("source", source)
    if organization_id is not None:
        claim["organization_id"] = _identifier("organization_id", organization_id)
    return claim


def _identifier(name: str, value: Id) -> str:
    text = as_text(name, value)
    if len(text) > 200:
        raise InvalidInput(f"{name} is longer than 200 characters; put long values into details")
    return text


def set_context_parameters(claim: Claim) -> dict[str, Any]:
    """Return the parameters of a call of `audit.set_context`."""
    return {**dict.fromkeys(ARGUMENTS), **claim, "details": Jsonb(claim["details"])}
