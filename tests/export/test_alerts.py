"""Alerts: conditions on events, thresholds, and what is sent of them whatever is killed."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditdb.export import deliver
from auditdb.export.canonical import TEXTS, VALUES, line_of, loads
from auditdb.export.conditions import Condition, Values
from auditdb.export.deliver import Patience
from auditdb.export.engine import Engine
from auditdb.export.place import Row
from auditdb.export.state import Filter
from auditdb.export.subscription import create_subscription
from auditdb.export.threshold import Counts, Threshold
from auditdb.read.event import Event
from tests.conftest import Database
from tests.export.fakes import KEY, FakeKeeper, FakeSink, Kept, Log
from tests.export.fakes import row as plain_row
from tests.export.receivers import Answer, Receiver, Request, authority, receiver
from tests.export.test_subscriptions import batch, claim, done, run

DOCS = Path(__file__).resolve().parents[2] / "docs" / "export.md"
MINUTE = 60_000_000


def row_of(id: int = 1, at: str = "2026-11-28T12:00:00.000000Z", **said: Any) -> Row:
    texts = dict.fromkeys((*TEXTS, *VALUES), None)
    texts |= {"action": "a.b", "result": "success", "transaction_id": 1, **said}
    event = Event(**(texts | {"id": id, "occurred_at": at, "series_id": None}))  # type: ignore[arg-type]
    return Row(1, id, at, event.organization_id, event.action, event.result, line_of(event, KEY))


def values(**said: Any) -> Values:
    return Values(row_of(**said))


# Conditions ---------------------------------------------------------------------------------------

WORDS = st.sampled_from(["", "a", "b", "owner", "a,b", "\\", "1", "1.50", "true", "=", "{}"])
SCALARS = WORDS | st.sampled_from([None, True, False, 1, loads("1.50"), loads("1e2"), {}, []])
NAMES = st.sampled_from(["x", "y", "z"])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
COLUMNS = ("action", "result", "organization_id", "actor_id", "source", *VALUES)


def naive_texts(value: Any, names: list[str]) -> set[str]:
    """Return what a value holds, by walking through all of it."""
    if isinstance(value, list):
        return {text for one in value for text in naive_texts(one, names)}
    if names:
        return naive_texts(value[names[0]], names[1:]) if (
            isinstance(value, dict) and names[0] in value
        ) else set()  # fmt: skip
    if value is None:
        return set()
    if isinstance(value, bool):
        return {str(value).lower()}
    if isinstance(value, str):
        return {value}
    return {"{}"} if isinstance(value, dict) and not value else {format(value, "f")} if (
        not isinstance(value, int | dict)
    ) else {str(value)}  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.fixed_dictionaries(
        dict.fromkeys(VALUES, st.none() | st.dictionaries(NAMES, TREES))
        | {
            "actor_id": st.none() | WORDS,
            "source": WORDS,
            "organization_id": st.none() | WORDS,
            "action": WORDS,
            "result": WORDS,
        }
    ),
    st.sampled_from(COLUMNS),
    st.lists(NAMES, min_size=1, max_size=3),
    st.lists(WORDS, min_size=1, max_size=3),
    st.booleans(),
)
def test_a_condition_holds_as_its_naive_twin_says(
    said: dict[str, Any], column: str, names: list[str], wanted: list[str], negated: bool
) -> None:
    names = names if column in VALUES else []
    escaped = [value.replace("\\", "\\\\").replace(",", "\\,") for value in wanted]
    text = f"{'.'.join([column, *names])}{'!' * negated}={','.join(escaped)}"
    has = naive_texts(said[column], names) or {""}
    if not any("{" in one and len(one) > 2 for one in has):
        assert Condition.of(text).holds(values(**said)) == (bool(has & set(wanted)) != negated)


@pytest.mark.parametrize(
    ("condition", "said", "holds"),
    [
        ("new_values.role=owner", {"new_values": {"role": "owner"}}, True),
        ("new_values.role=owner", {"new_values": {"roles": "owner"}}, False),
        ("new_values.role=owner", {"old_values": {"role": "owner"}}, False),
        ("new_values.roles=owner", {"new_values": {"roles": ["user", "owner"]}}, True),
        ("new_values.roles!=owner", {"new_values": {"roles": ["user", "owner"]}}, False),
        ("details.request.ip=1.2.3.4,::1", {"details": {"request": {"ip": "::1"}}}, True),
        ("impersonator_id!=", {"impersonator_id": "7"}, True),
        ("impersonator_id!=", {}, False),
        ("impersonator_id=", {}, True),
        ("actor_id!=7", {}, True),
        ("actor_id!=7,8", {"actor_id": "8"}, False),
        (r"target_id=a\,b", {"target_id": "a,b"}, True),
        (r"target_id=CORP\me", {"target_id": r"CORP\me"}, True),
        (r"target_id=a\\,b", {"target_id": "a\\"}, True),
        ("details.query=a=b", {"details": {"query": "a=b"}}, True),
        ("details.n=1.50", {"details": {"n": loads("1.50")}}, True),
        ("details.n=100", {"details": {"n": loads("1e2")}}, True),
        ("details.on=true", {"details": {"on": True}}, True),
        ("details.on!=", {"details": {"on": {}}}, True),
        ("details.on!=", {"details": {"on": []}}, False),
        ("db_role=x", {"db_role": "x"}, True),
    ],
)
def test_conditions(condition: str, said: dict[str, Any], holds: bool) -> None:
    assert Condition.of(condition).holds(values(**said)) == holds


@pytest.mark.parametrize("condition", ["new_values.role=owner", "new_values.role!=owner"])
def test_what_is_nested_too_deeply_to_be_read_is_sent(condition: str) -> None:
    """Whoever stores such values must not keep an alert from being sent."""
    row = row_of(new_values={"role": "user", "x": 1})
    deep = b"[" * 100_000 + b"]" * 100_000
    row = row._replace(line=row.line.replace(b'"x": 1', b'"x": ' + deep))
    assert Condition.of(condition).holds(Values(row))
    assert Condition.of("action=a.b").holds(Values(row))
    assert not Condition.of("actor_id=7").holds(Values(row))


# Thresholds ---------------------------------------------------------------------------------------


def at(seconds: float) -> str:
    day, rest = divmod(round(seconds * 1_000_000), 86400_000_000)
    minutes, micro = divmod(rest, 60_000_000)
    return (f"2026-11-{day + 1:02}T{minutes // 60:02}:{minutes % 60:02}:"
            f"{micro // 1_000_000:02}.{micro % 1_000_000:06}Z")  # fmt: skip


def sent_of(counts: Counts, moments: Sequence[tuple[float, str]]) -> list[int]:
    return [n for n, (second, who) in enumerate(moments)
            if counts.reaches(values(at=at(second), actor_id=who))]  # fmt: skip


def naive(moments: Sequence[tuple[float, str]], at_least: int, within: float) -> list[int]:
    """Say the same by looking at all that came before, each time."""
    sent: list[int] = []
    came: defaultdict[str, list[float]] = defaultdict(list)
    told: dict[str, float] = {}
    for n, (second, who) in enumerate(moments):
        came[who].append(second)
        last = came[who][-2 * at_least :]
        enough = any(
            sum(begin <= other <= begin + within for other in last) >= at_least
            for begin in last
            if begin <= second <= begin + within
        )
        if enough and not (who in told and abs(second - told[who]) < within):
            told[who] = second
            sent.append(n)
    return sent


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab")), max_size=60),
    st.integers(2, 5),
    st.integers(1, 10),
    st.randoms(use_true_random=False),
)
def test_a_threshold_sends_what_its_naive_twin_sends_wherever_it_is_taken_up_again(
    moments: list[tuple[float, str]], at_least: int, within: int, chance: random.Random
) -> None:
    threshold = Threshold(at_least=at_least, within=within * 1_000_000, per=("actor_id",))
    counts, sent = Counts(threshold), []
    # They may come late, by the time at most: of what is later still, the oldest is forgotten.
    moments.sort(key=lambda moment: moment[0] + chance.choice([0, 0, 0, within]))
    for n, moment in enumerate(moments):
        sent += [n for _ in sent_of(counts, [moment])]
        if chance.random() < 0.3:
            counts = Counts(threshold, json.loads(json.dumps(counts.as_json())))
    assert sent == naive(moments, at_least, within)


def test_the_event_that_reaches_it_is_sent_and_no_other_in_that_time() -> None:
    ten = Threshold(at_least=10, within=MINUTE)
    nine = [(n, "") for n in range(9)]
    assert sent_of(Counts(ten), nine) == []
    assert sent_of(Counts(ten), [*nine, (60, "")]) == [9]
    assert sent_of(Counts(ten), [*nine, (61, "")]) == []
    # Twenty a second for three minutes: once a minute.
    steady = [(n / 20, "") for n in range(20 * 180)]
    assert [steady[n][0] for n in sent_of(Counts(ten), steady)] == [0.45, 60.45, 120.45]


def test_a_late_event_hides_no_attack_and_a_clock_that_jumped_ends_none() -> None:
    ten = Threshold(at_least=10, within=MINUTE)
    odd = [(1000 + n, "") if n % 3 else (10, "") for n in range(15)]
    assert len(sent_of(Counts(ten), odd)) == 1
    jumped = [(2_000_000, ""), *((1000 + n, "") for n in range(10))]
    assert sent_of(Counts(ten), jumped) == [10]
    infinite = Values(row_of(at="infinity"))
    assert not any(Counts(replace(ten, at_least=2)).reaches(infinite) for _ in range(5))


def test_what_is_remembered_is_bounded_whatever_an_attacker_does() -> None:
    counts = Counts(Threshold(at_least=10, within=3600_000_000, per=("details", "ip")))
    for n in range(22_000):
        counts.reaches(values(at=at(n / 100), details={"ip": f"{n}" + "x" * (n % 7) * 100}))
    kept = counts.as_json()
    assert len(kept) == 20_000 and len(json.dumps(kept)) < 1_000_000
    # The ones that were quiet for longest are forgotten, not those of now.
    now = [values(at=at(221 + n), details={"ip": "21999"}) for n in range(10)]
    assert [counts.reaches(event) for event in now] == [False] * 9 + [True]
    later = values(at=at(600 + 3 * 3600), details={"ip": "z"})
    counts.reaches(later)
    assert len(counts.as_json()) == 1


# In the engine ------------------------------------------------------------------------------------


def serve(log: Log, kept: Kept, sinks: dict[str, FakeSink], keeper: FakeKeeper) -> None:
    kept.living.add(keeper.exporter)
    made = Engine(
        log, keeper, lambda s: sinks.setdefault(s.name, FakeSink()), names=None, follow=False,
        patience=Patience(first=0.001, most=0.01, attempts=3), poll=0.01)  # fmt: skip
    asyncio.run(asyncio.wait_for(made.run(), 20))


def attack(log: Log, tick: int, count: int) -> None:
    """Close a tick of failures within one second."""
    for _ in range(count):
        id = len(log.rows) + 1
        log.rows.append(plain_row(tick, id, "a", "auth.login"))


@pytest.mark.parametrize("limit", [1, 4, 7, 100])
def test_a_threshold_is_kept_and_sent_again_the_same_whoever_dies(limit: int) -> None:
    alarm = Filter(threshold=Threshold(at_least=10, within=1_000_000))
    sent: list[list[int]] = []
    for dies in (False, True):
        log, kept, sinks = Log(limit=limit), Kept(), {}  # type: tuple[Log, Kept, dict[str, Any]]
        kept.add("alarm", filter=alarm)
        kept.add("each")
        for tick in range(1, 9):
            attack(log, tick, 3)
            for exporter in (1, 2) if dies else (1,):
                keeper = FakeKeeper(kept, exporter, dies_before_finish=dies and exporter == 1)
                kept.living.clear()
                try:
                    serve(log, kept, sinks, keeper)
                except ConnectionError:
                    assert dies
        taken = sinks["alarm"].taken
        if dies:
            assert len(taken) == 2 and taken[0] == taken[1]
        sent.append([int(json.loads(line.data)["id"]) for line in taken[0].lines])
        assert set(sinks["each"].ids) == set(range(1, 25))
    # A twin that keeps nothing sends none, for no tick has ten; one that does not count, each.
    assert sent == [[10], [10]]


# In the database ----------------------------------------------------------------------------------


def create(db: Database, name: str, sink: str, *given: str) -> None:
    done(db, "app_auditor", "subscription", "create", name, "--to", sink, *given)


def fail(db: Database, count: int, ip: str = "203.0.113.9") -> None:
    conn = db.connect("app")
    for _ in range(count):
        conn.execute("select audit.record_event('auth.login', result => 'failure', details => %s)",
                     [json.dumps({"ip": ip})])  # fmt: skip


def failures(db: Database) -> list[int]:
    rows = db.connect().execute(
        "select id from audit.event where result = 'failure' order by id"
    ).fetchall()  # fmt: skip
    return [id for (id,) in rows]


def ids(requests: list[Request]) -> list[int]:
    return [int(json.loads(line)["id"]) for r in requests for line in r.body.splitlines()]


GUESSES = ("--where", "action=auth.login", "--where", "result=failure", "--at-least", "10",
           "--within", "1 hour")  # fmt: skip


def test_what_was_counted_is_kept_though_nothing_was_sent(empty_db: Database) -> None:
    with receiver() as web:
        create(empty_db, "alarm", f"http://127.0.0.1:{web.port}/", *GUESSES)
        fail(empty_db, 9)
        done(empty_db, "app_auditor", "export", "--all")
        assert web.requests == []
        fail(empty_db, 5)
        done(empty_db, "app_auditor", "export", "--all")
        done(empty_db, "app_auditor", "export", "--all")
        assert ids(web.requests) == failures(empty_db)[9:10]
        row = empty_db.connect().execute("select counts from audit.subscription").fetchone()
        assert row is not None and len(row[0][0][2]) == 14
        done(empty_db, "app_auditor", "subscription", "reset", "alarm", "--to", "now")
        fail(empty_db, 9)
        done(empty_db, "app_auditor", "export", "--all")
        assert len(web.requests) == 1


def test_what_was_counted_is_kept_with_the_batch_that_was_taken(empty_db: Database) -> None:
    """Whoever is killed right behind it leaves what counts on from there."""
    create(empty_db, "s", "-", *GUESSES)
    conn = empty_db.connect("app_auditor")
    row = conn.execute("select tick_id from audit.subscription").fetchone()
    assert row is not None
    pending = batch(row[0], row[0] + 1) | {"counts": [["", 5, [1, 5]]]}
    assert claim(conn, 7, row[0], pending)
    conn.execute("select audit_private.finish_batch(7, 's', %s, 1)", [json.dumps(pending)])
    query = "select tick_id, counts from audit.subscription"
    assert conn.execute(query).fetchone() == (row[0] + 1, pending["counts"])
    done(empty_db, "app_auditor", "subscription", "reset", "s", "--to", "start")
    assert conn.execute(query).fetchone() == (row[0], None)


def test_an_alert_that_was_on_its_way_is_sent_again_the_same(
    empty_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver took it, and the exporter ended before it knew; the attack went on."""
    monkeypatch.setattr(deliver.Patience, "wait", lambda *_: 0.001)
    with receiver() as web:
        create(empty_db, "alarm", f"http://127.0.0.1:{web.port}/", *GUESSES, "--per", "details.ip")
        web.decide = lambda _: Answer(act="reset")
        fail(empty_db, 3, "::1")
        fail(empty_db, 12)
        assert run(empty_db, "app_auditor", "export", "alarm").exit_code == 1
        web.decide = lambda _: Answer()
        fail(empty_db, 30)
        fail(empty_db, 6, "::1")
        done(empty_db, "app_auditor", "export", "alarm")
        assert len({(r.headers["webhook-id"], r.body) for r in web.requests}) == 1
        assert ids(web.requests[-1:]) == failures(empty_db)[12:13]
        fail(empty_db, 1, "::1")
        done(empty_db, "app_auditor", "export", "alarm")
        assert ids(web.requests[-1:]) == failures(empty_db)[-1:]
        # A twin without a threshold sends each.
        web.requests.clear()
        create(empty_db, "naive", f"http://127.0.0.1:{web.port}/", *GUESSES[:4])
        done(empty_db, "app_auditor", "export", "naive")
        assert ids(web.requests) == failures(empty_db)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--where", "actr_id=7"], "an event has no column 'actr_id'; it has id, occurred_at, "),
        (["--where", "role"], "'role' is no condition: it is COLUMN=VALUE or COLUMN!=VALUE"),
        (["--where", "action = a.b"], "an event has no column 'action '"),
        (["--where", "action==a.b"], "there are = and != alone"),
        (["--where", "action=~^a"], "there are = and != alone"),
        (["--where", "details.n>=3"], "an event has no column 'details.n>'"),
        (["--where", "result=failed"], "a result is success, failure or denied"),
        (["--where", "new_values=x"], "say which of new_values: new_values.NAME"),
        (["--where", "new_values.=x"], "an event has no column 'new_values.'"),
        (["--where", "=x"], "an event has no column ''"),
        (["--where", "actor_id=" + "x" * 500], "a text of at most 500 characters"),
        (["--where", "actor_id=a\nb"], "a text of at most 500 characters, on one line"),
        (["--where", "actor_id=7"] * 21, "at most 20 conditions"),
        (["--at-least", "3"], "at_least and within belong together"),
        (["--within", "1 minute"], "at_least and within belong together"),
        (["--per", "actor_id"], "per belongs to at_least and within"),
        (["--at-least", "3", "--within", "1 week"], "within is a second to a day"),
        (["--at-least", "3", "--within", "-1 hour"], "within is a second to a day"),
        (["--at-least", "3", "--within", "soon"], "interval"),
        (["--at-least", "3", "--within", "1 hour", "--per", "ip"], "no column 'ip'"),
    ],
)
def test_what_is_no_condition_is_refused_in_a_line(
    empty_db: Database, given: list[str], said: str
) -> None:
    result = run(empty_db, "app_auditor", "subscription", "create", "a", "--to", "-", *given)
    assert result.exit_code in (1, 2) and said in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    assert "no subscription" in done(empty_db, "app_auditor", "subscription", "list")


