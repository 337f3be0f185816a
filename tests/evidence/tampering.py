"""What a superuser does to a sealed log, at random; each in a transaction that is rolled back.

He knows the code and holds everything but the key and one checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import psycopg

from auditdb.evidence.keys import PrivateKey
from auditdb.evidence.leaf import commit, event_entry
from auditdb.evidence.lines import COLUMNS, groups_of
from auditdb.evidence.note import Checkpoint, sign
from auditdb.evidence.tree import Edge, leaf_hash

Connection = psycopg.Connection[Any]
# Of each: what a superuser may write instead. All differ from what the log of the tests holds.
TEXTS = (
    "action", "result", "actor_id", "actor_type", "impersonator_id", "db_user", "db_role",
    "organization_id", "target_type", "target_id", "subject_id", "source", "captured_from",
)  # fmt: skip
NULLABLE = {"actor_id", "impersonator_id", "db_role", "organization_id", "target_type",
            "target_id", "subject_id", "captured_from"}  # fmt: skip


def disarm(conn: Connection) -> None:
    """Take the guards off, as a superuser may."""
    tables = conn.execute(
        "select relid::regclass::text from pg_partition_tree('audit.event') "
        "union all select unnest(audit_private.append_only())::text "
        "union all values ('audit.tile'), ('audit.sealed_organization')"
    ).fetchall()
    for (table,) in tables:
        conn.execute(f"alter table {table} disable trigger all".encode())


def rows_of(conn: Connection, query: str, *args: object) -> list[Any]:
    return conn.execute(query.encode(), args).fetchall()


def an_event(conn: Connection, rng: random.Random) -> int:
    """Return the id of a sealed event."""
    return int(rng.choice(rows_of(conn, "select unnest(ids) from audit.seal"))[0])


def change_text(conn: Connection, rng: random.Random) -> None:
    name, number = rng.choice(TEXTS), an_event(conn, rng)
    (was,) = rows_of(conn, f"select {name} from audit.event where id = %s", number)[0]
    choices: list[str | None] = [f"{was or ''}x", "x"]
    if was:
        choices += [was[:-1] + chr(ord(was[-1]) ^ 1), was.upper() + " ", was + "\u0301"]
        if name in NULLABLE:
            choices.append(None)
    new = rng.choice([c for c in choices if c != was])
    conn.execute(f"update audit.event set {name} = %s where id = %s".encode(), [new, number])


def change_values(conn: Connection, rng: random.Random) -> None:
    name, number = rng.choice(["old_values", "new_values", "details"]), an_event(conn, rng)
    (was,) = rows_of(conn, f"select {name} from audit.event where id = %s", number)[0]
    new = rng.choice([
        f"coalesce({name}, '{{}}') || '{{\"x\": 1.0}}'",
        f"case when {name} is null then '{{}}'::jsonb end" if was is None or rng.random() < 0.5
        else f"{name} - (select jsonb_object_keys({name}) limit 1)",
        "'[]'", "'null'",
    ])  # fmt: skip
    conn.execute(f"update audit.event set {name} = {new} where id = %s "
                 f"and {name} is distinct from ({new})".encode(), [number])  # fmt: skip


def change_number(conn: Connection, rng: random.Random) -> None:
    new = rng.choice([
        "id = id + 1000000", "id = -id", "transaction_id = (transaction_id::text::bigint + "
        "1)::text::xid8", "transaction_id = '3'", "occurred_at = occurred_at + interval '1 us'",
        "occurred_at = occurred_at - '1 day'::interval", "occurred_at = 'infinity'",
    ])  # fmt: skip
    conn.execute(f"update audit.event set {new} where id = %s".encode(), [an_event(conn, rng)])


def move_to_another_month(conn: Connection, rng: random.Random) -> None:
    month = rng.choice(["1 month", "2 months", "-1 month", "-400 days", "300 years"])
    conn.execute("update audit.event set occurred_at = occurred_at + %s::interval where id = %s",
                 [month, an_event(conn, rng)])  # fmt: skip


def delete_events(conn: Connection, rng: random.Random) -> None:
    numbers = [an_event(conn, rng) for _ in range(rng.choice([1, 1, 2, 5]))]
    conn.execute("delete from audit.event where id = any (%s)", [numbers])


def delete_a_tick(conn: Connection, rng: random.Random) -> None:
    (tick,) = rng.choice(rows_of(conn, "select tick_id from audit.seal"))
    conn.execute("delete from audit.event where id in "
                 "(select unnest(ids) from audit.seal where tick_id = %s)", [tick])  # fmt: skip
    if rng.random() < 0.5:
        conn.execute("delete from audit.tick where id = %s", [tick])


COPY = """insert into audit.event (id, occurred_at, transaction_id, action, result, actor_id,
    actor_type, db_user, organization_id, target_type, target_id, source, details, db_role)
