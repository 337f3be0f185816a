"""Secrets of three real applications, followed as canaries: none of them ends up in the log."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from auditdb.detect.propose import detect
from auditdb.mapping.apply import apply
from auditdb.mapping.file import load
from tests.conftest import Database
from tests.schemas import ddl, facts
from tests.server import Server

# Found by reading the schemas, not by the rule under test.
SECRETS = {
    "calcom": {
        "users": ["twoFactorSecret", "backupCodes"],
        "ApiKey": ["hashedKey"],
        "UserPassword": ["hash"],
        "Account": ["refresh_token", "access_token", "id_token"],
    },
    "documenso": {
        "User": ["password", "twoFactorSecret", "twoFactorBackupCodes"],
        "ApiToken": ["token"],
        "Passkey": ["credentialId", "credentialPublicKey"],
        "OrganisationMemberInvite": ["token"],
    },
    "formbricks": {
        "User": ["password", "twoFactorSecret", "backupCodes"],
        "ApiKey": ["hashedKey", "lookupHash"],
    },
}
CANARY = "CANARY"

# A value of each type that takes neither text nor a number.
VALUES = {"boolean": "true", "jsonb": "'{}'", "json": "'{}'", "uuid": "gen_random_uuid()",
          "bytea": "'x'"}  # fmt: skip


def build(conn: psycopg.Connection[Any], name: str) -> None:
    conn.execute(ddl(name).encode())
    conn.execute("reset search_path")
    apply(conn, load(detect(conn).to_toml()))
    # The other tables are attached as well: what is redacted by default is on trial here.
    for table in facts(name)["tables"]:
        conn.execute(
            sql.SQL(
                "do $$ begin if not exists ("
                "select from audit_private.attachment where target = {}::regclass)"
                " then perform audit.attach({}, 'record'); end if; end $$"
            ).format(*[sql.Literal(f'public."{table}"')] * 2)
        )


def value(type_: str, label: str | None, canary: str | None) -> str:
    """Return SQL for a value of a column: the canary in a secret, anything in another."""
    if canary and type_ == "bytea":
        return f"'{canary}'::bytea"
    if canary and type_.startswith("json"):
        return f"to_json('{canary}'::text)::{type_}"
    if canary:
        return f"'{canary}'"
    if type_.endswith("[]"):
        return "'{}'"
    if label is not None:
        return f"'{label}'"
    if type_.startswith("timestamp"):
        return "now()"
    if type_ in VALUES:
        return VALUES[type_]
    return "'x'" if type_ == "text" or type_.startswith("character") else "1"


def columns(conn: psycopg.Connection[Any], table: str) -> list[tuple[str, str, str | None]]:
    """Return name, type and first label of the columns that a statement may set."""
    return conn.execute(
        """
        select attname, format_type(atttypid, null),
            (select enumlabel from pg_enum where enumtypid = atttypid limit 1)
        from pg_attribute
        where attrelid = %s::regclass and attnum > 0 and not attisdropped
            and attidentity <> 'a' and attgenerated = ''
        order by attnum
        """,
        [f'public."{table}"'],
    ).fetchall()


def run(conn: psycopg.Connection[Any], query: str, table: str) -> None:
    conn.execute(query.replace("@table", f'public."{table}"').encode())


@pytest.mark.parametrize("name", SECRETS)
def test_no_canary_is_in_the_log_or_in_what_the_server_writes(
    server: Server, empty_db: Database, name: str
) -> None:
    admin, owner = empty_db.connect(), empty_db.connect("app_owner")
    admin.execute(
        sql.SQL("grant create on database {} to app_owner").format(
            sql.Identifier(admin.info.dbname)
        )
    )
    build(owner, name)
    # Foreign keys are of no matter here; capture goes on regardless.
    admin.execute("set session_replication_role = replica")
    for table, secrets in SECRETS[name].items():
        given = columns(admin, table)
        assert set(secrets) <= {column for column, _, _ in given}
        names = ", ".join(f'"{column}"' for column, _, _ in given)
        for number in range(2):
            values = (
                value(type_, label, f"{CANARY}-{number}" if column in secrets else None)
                for column, type_, label in given
            )
            if not number:
                run(admin, f"insert into @table ({names}) values ({', '.join(values)})", table)
            else:
                pairs = zip((c for c, _, _ in given), values, strict=True)
                changes = ", ".join(f'"{column}" = {new}' for column, new in pairs)
                run(admin, f"update @table set {changes}", table)
        # The second step of the ladder, a renamed secret, and code written from a stale mapping.
        run(owner, "alter table @table add poison json", table)
        run(admin, r"""update @table set poison = '"\u0000"'""", table)
        old = secrets[0]
        kind = next(type_ for column, type_, _ in given if column == old)
        run(owner, f'alter table @table rename "{old}" to innocent', table)
        for number in (2, 3):
            new = value(kind, None, f"{CANARY}-{number}")
            run(admin, f"update @table set innocent = {new}", table)
            admin.execute("set role audit_owner")
            admin.execute("select audit_private.regenerate()")
            admin.execute("reset role")
        run(admin, "update @table set poison = null", table)
        run(admin, "delete from @table", table)
        assert f"public.{table}" in {e["captured_from"] for e in empty_db.events()}
    assert [e for e in empty_db.events() if "degraded" in (e["details"] or {})]
    assert "[redacted]" in everything(admin)
    hexed = CANARY.encode().hex()
    for text in (everything(admin), log_of(server)):
        assert CANARY not in text and hexed not in text


def everything(conn: psycopg.Connection[Any]) -> str:
    """Return all rows of all tables of the audit schema, as an export would hold them."""
    tables = conn.execute(
        "select format('select t::text from %s as t', oid::regclass) from pg_class"
        " where relnamespace::regnamespace::text ~ '^audit' and relkind in ('r', 'p')"
    ).fetchall()
    return "\n".join(row for (query,) in tables for (row,) in conn.execute(query).fetchall())


def log_of(server: Server) -> str:
    return (server.data / "log").read_text() if server.data else ""


def test_a_secret_added_after_attaching_is_redacted_before_and_after_an_upgrade(
    empty_db: Database,
) -> None:
    owner, admin = empty_db.connect("app_owner"), empty_db.connect()
    owner.execute("create table thing (id int primary key, n int)")
    owner.execute("select audit.attach('thing', 'thing')")
    owner.execute("insert into thing values (1)")
    owner.execute("alter table thing add client_secret text")
    owner.execute(f"update thing set client_secret = '{CANARY}'")
    with admin.transaction():
        admin.execute("set local role audit_owner")
        admin.execute("select audit_private.regenerate()")
    owner.execute(f"update thing set client_secret = '{CANARY}-2'")
    owner.execute(f"insert into thing values (2, 2, '{CANARY}')")
    owner.execute("delete from thing")
    images = [(e["old_values"], e["new_values"]) for e in empty_db.events()]
    assert images[1] == ({"client_secret": None}, {"client_secret": "[redacted]"})
    assert images[2] == ({"client_secret": "[redacted]"}, {"client_secret": "[redacted]"})
    assert images[3] == (None, {"id": 2, "n": 2, "client_secret": "[redacted]"})
    assert CANARY not in repr(images)


# Where a secret may pass by the columns that are redacted: as the group of a membership, as a
# static token of a user, in what tells people which row changed.
PLACES = """
create table team (
    join_token text primary key, organization_id int not null references organization, title text
);
create table team_member (
    team_token text not null references team, user_id int not null references app_user,
    role text, primary key (team_token, user_id)
);
create table crew (
    id int primary key, organization_id int not null references organization,
    secret_link text unique
);
create table crew_member (
    secret_link text not null references crew (secret_link), user_id int not null
        references app_user, primary key (secret_link, user_id)
);
create table login_secret (
    id int primary key, user_id int not null references app_user, name text, title text,
    label text, email text, value text, role text
);
alter table app_user add column auth_token text, add column feed text, add column label text;
create table service_key (
    id int primary key, organization_id int not null references organization, name text,
    key_hash text, description text
);
grant all on all tables in schema public to app;
select audit.attach('team', 'team');
select audit.attach('team_member', 'membership');
select audit.attach('crew', 'crew');
select audit.attach('crew_member', 'membership');
select audit.attach('login_secret', 'password');
select audit.attach('app_user', 'user', token => 'feed', redact => array['label']);
select audit.attach('service_key', 'api_key', redact => array['name']);
"""
PASSED = """
insert into team values ('C-team-1', 1, 't'), ('C-team-2', 1, 't');
insert into team_member values ('C-team-1', 2, 'a');
update team_member set team_token = 'C-team-2';
update team_member set role = 'b';
delete from team_member;
update team set join_token = 'C-team-3' where join_token = 'C-team-1';
insert into crew values (1, 1, 'C-crew-1'), (2, 2, 'C-crew-2');
insert into crew_member values ('C-crew-1', 2);
update crew_member set secret_link = 'C-crew-2';
delete from crew_member;
insert into login_secret values (1, 1, 'n', 't', 'l', 'e@x', 'C-value', 'r');
update login_secret set value = 'C-value-2', name = 'n2';
delete from login_secret;
update app_user set feed = 'C-feed-1', label = 'C-label' where id = 1;
update app_user set feed = 'C-feed-2', auth_token = 'C-auth' where id = 1;
update app_user set feed = null, label = 'C-label-2', auth_token = 'C-auth-2' where id = 1;
insert into app_user (id, email, feed, label, auth_token) values (50, 'e@x', 'C-f', 'C-l', 'C-a');
delete from app_user where id = 50;
insert into service_key values (1, 1, 'C-key-name', 'C-key-hash',
    'sk_live_C0123456789abcdefghijkl');
