"""What only the application knows is asked about, and the question says what to write."""

from __future__ import annotations

import re
import tomllib

import pytest

from auditdb.detect.propose import detect
from tests.test_detect import Application, app, found

__all__ = ["app"]


def written(question: str, option: str) -> str:
    """Return the value that a question gives for an option, as the file would have it."""
    found = re.search(rf'{option} = ("(?:[^"\\]|\\.)*")', question)
    assert found is not None
    return str(tomllib.loads(f"x = {found[1]}")["x"])


TENANTS = """
create table organizations (id int primary key, name text);
create table users (id int primary key, email text, password text {});
create table memberships (id int primary key, user_id int not null references users,
    organization_id int not null references organizations, {}, unique (organization_id, user_id));
"""


@pytest.mark.parametrize(
    ("column", "said"),
    [(", token text", 'token = ""'), (", auth_token varchar(99)", 'token = ""'),
     (", auth_token text, auth_token_expires_at timestamptz", 'token = "auth_token"'),
     (", access_token text", 'token = "access_token"'),
     (", api_token text", ""), (", api_key text, access_token text", ""), (", token_count int", ""),
     (", remember_token text", "")],
)  # fmt: skip
def test_a_token_of_users_that_may_open_anything_is_asked_about(
    app: Application, column: str, said: str
) -> None:
    app.build(TENANTS.format(column, "role text"))
    table = found(detect(app.owner), "public.users")
    asked = [str(q) for q in table.questions if q.code == "token-unsure"]
    assert len(asked) == bool(said) and all(said in text for text in asked)
    assert table.certain
    # What is to be written can be.
    option, _, value = said.partition(" = ")
    app.owner.execute(
        f"select audit.attach('users', 'user'{f', {option} => %s' if said else ''})",
        (value.strip('"'),) if said else (),
    )
    facts = app.mapping("public.users")["facts"]
    taken = [f["column"] for f in facts if "verbs" in f]
    assert taken == [name for name in (value.strip('"'),) if name] if said else True


@pytest.mark.parametrize(
    "columns",
    ["organization_id int not null references organizations, owner_type text, owner_id int",
     "owner_type text not null, owner_id int not null",
     '"tokenableType" text not null, "tokenableId" int not null'],
)  # fmt: skip
def test_a_key_whose_type_says_whose_it_is_names_no_user_for_certain(
    app: Application, columns: str
) -> None:
    app.build(
        TENANTS.format("", "role text")
        + f"create table api_keys (id int primary key, key_hash text not null, name text,"
        f" {columns})"
    )
    table = found(detect(app.owner), "public.api_keys")
    (asked,) = (str(q) for q in table.questions if q.code == "owner-by-type")
    assert (table.kind, table.certain) == ("api_key", columns.startswith("organization_id"))
    app.owner.execute("select audit.attach('users', 'user'); select audit.attach('memberships',"
                      " 'membership'); select audit.attach('api_keys', 'api_key')")  # fmt: skip
    assert app.mapping("public.api_keys").get("subject") is None
    value = written(asked, "subject")
    app.owner.execute("select audit.attach('api_keys', 'api_key', subject => %s)", (value,))
    assert app.mapping("public.api_keys")["subject"] == value
    # A foreign key says whose it is, whatever stands beside.
    app.build("create table access_keys (id int primary key, key_hash text not null, name text,"
              " owner_type text, owner_id int not null references users)")  # fmt: skip
    assert found(detect(app.owner), "public.access_keys").certain


@pytest.mark.parametrize("column", ["role smallint not null default 0", '"accessLevel" int'])
def test_a_role_that_is_a_number_is_asked_about_with_what_to_write(
    app: Application, column: str
) -> None:
    app.build(TENANTS.format("", column))
    app.build("insert into organizations values (1, 'a'); insert into users values (1, 'a', 'b');"
              "insert into memberships values (1, 1, 1, 1)")  # fmt: skip
    for sample in (False, True):
        table = found(detect(app.owner, sample=sample), "public.memberships")
        (asked,) = (str(q) for q in table.questions if q.code.startswith("admin-"))
        assert "admin" not in table.options
        value = written(asked, "admin")
        app.owner.execute("select audit.attach('memberships', 'membership')")
        assert app.mapping("public.memberships").get("admin", "false") == "false"
        app.owner.execute("select audit.attach('memberships', 'membership', admin => %s)", (value,))
        assert app.mapping("public.memberships")["admin"] == value