select {}, action, result, 'mallory', actor_type, db_user, organization_id, target_type, target_id,
    source, details, db_role from audit.event where id = %s"""


def insert_an_event(conn: Connection, rng: random.Random) -> None:
    what = rng.choice([
        "900000, occurred_at, transaction_id",
        "900000, occurred_at - interval '20 days', '3'",
        "-5, occurred_at + interval '1 us', transaction_id", "900000, '-infinity', '3'",
        "900000, occurred_at, '9999999999'", "id, occurred_at + interval '1 us', transaction_id",
        "id, occurred_at - interval '40 days', '3'", "900000, occurred_at, '3'",
    ])  # fmt: skip
    conn.execute(COPY.format(what).encode(), [an_event(conn, rng)])


def replace_an_event(conn: Connection, rng: random.Random) -> None:
    """Delete one and insert one: no count tells."""
    number = an_event(conn, rng)
    conn.execute(COPY.format("900000, occurred_at, transaction_id").encode(), [number])
    conn.execute("delete from audit.event where id = %s", [number])


def swap(conn: Connection, rng: random.Random) -> None:
    """Give two events each other's place: the salts stay where they are."""
    pair = sorted(rng.sample(sorted(r[0] for r in rows_of(
        conn, "select unnest(ids) from audit.seal")), 2))  # fmt: skip
    was = rows_of(conn, "select id, occurred_at, transaction_id from audit.event "
                  "where id = any (%s) order by id", pair)  # fmt: skip
    which = rng.choice([(True, False), (False, True), (True, True)])
    conn.execute("update audit.event set id = -id where id = any (%s)", [pair])
    for one, other in (was, was[::-1]):
        conn.execute(
            "update audit.event set id = %s, occurred_at = %s, transaction_id = %s where id = %s",
            [one[0] if which == (False, True) else other[0],
             one[1] if which == (True, False) else other[1], one[2], -one[0]],
        )  # fmt: skip


def restore_an_older_backup(conn: Connection, rng: random.Random) -> None:
    """Set all back to a tick, as if nothing had come after it."""
    ticks = [row[0] for row in rows_of(conn, "select distinct tick_id from audit.seal order by 1")]
    last = rng.choice(ticks[:-1])
    conn.execute("delete from audit.event where id in "
                 "(select unnest(ids) from audit.seal where tick_id > %s)", [last])  # fmt: skip
    conn.execute("delete from audit.seal where tick_id > %s", [last])
    conn.execute("delete from audit.tick where id > %s", [last])
    conn.execute("delete from audit.tick_month where tick_id > %s", [last])
    (size,) = rows_of(conn, "select max(first_leaf + octet_length(leaves) / 32) from audit.seal")[0]
    conn.execute("delete from audit.checkpoint where size > %s", [size])
    conn.execute("delete from audit.tile")
    conn.execute("delete from audit.organization_seal where tick_id > %s", [last])
    conn.execute(
        """update audit.sealed_organization as s
        set counted = o.total, total = o.total, tick_id = o.tick_id, hash = o.entry
        from (
            select distinct on (e.id) e.id, e.total, s.tick_id,
                substr(s.entries, (e.at * 32 - 31)::int, 32) as entry
            from audit.organization_seal as s,
                unnest(s.organizations, s.totals) with ordinality as e (id, total, at)
            order by e.id, s.tick_id desc
        ) as o
        where o.id = s.id"""
    )


def truncate_the_tail(conn: Connection, rng: random.Random) -> None:
    (last,) = rows_of(conn, "select max(id) from audit.seal")[0]
    from_ = rng.randint(2, last)
    if rng.random() < 0.5:
        conn.execute("delete from audit.event where id in "
                     "(select unnest(ids) from audit.seal where id >= %s)", [from_])  # fmt: skip
    conn.execute("delete from audit.seal where id >= %s", [from_])


