"""The mapping file: what it may say, what applying it changes, and what is left alone."""

from __future__ import annotations

import tomllib

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from auditdb.cli import main
from auditdb.errors import InvalidInput, Refused
from auditdb.mapping.apply import apply
from auditdb.mapping.file import OPTIONS, TableMapping, load, written
from auditdb.mapping.plan import plan
from auditdb.values.plain import is_plain
from tests.conftest import APPLICATION, Database

FILE = """
[[table]]
name = "public.workflow_step"
kind = "workflow"
parent = "workflow_id"

[[table]]
name = "public.workflow"
kind = "workflow"

[[table]]
name = "public.membership"
kind = "membership"
admin = '''
r.role in ('OWNER', 'ADMIN')
'''
ignore = ["updated_at"]
"""


@pytest.fixture
def app_db(empty_db: Database) -> Database:
    with empty_db.connect("app_owner") as conn:
        conn.execute(APPLICATION.encode())
    return empty_db


def verbs(conn: psycopg.Connection, text: str = FILE) -> dict[str, str]:
    return {change.name: change.verb for change in plan(conn, load(text))}


def test_a_file_is_read_as_the_options_of_attach() -> None:
    assert load(FILE)[2] == TableMapping(
        "public.membership",
        "membership",
        {"admin": "r.role in ('OWNER', 'ADMIN')", "ignore": ["updated_at"]},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[table]\n", "f.toml is not TOML"),
        ("context = []\ncontext = []\n", "f.toml is not TOML: a key is there twice (at line 2"),
        (
            "[[table]]\nname = 'a'\nkind = 'b'\ncontext = []\n",
            "f.toml, a: unknown key 'context'; it stands above the first [[table]]",
        ),
        ("[[tables]]\n", "f.toml: unknown key 'tables'"),
        ("[table]\nname = 'a'\n", "write [[table]], with two brackets"),
        ("table = 1\n", "write [[table]], with two brackets"),
        ("[[table]]\nkind = 'invoice'\n", "f.toml, table 1: 'name' is missing"),
        ("[[table]]\nname = 'a'\n", "f.toml, a: 'kind' is missing"),
        ("[[table]]\nname = 'a'\nkind = 'b'\norganisation = 'c'\n", "did you mean 'organization'?"),
        ("[[table]]\nname = 'a'\nkind = 'b'\ntwofactor = 'c'\n", "did you mean 'two_factor'?"),
        ("[[table]]\nname = 'a'\nkind = 'b'\nzzzzzz = 'c'\n", "the keys are organization"),
        ("[[table]]\nname = 'a'\nkind = 'b'\nrole = 1\n", "f.toml, a: 'role' must be text"),
        ("[[table]]\nname = 'a'\nkind = 'b'\nrole = ' '\n", "f.toml, a: 'role' must be text"),
        ("[[table]]\nname = 'a'\nkind = 'b'\nignore = 'c'\n", "'ignore' must be a list"),
        ("[[table]]\nname = 'a'\nkind = 'b'\nredact = [1]\n", "'redact' must be a list"),
        ("[[table]]\nname = 'a'\nkind = 'b'\n" * 2, "f.toml: a is there twice"),
        ("[detect]\nskipped = ['a']\n", "f.toml: [detect] has one key, 'skip'"),
        ("[detect]\nskip = 'a'\n", "f.toml: [detect] has one key, 'skip'"),
        ("[[detect]]\nskip = ['a']\n", "f.toml: [detect] has one key, 'skip'"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(text, source="f.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.lists(st.text(max_size=5)))
@example("r.role in ('a',\n\"b\")", [])
@example("'''\u202e\x1b", ['\u202e"\\'])
@example("a'", ["a"])
@example("'\"'", [])
def test_every_value_comes_back_from_toml_as_it_was(text: str, items: list[str]) -> None:
    items = [item.encode("utf-8", "replace").decode() for item in items]
    toml = written(TableMapping(text, "k", {"admin": text, "ignore": items}))
    [table] = tomllib.loads(toml)["table"]
    # Text of several lines gains a line feed at its end, which means nothing in SQL.
    assert table["name"] in (text, f"{text}\n") and table["admin"] == table["name"]
    assert table["ignore"] == items
    assert is_plain(toml.replace("\n", "").replace("\t", ""))


def test_a_dry_run_tells_what_would_change_and_changes_nothing(app_db: Database) -> None:
    conn = app_db.connect("app_owner")
    assert set(verbs(conn).values()) == {"attach"}
    assert conn.execute("select count(*) from audit_private.attachment").fetchone() == (0,)


def test_applying_twice_changes_nothing_the_second_time(app_db: Database) -> None:
    conn = app_db.connect("app_owner")
    assert [change.verb for change in apply(conn, load(FILE))] == ["attach"] * 3
    assert set(verbs(conn).values()) == {"unchanged"}
    assert {change.verb for change in apply(conn, load(FILE))} == {"unchanged"}
    with psycopg.connect(app_db.dsn) as superuser:
        query = "select count(*) from audit.event where action = 'audit.remapped'"
        assert superuser.execute(query).fetchone() == (0,)


def test_parents_are_attached_before_children_whatever_the_file_s_order(app_db: Database) -> None:
    conn = app_db.connect("app_owner")
    apply(conn, load(FILE))
    conn.execute("insert into workflow (id, organization_id, name) values (7, 2, 'w')")
    conn.execute("insert into workflow_step (workflow_id, position) values (7, 1)")
    assert [(e["action"], e["organization_id"], e["target_id"]) for e in app_db.events()] == [
        ("workflow.created", "2", "7"),
        ("workflow.modified", "2", "7"),
    ]


def test_a_changed_option_is_a_remap_that_shows_both_values(app_db: Database) -> None:
    conn = app_db.connect("app_owner")
    apply(conn, load(FILE))
    changed = FILE.replace('["updated_at"]', "[]")
    (change,) = (c for c in plan(conn, load(changed)) if c.verb != "unchanged")
    assert (change.verb, dict(change.options)) == ("remap", {"ignore": (["updated_at"], [])})
    assert "ignore: updated_at -> " in str(change)


def test_a_column_added_since_is_a_remap_without_any_option(app_db: Database) -> None:
    conn = app_db.connect("app_owner")
    apply(conn, load(FILE))
    conn.execute("alter table membership add column invite_token text")
    assert verbs(conn)["public.membership"] == "remap"
    apply(conn, load(FILE))
    assert verbs(conn)["public.membership"] == "unchanged"


def test_a_trigger_that_is_off_is_mended(app_db: Database) -> None:
    conn = app_db.connect("app_owner")
    apply(conn, load(FILE))
    conn.execute("alter table membership disable trigger auditdb_update")
    assert verbs(conn)["public.membership"] == "mend"
    apply(conn, load(FILE))
    assert verbs(conn)["public.membership"] == "unchanged"
    conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    assert app_db.actions() == ["membership.role_changed"]


def test_an_attached_table_that_the_file_does_not_name_is_told_and_left_alone(
    app_db: Database,
) -> None:
    conn = app_db.connect("app_owner")
    conn.execute("select audit.attach('public.api_key', 'api_key')")
    (change,) = (c for c in apply(conn, load(FILE)) if c.verb == "unlisted")
    assert change.name == "public.api_key"
    assert "left alone" in str(change)
    assert verbs(conn)["public.api_key"] == "unlisted"


def test_one_table_that_is_refused_leaves_none_attached(app_db: Database) -> None:
    conn = app_db.connect("app_owner")
    wrong = FILE + "\n[[table]]\nname = 'public.api_key'\nkind = 'api_key'\nalive = 'r.nonsense'\n"
    with pytest.raises(Refused, match=r"api_key.*nonsense"):
        apply(conn, load(wrong))
    assert conn.execute("select count(*) from audit_private.attachment").fetchone() == (0,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name = 'public.Memberships'\nkind = 'membership'", "did you mean public.membership?"),
        ("name = 'public.zzz'\nkind = 'invoice'", "there is no table public.zzz"),
        ("name = 'a.b.c.d.e'\nkind = 'invoice'", "a.b.c.d.e: "),
        ("name = 'public.workflow'\nkind = 'Invoice'", "public.workflow: .* is not a kind"),
        ("name = 'public.workflow'\nkind = 'workflow'\nrole = 'name'", "has no option"),
        (
            "name = 'public.workflow'\nkind = 'membershp'\nrole = 'name'",
            "role is an option of membership, user",
        ),
        ("name = 'public.workflow'\nkind = 'workflow'\nignore = ['x']", 'names column "x"'),
        ("name = 'public.app_user'\nkind = 'user'\nemail = 'x'", 'names column "x"'),
    ],
)
def test_a_mapping_that_fits_no_table_is_refused_by_the_dry_run_too(
    app_db: Database, table: str, message: str
) -> None:
    conn = app_db.connect("app_owner")
    mappings = load(f"[[table]]\n{table}")
    for step in (plan, apply):
        with pytest.raises(Refused, match=message):
            step(conn, mappings)


@pytest.mark.parametrize("name", ["public.workflow_step", "workflow_step"])
def test_a_table_of_the_file_that_was_dropped_is_said_to_be_gone(
    app_db: Database, name: str
) -> None:
    conn = app_db.connect("app_owner")
    file = load(f"[[table]]\nname = '{name}'\nkind = 'step'")
    apply(conn, file)
    conn.execute("drop table workflow_step")
    for step in (plan, apply):
        with pytest.raises(Refused) as refused:
            step(conn, file)
        assert str(refused.value) == (
            f"{name} was attached and is gone: take it out of the mapping file"
        )


def test_a_table_that_never_was_is_compared_by_its_name_without_the_schema(
    app_db: Database,
) -> None:
    conn = app_db.connect("app_owner")
    for name in ("public.workers", "public.apis", "workflow_nodes"):
        with pytest.raises(Refused) as refused:
            plan(conn, load(f"[[table]]\nname = '{name}'\nkind = 'invoice'"))
        assert str(refused.value) == f"there is no table {name}"


def test_two_names_for_one_table_are_refused(app_db: Database) -> None:
    text = "".join(
        f"[[table]]\nname = '{name}'\nkind = 'workflow'\n"
        for name in ("workflow", "public.workflow")
    )
    with pytest.raises(InvalidInput, match="are the same table"):
        plan(app_db.connect("app_owner"), load(text))


def test_the_caller_s_transaction_goes_on_after_a_plan(app_db: Database) -> None:
    conn = app_db.connect("app_owner", autocommit=False)
    conn.execute("insert into organization (name) values ('x')")
    plan(conn, load(FILE))
    conn.execute("insert into organization (name) values ('y')")
    conn.commit()


def test_the_keys_of_the_file_are_the_options_of_attach(empty_db: Database) -> None:
    with psycopg.connect(empty_db.dsn) as conn:
        row = conn.execute(
            "select proargnames from pg_proc where oid = 'audit.attach'::regproc"
        ).fetchone()
    assert row is not None
    assert set(row[0]) == {"target", "kind", *OPTIONS}


def test_what_a_table_will_say_is_shown_before_it_is_attached(empty_db: Database) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute("create table note (id int primary key, organization_id int not null)")
    [change] = plan(owner, load("[[table]]\nname = 'public.note'\nkind = 'note'\n"))
    assert str(change).splitlines() == [
        "attach    public.note as note",
        "            organization: r.organization_id",
        "            target_id: r.id",
    ]


@pytest.mark.parametrize("text", ["", "# a detect that failed\n", "table = []"])
def test_a_file_without_tables_is_refused_and_ends_no_capture(db: Database, text: str) -> None:
    for option in ((), ("--prune",), ("--prune", "--dry-run")):
        result = CliRunner().invoke(
            main, ["--dsn", db.conninfo("app_owner"), "attach", "-", *option], input=text
        )
        # What detect says of a database without tables attaches nothing.
        assert result.exit_code == (2 if option or not text else 0), result.output
        assert not result.exit_code or "written by a command that failed" in result.stderr
    with db.connect() as conn:
        row = conn.execute("select count(*) from audit_private.attachment").fetchone()
    assert row == (6,)
