"""What is printed of an event: who acted, and what changed."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from auditdb import Event
from auditdb.cli.render import print_table
from auditdb.read.summary import actor_of, change


def event(**given: Any) -> Event:
    values: dict[str, Any] = {
        "id": 1, "occurred_at": datetime(2026, 1, 31, tzinfo=UTC), "transaction_id": 1,
        "action": "a.b", "result": "success", "actor_id": None, "actor_type": "user",
        "impersonator_id": None, "db_user": "app", "organization_id": "1", "target_type": None,
        "target_id": None, "subject_id": None, "source": "web", "captured_from": None,
        "old_values": None, "new_values": None, "details": None, "db_role": None, "series_id": None,
    }  # fmt: skip
    return Event(**{**values, **given})


@pytest.mark.parametrize(
    ("actor", "impersonator", "shown"),
    [
        ("7", None, "7"),
        ("7", "1", "1 as 7"),
        (None, "1", "1 as ?"),
        ("1", "1", "1"),
        (None, None, "-"),
    ],
)
def test_the_administrator_behind_an_impersonated_actor_is_named(
    actor: str | None, impersonator: str | None, shown: str
) -> None:
    assert actor_of(event(actor_id=actor, impersonator_id=impersonator)) == shown


CAPTURED = {"action": "membership.role_changed", "captured_from": "public.membership"}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({**CAPTURED, "details": {"previous_role": "MEMBER", "new_role": "ADMIN"}},
         "MEMBER → ADMIN"),
        ({**CAPTURED, "details": {"previous_role": None, "new_role": "ADMIN"}}, "- → ADMIN"),
        ({**CAPTURED, "captured_from": None, "details": {"new_role": "ADMIN"}}, ""),
        ({**CAPTURED, "action": "membership.updated", "details": {"new_role": "ADMIN"}}, ""),
        ({"old_values": {"n": 1}, "new_values": {"n": None}}, "n: 1 → -"),
        ({"old_values": {"n": "x" * 50}, "new_values": {"n": 2}}, f"n: {'x' * 39}… → 2"),
        ({"new_values": {"n": 1}}, ""),
        ({"new_values": {"id": 7, "role": "A", "name": "Nightly export"}},
         'name "Nightly export", role "A"'),
        ({"old_values": {"name": "x" * 50}}, f'name "{"x" * 39}…"'),
        ({"old_values": {"name": 'a", role "b\u202e\n'}}, r'name "a\", role \"b\u202e\n"'),
        ({"new_values": {"name": "[redacted]", "label": "l"}, "details": {"reason": "ticket 7"}},
         'label "l", ticket 7'),
        ({"captured_from": "public.step", "new_values": {"title": "t"}, "details": {"row_id": "1"}},
         'public.step added, title "t"'),
        ({"captured_from": "public.step", "old_values": {"n": 1}, "details": {"row_id": "1"}},
         "public.step removed"),
        ({"action": "workflow.baseline", "captured_from": "public.step", "new_values": {"n": 1},
          "details": {"row_id": "1"}}, "public.step was there"),
        ({**CAPTURED, "action": "membership.added", "new_values": {"role": "A"},
          "details": {"group": {"type": "team", "id": "5"}}}, 'role "A", in team 5'),
        ({"captured_from": None, "new_values": {"n": 1},
          "details": {"group": {"type": "team", "id": "5"}}}, ""),
        ({"details": {"reason": "ticket 7"}}, "ticket 7"),
        ({"details": {"error": {"message": "no"}}}, "no"),
        ({"details": {"error": "no"}}, ""),
    ],
)  # fmt: skip
def test_a_change_is_said_in_words(given: dict[str, Any], shown: str) -> None:
    assert change(event(**given)) == shown


@pytest.mark.parametrize(("width", "last"), [(80, "change"), (119, "change"), (120, "how")])
def test_a_table_never_breaks_an_action_and_leaves_out_what_matters_least(
    width: int, last: str
) -> None:
    out = io.StringIO()
    uuid = "0197f0aa-3f1c-7c3e-8a54-1a9f0a8c3b55"
    long = event(
        action="auth.impersonation_started", actor_id=uuid, subject_id=uuid, result="failure",
        details={"reason": "a reason that is longer than there is room for in a line"},
    )  # fmt: skip
    assert print_table(Console(file=out, width=width), [long]) == 1
    heading, first = out.getvalue().splitlines()[:2]
    assert heading.split()[-1] == last
    assert " auth.impersonation_started  failure  " in first
    assert max(map(len, out.getvalue().splitlines())) <= width
    assert "01-31 " in first and ("2026-01-31" in first) == (width >= 100)
