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
