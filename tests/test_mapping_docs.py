"""The blocks of docs/mapping.md: each is applied, and captures what its text says."""

from __future__ import annotations

import pytest

from auditdb.operator import apply, load
from tests.conftest import Database
from tests.test_readme import blocks

# The tables that the blocks name, each with columns that its text takes for granted.
TABLES = """
create table "Team" (id int primary key, "parentId" int references "Team");
create table "Membership" (
    id int primary key, "userId" int, "teamId" int references "Team", role text, accepted bool,
    "updatedAt" timestamptz
);
create table users (id int primary key, email text);
create table workflow (id int primary key, name text);
create table workflow_step (id int primary key, workflow_id int references workflow, name text);
create table invoice (id int primary key, user_id int, organization_id int, status text);
create table api_token (id int primary key, user_id int references users, organization_id int);
create table blacklisted_token (id int primary key, token_id int not null references api_token);
insert into users values (3, 'c@example.org');
"""
TOKENS = """
[[table]]
name = "public.api_token"
kind = "api_key"
organization = "organization_id"

"""
WHOLE = """
[[table]]
name = "public.workflow"
kind = "workflow"
organization = "'1'"

"""
INVOICE = "[[table]]\nname = 'public.invoice'\nkind = 'invoice'\n"
# By a line of a block: tables above its own, what an application does, and the events of it.
DONE: dict[str, tuple[str, str, list[tuple[str, str, str | None, str | None]]]] = {
    "name = 'public.\"Membership\"'": (
        WHOLE,
        'insert into "Team" values (1, null), (2, 1);'
        "insert into \"Membership\" values (5, 3, 2, 'MEMBER', true);"
        'update "Membership" set role = \'OWNER\'; update "Membership" set "updatedAt" = now();'
        "insert into workflow values (8, 'w'); insert into workflow_step values (9, 8, 's')",
        [
            ("membership.added", "5", "1", "3"),
            ("membership.role_changed", "5", "1", "3"),
            ("workflow.created", "8", "1", None),
            ("workflow.modified", "8", "1", None),
        ],
    ),
    'verbs = { created = "invoice.issued"': (
        "",
        "insert into invoice values (5, 3, 1, 'open'); update invoice set status = 'paid';"
        "delete from invoice",
        [
            ("invoice.issued", "5", "1", "3"),
            ("invoice.status_changed", "5", "1", "3"),
            ("invoice.voided", "5", "1", "3"),
        ],
    ),
    "organization = \"'instance'\"": (
        "",
        "insert into users values (7, 'a@example.org')",
        [("user.created", "7", "instance", "7")],
    ),
    'name = "revocation"': (
        TOKENS,
        "insert into api_token values (4, 3, 1); insert into blacklisted_token values (6, 4)",
        [("api_key.created", "4", "1", "3"), ("api_key.revoked", "4", "1", "3")],
    ),
    "context = [": (
        INVOICE,
        "begin; select set_config('request.jwt.claims', '{\"sub\": \"7\"}', true);"
        "insert into invoice values (5, 3, 1, 'open'); commit",
        [("invoice.created", "5", "1", None)],
    ),
}
BLOCKS = [text for text in blocks("docs/mapping.md", "toml") if "[detect]" not in text]


def test_every_block_is_applied() -> None:
    assert len(BLOCKS) == 6
    for key in DONE:
        assert any(key in text for text in BLOCKS), key


@pytest.mark.parametrize("text", BLOCKS)
def test_a_block_does_what_the_text_says(text: str, empty_db: Database) -> None:
    before, statements, expected = next(done for key, done in DONE.items() if key in text)
    conn = empty_db.connect()
    conn.execute(TABLES.encode())
    conn.execute("grant all on all tables in schema public to app")
    # Settings of the whole file, and kinds, stand above its tables.
    at = text.index("[[table]]") if "[[table]]" in text else len(text)
    apply(conn, load(f"{text[:at]}\n{before}{text[at:]}"))
    empty_db.connect("app").execute(statements.encode())
    events = [e for e in empty_db.events() if not e["action"].startswith("audit.")]
    got = [(e["action"], e["target_id"], e["organization_id"], e["subject_id"]) for e in events]
    assert got == expected
    if before == INVOICE:
        assert events[0]["actor_id"] == "7"
