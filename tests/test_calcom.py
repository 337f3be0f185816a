"""The main job on the tables of a real application, Cal.com: each action, each field."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from auditdb.demo import FIFTEEN
from tests.conftest import Database
from tests.schemas import ddl
from tests.viewer import read

SEED = """
insert into "Team" (id, name, "parentId", "isOrganization") values
    (1, 'Acme', null, true), (2, 'Acme Sales', 1, false), (3, 'Globex', null, true);
insert into users (id, email, "organizationId", "twoFactorEnabled", "twoFactorSecret") values
    (1, 'ann@acme.test', 1, false, null), (2, 'bob@acme.test', 1, false, null),
    (3, 'cat@acme.test', 1, true, 'OLD-TOTP-SEED'), (4, 'dan@acme.test', 1, false, null),
    (5, 'eve@acme.test', 1, false, null), (9, 'zoe@globex.test', 3, false, null);
insert into "UserPassword" ("userId", hash) values (2, 'OLD-BCRYPT');
insert into "Membership" (id, "teamId", "userId", role, accepted, "createdAt") values
    (1, 1, 1, 'OWNER', true, '2025-01-01'), (2, 1, 2, 'MEMBER', true, '2025-01-01'),
    (3, 2, 3, 'OWNER', true, '2025-01-01'), (4, 1, 4, 'ADMIN', false, '2025-01-01'),
    (9, 3, 9, 'ADMIN', true, '2025-01-01');
insert into "ApiKey" (id, "userId", "teamId", note, "hashedKey", "createdAt") values
    ('team-key', 2, 2, 'CI', 'OLD-KEY-DIGEST-1', '2025-01-01'),
    ('own-key', 2, null, 'laptop', 'OLD-KEY-DIGEST-2', '2025-01-01');
insert into "Workflow" (id, name, "userId", "teamId", trigger) values
    (1, 'Remind', 2, 2, 'BEFORE_EVENT'), (2, 'Private', 2, null, 'NEW_EVENT');
insert into "WorkflowStep" (id, "stepNumber", action, "workflowId") values
    (1, 1, 'EMAIL_HOST', 1), (2, 2, 'EMAIL_ATTENDEE', 1);
grant select, insert, update, delete on all tables in schema public to app;
"""

# A team belongs to the organisation above it; a key without a team to that of its user.
ATTACH = """
select audit.attach('public."Membership"', 'membership',
    organization => 'select coalesce(t."parentId", t.id)
        from public."Team" t where t.id = r."teamId"',
    ignore => '{updatedAt}',
    admin => $$r.role in ('ADMIN', 'OWNER') and r.accepted
        and exists (select from public."Team" t
            where t.id = r."teamId" and t."parentId" is null)$$);
select audit.attach(target, kind, organization =>
    'coalesce((select coalesce(t."parentId", t.id) from public."Team" t where t.id = r."teamId"),
        (select u."organizationId" from public.users u where u.id = r."userId"))')
from (values ('public."ApiKey"'::regclass, 'api_key'),
    ('public."Workflow"', 'workflow')) as t (target, kind);
select audit.attach('public."WorkflowStep"', 'workflow', parent => '"workflowId"');
select audit.attach('public.users', 'user');
select audit.attach('public."UserPassword"', 'password',
    organization => 'select u."organizationId" from public.users u where u.id = r."userId"');
"""

CONTEXT = """select audit.set_context('1', source => 'web', details => '{"ip": "203.0.113.9"}')"""

COMMON: dict[str, Any] = {
    "result": "success", "actor_id": "1", "actor_type": "user", "impersonator_id": None,
    "db_user": "app", "organization_id": "1", "target_type": None, "target_id": None,
    "subject_id": None, "source": "web", "captured_from": None, "old_values": None,
    "new_values": None, "details": {"ip": "203.0.113.9"}, "db_role": None,
}  # fmt: skip


def event(action: str, table: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return every field of an event but its id, time and transaction."""
    return {**COMMON, "action": action, "captured_from": table and f"public.{table}", **fields}


