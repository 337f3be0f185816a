"""Random tables, and random statements over them, from a seed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from random import Random

# The schema of a statement: `watched` for the attached tables, `twin` for the others.
SCHEMA = "@schema@"

SHARED_TYPES = """
create type colour as enum ('red', 'dark green', 'Blue');
create type pair as (a int, "B" text);
create domain short as text check (length(value) < 20);
create domain pairs as pair[];
"""

# Input text of values; some break a constraint or the type, which is part of the game.
VALUES: dict[str, tuple[str, ...]] = {
    "int": ("0", "1", "-2147483648", "2147483647"),
    "bigint": ("0", "9223372036854775807"),
    "smallint": ("1", "2", "40000"),
    "numeric": ("1", "1.0", "1.00", "NaN", "Infinity", "1e300", "-0.000000001"),
    "numeric(6,2)": ("1", "9999.99", "0.005"),
    "float8": ("0", "-0", "NaN", "Infinity", "1e-300", "0.1"),
    "real": ("0.1", "-Infinity"),
    "boolean": ("true", "false"),
    "text": ("", "a", "A", "a ", "ünï ☃", "quote \" and ' and \\", "x\ny\tz", "NULL", "x" * 5000),
    "varchar(10)": ("short", "much too long for it"),
    "char(5)": ("a", "abcde"),
    "uuid": ("00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    "date": ("2020-02-29", "infinity", "0001-01-01 BC", "5874897-12-31"),
    "timestamp": ("2020-01-01 12:00:00.000001", "-infinity"),
    "timestamptz": ("2020-01-01 12:00:00+00", "infinity", "2020-06-01 00:00:00+14"),
    "time": ("24:00", "00:00:00.1"),
    "interval": ("1 mon -1 day", "01:02:03", "178000000 years"),
    "bytea": ("\\x", "\\x00ff", "\\x5c27"),
    "json": (
        "null",
        '{"b":1,"a": 1,"b":2}',
        '{"b":1,"a":1,"b":2}',
        "[]",
        '"x"',
        '{"x": "\\u00e9"}',
    ),
    "jsonb": ("null", '{"a": 1.0}', '{"a": 1.00}', '{"": [{}, null]}', "1e400", '{"a": '),
    "int[]": ("{}", "{1,NULL}", "[5:6]={1,2}", "{{1,2},{3,4}}"),
    "text[]": ("{}", '{"a b",NULL,""}'),
    "colour": ("red", "dark green", "Blue", "pink"),
    "colour[]": ("{}", '{red,"dark green"}'),
    "pair": ("(1,x)", '(,"a, b")', "(,)"),
    "pairs": ("{}", '{"(1,x)","(2,y)"}'),
    "short": ("a", "longer than a short should be"),
    "int4range": ("empty", "[1,9)", "(,5]"),
    "tstzrange": ("[2020-01-01,2021-01-01)", "(,)"),
    "nummultirange": ("{}", "{[1,2],[5,9)}"),
    "inet": ("10.0.0.1", "fe80::1/64"),
    "bit(4)": ("1010", "1"),
    "tsvector": ("a:1 b:2", ""),
    "point": ("(1,2)", "(NaN,0)"),
    "money": ("1.50", "-3"),
}
KEYS = ("int", "bigint", "uuid", "text", "date", "colour")
# Values of a key: few enough to meet again and again.
KEY_VALUES = {
    "int": tuple(map(str, range(1, 9))),
    "bigint": tuple(str(n * 10**15) for n in range(6)),
    "uuid": tuple(f"00000000-0000-4000-8000-00000000000{n}" for n in range(6)),
    "text": ("a", "b", "A", "ü x", "'", "c"),
    "date": tuple(f"2020-01-0{n}" for n in range(1, 8)),
    "colour": ("red", "dark green", "Blue"),
}
NAMES = ("select", "Mixed Case", "order", "ünï", 'qu"ote', "x" * 63, "plain", "old", "new", "r",
         "_old", "op", "id", "user", "tg_op", "_action", "Value", "$1", "a.b",
         "action")  # fmt: skip


def identifier(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | None, type_: str = "") -> str:
    """Return a value as SQL writes it."""
    if value is None:
        return "null"
    escaped = value.replace("'", "''")
    return f"'{escaped}'" + (f"::{type_}" if type_ else "")


@dataclass(frozen=True)
class Column:
    """A column, and what values it is given."""

    name: str
    type: str
    values: tuple[str, ...]
    suffix: str = ""
    #: Share of nulls.
    nulls: float = 0.2

    @property
    def sql(self) -> str:
        """Return its name as SQL writes it."""
        return identifier(self.name)

    def value(self, rng: Random) -> str | None:
        """Return the input text of a value, or None."""
        if rng.random() < self.nulls:
            return None
        # The last value is often one that the type refuses.
        return rng.choice(self.values if rng.random() < 0.1 else self.values[:-1] or self.values)


@dataclass(frozen=True)
class Table:
    """A table, defined alike in both schemas."""

    name: str
    key: tuple[Column, ...]
    #: `primary key`, `unique`, or none: then no two rows need differ.
    constraint: str
    columns: tuple[Column, ...]
    partitioned: str = ""
    parent: Table | None = None
    reference: str = ""
    extra: tuple[str, ...] = field(default=())

    @property
    def sql(self) -> str:
        """Return its name in the statement's schema."""
        return f"{SCHEMA}.{identifier(self.name)}"

    @property
    def all(self) -> tuple[Column, ...]:
        """Return the columns that a statement may name."""
        return self.key + self.columns

    def ddl(self) -> list[str]:
        """Return the statements that create it."""
        parts = [f"{c.sql} {c.type} {c.suffix}" for c in self.all]
        parts += self.extra
        keys = ", ".join(c.sql for c in self.key)
        if self.constraint:
            parts.append(f"{self.constraint} ({keys})")
        if self.parent:
            parts.append(
                f"foreign key (parent) references {self.parent.sql} ({self.parent.key[0].sql})"
                f" {self.reference}"
            )
        made = [f"create table {self.sql} (dropped int, {', '.join(parts)})"]
        if self.partitioned:
            made[0] += f" partition by {self.partitioned}"
            made += self._partitions()
        else:
            made.append(f"alter table {self.sql} drop column dropped")
        return made

    def _partitions(self) -> list[str]:
        # One leaf with its columns in another order, one partitioned again, one for the rest.
        first = self.key[0]

        def part(n: int) -> str:
            return f"{SCHEMA}.{identifier(f'{self.name} {n}')}"

        listed = [literal(v) for v in KEY_VALUES[first.type]]
        bounds = [", ".join(listed[:1]), ", ".join(listed[1:3])]
        reordered = ", ".join(
            f"{c.sql} {c.type} {c.suffix}" for c in reversed(self.all)
        )  # fmt: skip
        return [
            f"alter table {self.sql} drop column dropped",
            f"create table {part(1)} ({', '.join([reordered, *self.extra])})",
            *(
                f"alter table {part(1)} alter {c.sql} set not null"
                for c in self.key
                if self.constraint == "primary key"
            ),
            f"alter table {self.sql} attach partition {part(1)} for values in ({bounds[0]})",
            f"create table {part(2)} partition of {self.sql} for values in ({bounds[1]})"
            f" partition by hash ({first.sql})",
            f"create table {part(3)} partition of {part(2)}"
            " for values with (modulus 2, remainder 0)",
            f"create table {part(4)} partition of {part(2)}"
            " for values with (modulus 2, remainder 1)",
            f"create table {part(5)} partition of {self.sql} default",
        ]


