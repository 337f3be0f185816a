"""A log that has grown: which months and indexes a question touches, and what fits an index."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest
from psycopg.conninfo import make_conninfo

from auditdb import context, reader, record
from benchmarks import questions, read
from tests.conftest import Database
from tests.server import Server

EVENTS = 300_000
WIDE = [chr(code) for code in range(0x10000, 0x30000)]


@pytest.fixture(scope="module")
def grown(server: Server) -> Iterator[Database]:
    """A log of 24 months and 1,000 organisations, the first of which has a tenth of it."""
    dsn = make_conninfo(
        "", host=server.host, port=server.port, user=server.user, password=server.password
    )
    with read.filled(make_conninfo(dsn, dbname="postgres"), EVENTS) as (target, _):
        database = Database(target)
        yield database
        database.close()


def test_every_question_takes_an_index_or_few_months(grown: Database) -> None:
    with grown.connect(autocommit=False) as conn:
        answers = [
            read.ask(conn, grown.key, organization, question, 1)
            for question in questions.questions()
            for organization in (1, 500)
        ]
    for answer in answers:
        assert answer["indexes"], answer
        # Months of which an organisation has a tenth may be read whole, if they are few.
        assert not answer["scans_whole"] or answer["partitions"] <= 6, answer


def test_a_page_that_recent_months_fill_reads_no_others(grown: Database) -> None:
    by_name = {question.name: question for question in questions.questions()}
    first = by_name["first page"]
    with grown.connect(autocommit=False) as conn:
        busy = read.ask(conn, grown.key, 1, first, 2)
        filtered = read.ask(conn, grown.key, 1, by_name["by category"], 2)
        quiet = read.ask(conn, grown.key, 900, first, 2)
    # This month and the one before, three ahead, and DEFAULT.
    assert (busy["partitions"], busy["rows"]) == (6, 51)
    assert busy["buffers"] <= 100
    # Not all 2,000 events of two months, to sort them.
    assert filtered["buffers"] <= 700
    assert quiet["partitions"] > read.MONTHS


def test_the_view_of_a_category_is_read_in_order_and_not_sorted(grown: Database) -> None:
    by_name = {question.name: question for question in questions.questions()}
    with grown.connect(autocommit=False) as conn:
        busy = read.ask(conn, grown.key, 1, by_name["view membership_log"], 2)
    assert busy["rows"] == 50
    # Sorted, all of its 6,000 such events are read.
    assert busy["buffers"] <= 1000, busy["buffers"]


@pytest.mark.parametrize(
    ("view", "columns"),
    [
        ("denied_attempt", "organization_id_occurred_at_id_action_result"),
        ("unusual_login", "organization_id_action_target_id_result_occur"),
        ("old_api_key", "organization_id_action_target_id_result_occur"),
    ],
)
def test_a_signal_is_read_by_the_index_of_its_events(
    grown: Database, view: str, columns: str
) -> None:
    by_name = {question.name: question for question in questions.questions()}
    with grown.connect(autocommit=False) as conn:
        answer = read.ask(conn, grown.key, 1, by_name[f"view {view}"], 2)
    assert f"{columns}_idx" in answer["indexes"], answer
    # An organisation of 30,000 events has 9,000 sign-ins, of which 90 in a week, and 2,400 of keys.
    assert answer["buffers"] <= 3000, answer


def test_events_a_day_are_counted_in_the_index_of_the_organisation(grown: Database) -> None:
    by_name = {question.name: question for question in questions.questions()}
    with grown.connect(autocommit=False) as conn:
        answer = read.ask(conn, grown.key, 1, by_name["histogram of the page"], 2)
        row = conn.execute(
            "select count(*) from audit.event where organization_id = '1' "
            "and occurred_at >= current_date - 29"
        ).fetchone()
    assert row is not None and row[0] > 1000
    assert answer["indexes"] == ["organization_id_occurred_at_id_action_actor_i_idx"]
    # Where all organisations' events of a day are read, ten times as many.
    assert answer["buffers"] <= row[0], answer


def test_a_stream_holds_a_batch_or_two_however_many_events_there_are(grown: Database) -> None:
    log = reader(grown.connect(), key=grown.key, viewer_id=1, organization_id=1)
    events = log.events(batch=100)
    peaks = []
    tracemalloc.start()
    for _ in range(3):
        tracemalloc.reset_peak()
        assert sum(1 for _ in zip(range(2000), events, strict=False)) == 2000
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[2] <= 1.1 * peaks[0]


@pytest.mark.parametrize("way", ["recorded", "captured", "captured through audit_mapper"])
def test_the_longest_identifiers_there_can_be_fit_the_index(db: Database, way: str) -> None:
    pick = random.Random(1)
    longest = ["".join(pick.choices(WIDE, k=200)) for _ in range(3)]
    conn = db.connect()
    conn.execute("create table long (id text primary key, o text)")
    organization = "lower(r.o)" if way == "captured through audit_mapper" else "r.o"
    conn.execute("select audit.attach('long', 'thing', organization => %s)", [organization])
    with context(conn, actor_id=longest[0], organization_id=longest[1]):
        if way == "recorded":
            action = "a" * 99 + "." + "b" * 100
            record(conn, action, organization_id=longest[1], target_id=longest[2])
        else:
            conn.execute("insert into long values (%s, %s)", [longest[2], longest[1]])
    (event,) = db.events("actor_type = 'user'")
    assert [event[name] for name in ("actor_id", "organization_id", "target_id")] == longest