update service_key set name = 'C-key-name-2', description =
    'ghp_C123456789012345678901234567890123456';
delete from service_key
"""


@pytest.mark.parametrize("later", [False, True])
def test_no_secret_passes_as_a_group_a_token_or_a_name_that_is_shown(
    db: Database, later: bool
) -> None:
    owner = db.connect("app_owner")
    owner.execute(PLACES)
    if later:
        # What the generated code cannot read any more is read by the fallback.
        for table in ("team", "team_member", "crew_member", "login_secret", "app_user",
                      "service_key"):  # fmt: skip
            owner.execute(f"alter table {table} add column later int".encode())
    app = db.connect("app")
    for statement in PASSED.split(";"):
        app.execute(statement.encode())
    found = (
        db.connect()
        .execute(
            "select 'event', e::text from audit.event as e where e::text ~ 'C[-0-9]'"
            " union all select 'log', l::text from audit.log as l where l::text ~ 'C[-0-9]'"
            " union all select 'unfiled', u::text from audit_private.unfiled as u"
        )
        .fetchall()
    )
    assert found == []
    # They are told all the same.
    actions = db.actions()
    assert {"api_key.created", "api_key.updated", "api_key.revoked"} <= set(actions)
    groups = {e["details"]["group"]["id"] for e in db.events("details ? 'group'")}
    assert len(groups) >= 2
