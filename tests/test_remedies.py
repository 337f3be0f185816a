"""The command of each finding about a mapping works, or says what a person has to decide."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from auditdb.operate import doctor
from auditdb.operate.doctor import Finding
from tests.conftest import Database, run

ATTACH = "select audit.attach('{0}', '{1}', {2})".format


class Case(NamedTuple):
    """How a table was attached, what a migration did, and what a person answers, if asked."""

    before: str
    damage: str
    asked: str = ""
    answer: str = ""
    # A part of a command that has to be among the remedies.
    says: str = ""


CASES = {
    "a role column renamed": Case(
        ATTACH("membership", "membership", "role => 'role'"),
        "alter table membership rename role to member_role",
        says="select audit.attach('public.membership', 'membership')",
    ),
    "a role column renamed that admin reads": Case(
        ATTACH("membership", "membership", "role => 'role', admin => 'r.role = ''OWNER'''"),
        "alter table membership rename role to member_role",
        says="select audit.attach('public.membership', 'membership')",
    ),
    "what admin reads renamed beyond recognition": Case(
        ATTACH("membership", "membership", "admin => 'r.role = ''OWNER'''"),
        "alter table membership rename role to xyz",
        asked="admin", answer="r.xyz = ''OWNER''",
    ),
    "a parent renamed": Case(
        "", "alter table workflow_step rename workflow_id to flow_id",
        says="select audit.attach('public.workflow_step', 'workflow')",
    ),
    "an organisation renamed": Case(
        ATTACH("workflow", "workflow", "organization => 'organization_id'"),
        "alter table workflow rename organization_id to org",
    ),
    "an organisation renamed, without a foreign key": Case(
        "create table note (id int primary key, xyz int);"
        + ATTACH("note", "note", "organization => 'xyz'"),
        "alter table note rename xyz to zyx", asked="organization", answer="zyx",
    ),
    "a looked-up column renamed": Case(
        ATTACH("workflow", "workflow",
               "organization => 'select o.id from public.organization as o where o.id ="
               " r.organization_id'"),
        "alter table organization rename id to oid_",
    ),
    "a looked-up table renamed": Case(
        ATTACH("workflow", "workflow",
               "organization => 'select o.id from public.organization as o where o.id ="
               " r.organization_id'"),
        "alter table organization rename to tenant",
    ),
    "a lookup that was given, and may no longer be read": Case(
        ATTACH("api_key", "api_key",
               "organization => 'select w.organization_id from public.workflow as w"
               " where w.id = 1'"),
        "revoke select (id, organization_id) on workflow from audit_mapper",
        says="select audit.reattach('public.api_key')",
    ),
    "a function gone": Case(
        "create function public.org(int) returns int stable language sql return $1;"
        + ATTACH("workflow", "workflow", "organization => 'public.org(r.organization_id)'"),
        "alter function public.org(int) rename to org2",
    ),
    "an ignored column dropped": Case(
        ATTACH("membership", "membership", "ignore => '{updated_at,role}'"),
        "alter table membership drop updated_at", says="ignore => '{role}'",
    ),
    "a redacted column dropped": Case(
        ATTACH("api_key", "api_key", "redact => '{name,last_used_at}'"),
        "alter table api_key drop name", says="redact => '{last_used_at}'",
    ),
    "a redacted column renamed": Case(
        ATTACH("api_key", "api_key", "redact => '{name,last_used_at}'"),
        "alter table api_key rename name to label",
        asked="redact", answer="label", says="redact => '{last_used_at,...}'",
    ),
    "a column shown that would be redacted renamed": Case(
        ATTACH("api_key", "api_key", "redact => '{-key_hash}'"),
        "alter table api_key rename key_hash to hashed_key", says="redact => '{}'",
    ),
    "an e-mail renamed": Case(
        ATTACH("app_user", "user", "email => 'email'"),
        "alter table app_user rename email to email_address",
        says="select audit.attach('public.app_user', 'user')",
    ),
    "a password renamed beyond recognition": Case(
        ATTACH("app_user", "user", "password => 'password_hash'"),
        "alter table app_user rename password_hash to xyz", asked="password", answer="xyz",
    ),
    "a condition renamed": Case(
        ATTACH("api_key", "api_key", "alive => 'r.revoked_at is null'"),
        "alter table api_key rename revoked_at to xyz", asked="alive", answer="r.xyz is null",
    ),
    "a subject dropped": Case(
        ATTACH("api_key", "api_key", "subject => 'user_id'"),
        "alter table api_key drop user_id", asked="subject", answer="null::text",
    ),
    "the memberships renamed": Case("", "alter table membership rename to member"),
    "the organisations renamed": Case("", "alter table organization rename to tenant"),
    "a table dropped and created again with other columns": Case(
        ATTACH("membership", "membership", "role => 'role'"),
        "create table m (like membership including all); alter table m rename role to member_role;"
        "drop table membership; alter table m rename to membership",
    ),
    "a table swapped for one with other columns": Case(
        ATTACH("workflow", "workflow", "target_id => 'id'"),
        "create table w (like workflow including all); alter table w rename id to wid;"
        "alter table workflow rename to workflow_old; alter table w rename to workflow",
    ),
    "a table of admins with other columns": Case(
        "create table boss (org int, person int);"
        + ATTACH("boss", "admin", "organization => 'org', subject => 'person'"),
        "alter table boss rename person to human", asked="subject", answer="human",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_remedy_runs_or_asks_and_then_nothing_is_found(db: Database, name: str) -> None:
    assert db.key
    case = CASES[name]
    owner = db.connect("app_owner")
    if case.before:
        run(owner, case.before)
    before = doctor.diagnose(db.connect())
    run(owner, case.damage)
    found = findings(db, before)
    asked = [f.mend for f in found if f.mend.startswith("-- ")]
    assert bool(asked) == bool(case.asked)
    assert all(mend.startswith(f"-- say what {case.asked} is now, or ") for mend in asked)
    assert any(case.says in f.mend for f in found)
    # What follows from another table may be found once that is attached again.
    for _ in range(2):
        for finding in found:
            is_asked = finding.mend.startswith("-- ")
            assert not (finding.fixable and is_asked)
            mend = finding.mend.partition(": ")[2] if is_asked else finding.mend
            run(owner, mend.replace("...", case.answer))
        found = findings(db, before)
    assert found == []


def findings(db: Database, before: list[Finding]) -> list[Finding]:
    return [f for f in doctor.diagnose(db.connect()) if f not in before]