def tables(rng: Random, count: int) -> list[Table]:
    """Return random tables, some of which reference an earlier one."""
    made: list[Table] = []
    for number in range(count):
        names = rng.sample(NAMES, len(NAMES))
        constraint = ("primary key", "unique", "", "primary key")[number % 4]
        key = []
        for position in range(rng.choice((1, 1, 2))):
            type_ = rng.choice(KEYS) if position or number % 3 else "int"
            suffix = "not null" if constraint == "unique" else ""
            if type_ == "int" and constraint == "primary key" and not position:
                suffix = rng.choice(("generated by default as identity", ""))
            nulls = 0.02 if constraint else 0.2
            key.append(Column(names.pop(), type_, KEY_VALUES[type_], suffix, nulls))
        columns = [Column("n", "int", tuple(map(str, range(6))))]
        for type_ in rng.sample(list(VALUES), rng.randint(1, 9)):
            suffix = f"default {literal(VALUES[type_][0], type_)}" if rng.random() < 0.2 else ""
            columns.append(Column(names.pop(), type_, VALUES[type_], suffix))
        extra = ['"computed one" int generated always as (n * 2) stored'] * rng.randint(0, 1)
        parents = [t for t in made if t.constraint and len(t.key) == 1]
        parent, reference = None, ""
        if parents and rng.random() < 0.7:
            parent = rng.choice(parents)
            columns.append(Column("parent", parent.key[0].type, parent.key[0].values, nulls=0.3))
            reference = (
                f"on delete {rng.choice(('cascade', 'set null', 'set default', 'no action'))} "
                f"on update {rng.choice(('cascade', 'set null', 'no action'))} "
                f"{rng.choice(('', 'deferrable initially deferred'))}"
            )
        partitioned = f"list ({key[0].sql})" if number % 5 in (1, 3) else ""
        if partitioned and "identity" in key[0].suffix:
            key[0] = Column(key[0].name, "int", KEY_VALUES["int"], nulls=0.02)
        name = rng.choice(("Table ", "order ", "t", "x" * 50)) + str(number)
        made.append(
            Table(name, tuple(key), constraint, tuple(columns), partitioned, parent, reference,
                  tuple(extra))
        )  # fmt: skip
    return made


