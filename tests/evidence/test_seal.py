"""Sealing: every committed event once, safe to interrupt, published, as an auditor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader

import auditdb
from auditdb.errors import Refused
from auditdb.evidence.check import Verifier
from auditdb.evidence.keys import PrivateKey, read_private
from auditdb.evidence.leaf import commit, event_entry
from auditdb.evidence.lines import COLUMNS, groups_of
from auditdb.evidence.note import VerificationKey, open_checkpoint
from auditdb.evidence.places import open_place
from auditdb.evidence.seal import Fork, Sealer, tiles_between
from auditdb.evidence.state import State
from auditdb.evidence.stored import Stored
from auditdb.evidence.tree import Tree, leaf_hash
from tests.conftest import Database
from tests.server import Server
from tests.test_cli import error_of, good, run
from tests.test_restored import restored

RECORD = "select audit.record_event('auth.login', 'o1') from generate_series(1, %s)"


class Setting:
    """A database with a sealer that publishes into a directory."""

    def __init__(self, db: Database, path: Path) -> None:
        self.db, self.path = db, path
        self.public = path / "public"
        self.public.mkdir()
        self.key = PrivateKey.make("example.com/audit")
        self.app = db.connect("app")
        self.auditor = db.connect("app_auditor")
        self.sealer = self.again()

    def again(self, *, new_log: bool = False) -> Sealer:
        """Return a sealer that knows nothing but what was kept."""
        places = [("public", open_place(self.public.as_uri()))]
        state = State(self.path / "state")
        return Sealer(self.auditor, self.key, state, places, new_log=new_log)

    def record(self, many: int) -> None:
        self.app.execute(RECORD, [many])

    def published(self) -> str:
        """Return the checkpoint that is published; nothing before the first."""
        path = self.public / "checkpoint"
        return path.read_text() if path.exists() else ""

    def findings(self) -> list[str]:
        note = (self.path / "state").read_text()
        return Verifier(self.auditor, [self.key.key], [("state", note)]).run().findings


@pytest.fixture
def setting(db: Database, tmp_path: Path) -> Setting:
    return Setting(db, tmp_path)


def test_every_event_is_sealed_once(setting: Setting) -> None:
    for many in (1, 300, 700):
        setting.record(many)
        setting.sealer.run()
    superuser = setting.db.connect()
    sealed = superuser.execute("select unnest(ids) from audit.seal").fetchall()
    logged = superuser.execute("select id from audit.event").fetchall()
    assert sorted(sealed) == sorted(logged)
    assert setting.sealer.run().added == 0
    assert setting.findings() == []


def test_what_is_published_is_what_other_tools_read(setting: Setting) -> None:
    for many in (1, 300, 700):
        setting.record(many)
        done = setting.again().run()
        reader = TilesReader(LocalBackend(setting.public))
        head = reader.get_checkpoint()
        assert (head.size, reader.calculate_root_hash()) == (done.size, head.root_hash)
        open_checkpoint((setting.public / "checkpoint").read_text(), [setting.key.key])


def test_parts_of_any_size_give_the_same_leaves(setting: Setting) -> None:
    setting.record(100)
    setting.auditor.execute("select audit.make_tick()")
    sizes = []
    for at_most in (1, 7, 50, 50, 50, 50):
        row = setting.auditor.execute("select audit.seal_next(%s)", [at_most]).fetchone()
        assert row is not None
        sizes.append(row[0])
    assert sizes[0] == 1
    assert sizes[1] == 8
    assert sizes[-1] is None
    setting.sealer.run()
    assert setting.findings() == []


@pytest.mark.parametrize("dies_in", ["_keep", "state", "keep_checkpoint", "_publish"])
def test_a_sealer_that_dies_goes_on(
    setting: Setting, dies_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.record(300)
    setting.sealer.run()
    setting.record(600)

    class Killed(BaseException):
        pass

    def die(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if dies_in == "state":
            patch.setattr(State, "write", die)
        elif dies_in == "keep_checkpoint":
            write = State.write

            def write_and_die(self: State, note: str, keys: list[VerificationKey]) -> None:
                write(self, note, keys)
                raise Killed

            patch.setattr(State, "write", write_and_die)
        else:
            patch.setattr(Sealer, dies_in, die)
        with pytest.raises(Killed):
            setting.again().run()
    done = setting.again().run()
    rows = setting.auditor.execute("select size from audit.checkpoint order by id").fetchall()
    assert rows[-1] == (done.size,)
    assert TilesReader(LocalBackend(setting.public)).get_checkpoint().size == done.size
    assert setting.findings() == []


def test_two_sealers_are_one(setting: Setting) -> None:
    setting.record(3)
    with setting.db.connect("app_auditor").transaction() as block:
        other = block.connection
        other.execute("select audit.make_tick()")
    with setting.db.connect("app_auditor") as other, other.transaction():
        other.execute("select audit.seal_next()")
        with pytest.raises(Refused, match="another sealer is at work"):
            setting.sealer.run()
    with State(setting.path / "state").lock(), pytest.raises(Refused, match="at work"):
        setting.sealer.run()


def test_writers_never_wait_for_a_sealer(setting: Setting) -> None:
    setting.record(3)
    setting.auditor.execute("select audit.make_tick()")
    with setting.db.connect("app_auditor") as other, other.transaction():
        other.execute("select audit.seal_next()")
        setting.app.execute("set lock_timeout = '100ms'")
        setting.record(1)
        setting.app.execute("update workflow set name = 'x'")


def test_only_auditors_seal_and_nobody_changes_seals(setting: Setting) -> None:
    setting.record(300)
    setting.sealer.run()
    for role in ("app", "app_reader", "app_owner"):
        conn = setting.db.connect(role)
        for query in (
            "select audit.seal_next()", "select audit_private.keep_checkpoint('', 1)",
            "select audit_private.keep_tiles('{1}', '{0}', '{x}')",
            "select audit_private.keep_rotation('')",
            "select * from audit.seal", "select * from audit.tile",
            "select * from audit.sealed_organization", "select * from audit.organization_seal",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(query.encode())
    for table in (
        "seal", "tile", "checkpoint", "key_rotation", "sealed_organization", "organization_seal",
    ):  # fmt: skip
        for query in (f"delete from audit.{table}", f"truncate audit.{table}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                setting.auditor.execute(query.encode())
    superuser = setting.db.connect()
    for table in ("seal", "checkpoint", "key_rotation", "organization_seal"):
        with pytest.raises(psycopg.Error, match="append-only"):
            superuser.execute(f"truncate audit.{table}".encode())


def test_a_tile_goes_on_from_that_which_is_there(setting: Setting) -> None:
    keep = "select audit_private.keep_tiles('{1}', '{0}', array[%s::bytea])"
    setting.auditor.execute(keep, [b"a" * 32])
    setting.auditor.execute(keep, [b"a" * 32 + b"b" * 32])
    for wrong in (b"a" * 32, b"c" * 64, b"", b"a" * 32 * 257):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            setting.auditor.execute(keep, [wrong])


def test_without_its_state_a_sealer_asks_what_to_trust(setting: Setting) -> None:
    setting.record(3)
    setting.sealer.run()
    state = setting.path / "state"
    note = state.read_text()
    state.unlink()
    setting.record(3)
    for new_log in (False, True):
        with pytest.raises(Refused, match="--trust"):
            setting.again(new_log=new_log).run()
    sealer = setting.again()
    sealer.trust(note)
    assert sealer.run().added == 5
    assert setting.findings() == []


def test_a_place_that_holds_another_log_is_left_alone(setting: Setting) -> None:
    setting.record(3)
    other = PrivateKey.make("example.com/other")
    place = open_place(setting.public.as_uri())
    Sealer(setting.auditor, other, State(setting.path / "other"), [("x", place)]).run()
    was = (setting.public / "checkpoint").read_text()
    superuser = setting.db.connect()
    superuser.execute("alter table audit.checkpoint disable trigger all")
    superuser.execute("delete from audit.checkpoint")
    (problem,) = setting.sealer.run().problems
    assert problem.startswith("public: ")
    assert (setting.public / "checkpoint").read_text() == was


def test_a_place_that_was_down_catches_up(setting: Setting) -> None:
    setting.record(300)
    setting.public.rename(setting.path / "away")
    assert len(setting.sealer.run().problems) == 1
    (setting.path / "away").rename(setting.public)
    setting.record(300)
    assert setting.sealer.run().problems == []
    reader = TilesReader(LocalBackend(setting.public))
    assert reader.get_checkpoint().root_hash == reader.calculate_root_hash()


@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_tiles_that_are_new_are_those_of_the_tree_that_were_not_there(a: int, b: int) -> None:
    older, newer = sorted((a, b))
    every = {tile.path for tile in tiles_between(0, newer)}
    new = {tile.path for tile in tiles_between(older, newer)}
    assert new <= every
    assert every - new == every & {tile.path for tile in tiles_between(0, older)}


@settings(
    deadline=None, max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
             min_size=4, max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(-1e9, 1e9)
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abcé\"\\\n", max_size=3), inner, max_size=3), max_leaves=5,
    ),
    st.sampled_from(["'2026-11-28 01:02:03.4'", "'infinity'", "'-infinity'", "'0044-03-15 BC'",
                     "'12000-01-01 00:00+14'", "'1969-12-31 23:59:59.000001'"]),
    st.sampled_from([("user", "{}"), ("api_key", "{}"), ("api_key", "7/{}"), ("api_key", "7{}")]),
)  # fmt: skip
def test_the_leaf_that_the_server_makes_is_that_of_the_verifier(
    db: Database, texts: list[str], value: Any, at: str, target: tuple[str, str]
) -> None:
    key, salt = "6e1a7a34-6f0c-4b2e-9b8e-0123456789ab", bytes(range(16))
    with db.connect() as conn:
        event = f"""(select e from (values (%(id)s::bigint, {at}::timestamptz, '77'::xid8, %(a)s,
            'success', %(b)s, 'user', null, %(c)s, 'o1', %(t)s, %(target)s, %(d)s, 'web', null,
            null::jsonb, %(v)s::jsonb, '{{}}'::jsonb, null)) as e (id, occurred_at, transaction_id,
            action, result, actor_id, actor_type, impersonator_id, db_user, organization_id,
            target_type, target_id, subject_id, source, captured_from, old_values, new_values,
            details, db_role))"""
        given_ = dict(zip("abcd", texts, strict=True), id=-5, v=json.dumps(value), salt=salt,
                      t=target[0], target=target[1].format(texts[3]), key=key)  # fmt: skip
        (expression,) = conn.execute("select audit_private.leaf_expression()").fetchall()
        made = conn.execute(
            f"""select {expression[0]} from (
                select (x.e).*, %(key)s::uuid as series, %(salt)s::bytea as salt
                from {event} as x (e)) as e""".encode(), given_
        ).fetchone()  # fmt: skip
        row = conn.execute(
            f"select {COLUMNS} from {event} as x (e), lateral (select (x.e).*) as e".encode(),
            given_,
        ).fetchone()
        assert row is not None and made is not None
        skeleton, personal = groups_of(row, key)
        assert leaf_hash(event_entry(skeleton, commit(salt, personal))) == made[0]
        assert json.loads(personal)["new_values"] == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("subject", "target", "is_person"),
    [
        ("7", "7", True), ("7", "7/9", True), ("7", "9/7", True), ("7", "9/7/9", True),
        ("7", "77/9", False), ("7", "9", False), ("7", None, False), (None, "7", False),
        ("a/b", "a/b", True), ("a/b", "a/b/9", True), ("a/b", "aa/b", False), ("", "", True),
        ("", "9", False),
    ],
)  # fmt: skip
def test_a_target_names_a_person_by_the_whole_of_its_key_or_by_parts(
    db: Database, subject: str | None, target: str | None, is_person: bool
) -> None:
    ((named,),) = (
        db.connect()
        .execute("select audit_private.names_person('membership', %s, %s)", [target, subject])
        .fetchall()
    )
    assert named is is_person
    row = (*["x"] * 9, "membership", target, *["x"] * 4, subject, None, None, None)
    skeleton, personal = (json.loads(part)["target_id"] for part in groups_of(row, "x"))
    assert (skeleton, personal) == ((None, target) if is_person else (target, None))


def test_an_event_of_empty_identifiers_is_as_it_was_sealed(setting: Setting) -> None:
    superuser = setting.db.connect()
    superuser.execute(
        "insert into audit.event (action, result, actor_type, source, organization_id, "
        "target_type, target_id, subject_id) values ('x.y', 'success', 'user', 'web', 'o1', "
        "'workflow', '', '')"
    )
    setting.sealer.run()
    assert setting.findings() == []


def test_a_person_is_named_in_the_personal_part_alone(setting: Setting) -> None:
    setting.app.execute(
        "select audit.record_event('user.deleted', 'o1', target_type => 'user', "
        "target_id => 'target-7', subject_id => 'subject-7', actor_id => 'actor-7', "
        "impersonator_id => 'impersonator-7', details => '{\"a\": \"details-7\"}', "
        'new_values => \'{"a": "values-7"}\')'
    )
    row = setting.auditor.execute(
        f"select {COLUMNS} from audit.event as e where e.action = 'user.deleted'".encode()
    ).fetchone()
    assert row is not None
    skeleton, personal = groups_of(row, "6e1a7a34-6f0c-4b2e-9b8e-0123456789ab")
    assert b"-7" not in skeleton
    for name in (b"target", b"subject", b"actor", b"impersonator", b"details", b"values"):
        assert name + b"-7" in personal


def test_proofs_of_stored_events_are_made_of_what_is_stored(setting: Setting) -> None:
    setting.record(600)
    head = setting.sealer.run()
    tree = Tree(Stored(setting.auditor), head.size)
    published = TilesReader(LocalBackend(setting.public))
    published.get_checkpoint()
    for index in (0, 255, 256, head.size - 1):
        assert tree.include(index) == published.get_inclusion_proof(index, head.size).node_hashes


@pytest.mark.parametrize("role", ["app_reader", "stranger"])
def test_who_is_no_auditor_learns_which_role_it_takes(
    db: Database, tmp_path: Path, role: str
) -> None:
    key, new = str(tmp_path / "key"), tmp_path / "new"
    vkey = good(db, "seal", "init", "--key-file", key).strip()
    rotate = ["seal", "rotate", "--key-file", key, "--new-key-file", str(new)]
    for command in (["seal", "--key-file", key], ["verify", "--key", vkey], rotate):
        said = error_of(run(db, *command, role=role))
        assert said.endswith(f'; run: grant audit_auditor to "{role}"'), said
    assert not new.exists(), "nothing handed over to it"


def test_the_commands_seal_verify_rotate_and_find(db: Database, tmp_path: Path) -> None:
    key, public = tmp_path / "key", tmp_path / "public"
    public.mkdir()
    vkey = good(db, "seal", "init", "--key-file", str(key), "--name", "example.com/audit").strip()
    assert vkey == str(read_private(key).key)
    seal = ["seal", "--key-file", str(key), "--to", public.as_uri()]
    assert "leaves" in good(db, *seal, role="app_auditor")
    note = tmp_path / "kept"
    note.write_text(good(db, *seal, "--to", "-", role="app_auditor"))
    verify = ["verify", "--key", vkey, "--checkpoint", str(note)]
    assert good(db, *verify, role="app_auditor").endswith("0 findings\n")

    new = tmp_path / "new"
    good(
        db, "seal", "rotate", "--key-file", str(key), "--new-key-file", str(new), role="app_auditor"
    )
    db.connect("app").execute(RECORD, [3])
    seal[2] = str(new)
    # With that of the verification, of the tick and of the map.
    assert "sealed 6 leaves" in good(db, *seal, role="app_auditor")
    assert "0 findings" in good(db, *verify, "--published", public.as_uri(), role="app_auditor")
    assert (public / "keys" / "001").exists()

    superuser = db.connect()
    superuser.execute("alter table audit.event_default disable trigger all")
    (table,) = superuser.execute(
        "select tableoid::regclass::text from audit.event where action = 'auth.login' limit 1"
    ).fetchone()  # type: ignore[misc]
    superuser.execute(f"alter table {table} disable trigger all".encode())
    superuser.execute("update audit.event set result = 'denied' where action = 'auth.login'")
    found = run(db, *verify, "--json", role="app_auditor")
    assert found.exit_code == 1
    assert len(json.loads(found.stdout)["findings"]) == 3


def test_the_commands_say_what_is_missing(db: Database, tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert "no sealing key" in error_of(run(db, "seal", "--state", str(tmp_path / "s")), 2)
    good(db, "seal", "init", "--key-file", str(key))
    before = key.read_text()
    assert error_of(run(db, "seal", "init", "--key-file", str(key)), 2) == (
        f"Error: {key} already exists; a key file is never overwritten: choose another path"
    )
    assert key.read_text() == before
    said = error_of(run(db, "seal", "--key-file", str(key), role="app"))
    assert "permission denied" in said
    assert "--key" in error_of(run(db, "seal", "--sign-command", "x"), 2)
    assert "is not a valid time" in error_of(run(db, "seal", "--every", "3"), 2)
    assert "verification key" in error_of(run(db, "verify", "--key", "a+b"), 2)


def test_a_command_signs_for_the_command_line(db: Database, tmp_path: Path) -> None:
    key = PrivateKey.make("example.com/audit")
    script = tmp_path / "sign.py"
    script.write_text(
        "import sys\nfrom base64 import b64encode\nfrom auditdb.evidence.keys import PrivateKey\n"
        f"key = PrivateKey.read({key.text()!r})\n"
        "print(b64encode(key.sign(sys.stdin.buffer.read())).decode())\n"
    )
    good(db, "seal", "--sign-command", f"{sys.executable} {script}", "--key", str(key.key),
         "--state", str(tmp_path / "state"), role="app_auditor")  # fmt: skip
    open_checkpoint((tmp_path / "state").read_text(), [key.key])


def test_pg_dump_and_restore_keep_what_was_sealed(setting: Setting, server: Server) -> None:
    setting.record(300)
    setting.sealer.run()
    note = (setting.path / "state").read_text()

    def findings(there: Database) -> list[str]:
        conn = there.connect("app_auditor")
        return Verifier(conn, [setting.key.key], [("state", note)]).run().findings

    with restored(setting.db, server) as there:
        assert findings(there) == []
        auditdb.install(there.dsn)
        assert findings(there) == []
        there.connect("app").execute(RECORD, [5])
        state = State(setting.path / "state")
        assert Sealer(there.connect("app_auditor"), setting.key, state).run().added > 5
        assert findings(there) == []


def test_an_older_database_is_no_continuation(setting: Setting) -> None:
    setting.record(3)
    setting.sealer.run()
    superuser = setting.db.connect()
    superuser.execute("alter table audit.seal disable trigger all")
    superuser.execute("delete from audit.seal")
    with pytest.raises(Fork, match="an older backup was restored"):
        setting.again().run()


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, MDY"])
@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns"])
def test_however_the_session_writes_times_the_bytes_are_the_same(
    setting: Setting, style: str, zone: str
) -> None:
    superuser = setting.db.connect()
    for at in ("infinity", "-infinity", "0044-03-15 BC", "12000-01-01", "2026-04-01T02:30Z"):
        superuser.execute(
            "insert into audit.event (occurred_at, action, result, actor_type, source, "
            "organization_id) values (%s, 'x.y', 'success', 'user', 'web', 'o1')", [at],
        )  # fmt: skip
    setting.record(3)
    setting.sealer.run()
    usual = setting.auditor
    setting.auditor = setting.db.connect("app_auditor")
    setting.auditor.execute("select set_config('datestyle', %s, false)", [style])
    setting.auditor.execute("select set_config('timezone', %s, false)", [zone])
    assert setting.findings() == []
    setting.record(3)
    # As pg_cron calls it: nothing but the functions themselves pins how times are written.
    setting.auditor.execute("select audit.make_tick()")
    setting.auditor.execute("select audit.seal_next()")
    setting.again().run()
    assert setting.findings() == []
    superuser.execute("alter table audit.event disable trigger user")
    superuser.execute("delete from audit.event where occurred_at < '2026-05-01' "
                      "and occurred_at > '2000-01-01'")  # fmt: skip
    found = setting.findings()
    assert len(found) == 1
    setting.auditor = usual
    assert setting.findings() == found