def membership(action: str, id: str, user: str, **fields: Any) -> dict[str, Any]:
    return event(
        action, "Membership", target_type="membership", target_id=id, subject_id=user, **fields
    )


def of_user(action: str, user: str, table: str | None = "users", **fields: Any) -> dict[str, Any]:
    return event(action, table, target_type="user", target_id=user, subject_id=user, **fields)


def member(id: int, user: int, **values: Any) -> dict[str, Any]:
    return {
        "id": id, "teamId": 1, "userId": user, "role": "MEMBER", "accepted": False,
        "disableImpersonation": False, "customRoleId": None, "createdAt": "2025-01-01T00:00:00",
        "updatedAt": None, **values,
    }  # fmt: skip


KEY = {
    "id": "k1", "userId": 1, "teamId": None, "note": "deploy", "hashedKey": "[redacted]",
    "createdAt": "2025-01-02T03:04:05", "expiresAt": None, "lastUsedAt": None, "appId": None,
}  # fmt: skip
WORKFLOW = {
    "id": 10, "name": "Welcome", "userId": 1, "teamId": 2, "trigger": "NEW_EVENT", "time": 24,
    "timeUnit": "hour", "position": 0,
}  # fmt: skip
STEP = {
    "id": 10, "stepNumber": 3, "action": "SMS_ATTENDEE", "workflowId": 1, "sendTo": "+441234",
    "reminderBody": None, "emailSubject": None, "template": "CUSTOM", "numberRequired": None,
    "sender": None, "numberVerificationPending": True, "includeCalendarEvent": False,
}  # fmt: skip


def step(row: str, **fields: Any) -> dict[str, Any]:
    return event(
        "workflow.modified", "WorkflowStep", target_type="workflow", target_id="1",
        details={"ip": "203.0.113.9", "row_id": row}, **fields,
    )  # fmt: skip