@dataclass(frozen=True)
class Statement:
    """A statement of one kind; `rows` are the lines of a COPY."""

    kind: str
    sql: str
    rows: str = ""


def _where(rng: Random, table: Table) -> str:
    column = rng.choice(table.key)
    return rng.choice(
        (
            "true",
            "t.n is not null",
            f"t.n = {rng.randrange(6)}",
            f"t.n % 2 = {rng.randrange(2)}",
            "t.n is null",
            f"t.{column.sql} = {literal(rng.choice(column.values), column.type)}",
            f"t.{column.sql} > {literal(rng.choice(column.values), column.type)}",
        )
    )


def _rows(rng: Random, columns: tuple[Column, ...], count: int) -> str:
    rows = (
        ", ".join(literal(c.value(rng), c.type) for c in columns) for _ in range(count)
    )  # fmt: skip
    return ", ".join(f"({row})" for row in rows)


def _insert(rng: Random, table: Table) -> str:
    given = tuple(c for c in table.all if "identity" not in c.suffix or rng.random() < 0.7)
    names = ", ".join(c.sql for c in given)
    return (
        f"insert into {table.sql} as t ({names}) values {_rows(rng, given, rng.choice((1, 1, 3)))}"
    )


def _assignments(rng: Random, table: Table, *, key: bool = False) -> str:
    chosen = rng.sample(table.columns, rng.randint(1, min(3, len(table.columns))))
    if key:
        chosen = [*chosen, rng.choice(table.key)]
    return ", ".join(f"{c.sql} = {literal(c.value(rng), c.type)}" for c in chosen)


def _conflict(rng: Random, table: Table) -> Statement:
    target = ", ".join(c.sql for c in table.key) if table.constraint else ""
    if not target or rng.random() < 0.3:
        return Statement("insert or nothing", _insert(rng, table) + " on conflict do nothing")
    return Statement(
        "upsert",
        f"{_insert(rng, table)} on conflict ({target}) do update set {_assignments(rng, table)}"
        f" where {_where(rng, table)} or true",
    )


