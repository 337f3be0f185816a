"""The bytes of an event that are sealed: its skeleton and its personal part.

They are made here from plain columns, not by a function of the log, which could be altered.
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring
from typing import Any, NamedTuple

# The columns that a query reads, in this order.
COLUMNS = """e.id::text,
    coalesce(to_char(e.occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        || case when e.occurred_at < '0001-01-01 00:00:00+00' then ' BC' else '' end,
        e.occurred_at::text),
    e.transaction_id::text, e.action, e.result, e.actor_type, e.db_user, e.db_role,
    e.organization_id, e.target_type, e.target_id, e.source, e.captured_from, e.actor_id,
    e.impersonator_id, e.subject_id, e.old_values::text, e.new_values::text, e.details::text"""
ORGANIZATION, _TARGET_TYPE, _TARGET, _SUBJECT = 8, 9, 10, 15
_NAMES = (
    "id", "occurred_at", "transaction_id", "action", "result", "actor_type", "db_user", "db_role",
    "organization_id", "target_type", "target_id", "source", "captured_from",
)  # fmt: skip
_ERASED = re.compile(
    r'\{"erased": \{"erasure": ([0-9]+), "commitment": "([0-9a-f]{64})"\}\}', re.ASCII
)


class Erased(NamedTuple):
    """The erasure that removed the personal part of an event, and the commitment to that part."""

    erasure: str
    commitment: bytes


def groups_of(row: tuple[Any, ...], series: str) -> tuple[bytes, bytes]:
    """Return skeleton and personal part of an event, as docs/evidence.md has them.

    Args:
        row: what COLUMNS read.
        series: the key of the series of its tick.
    """
    target, is_person = row[_TARGET], names_person(row)
    parts = [f'"{name}":{_text(value)}' for name, value in zip(_NAMES, row[:13], strict=True)]
    if is_person:
        parts[_TARGET] = '"target_id":null'
    skeleton = f'{{"version":1,"series":"{series}",{",".join(parts)}}}'
    old, new, details = (value or "null" for value in row[16:19])
    personal = (
        f'{{"version":1,"actor_id":{_text(row[13])},"impersonator_id":{_text(row[14])},'
        f'"target_id":{_text(target if is_person else None)},"subject_id":{_text(row[_SUBJECT])},'
        f'"old_values":{old},"new_values":{new},"details":{details}}}'
    )
    return skeleton.encode(), personal.encode()


def names_person(row: tuple[Any, ...]) -> bool:
    """Return whether the target of an event is a person, or a part of its key is one."""
    target, subject = row[_TARGET], row[_SUBJECT]
    return row[_TARGET_TYPE] == "user" or (
        None not in (target, subject) and f"/{subject}/" in f"/{target}/"
    )


def erased_of(row: tuple[Any, ...], salt: bytes) -> Erased | None:
    """Return what an erased event keeps of its personal part; None for an event that is not erased.

    Other content of these columns is not hashed, so an event with more content is not an erased
    event.

    Args:
        row: what COLUMNS read.
        salt: its salt in the seal; zero after an erasure.
    """
    is_person = row[_TARGET_TYPE] == "user" and row[_TARGET] is not None
    if any(salt) or is_person or any(value is not None for value in row[13:18]):
        return None
    found = _ERASED.fullmatch(row[18] or "")
    return None if found is None else Erased(found[1], bytes.fromhex(found[2]))


def _text(value: str | None) -> str:
    return "null" if value is None else encode_basestring(value)
