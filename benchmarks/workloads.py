"""What is measured in the server: the tables, and one loop or statement for each workload.

Every workload is the body of a DO block, so that neither the network nor the client is measured.
The floor has bodies of its own: the same change, and an INSERT of the same event written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

WIDE_COLUMNS = 40
ROWS = 5000

TABLES = f"""
create table member (
    id int primary key,
    organization_id int not null,
    user_id int not null,
    role text not null,
    name text not null,
    email text not null,
    quota int not null,
    active boolean not null,
    updated_at timestamptz not null
);
create table wide (
    id int primary key,
    organization_id int not null,
    {", ".join(f"c{n} text not null" for n in range(3, WIDE_COLUMNS + 1))}
);
insert into member
select g, g % 50, g, 'MEMBER', 'name ' || g, 'mail' || g || '@example.com', g, true, now()
from generate_series(1, {ROWS}) as g;
insert into wide
select g, g % 50, {", ".join(f"'value {n} of ' || g" for n in range(3, WIDE_COLUMNS + 1))}
from generate_series(1, {ROWS}) as g;

create table seat (
    team_id int, user_id int, organization_id int not null, role text not null, name text not null,
    email text not null, quota int not null, active boolean not null,
    updated_at timestamptz not null, primary key (team_id, user_id)
);
create table account (
    id int primary key, organization_id int not null, email text not null,
    password_hash text not null, two_factor_enabled boolean not null, name text not null,
    quota int not null, active boolean not null, updated_at timestamptz not null
);
create table project (id int primary key, organization_id int not null);
create table task (
    id int primary key, project_id int not null references project, user_id int not null,
    role text not null, name text not null, email text not null, quota int not null,
    active boolean not null, updated_at timestamptz not null
);
create table ticket (like task including all, foreign key (project_id) references project);
insert into seat
select g, g, g % 50, 'MEMBER', 'name ' || g, 'mail' || g || '@example.com', g, true, now()
from generate_series(1, {ROWS}) as g;
insert into account
select g, g % 50, 'mail' || g || '@example.com', md5(g::text), false, 'name ' || g, g, true, now()
from generate_series(1, {ROWS}) as g;
insert into project select g, g % 50 from generate_series(1, {ROWS}) as g;
insert into task
select g, g, g, 'MEMBER', 'name ' || g, 'mail' || g || '@example.com', g, true, now()
from generate_series(1, {ROWS}) as g;
insert into ticket select * from task;
"""

_NEW_MEMBER = "{id}, ({id}) % 50, {id}, 'MEMBER', 'name', 'mail@example.com', 1, true, now()"
_CHANGE = "name = 'name in round ' || {round}, quota = quota + 1, updated_at = clock_timestamp()"
_CHANGE_WIDE = ", ".join(f"c{n} = 'value in round ' || {{round}}" for n in (5, 20, 35))

# The event as an engineer would write it by hand: the same columns, images of the whole row, and
# no lookup: where the row does not say whose it is, the application knows.
_DETAILS = """'{"ip": "203.0.113.9", "request_id": "7f3c2f1e-5a0b"}'"""
_FLOOR_INSERT = """
insert into audit.event (
    action, result, actor_id, actor_type, organization_id, target_type, target_id, subject_id,
    source, captured_from, old_values, new_values, details
)"""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One workload: how many rows it changes, and the statements that do so."""

    name: str
    title: str
    rows: int
    body: str
    floor: str
    table: str = "member"
    shape: str | None = None
    op: str = ""

    def block(self, *, round_number: int, context: str, floor: bool) -> str:
        """Return the DO block; it leaves the seconds that it took in the setting bench.elapsed."""
        body = self.floor if floor else self.body
        # Literal braces of JSON stay: only the round is filled in.
        body = body.replace("{round}", str(round_number))
        return f"""do $bench$
declare
    _started timestamptz;
    _old record;
    _new record;
begin
    {context}
    _started := clock_timestamp();
    {body}
    perform set_config('bench.elapsed',
        extract(epoch from clock_timestamp() - _started)::text, false);
end $bench$"""