def test_at_least_has_bounds(empty_db: Database) -> None:
    for number in (1, 0, 1001):
        with pytest.raises(psycopg.Error, match="at_least is a number from 2 to 1000"):
            empty_db.connect("app_auditor").execute(
                "select audit.subscribe('a', '-', at_least => %s, within => '1 hour')", [number]
            )
        result = run(empty_db, "app_auditor", "subscription", "create", "a", "--to", "-",
                     "--within", "1 hour", "--at-least", str(number))  # fmt: skip
        assert result.exit_code == 2


@pytest.mark.parametrize("column", ["actions", "categories", "results", "conditions"])
def test_a_list_of_lists_is_refused(empty_db: Database, column: str) -> None:
    """It would end the exporter, for all subscriptions."""
    conn = empty_db.connect("app_auditor")
    with pytest.raises(psycopg.errors.CheckViolation, match="lists_have_one_dimension"):
        conn.execute(f"select audit.subscribe('a', '-', {column} => "
                     "'{{result=denied},{result=denied}}')".encode())  # fmt: skip
    with pytest.raises(psycopg.Error, match="a condition is a text"):
        conn.execute("select audit.subscribe('a', '-', conditions => array[null])")
    conn.execute(f"select audit.subscribe('a', '-', {column} => '{{}}')".encode())
    done(empty_db, "app_auditor", "export", "--all")