def change_a_seal(conn: Connection, rng: random.Random) -> None:
    (number,) = rng.choice(rows_of(conn, "select id from audit.seal where ids <> '{}'"))
    what = rng.choice([
        "salts = set_byte(salts, %(at)s %% octet_length(salts), "
        "get_byte(salts, %(at)s %% octet_length(salts)) # 1)",
        "leaves = set_byte(leaves, %(at)s %% octet_length(leaves), "
        "get_byte(leaves, %(at)s %% octet_length(leaves)) # 1)",
        "salts = substr(salts, 17) || substr(salts, 1, 16)",
        "leaves = substr(leaves, 33)",
        "ids[1] = ids[1] + 500000", "ids = ids[2:]", "is_last = not is_last",
        "first_leaf = first_leaf + 100000", "tick_id = tick_id + 1",
        "last_at = first_at - interval '1 s'",
        "leaves = leaves || sha256('x')",
    ])  # fmt: skip
    conn.execute(f"update audit.seal set {what} where id = %(id)s".encode(),
                 {"at": rng.randrange(100_000), "id": number})  # fmt: skip


def delete_a_seal(conn: Connection, rng: random.Random) -> None:
    (number,) = rng.choice(rows_of(conn, "select id from audit.seal"))
    conn.execute("delete from audit.seal where id = %s", [number])


def change_a_tick(conn: Connection, rng: random.Random) -> None:
    what = rng.choice([
        "events = events + 1", "made_at = made_at - '1 hour'::interval", "snapshot = '5:5:'",
        "transaction_id = '7'", "lower_id = lower_id + 1", "upper_id = upper_id + 1",
    ])  # fmt: skip
    (number,) = rng.choice(rows_of(conn, "select tick_id from audit.seal where is_last"))
    conn.execute(f"update audit.tick set {what} where id = %s".encode(), [number])


def change_a_series(conn: Connection, rng: random.Random) -> None:
    what = rng.choice(["key = gen_random_uuid()", "after_id = after_id + 7",
                       "began = 'restored'"])  # fmt: skip
    last = "(select max(series_id) from audit.tick)"
    conn.execute(f"update audit.series set {what} where id = {last}".encode())


def change_a_tile(conn: Connection, rng: random.Random) -> None:
    level, number, width = rng.choice(
        rows_of(conn, "select level, number, octet_length(nodes) from audit.tile"))  # fmt: skip
    at = rng.randrange(width)
    conn.execute(
        rng.choice([
            "update audit.tile set nodes = set_byte(nodes, %(at)s, get_byte(nodes, %(at)s) # 1) "
            "where level = %(level)s and number = %(number)s",
            "delete from audit.tile where level = %(level)s and number = %(number)s",
        ]).encode(),
        {"at": at, "level": level, "number": number},
    )  # fmt: skip


def change_organizations(conn: Connection, rng: random.Random) -> None:
    """Of the chains of organisations, by which a bundle is found to be complete."""
    (tick,) = rng.choice(rows_of(conn, "select tick_id from audit.organization_seal"))
    (number,) = rng.choice(rows_of(conn, "select id from audit.sealed_organization"))
    entry = rng.choice([
        "organizations[1] = organizations[1] + 1", "totals[1] = totals[1] + 1",
        "totals[1] = totals[1] - 1", "former[1] = former[1] + 1", "totals = totals[2:]",
        "entries = set_byte(entries, 3, get_byte(entries, 3) # 1)",
        "root = set_byte(root, 3, get_byte(root, 3) # 1)",
        "organizations = '{}', totals = '{}', former = '{}', entries = ''",
    ])  # fmt: skip
    end = rng.choice([
        "total = total + 1, counted = counted + 1", "tick_id = tick_id - 1",
        "hash = set_byte(hash, 3, get_byte(hash, 3) # 1)",
        "key = set_byte(key, 3, get_byte(key, 3) # 1)",
        "salt = set_byte(salt, 3, get_byte(salt, 3) # 1)", "organization_id = 'another'",
    ])  # fmt: skip
    query = rng.choice([
        f"update audit.organization_seal set {entry} where tick_id = {tick}",
        f"delete from audit.organization_seal where tick_id = {tick}",
        f"update audit.sealed_organization set {end} where id = {number}",
        f"update audit.sealed_organization set {end} where id = {number}",
        f"delete from audit.sealed_organization where id = {number}",
    ])  # fmt: skip
    conn.execute(query.encode())


