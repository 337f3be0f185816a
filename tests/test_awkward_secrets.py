"""Secrets in awkward places, under awkward names and in awkward types never stand in the log."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import pytest

from tests.conftest import Database
from tests.truth import shows_secret

TOKEN_UUID = "5ec2e75e-c2e7-45ec-92e7-5ec2e75ec2e7"
PIN = "84736251"


@dataclass(frozen=True)
class Awkward:
    """A table `t` of some kind, and what the application writes into it."""

    columns: str
    writes: tuple[str, ...]
    kind: str = "api_key"
    options: str = ""
    before: str = ""
    after: str = ""
    needles: tuple[str, ...] = ()


def column(name: str, kind: str = "user", type: str = "text", value: str = "'SECRET'") -> Awkward:
    """Return a table with one column more, that gets a secret, another one, and none."""
    return Awkward(
        f"id int primary key, note text, {name} {type}",
        (
            f"insert into t (id, {name}) values (1, {value})",
            f"update t set note = 'n', {name} = null",
            f"update t set {name} = {value}",
            "delete from t",
        ),
        kind,
    )


def text(value: str, name: str = "body") -> Awkward:
    """Return a workflow whose text holds a secret."""
    quoted = value.replace("'", "''")
    return column(name, "workflow", "text", f"'{quoted}'")


def document(value: str, name: str = "config") -> Awkward:
    """Return a workflow whose document holds a secret."""
    return column(name, "workflow", "jsonb", f"'{value}'")


AWKWARD = {
    # Places
    "the primary key": Awkward(
        "key varchar(40) primary key, user_id int, created timestamptz",
        ("insert into t values ('SECRET', 1, now())", "update t set user_id = 2", "delete from t"),
    ),
    "the primary key, a uuid": Awkward(
        "token uuid primary key, user_id int",
        (f"insert into t values ('{TOKEN_UUID}', 1)", "delete from t"),
        needles=(TOKEN_UUID,),
    ),
    "one of two columns of the primary key": Awkward(
        "user_id int, secret text, primary key (user_id, secret)",
        ("insert into t values (1, 'SECRET')", "update t set user_id = 2", "delete from t"),
    ),
    "a unique key without a primary key": Awkward(
        "user_id int not null, access_token text not null unique",
        ("insert into t values (1, 'SECRET')", "delete from t"),
    ),
    "a primary key that holds the hash": Awkward(
        "id varchar(150) primary key, prefix varchar(8), hashed_key varchar(100), user_id int",
        ("insert into t values ('ab.SECRET', 'ab', 'SECRET', 1)", "delete from t"),
    ),
    "a foreign key to a secret, as parent": Awkward(
        "secret text references api_tokens on delete cascade, project text",
        (
            "insert into t values ('SECRET', 'p')",
            "update t set project = 'q'",
            "delete from api_tokens",
        ),
        options=", parent => 'secret'",
        before="create table api_tokens (secret text primary key, user_id int);"
        "insert into api_tokens values ('SECRET', 1)",
    ),
    "a column that refers to a secret under another name": Awkward(
        "id int primary key, owner text references api_tokens",
        ("insert into t values (1, 'SECRET')", "delete from t"),
        "workflow",
        before="create table api_tokens (secret text primary key, user_id int);"
        "insert into api_tokens values ('SECRET', 1)",
    ),
    "the organisation": Awkward(
        "id int primary key, tenant_token text",
        ("insert into t values (1, 'SECRET')", "delete from t"),
        "workflow",
        options=", organization => 'tenant_token'",
    ),
    "the subject, by an expression": Awkward(
        "id int primary key, session_token text",
        ("insert into t values (1, 'SECRET')", "delete from t"),
        "workflow",
        options=", subject => 'lower(r.session_token) || upper(r.session_token)'",
    ),
    "the role": Awkward(
        "id int primary key, organization_id int, user_id int, role_secret text",
        ("insert into t values (1, 1, 1, 'SECRET')", "update t set role_secret = 'SECRET-2'"),
        "membership",
        options=", role => 'role_secret'",
    ),
    "a generated column": Awkward(
        "id int primary key, user_id int, token text, "
        "lookup text generated always as ('x' || token) stored",
        ("insert into t (id, user_id, token) values (1, 1, 'SECRET')", "delete from t"),
    ),
    "a column that is added later": Awkward(
        "id int primary key, name text",
        ("insert into t values (1, 'n', 'SECRET')", "update t set client_secret = 'SECRET-2'"),
        "workflow",
        after="alter table t add column client_secret text",
    ),
    "a column that is renamed later": Awkward(
        "id int primary key, name text, note text",
        ("insert into t values (1, 'n', 'SECRET')", "update t set bearer_token = 'SECRET-2'"),
        "workflow",
        after="alter table t rename column note to bearer_token",
    ),
    "a partition": Awkward(
        "token text primary key, user_id int) partition by hash (token",
        ("insert into t values ('SECRET', 1)", "delete from t"),
        before="",
        after="",
    ),
    # Types
    "bytes": column("value", "api_key", "bytea"),
    "text of a table of credentials with an innocent name": column("data", "two_factor"),
    "a document of a factor": column("data", "two_factor", "jsonb", "'{\"seed\": \"SECRET\"}'"),
    "codes in an array of a document": column("data", "two_factor", "jsonb", "'[\"SECRET\"]'"),
    "an array": column("backup_codes", "user", "text[]", "array['SECRET', 'SECRET-2']"),
    "an array of documents": column(
        "settings", "workflow", "jsonb[]", "array['{\"password\": \"SECRET\"}'::jsonb]"
    ),
    "a composite": Awkward(
        "id int primary key, login credentials",
        ("insert into t values (1, row('u', 'SECRET'))", "delete from t"),
        "workflow",
        before="create type credentials as (name text, password text)",
    ),
    "an array of composites": Awkward(
        "id int primary key, logins credentials[]",
        ("insert into t values (1, array[row('u', 'SECRET')::credentials])", "delete from t"),
        "workflow",
        before="create type credentials as (name text, password text)",
    ),
    "a domain": Awkward(
        "id int primary key, access bearer",
        ("insert into t values (1, 'SECRET')", "delete from t"),
        "api_key",
        before="create domain bearer as text",
    ),
    "a number": Awkward(
        "id int primary key, pin int",
        (f"insert into t values (1, {PIN})", "update t set pin = pin - 1", "delete from t"),
        "user",
        needles=(PIN, str(int(PIN) - 1)),
    ),
    "xml": text("<server><user>u</user><password>SECRET</password></server>"),
    "a store of keys and values as text": text('"host"=>"h", "password"=>"SECRET"'),
    "JSON in a string of JSON": document('{"step": "{\\"api_key\\": \\"SECRET\\"}"}'),
    # Names
    "camel case": column('"clientSecretEnc"', "workflow"),
    "capitals and a space": column('"API Key"', "workflow"),
    "abbreviations": column("db_pwd", "workflow"),
    "German": column("passwort"),
    "German, another word": column("kennwort"),
    "French": column("mot_de_passe"),
    "Spanish": column('"contraseña"'),
    "Portuguese": column("senha"),
    "Dutch": column("wachtwoord"),
    "a key in German": column('"API-Schlüssel"', "workflow"),
    "a code of an invitation": column("code", "invitation"),
    "a number of an invitation": Awkward(
        "id int primary key, email text, code int",
        (f"insert into t values (1, 'ann@acme.test', {PIN})", "delete from t"),
        "invitation",
        needles=(PIN,),
    ),
    "a key of an account": column("account_key", "workflow"),
    "basic authentication": column("basic_auth_pass", "workflow"),
    "a cookie": column("cookie_id", "session"),
    "a seed": column("seed", "two_factor"),
    "a code of a grant": column("code", "oauth_grant"),
    "a key to diversify": column("diversification_key", "workflow"),
    "remember me": column("remember_token"),
    # Values
    "a URL with a password": text("https://u:SECRET@h.test/x", "endpoint"),
    "a URL with a token": text("https://h.test/x?access_token=SECRET&y=1", "endpoint"),
    "a connection string": text("Server=h;Database=d;User Id=u;Password=SECRET;"),
    "an environment file": text("HOST=h\nDB_PASSWORD=SECRET\n"),
    "YAML": text("db:\n  host: h\n  password: SECRET\n"),
    "a command": text("curl -H 'Authorization: Bearer SECRET' https://h.test"),
    "a command with a user": text("curl --user u:SECRET https://h.test"),
    "a command with a user in quotes": text("curl -u 'u:a SECRET' -X POST https://h.test"),
    "a command with a user behind an equals sign": text("curl --proxy-user=u:SECRET h.test"),
    "a header": document('{"Authorization": "Bearer SECRET"}', "headers"),
    "headers as pairs": document('[{"name": "X-Api-Key", "value": "SECRET"}]', "config"),
    "a basic header": text("Authorization: Basic U0VDUkVU"),
    "a key of a document in capitals": document('{"SMTP_PASSWORD": "SECRET"}'),
    "a key of a document deep down": document(
        '{"a": [{"b": {"auth": {"clientSecret": "SECRET"}}}]}'
    ),
    "a private key": text(
        "-----BEGIN PRIVATE KEY-----\nSECRETSECRETSECRETSECRET\n-----END PRIVATE KEY-----"
    ),
    "settings of an integration": column(
        "settings", "integration", "jsonb", "'{\"channel\": \"c\", \"key\": \"SECRET\"}'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", AWKWARD)
def test_a_secret_stands_nowhere_in_the_log(empty_db: Database, place: str) -> None:
    case = AWKWARD[place]
    owner = empty_db.connect("app_owner")
    name = {
        "integration": "integrations",
        "oauth_grant": "oauth_grants",
        "invitation": "invitations",
    }.get(case.kind, "t")
    owner.execute("set search_path = public")

    def run(statement: str) -> None:
        if statement:
            owner.execute(
                statement.replace(" t ", f" {name} ").replace(" t\n", f" {name}\n").encode()
            )

    run(case.before)
    run(f"create table t ({case.columns})")
    if "partition by" in case.columns:
        run("create table part partition of t for values with (modulus 1, remainder 0)")
    run(f"select audit.attach('{name}', '{case.kind}'{case.options})")
    run(case.after)
    for statement in case.writes:
        run(f"{statement} ")
    events = empty_db.events()
    assert len(events) >= min(2, len(case.writes)), "what is not recorded shows no secret"
    shown = [
        e["action"]
        for e in events
        if shows_secret(e) or any(needle in repr(e) for needle in case.needles)
    ]
    assert not shown
    with psycopg.connect(empty_db.dsn) as conn:
        log = conn.execute("select to_jsonb(l)::text from audit.log as l").fetchall()
    assert not shows_secret(log)


def test_a_value_that_is_no_secret_stands_in_the_log(empty_db: Database) -> None:
    """The naive twin: without it, a log that says nothing would pass."""
    owner = empty_db.connect("app_owner")
    owner.execute("set search_path = public")
    owner.execute("create table t (id int primary key, note text)")
    owner.execute("select audit.attach('t', 'workflow')")
    owner.execute("insert into t values (1, 'SECRET')")
    assert all(map(shows_secret, empty_db.events()))
    assert len(empty_db.events()) == 1