def _merge(rng: Random, table: Table) -> Statement:
    names = ", ".join(c.sql for c in table.all)
    values = ", ".join(f"s.{c.sql}" for c in table.all)
    matched = " and ".join(f"t.{c.sql} = s.{c.sql}" for c in table.key)
    return Statement(
        "merge",
        f"merge into {table.sql} as t using (values {_rows(rng, table.all, 3)}) as s ({names})"
        f" on {matched} when matched and s.n % 3 = 1 then delete"
        f" when matched then update set {_assignments(rng, table)}"
        f" when not matched then insert ({names}) values ({values})",
    )


def _copy(rng: Random, table: Table) -> Statement:
    lines = [
        ",".join('"' + v.replace('"', '""') + '"' if v is not None else "" for v in row)
        for row in ([c.value(rng) for c in table.all] for _ in range(rng.randint(1, 4)))
    ]
    names = ", ".join(c.sql for c in table.all)
    sql = f"copy {table.sql} ({names}) from stdin (format csv)"
    return Statement("copy", sql, "\n".join(lines) + "\n")


def _with(rng: Random, table: Table) -> Statement:
    names = ", ".join(c.sql for c in table.all)
    gone = f"delete from {table.sql} as t where {_where(rng, table)} returning *"
    back = f"insert into {table.sql} ({names}) select {names} from gone"
    changed = f"update {table.sql} as t set {_assignments(rng, table)} where {_where(rng, table)}"
    return Statement(
        "writable with",
        rng.choice(
            (
                f"with gone as ({gone}) {back}",
                f"with gone as ({gone}) select count(*) from gone",
                f"with put as ({_insert(rng, table)} returning 1) {changed}",
            )
        ),
    )


def statement(rng: Random, among: list[Table]) -> Statement:
    """Return a random statement over one of the tables."""
    table = rng.choice(among)
    kind = rng.choices(
        ["insert", "update", "key", "delete", "upsert", "merge", "copy", "with", "truncate"],
        [30, 25, 8, 8, 12, 8, 8, 8, 3],
    )[0]
    match kind:
        case "insert":
            return Statement(kind, _insert(rng, table))
        case "update" | "key":
            assigned = _assignments(rng, table, key=kind == "key")
            return Statement(
                kind, f"update {table.sql} as t set {assigned} where {_where(rng, table)}"
            )
        case "delete":
            return Statement(kind, f"delete from {table.sql} as t where {_where(rng, table)}")
        case "upsert":
            return _conflict(rng, table)
        case "merge":
            return _merge(rng, table)
        case "copy":
            return _copy(rng, table)
        case "with":
            return _with(rng, table)
    name = table.sql
    if table.partitioned and rng.random() < 0.5:
        name = f"{SCHEMA}.{identifier(f'{table.name} {rng.randint(1, 5)}')}"
    return Statement(
        "truncate", f"truncate {name} {rng.choice(('', 'cascade', 'restart identity'))}"
    )


def script(rng: Random, among: list[Table], length: int) -> Generator[Statement, str, None]:
    """Yield a transaction, or statements on their own; is sent the outcome of each.

    Most statements have a savepoint before them, so that a transaction outlives its errors.
    """
    if rng.random() < 0.3:
        for _ in range(length):
            yield statement(rng, among)
        return
    yield Statement("control", "begin")
    depth = 0
    for _ in range(length):
        if rng.random() < 0.7:
            depth += 1
            yield Statement("control", f"savepoint s{depth}")
        outcome = yield statement(rng, among)
        failed = not outcome[:1].isupper()
        if depth and (failed or rng.random() < 0.2):
            depth = rng.randint(1, depth)
            yield Statement("control", f"rollback to s{depth}")
        elif depth and rng.random() < 0.2:
            yield Statement("control", f"release s{depth}")
            depth -= 1
        if failed and not depth:
            break
    end = rng.random()
    if end < 0.15:
        outcome = yield Statement("control", f"prepare transaction '{SCHEMA}'")
        if outcome == "PREPARE TRANSACTION":
            verb = rng.choice(("commit", "rollback"))
            yield Statement("control", f"{verb} prepared '{SCHEMA}'")
    else:
        yield Statement("control", "rollback" if end < 0.3 else "commit")