def change_a_checkpoint(conn: Connection, rng: random.Random) -> None:
    (number, note) = rng.choice(rows_of(conn, "select id, note from audit.checkpoint"))
    lines = note.split("\n")
    which = rng.choice([0, 1, 2, 4])
    lines[which] = lines[which][:-3] + rng.choice("abc") + lines[which][-2:]
    new = "\n".join(lines) if "\n".join(lines) != note else note.replace("\n", "\n\n", 1)
    conn.execute("update audit.checkpoint set note = %s where id = %s", [new, number])


def rebuild_the_tree(conn: Connection, rng: random.Random, again: bool = False) -> None:
    """Change an event, and all that is made of it; only the signatures cannot be made again."""
    change = rng.choice([change_text, delete_events, insert_an_event])
    tried = 0
    before = rows_of(conn, "select count(*), md5(string_agg(e::text, '' order by id)) "
                     "from audit.event as e")  # fmt: skip
    while rows_of(conn, "select count(*), md5(string_agg(e::text, '' order by id)) "
                  "from audit.event as e") == before and tried < 5:  # fmt: skip
        change(conn, rng)
        tried += 1
    edge = Edge()
    conn.execute("delete from audit.tile")
    for number, ids, salts, leaves, is_last, key in rows_of(
        conn, "select s.id, s.ids, s.salts, s.leaves, s.is_last, r.key::text from audit.seal as s "
        "join audit.tick as t on t.id = s.tick_id join audit.series as r on r.id = t.series_id "
        "order by s.id",
    ):  # fmt: skip
        query = f"select {COLUMNS} from audit.event as e where e.id = any (%s)"
        rows = {int(row[0]): row for row in rows_of(conn, query, ids)}
        new, kept_salts, kept = b"", b"", []
        for at, event in enumerate(ids):
            if event in rows:
                salt = salts[at * 16 : at * 16 + 16]
                skeleton, personal = groups_of(rows[event], key)
                new += leaf_hash(event_entry(skeleton, commit(salt, personal)))
                kept_salts += salt
                kept.append(event)
        if is_last:
            new += leaves[-64:]
        conn.execute(
            "update audit.seal set ids = %s, salts = %s, leaves = %s, first_leaf = -%s - 1 "
            "where id = %s", [kept, kept_salts, new, edge.size, number])  # fmt: skip
        for _ in edge.append(new):
            pass
    conn.execute("update audit.seal set first_leaf = -first_leaf - 1")
    for tile, data in edge.partial():
        if tile.level:
            conn.execute("insert into audit.tile values (%s, %s, %s)",
                         [tile.level, tile.number, data])  # fmt: skip
    if rng.random() < 0.7:
        # Old checkpoints would give it away; new ones are signed with another key of that name.
        thief = PrivateKey.make("example.com/audit")
        conn.execute("delete from audit.checkpoint")
        if rng.random() < 0.5:
            head = Checkpoint("example.com/audit", edge.size, edge.root())
            conn.execute("insert into audit.checkpoint (size, note) values (%s, %s)",
                         [edge.size, sign(head.text, [thief])])  # fmt: skip


Tampering = Callable[[Connection, random.Random], None]
ALL: list[Tampering] = [
    change_text, change_values, change_number, move_to_another_month, delete_events, delete_a_tick,
    insert_an_event, replace_an_event, swap, restore_an_older_backup, truncate_the_tail,
    change_a_seal, delete_a_seal, change_a_tick, change_a_series, change_a_tile,
    change_organizations, change_a_checkpoint, rebuild_the_tree,
]  # fmt: skip
TABLES = (
    "event", "seal", "tick", "series", "tile", "checkpoint", "sealed_organization",
    "organization_seal",
)  # fmt: skip
_LEFT_OUT = "- '{sealed_at,started_at}'::text[]"


def fingerprint(conn: Connection) -> str:
    """Return what tells whether a tampering changed anything at all."""
    parts = [
        rows_of(conn, f"select coalesce(md5(string_agg((to_jsonb(x) {_LEFT_OUT})::text, '' "
                f"order by to_jsonb(x)::text)), '') from audit.{table} as x")[0][0]
        for table in TABLES
    ]  # fmt: skip
    return sha256("".join(parts).encode()).hexdigest()
