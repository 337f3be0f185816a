"""Defects of the log itself, made by a superuser, of which the doctor has to speak."""

from __future__ import annotations

import pytest

from tests.conftest import Database

DEFECTS = {
    "whoever owns no table maps it": (
        "alter table audit_private.request disable trigger authorize_request",
        "audit_private.request",
    ),
    "the sequence ends": ("alter sequence audit.event_id_seq maxvalue 50", "audit.event_id_seq"),
    "another primary key": (
        "alter table audit.event drop constraint event_pkey;"
        "alter table audit.event add primary key (occurred_at, transaction_id)",
        "audit.event",
    ),
    "a month that a crash empties": (
        "alter table audit.event_default set unlogged",
        "audit.event_default",
    ),
    "a month that refuses events": (
        "alter table audit.event_default alter column subject_id set not null",
        "audit.event_default",
    ),
    "a function of the owner elsewhere": (
        "create function public.leak() returns setof audit.event language sql security definer"
        " as 'select * from audit.event'; alter function public.leak() owner to audit_owner",
        "function public.leak()",
    ),
}


@pytest.mark.parametrize("what", DEFECTS)
def test_the_doctor_tells_a_defect_of_the_log(db: Database, what: str) -> None:
    conn = db.connect()
    statement, wanted = DEFECTS[what]
    conn.execute(statement.encode())
    found = conn.execute("select object from audit.doctor() where severity = 'critical'").fetchall()
    assert wanted in {row[0] for row in found}