def _loop(rows: int, statements: str) -> str:
    return f"for _i in 1 .. {rows} loop\n{statements}\nend loop;"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A kind of table: what is changed in a loop, and what an event of it says.

    Attributes:
        new: values of the row that is inserted; its key is made of 100000 + _i.
        key: condition for one row; {id} is replaced.
        organization, target, subject, details: of the event, over the record {row}.
    """

    name: str
    title: str
    table: str
    type: str
    new: str
    verbs: tuple[str, str, str]
    change: str = _CHANGE
    key: str = "id = {id}"
    organization: str = "{row}.organization_id::text"
    target: str = "{row}.id::text"
    subject: str = "null"
    details: str = _DETAILS

    def event(self, action: str, row: str, old: str, new: str) -> str:
        """Return the values of the event, for an INSERT by hand."""
        values = (
            f"'{action}'", "'success'", "'u_4711'", "'user'", self.organization,
            f"'{self.type}'", self.target, self.subject, "'web'", f"'public.{self.table}'",
            old, new, self.details,
        )  # fmt: skip
        return ", ".join(values).replace("{row}", row)

    def loops(self, rows: int, *, ops: str = "update insert delete") -> Iterator[Workload]:
        """Yield the loops that update, insert and delete one row after the other."""
        key, new_key = (self.key.replace("{id}", i) for i in ("_i", "100000 + _i"))
        insert = f"insert into {self.table} values ({self.new.format(id='100000 + _i')})"
        update = f"update {self.table} set {self.change} where {key}"
        delete = f"delete from {self.table} where {new_key}"
        both = ("_new", "to_jsonb(_old)", "to_jsonb(_new)")
        bodies = {
            "update": (update, f"""select * into _old from {self.table} where {key};
                {update} returning * into _new;
                {_FLOOR_INSERT} values ({self.event(self.verbs[0], *both)});"""),
            "insert": (insert, f"""{insert} returning * into _new;
                {_FLOOR_INSERT} values (
                    {self.event(self.verbs[1], "_new", "null", "to_jsonb(_new)")});"""),
            "delete": (delete, f"""select * into _old from {self.table} where {new_key};
                {delete};
                {_FLOOR_INSERT} values (
                    {self.event(self.verbs[2], "_old", "to_jsonb(_old)", "null")});"""),
        }  # fmt: skip
        for op in ops.split():
            body, floor = bodies[op]
            yield Workload(
                name=f"{op}{self.name and '_' + self.name}", rows=rows,
                table=self.table, shape=self.title, op=op,
                title=f"{op.upper()} of one row, {self.title}",
                body=_loop(rows, f"{body};"), floor=_loop(rows, floor),
            )  # fmt: skip


_MEMBERSHIP = ("membership.updated", "membership.added", "membership.removed")
_CHILD = "{id}, (({id}) - 1) % 5000 + 1, 1, 'MEMBER', 'name', 'mail@example.com', 1, true, now()"
_ROW_ID = f"{_DETAILS}::jsonb || jsonb_build_object('row_id', {{row}}.id::text)"
PLAIN = Shape(
    name="", title="plain key", table="member", type="membership", verbs=_MEMBERSHIP,
    new=_NEW_MEMBER, subject="{row}.user_id::text",
)  # fmt: skip
WIDE = Shape(
    name="wide", title="3 of 40 columns", table="wide", type="document", new="",
    change=_CHANGE_WIDE, verbs=("document.updated", "", ""),
)  # fmt: skip
USER = Shape(
    name="user", title="user", table="account", type="user", subject="{row}.id::text",
    verbs=("user.updated", "user.created", "user.deleted"),
    new="{id}, ({id}) % 50, 'mail@example.com', 'hash', false, 'name', 1, true, now()",
)  # fmt: skip
SHAPES = (
    Shape(
        name="composite", title="composite key", table="seat", type="membership",
        verbs=_MEMBERSHIP, key="team_id = {id} and user_id = {id}", subject="{row}.user_id::text",
        target="concat_ws(',', {row}.team_id, {row}.user_id)",
        new="{id}, {id}, ({id}) % 50, 'MEMBER', 'name', 'mail@example.com', 1, true, now()",
    ),
    USER,
    Shape(
        name="child", title="child", table="task", type="project", new=_CHILD,
        verbs=("project.updated",) * 3, target="{row}.project_id::text", details=_ROW_ID,
        organization="({row}.project_id % 50)::text",
    ),
    Shape(
        name="lookup", title="looked-up organisation", table="ticket", type="ticket", new=_CHILD,
        verbs=("ticket.updated", "ticket.created", "ticket.deleted"),
        organization="({row}.project_id % 50)::text",
    ),
)  # fmt: skip
# One of the facts in a user's row, which give an event of their own.
FACT = replace(
    USER, name="fact", title="user, e-mail", verbs=("auth.email_changed", "", ""),
    change="email = 'name' || {round} || '@example.com', updated_at = clock_timestamp()",
)  # fmt: skip


def workloads(rows: int) -> list[Workload]:
    """Return the workloads, in the order in which they must run; `rows` is the length of loops."""
    rows = min(rows, ROWS)
    many = (
        f"insert into member select {_NEW_MEMBER.format(id='g')} "
        f"from generate_series(200001, {200000 + ROWS}) as g"
    )
    updated, added, removed = PLAIN.verbs
    return [
        *PLAIN.loops(rows),
        *(loop for shape in SHAPES for loop in shape.loops(rows)),
        *FACT.loops(rows, ops="update"),
        *WIDE.loops(rows, ops="update"),
        Workload(
            name="update_many", title=f"UPDATE of {ROWS:,} rows in one statement", rows=ROWS,
            body=f"update member set {_CHANGE} where id <= {ROWS};",
            floor=f"""with o as (select * from member where id <= {ROWS}),
                n as (update member set {_CHANGE} where id <= {ROWS} returning *)
                {_FLOOR_INSERT}
                select {PLAIN.event(updated, "n", "to_jsonb(o)", "to_jsonb(n)")}
                from n join o on o.id = n.id;""",
        ),
        Workload(
            name="insert_many", title=f"INSERT of {ROWS:,} rows in one statement", rows=ROWS,
            body=f"{many};",
            floor=f"""with n as ({many} returning *)
                {_FLOOR_INSERT} select {PLAIN.event(added, "n", "null", "to_jsonb(n)")} from n;""",
        ),
        Workload(
            name="delete_many", title=f"DELETE of {ROWS:,} rows in one statement", rows=ROWS,
            body="delete from member where id > 200000;",
            floor=f"""with o as (delete from member where id > 200000 returning *)
                {_FLOOR_INSERT}
                select {PLAIN.event(removed, "o", "to_jsonb(o)", "null")} from o;""",
        ),
    ]  # fmt: skip