def test_conditions_are_shown_and_are_an_event(empty_db: Database) -> None:
    with psycopg.connect(empty_db.conninfo("app_auditor")) as conn:
        create_subscription(conn, "a", sink="-", where=["result=denied"], at_least=3,
                            within="90 seconds", per="details.ip")  # fmt: skip
    (listed,) = json.loads(done(empty_db, "app_owner", "subscription", "list", "--json"))
    shown = {name: listed[name] for name in ("conditions", "at_least", "within", "per")}
    assert shown == {"conditions": ["result=denied"], "at_least": 3, "within": "0:01:30",
                     "per": "details.ip"}  # fmt: skip
    for command in ("subscription", "list"), ("status",):
        table = "".join(done(empty_db, "app_owner", *command).split())
        assert "result=denied" in table and "perdetails.ip" in table
        assert "atleast3within0:01:30" in table
    row = empty_db.connect().execute(
        "select conditions, at_least, within, per from audit.list_subscriptions()"
    ).fetchone()  # fmt: skip
    assert row == (["result=denied"], 3, timedelta(seconds=90), "details.ip")
    row = empty_db.connect().execute(
        "select new_values -> 'filter' from audit.event where action = 'audit.subscription_created'"
    ).fetchone()  # fmt: skip
    assert row == ({"conditions": ["result=denied"], "at_least": 3, "within": "00:01:30",
                    "per": "details.ip"},)  # fmt: skip