# What Cal.com's server sends, and exactly what the log must then say.
DAY: list[tuple[str, list[dict[str, Any]]]] = [
    (
        """insert into "Membership" (id, "teamId", "userId", role, "createdAt") values
            (20, 1, 5, 'MEMBER', '2025-01-01'), (21, 1, 3, 'ADMIN', '2025-01-01')""",
        [
            membership("membership.added", "20", "5", new_values=member(20, 5)),
            membership("membership.added", "21", "3", new_values=member(21, 3, role="ADMIN")),
        ],
    ),
    (
        """update "Membership" set accepted = true, "updatedAt" = now() where id = 4""",
        [
            membership(
                "membership.updated", "4", "4",
                old_values={"accepted": False}, new_values={"accepted": True},
            )
        ],
    ),
    (
        """update "Membership" set role = 'ADMIN', "updatedAt" = now()
            where "userId" = 2 and "teamId" = 1""",
        [
            membership(
                "membership.role_changed", "2", "2",
                old_values={"role": "MEMBER"}, new_values={"role": "ADMIN"},
                details={"ip": "203.0.113.9", "previous_role": "MEMBER", "new_role": "ADMIN"},
            )
        ],
    ),
    (
        """delete from "Membership" where "userId" = 3 and "teamId" = 2""",
        [
            membership(
                "membership.removed", "3", "3",
                old_values=member(3, 3, teamId=2, role="OWNER", accepted=True),
                details={"ip": "203.0.113.9", "group": {"type": "team", "id": "2"}},
            )
        ],
    ),
    (
        """insert into "ApiKey" (id, "userId", note, "hashedKey", "createdAt")
            values ('k1', 1, 'deploy', 'NEW-KEY-DIGEST', '2025-01-02 03:04:05')""",
        [
            event(
                "api_key.created", "ApiKey", target_type="api_key", target_id="k1", subject_id="1",
                new_values=KEY,
            )
        ],
    ),
    ("""update "ApiKey" set "lastUsedAt" = now() where id = 'own-key'""", []),
    (
        """delete from "ApiKey" where id = 'team-key'""",
        [
            event(
                "api_key.revoked", "ApiKey", target_type="api_key", target_id="team-key",
                subject_id="2", old_values={
                    **KEY, "id": "team-key", "userId": 2, "teamId": 2, "note": "CI",
                    "createdAt": "2025-01-01T00:00:00",
                },
            )
        ],
    ),
    (
        """insert into "Workflow" (id, name, "userId", "teamId", trigger, time, "timeUnit")
            values (10, 'Welcome', 1, 2, 'NEW_EVENT', 24, 'hour')""",
        [event("workflow.created", "Workflow", target_type="workflow", target_id="10",
            new_values=WORKFLOW)],
    ),
    (
        """update "Workflow" set name = 'Remind all', trigger = 'AFTER_EVENT' where id = 1""",
        [event("workflow.modified", "Workflow", target_type="workflow", target_id="1",
            old_values={"name": "Remind", "trigger": "BEFORE_EVENT"},
            new_values={"name": "Remind all", "trigger": "AFTER_EVENT"})],
    ),
    (
        """insert into "WorkflowStep" (id, "stepNumber", action, "workflowId", "sendTo", template)
            values (10, 3, 'SMS_ATTENDEE', 1, '+441234', 'CUSTOM')""",
        [step("10", new_values=STEP)],
    ),
    (
        """update "WorkflowStep" set "emailSubject" = 'Soon' where id = 1""",
        [step("1", old_values={"emailSubject": None}, new_values={"emailSubject": "Soon"})],
    ),
    (
        """delete from "WorkflowStep" where id = 2""",
        [step("2", old_values={**STEP, "id": 2, "stepNumber": 2, "action": "EMAIL_ATTENDEE",
            "sendTo": None, "template": "REMINDER"})],
    ),
    (
        """delete from "Workflow" where id = 2""",
        [event("workflow.deleted", "Workflow", target_type="workflow", target_id="2",
            old_values={**WORKFLOW, "id": 2, "name": "Private", "userId": 2, "teamId": None,
                "time": None, "timeUnit": None})],
    ),
    (
        """update users set email = 'robert@acme.test' where id = 2""",
        [of_user("auth.email_changed", "2", old_values={"email": "bob@acme.test"},
            new_values={"email": "robert@acme.test"})],
    ),
    (
        """insert into "UserPassword" ("userId", hash) values (2, 'NEW-BCRYPT')
            on conflict ("userId") do update set hash = excluded.hash""",
        [of_user("auth.password_changed", "2", "UserPassword", old_values={"hash": "[redacted]"},
            new_values={"hash": "[redacted]"})],
    ),
    (
        """insert into "UserPassword" ("userId", hash) values (1, 'FIRST-BCRYPT')""",
        [of_user("auth.password_changed", "1", "UserPassword",
            new_values={"hash": "[redacted]", "userId": 1})],
    ),
    (
        """update users set "twoFactorEnabled" = true, "twoFactorSecret" = 'NEW-TOTP-SEED',
            "backupCodes" = 'NEW-BACKUP-CODES' where id = 1""",
        [of_user("auth.two_factor_enabled", "1",
            old_values={"twoFactorEnabled": False, "twoFactorSecret": None, "backupCodes": None},
            new_values={"twoFactorEnabled": True, "twoFactorSecret": "[redacted]",
                "backupCodes": "[redacted]"})],
    ),
    (
        """update users set "twoFactorEnabled" = false, "twoFactorSecret" = null where id = 3""",
        [of_user("auth.two_factor_disabled", "3",
            old_values={"twoFactorEnabled": True, "twoFactorSecret": "[redacted]"},
            new_values={"twoFactorEnabled": False, "twoFactorSecret": None})],
    ),
    (
        """select audit.record_event('auth.login', '1', 'user', '2', '2', result => 'failure',
            source => 'saml', details => '{"reason": "assertion expired"}')""",
        [of_user("auth.login", "2", None, result="failure", source="saml",
            details={"ip": "203.0.113.9", "reason": "assertion expired"})],
    ),
    (
        """select audit.record_event('auth.impersonation_started', '1', 'user', '2', '2',
            actor_id => '2', impersonator_id => '1');
        select audit.set_context('2', impersonator_id => '1');
        update "Workflow" set position = 7 where id = 1;
        select audit.record_event('auth.impersonation_stopped', '1', 'user', '2', '2')""",
        [
            of_user("auth.impersonation_started", "2", None, actor_id="2", impersonator_id="1"),
            event("workflow.modified", "Workflow", target_type="workflow", target_id="1",
                actor_id="2", impersonator_id="1", details=None,
                old_values={"position": 0}, new_values={"position": 7}),
            of_user("auth.impersonation_stopped", "2", None, actor_id="2", impersonator_id="1",
                details=None),
        ],
    ),
]  # fmt: skip

