"""What is measured in the server: the tables, and one loop or statement for each workload.

Every workload is the body of a DO block, so that neither the network nor the client is measured.
The floor has bodies of its own: the same change, and an INSERT of the same event written by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

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
"""

_NEW_MEMBER = "{id}, {id} % 50, {id}, 'MEMBER', 'name', 'mail@example.com', 1, true, now()"
_CHANGE = "name = 'name in round ' || {round}, quota = quota + 1, updated_at = clock_timestamp()"
_CHANGE_WIDE = ", ".join(f"c{n} = 'value in round ' || {{round}}" for n in (5, 20, 35))

# The event as an engineer would write it by hand: the same columns, images of the whole row.
_FLOOR_INSERT = """
insert into audit.event (
    action, result, actor_id, actor_type, organization_id, target_type, target_id, subject_id,
    source, captured_from, old_values, new_values, details
)"""
_FLOOR_VALUES = (
    "'{kind}.{verb}', 'success', 'u_4711', 'user', {row}.organization_id::text, '{kind}', "
    "{row}.id::text, {subject}, 'web', '{table}', {old}, {new}, "
    """'{{"ip": "203.0.113.9", "request_id": "7f3c2f1e-5a0b"}}'"""
)


def _values(verb: str, row: str, old: str, new: str, *, wide: bool = False) -> str:
    return _FLOOR_VALUES.format(
        verb=verb, row=row, old=old, new=new,
        kind="document" if wide else "membership",
        table="public.wide" if wide else "public.member",
        subject="null" if wide else f"{row}.user_id::text",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One workload: how many rows it changes, and the statements that do so."""

    name: str
    title: str
    rows: int
    body: str
    floor: str

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


def workloads(rows: int) -> list[Workload]:
    """Return the workloads, in the order in which they must run; `rows` is the length of loops."""
    rows = min(rows, ROWS)
    update = f"update member set {_CHANGE} where id = _i"
    update_wide = f"update wide set {_CHANGE_WIDE} where id = _i"
    insert = f"insert into member values ({_NEW_MEMBER.format(id='100000 + _i')})"
    delete = "delete from member where id = 100000 + _i"
    many = (
        f"insert into member select {_NEW_MEMBER.format(id='g')} "
        f"from generate_series(200001, {200000 + ROWS}) as g"
    )
    return [
        Workload(
            name="update", title="UPDATE of one row", rows=rows, body=_loop(rows, f"{update};"),
            floor=_loop(rows, f"""select * into _old from member where id = _i;
                {update} returning * into _new;
                {_FLOOR_INSERT} values (
                    {_values("updated", "_new", "to_jsonb(_old)", "to_jsonb(_new)")});"""),
        ),
        Workload(
            name="insert", title="INSERT of one row", rows=rows, body=_loop(rows, f"{insert};"),
            floor=_loop(rows, f"""{insert} returning * into _new;
                {_FLOOR_INSERT} values ({_values("added", "_new", "null", "to_jsonb(_new)")});"""),
        ),
        Workload(
            name="delete", title="DELETE of one row", rows=rows, body=_loop(rows, f"{delete};"),
            floor=_loop(rows, f"""select * into _old from member where id = 100000 + _i;
                {delete};
                {_FLOOR_INSERT} values (
                    {_values("removed", "_old", "to_jsonb(_old)", "null")});"""),
        ),
        Workload(
            name="update_wide", title="UPDATE of 3 of 40 columns", rows=rows,
            body=_loop(rows, f"{update_wide};"),
            floor=_loop(rows, f"""select * into _old from wide where id = _i;
                {update_wide} returning * into _new;
                {_FLOOR_INSERT} values (
                    {_values("updated", "_new", "to_jsonb(_old)", "to_jsonb(_new)",
                             wide=True)});"""),
        ),
        Workload(
            name="update_many", title=f"UPDATE of {ROWS:,} rows in one statement", rows=ROWS,
            body=f"update member set {_CHANGE} where id <= {ROWS};",
            floor=f"""with o as (select * from member where id <= {ROWS}),
                n as (update member set {_CHANGE} where id <= {ROWS} returning *)
                {_FLOOR_INSERT}
                select {_values("updated", "n", "to_jsonb(o)", "to_jsonb(n)")}
                from n join o on o.id = n.id;""",
        ),
        Workload(
            name="insert_many", title=f"INSERT of {ROWS:,} rows in one statement", rows=ROWS,
            body=f"{many};",
            floor=f"""with n as ({many} returning *)
                {_FLOOR_INSERT} select {_values("added", "n", "null", "to_jsonb(n)")} from n;""",
        ),
        Workload(
            name="delete_many", title=f"DELETE of {ROWS:,} rows in one statement", rows=ROWS,
            body="delete from member where id > 200000;",
            floor=f"""with o as (delete from member where id > 200000 returning *)
                {_FLOOR_INSERT} select {_values("removed", "o", "to_jsonb(o)", "null")} from o;""",
        ),
    ]  # fmt: skip
