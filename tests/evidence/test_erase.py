"""Erasure: what is personal is gone, all else and every proof stays, and nobody does it unseen."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from auditdb.errors import InvalidInput, Refused
from auditdb.evidence.bundle import Bundler
from auditdb.evidence.erasure import erase, list_mentions, list_personal, personal_lines
from auditdb.operator import hold_organization
from tests.conftest import Database
from tests.evidence.test_seal import Setting
from tests.export.test_streams import OTHER, OWNER, create, streams
from tests.test_cli import error_of, good, run

SECRET = "ann@example.com"


@pytest.fixture
def setting(db: Database, tmp_path: Path) -> Setting:
    """A sealed log: ann acts on herself and bob, bob acts; in two organisations."""
    made = Setting(db, tmp_path)
    act(made, "o1", "ann", "ann")
    act(made, "o1", "ann", "bob")
    act(made, "o1", "bob", "bob")
    act(made, "o2", "ann", "cyd")
    made.sealer.run()
    return made


def act(setting: Setting, organization: str, actor: str, subject: str) -> None:
    with setting.app.transaction():
        setting.app.execute("select audit.set_context(%s, actor_type => 'user')", [actor])
        setting.app.execute(
            "select audit.record_event('membership.added', %s, target_type => 'membership', "
            "target_id => %s, subject_id => %s, new_values => %s)",
            [organization, f"{organization}/{subject}", subject,
             json.dumps({"email": f"{subject}@example.com"})],
        )  # fmt: skip


def events(setting: Setting) -> list[dict[str, object]]:
    rows = setting.db.connect().execute(
        "select to_jsonb(e) from audit.event as e where action <> 'audit.installed' order by id"
    )
    return [row for (row,) in rows]


def test_what_is_personal_goes_and_all_else_stays(setting: Setting) -> None:
    before = events(setting)
    assert erase(setting.auditor, subject_id="ann", reason="request 1") == 3
    after = events(setting)
    told = [e for e in after if e["action"] == "audit.erased"]
    after = [e for e in after if e["action"] != "audit.erased"]
    for was, now in zip(before, after, strict=True):
        is_ann = "ann" in (was["actor_id"], was["subject_id"])
        assert (was == now) != is_ann
        if is_ann:
            assert {n for n in was if was[n] != now[n]} == {
                "actor_id", "subject_id", "target_id", "new_values", "details"
            }  # fmt: skip
            assert now["details"]["erased"].keys() == {"erasure", "commitment"}  # type: ignore[index]
    assert SECRET not in json.dumps(after)
    assert [(e["organization_id"], len(e["details"]["event_ids"])) for e in told] == [  # type: ignore[index]
        ("o1", 2), ("o2", 1)
    ]  # fmt: skip
    assert "ann" not in json.dumps(told)
    assert list_personal(setting.auditor, subject_id="ann") == []
    assert erase(setting.auditor, subject_id="ann", reason="again") == 0


def test_every_proof_stays(setting: Setting) -> None:
    setting.record(30)
    erase(setting.auditor, subject_id="ann", reason="request 1")
    assert setting.findings() == []
    setting.sealer.run()
    assert setting.findings() == []
    # What was not sealed when it was erased is sealed as it is.
    act(setting, "o1", "dan", "dan")
    erase(setting.auditor, subject_id="dan", reason="request 2")
    setting.sealer.run()
    assert setting.findings() == []


def test_no_salt_of_what_was_erased_is_left(setting: Setting) -> None:
    superuser = setting.db.connect()
    query = "select salts, ids from audit.seal where ids <> '{}'"
    rows = superuser.execute(query).fetchall()
    salts = {id: r[0][n * 16 : n * 16 + 16] for r in rows for n, id in enumerate(r[1])}
    erase(setting.auditor, subject_id="ann", reason="request 1")
    rows = superuser.execute(query).fetchall()
    left = {id: r[0][n * 16 : n * 16 + 16] for r in rows for n, id in enumerate(r[1])}
    gone = {
        id for (id,) in superuser.execute(
            "select id from audit.event where details ? 'erased'").fetchall()
    }  # fmt: skip
    for id, salt in left.items():
        assert salt == (bytes(16) if id in gone else salts[id])


def test_an_organization_and_a_person_within_one(setting: Setting) -> None:
    found = list_personal(setting.auditor, subject_id="ann")
    assert [(p.organization, p.events) for p in found] == [("o1", 2), ("o2", 1)]
    assert erase(setting.auditor, subject_id="ann", organization_id="o2", reason="x") == 1
    assert erase(setting.auditor, organization_id="o1", reason="they left") == 3
    assert all(e["actor_id"] is None for e in events(setting) if e["action"] == "membership.added")
    assert setting.findings() == []


@pytest.mark.parametrize("given", [
    {"subject_id": OWNER}, {"organization_id": "1"}, {"subject_id": OWNER, "organization_id": "1"},
])  # fmt: skip
def test_who_made_a_stream_goes_and_the_stream_goes_on(db: Database, given: dict[str, str]) -> None:
    name, other = create(db), create(db, OTHER, "2")
    db.connect("app_auditor").execute("select audit.subscribe('siem', 'https://h/')")
    erase(db.connect("app_auditor"), reason="request 1", **given)
    rows = db.connect().execute("select name, made_by, state from audit.subscription").fetchall()
    assert set(rows) == {
        (name, "", "active"), (other, OTHER, "active"), ("siem", None, "active")}  # fmt: skip
    db.connect("app").execute("delete from membership where user_id = 4")
    assert [s["made_by"] for s in streams(db)] == [""]
    assert OWNER not in [v for e in db.events("action ~ 'subscription'") for v in e.values()]
    # What is of nobody now is not somebody's, nor the vendor's.
    erase(db.connect("app_auditor"), reason="request 2", subject_id=OTHER, organization_id="1")
    assert set(rows) == set(
        db.connect().execute("select name, made_by, state from audit.subscription").fetchall()
    )


@pytest.mark.parametrize("role", ["app_owner", "app", "app_reader", "stranger"])
def test_only_an_auditor_erases(setting: Setting, role: str) -> None:
    with pytest.raises(Refused):
        erase(setting.db.connect(role), subject_id="ann", reason="mine")
    with pytest.raises((Refused, psycopg.errors.InsufficientPrivilege)):
        setting.db.connect(role).execute("select * from audit.personal_events('ann')")


@pytest.mark.parametrize(
    "change",
    [
        "actor_id = null",
        "new_values = null",
        'details = \'{"erased": {"erasure": 1}}\'',
        "result = 'failure'",
        "actor_id = null, impersonator_id = null, subject_id = null, target_id = null, "
        'old_values = null, new_values = null, details = \'{"erased": {"erasure": 1}}\'',
    ],
)
def test_the_guard_lets_nothing_through_but_an_erasure(setting: Setting, change: str) -> None:
    """Not even as the owner, and in the transaction of an erasure."""
    erase(setting.auditor, subject_id="cyd", reason="one that was")
    owner = setting.db.connect()
    query = f"update audit.event set {change} where actor_id = 'bob'".encode()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        owner.execute(query)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"), \
            owner.transaction():  # fmt: skip
        owner.execute("insert into audit.erasure (reason, events) values ('x', 1)")
        owner.execute(query)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"), \
            owner.transaction():  # fmt: skip
        owner.execute("insert into audit.erasure (reason, events) values ('x', 1)")
        owner.execute("update audit.seal set leaves = substr(leaves, 1, 32)")


def test_an_erasure_that_no_event_tells_of_is_found(setting: Setting) -> None:
    superuser = setting.db.connect()
    with superuser.transaction():
        superuser.execute("set local session_replication_role = replica")
        superuser.execute("alter table audit.event disable trigger user")
        superuser.execute("alter table audit.seal disable trigger user")
        superuser.execute(
            "with erasure as (insert into audit.erasure (reason, events) values ('x', 1) "
            "returning id) select audit_private.erase_events(e.id, f.ids, f.times, f.seals, "
            "f.numbers) from erasure as e, audit_private.events_to_erase('bob', null) as f"
        )
    assert any("no event audit.erased says so" in found for found in setting.findings())
    found = superuser.execute(
        "select object, problem from audit.doctor() where check_name = 'erasures'"
    ).fetchall()
    assert found == [
        ("audit.erasure", "erasure 1 erased 1 events, but the events audit.erased name 0")
    ]  # fmt: skip


def test_the_doctor_finds_nothing_wrong_with_an_erasure(setting: Setting) -> None:
    erase(setting.auditor, subject_id="ann", reason="request 1")
    found = setting.db.connect().execute(
        "select check_name, problem from audit.doctor() where check_name in "
        "('erasures', 'ticks', 'guards', 'log')").fetchall()  # fmt: skip
    assert found == []


def test_what_is_under_legal_hold_is_not_erased(setting: Setting) -> None:
    hold_organization(setting.auditor, "o2", reason="case 7")
    before = events(setting)
    for whom in ({"subject_id": "ann"}, {"organization_id": "o2"}):
        with pytest.raises(Refused, match="organisation o2, which is under legal hold"):
            erase(setting.auditor, reason="request 1", **whom)
    assert events(setting) == before
    dry = run(setting.db, "erase", "--subject-id", "ann", role="app_auditor")
    assert (dry.exit_code, dry.stderr.count("o2 is under legal hold: nothing is erased")) == (0, 1)
    other = ("erase", "--subject-id", "ann", "--organization-id", "o1")
    assert run(setting.db, *other, role="app_auditor").stderr == ""
    assert erase(setting.auditor, subject_id="ann", organization_id="o1", reason="request 1") == 2


def test_bad_input_is_said_in_a_line(setting: Setting) -> None:
    with pytest.raises(InvalidInput, match="give a subject_id, an organization_id"):
        erase(setting.auditor, reason="x")
    for reason in ("", " ", "x" * 1001):
        with pytest.raises((InvalidInput, Refused), match="a reason of at most 1000"):
            erase(setting.auditor, subject_id="ann", reason=reason)
    with pytest.raises((InvalidInput, Refused), match="names the person who is to be erased"):
        erase(setting.auditor, subject_id="ann@example.com", reason="ann@example.com asked")


def test_all_about_a_person_and_who_else_names_them(setting: Setting) -> None:
    act(setting, "o1", "bob", "ann@example")
    lines = [json.loads(line) for line in personal_lines(setting.auditor, "ann")]
    assert [(e["actor_id"], e["subject_id"]) for e in lines] == [
        ("ann", "ann"), ("ann", "bob"), ("ann", "cyd")
    ]  # fmt: skip
    found = list_mentions(setting.auditor, ["ANN@"], subject_id="ann")
    assert [(m.organization, m.action) for m in found] == [("o1", "membership.added")]


def test_the_commands(setting: Setting) -> None:
    def done(*args: str) -> str:
        return good(setting.db, *args, role="app_auditor")

    def failed(*args: str) -> str:
        return error_of(run(setting.db, *args, role="app_auditor"), 2)

    said = done("erase", "--subject-id", "ann")
    assert "organisation o1: 2 events" in said and "would erase 3 events" in said
    assert "--reason" in failed("erase", "--subject-id", "ann", "--yes")
    assert "give a subject_id, an organization_id" in failed("erase", "--yes", "--reason", "x")
    assert done("access", "--subject-id", "ann").count("\n") == 3
    # That somebody asked is about her, too.
    assert "erased 4 events" in done("erase", "--subject-id", "ann", "--yes", "--reason", "r 1")
    assert SECRET not in done("access", "--subject-id", "bob")
    assert done("access", "--subject-id", "ann") == ""


@pytest.mark.parametrize(
    "change",
    [
        "actor_id = 'mallory'",
        "subject_id = 'mallory'",
        "impersonator_id = 'mallory'",
        'new_values = \'{"role": "OWNER"}\'',
        "old_values = 'null'",
        'details = details || \'{"note": "mallory did it"}\'',
        "details = jsonb_set(details, '{erased,by}', '\"mallory\"')",
        "details = jsonb_set(details, '{erased,erasure}', '2')",
        "details = jsonb_set(details, '{erased,commitment}', '\"no hash\"')",
        "details = jsonb_set(details, '{erased,commitment}', '\"00\"')",
    ],
)
def test_nobody_adds_to_what_was_erased(setting: Setting, change: str) -> None:
    """No hash is left that says what was there: nothing may be there."""
    erase(setting.auditor, subject_id="ann", reason="request 1")
    erase(setting.auditor, subject_id="bob", reason="request 2")
    superuser = setting.db.connect()
    superuser.execute("alter table audit.event disable trigger user")
    changed = superuser.execute(
        f"update audit.event set {change} where id = (select min(id) from audit.event "
        "where details #>> '{erased,erasure}' = '1') returning id".encode()
    ).fetchone()
    assert changed is not None
    assert any(f"event {changed[0]} " in found for found in setting.findings())
    if "erasure}" in change:
        return  # A proof does not show it.
    with pytest.raises(Refused, match=f"event {changed[0]} is not as it was sealed"):
        Bundler(setting.auditor).prove([changed[0]], setting.path / "proof.zip")


@pytest.mark.parametrize("erased", ['{"erasure": 1}', '{"erasure": 1, "name": "ann"}', "true", "7"])
def test_who_writes_that_an_event_was_erased_keeps_nothing_from_erasure(
    setting: Setting, erased: str
) -> None:
    details = f'{{"erased": {erased}, "email": "ann@example.com"}}'
    setting.app.execute(
        "select audit.record_event('auth.login', 'o1', subject_id => 'ann', actor_type => 'system',"
        " details => %s)", [details])  # fmt: skip
    setting.app.execute(
        "select audit.record_event('auth.login', 'o1', target_type => 'user', target_id => 'ann', "
        "actor_type => 'system', details => %s)", [f'{{"erased": {erased}}}'])  # fmt: skip
    setting.sealer.run()
    assert setting.findings() == []
    assert sum(p.events for p in list_personal(setting.auditor, subject_id="ann")) == 5
    assert erase(setting.auditor, subject_id="ann", reason="request 1") == 5
    assert SECRET not in json.dumps(events(setting))
    assert setting.findings() == []
    assert erase(setting.auditor, subject_id="ann", reason="request 1") == 0


def test_a_reason_that_names_somebody_is_found_whatever_the_name_is_made_of(
    setting: Setting,
) -> None:
    act(setting, "o1", "o_brien%", "bob")
    with pytest.raises((InvalidInput, Refused), match="names the person"):
        erase(setting.auditor, subject_id="C:\\o_brien", reason="C:\\o_brien asked")
    assert erase(setting.auditor, subject_id="o_brien%", reason="oxbrien asked") == 1


@pytest.mark.parametrize("erased", ['{"erasure": 1, "name": "ann"}', "true", '{"erasure": "x"}'])
def test_who_writes_that_an_event_of_nobody_was_erased_keeps_nothing(
    setting: Setting, erased: str
) -> None:
    for details in (f'{{"erased": {erased}}}', f'{{"erased": {erased}, "email": "{SECRET}"}}'):
        setting.app.execute(
            "select audit.record_event('auth.login', 'o3', actor_type => 'system', details => %s)",
            [details],
        )  # fmt: skip
    setting.sealer.run()
    assert erase(setting.auditor, organization_id="o3", reason="they left") == 2
    assert "name" not in json.dumps([e["details"] for e in events(setting)])
    assert SECRET not in json.dumps([e["details"] for e in events(setting)])
    assert setting.findings() == []