SECRETS = [
    "OLD-TOTP-SEED", "OLD-BCRYPT", "OLD-KEY-DIGEST", "NEW-KEY-DIGEST", "NEW-BCRYPT",
    "FIRST-BCRYPT", "NEW-TOTP-SEED", "NEW-BACKUP-CODES",
]  # fmt: skip


@pytest.fixture
def calcom(empty_db: Database) -> Database:
    with psycopg.connect(empty_db.conninfo("app_owner")) as conn:
        for script in (ddl("calcom"), SEED, ATTACH):
            conn.execute(script.encode())
    return empty_db


def play(db: Database, *statements: str) -> None:
    """Send statements as the application's server: its own role, one transaction each."""
    with psycopg.connect(db.conninfo("app"), autocommit=True) as conn:
        for statement in statements:
            with conn.transaction():
                conn.execute(CONTEXT)
                conn.execute(statement.encode())


def said(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events without what differs from run to run."""
    varying = {"id", "occurred_at", "transaction_id"}
    return [{k: v for k, v in e.items() if k not in varying} for e in events]


def log_of(db: Database, user: str, organization: str) -> int:
    ((count,),) = read(db, user, organization, "select count(*) from audit.event")
    return int(count)


@pytest.mark.parametrize(
    ("statement", "expected"), DAY, ids=[" ".join(s.split())[:60] for s, _ in DAY]
)
def test_statement_gives_exactly_its_events(
    calcom: Database, statement: str, expected: list[dict[str, Any]]
) -> None:
    play(calcom, statement)
    assert said(calcom.events()) == expected
    assert len({e["transaction_id"] for e in calcom.events()}) <= 1


def test_day_plays_all_fifteen_actions() -> None:
    assert len(FIFTEEN) == 15
    assert {e["action"] for _, events in DAY for e in events} >= set(FIFTEEN)


def test_no_secret_is_anywhere_in_the_audit_schema(calcom: Database) -> None:
    play(calcom, *(statement for statement, _ in DAY))
    with calcom.connect() as conn:
        # The second step of the ladder must keep them out as well.
        conn.execute("""alter table users add extra json; alter table "ApiKey" add extra json;
            alter table "UserPassword" add extra json""")
    play(
        calcom,
        r"""update users set "backupCodes" = 'NEW-BACKUP-CODES', extra = '"\u0000"'""",
        r"""update "ApiKey" set "hashedKey" = 'NEW-KEY-DIGEST' || id, extra = '"\u0000"'""",
        r"""update "UserPassword" set hash = 'NEW-BCRYPT', extra = '"\u0000"'""",
        """delete from users""",
    )
    with calcom.connect() as conn:
        tables = conn.execute("""select format('select t::text from %s as t', oid::regclass)
            from pg_class
            where relnamespace::regnamespace::text ~ '^audit' and relkind in ('r', 'p')""")
        text = "\n".join(
            row for (query,) in tables.fetchall() for (row,) in conn.execute(query).fetchall()
        )
    assert "robert@acme.test" in text and '"degraded"' in text
    assert [secret for secret in SECRETS if secret in text] == []


def test_cascade_from_a_deleted_team_carries_its_organization(calcom: Database) -> None:
    with calcom.connect("app_owner") as conn:
        # A plain trigger, for comparison: by the time it looks, the team is gone.
        conn.execute("""
            create table naive (organization int);
            create function naive() returns trigger language plpgsql security definer as $$
            begin
                insert into naive select (select coalesce(t."parentId", t.id)
                    from public."Team" t where t.id = old."teamId");
                return null;
            end $$;
            create trigger naive after delete on "Membership"
                for each row execute function naive();""")
    play(calcom, """delete from "Team" where id = 1""")
    events = calcom.events()
    assert sorted((e["action"], e["target_id"]) for e in events) == sorted([
        *[("membership.removed", id) for id in ("1", "2", "3", "4")],
        ("api_key.revoked", "team-key"), ("workflow.deleted", "1"),
        ("workflow.modified", "1"), ("workflow.modified", "1"),
        *[("user.updated", id) for id in ("1", "2", "3", "4", "5")],
    ])  # fmt: skip
    assert {e["organization_id"] for e in events} == {"1"}
    assert {e["actor_id"] for e in events} == {"1"}
    assert len({e["transaction_id"] for e in events}) == 1
    with calcom.connect() as conn:
        assert conn.execute("select distinct organization from naive").fetchall() == [(None,)]


def test_cascade_from_a_deleted_user_carries_the_organization(calcom: Database) -> None:
    play(calcom, """delete from users where id = 2""")
    events = calcom.events()
    assert sorted((e["action"], e["target_id"]) for e in events) == [
        ("api_key.revoked", "own-key"), ("api_key.revoked", "team-key"),
        ("membership.removed", "2"), ("password.deleted", "2"), ("user.deleted", "2"),
        ("workflow.deleted", "1"), ("workflow.deleted", "2"),
        ("workflow.modified", "1"), ("workflow.modified", "1"),
    ]  # fmt: skip
    assert {e["organization_id"] for e in events} == {"1"}


def test_team_and_its_owner_made_in_one_statement_have_their_organization(
    calcom: Database,
) -> None:
    play(
        calcom,
        """with t as (insert into "Team" (id, name, "parentId")
        values (30, 'Acme Labs', 1) returning id)
        insert into "Membership" (id, "teamId", "userId", role)
        select 30, id, 5, 'OWNER' from t""",
    )
    assert [(e["action"], e["organization_id"]) for e in calcom.events()] == [
        ("membership.added", "1")
    ]


@pytest.mark.parametrize(
    ("user", "sees"),
    [
        pytest.param("1", True, id="owner of the organisation"),
        pytest.param("2", False, id="plain member"),
        pytest.param("3", False, id="owner of a team of the organisation"),
        pytest.param("4", False, id="invited admin who has not accepted"),
        pytest.param("9", False, id="admin of another organisation"),
        pytest.param("77", False, id="nobody"),
    ],
)
def test_only_the_organisation_s_own_admins_read(calcom: Database, user: str, sees: bool) -> None:
    play(calcom, """update "Workflow" set position = 5 where id = 1""")
    assert log_of(calcom, user, "1") == (1 if sees else 0)


def test_acceptance_and_demotion_take_effect_at_once(calcom: Database) -> None:
    play(calcom, """update "Membership" set accepted = true where id = 4""")
    assert log_of(calcom, "4", "1") == 1
    play(calcom, """update "Membership" set role = 'MEMBER' where id = 4""")
    assert log_of(calcom, "4", "1") == 0
    assert log_of(calcom, "1", "1") == 2


def test_reading_is_limited_to_the_enterprise_plan_by_one_more_condition(
    calcom: Database,
) -> None:
    attach = ATTACH.split(";")[0].replace(
        "r.accepted",
        """r.accepted and exists (select from public."Billing" b
            where b."teamId" = r."teamId" and b.plan = 'ENTERPRISE')""",
    )
    with calcom.connect("app_owner") as conn:
        conn.execute("""create table "Billing" ("teamId" int primary key, plan text not null);
            insert into "Billing" values (1, 'TEAMS'), (3, 'ENTERPRISE')""")
        conn.execute(attach.encode())
    play(calcom, """update "Workflow" set position = 5 where id = 1""")
    assert len(calcom.events()) == 1
    assert log_of(calcom, "1", "1") == 0

    with calcom.connect("app_owner") as conn:
        conn.execute("""update "Billing" set plan = 'ENTERPRISE' where "teamId" = 1""")
    # What happened before the upgrade is there on the day of the upgrade.
    assert log_of(calcom, "1", "1") == 1
    assert log_of(calcom, "2", "1") == 0