def documented() -> list[list[str]]:
    """Return the commands of docs/export.md, Alerts, as a shell takes them apart."""
    text = DOCS.read_text().partition("\n## Alerts\n")[2]
    found = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return [shlex.split(line)[1:] for line in found[1].replace("\\\n", "").splitlines()]


def test_the_alerts_of_the_documentation(
    empty_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    *commands, export = documented()
    assert len(commands) == 3 and export == ["export", "--all", "--follow"]
    with receiver(ca.server) as web:
        for command in commands:
            here = f"https://localhost:{web.port}/{command[2]}"
            done(empty_db, "app_auditor",
                 *(here if word.startswith("https://") else word for word in command))  # fmt: skip
        happen(empty_db)
        done(empty_db, "app_auditor", *export[:-1])
        assert told(web) == {
            "/owners": ["membership.added 2", "membership.role_changed 3"],
            "/impersonations": ["auth.impersonation_started 2"],
            "/guesses": ["auth.login 10"],
        }


def happen(db: Database) -> None:
    """Let happen what is told, and beside it what is not."""
    conn = db.connect("app")
    query = "select audit.record_event(%s, subject_id => %s, new_values => %s, old_values => %s)"
    for action, subject, new, old in (
        ("membership.added", "1", {"role": "MEMBER"}, None),
        ("membership.added", "2", {"role": "OWNER"}, None),
        ("membership.role_changed", "2", {"role": "MEMBER"}, {"role": "OWNER"}),
        ("membership.role_changed", "3", {"role": "OWNER"}, {"role": "MEMBER"}),
        ("user.updated", "3", {"role": "OWNER"}, None),
        ("auth.impersonation_started", "2", None, None),
        ("auth.impersonation_stopped", "2", None, None),
    ):
        conn.execute(query, [action, subject, json.dumps(new), json.dumps(old)])
    login = "select audit.record_event('auth.login', subject_id => %s, result => %s, details => %s)"
    for n in range(1, 25):
        for result, ip in ("failure", "203.0.113.9"), ("success", "::1"), ("failure", f"::{n}"):
            subject = str(n) if ip == "203.0.113.9" else "x"
            conn.execute(login, [subject, result, json.dumps({"ip": ip})])


def told(web: Receiver) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for request in web.requests:
        for line in map(json.loads, request.body.splitlines()):
            found[request.path].append(f"{line['action']} {line['subject_id']}")
    return dict(found)
