"""Statements of every form; each gives a workflow a name that begins with who must be recorded.

Run as a program it is a project on psycopg2: psycopg cannot be imported.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import auditdb


def rename(name: str, pk: int = 1) -> None:
    from tests.integrations.django_project.shop.models import Workflow

    assert Workflow.objects.filter(pk=pk).update(name=name) == 1


def scopes() -> None:
    """Contexts, transactions and savepoints inside of each other."""
    from django.db import transaction

    rename("- outside")
    with auditdb.context(actor_id=7):
        rename("7 in autocommit")
        with transaction.atomic():
            rename("7 in a block")
            with auditdb.context(actor_id=8):
                rename("8 inside")
            rename("7 again")
        with transaction.atomic():
            rename("7 before a savepoint")
            with suppress(ZeroDivisionError), transaction.atomic(), auditdb.context(actor_id=8):
                rename("8 undone")
                raise ZeroDivisionError
            rename("7 after a rollback")
        with transaction.atomic():
            with suppress(ZeroDivisionError), transaction.atomic():
                rename("7 undone")
                raise ZeroDivisionError
            rename("7 after the first was rolled back")
    rename("- outside again")
    with transaction.atomic():
        with auditdb.context(actor_id=7):
            rename("7 and then nobody")
            # The second is the name until Django 6.1.
            create = getattr(transaction, "savepoint_create", None) or transaction.savepoint
            sid = create()
        rename("- nobody")
        transaction.savepoint_rollback(sid)
        # The rollback undid that nobody acts.
        rename("- nobody after a rollback")
        with auditdb.context(source="api"):
            auditdb.update_context(actor_id=6)
            rename("6 known late")


def forms() -> None:
    """Statements as Django and people write them, and what their cursors say."""
    from django.db import DatabaseError, connection, transaction
    from django.db.backends.postgresql.psycopg_any import sql

    from tests.integrations.django_project.shop.models import Workflow

    def cases(cursor: Any) -> None:
        made = Workflow.objects.create(organization_id=1, name="7 created")
        assert Workflow.objects.get(pk=made.pk).name == "7 created"
        made.name = "7 saved"
        made.save()
        bulk = [Workflow(organization_id=1, name=f"7 bulk {n}") for n in range(3)]
        Workflow.objects.bulk_create(bulk)
        assert all(workflow.pk for workflow in bulk)
        made.delete()
        returning = "insert into workflow (organization_id, name) values (1, %s) returning id, name"
        cursor.execute(returning, ["7 returned 100%"])
        assert cursor.fetchone()[1] == "7 returned 100%"
        assert cursor.rowcount == 1 and [c[0] for c in cursor.description] == ["id", "name"]
        cursor.execute("update workflow set name = '7 100%' where name like '7 bulk%'")
        assert cursor.rowcount == 3
        cursor.execute("update workflow set name = %(n)s where id = 1", {"n": "7 named"})
        cursor.execute("update workflow set name = '7 empty %%' where id = 1", [])
        cursor.execute(b"update workflow set name = '7 bytes' where id = 1")
        composed = sql.SQL("update {} set name = %s where id = 1").format(
            sql.Identifier("workflow")
        )
        cursor.execute(composed, ["7 composed"])
        cursor.execute("/* a */ -- b\n update workflow set name = '7 comments' where id = 1")
        cursor.execute(
            "with w as (update workflow set name = '7 with' where id = 1 returning *) "
            "select name from w"
        )
        assert cursor.fetchall() == [("7 with",)]
        many = [(f"7 many {n}", n) for n in range(1, 4)]
        cursor.executemany("update workflow set name = %s where id = %s", many)
        cursor.execute("select audit.record_event('report.exported', target_id => '7 recorded')")
        assert int(cursor.fetchone()[0]) > 0
        cursor.execute("do $$ begin update workflow set name = '7 do' where id = 1; end $$")
        assert [w.name for w in Workflow.objects.filter(pk=1).iterator()] == ["7 do"]
        cursor.execute(
            "set lock_timeout = '5s'; update workflow set name = '7 several' where id = 1"
        )
        cursor.execute("select id, renamed(1, '7 by a function') from organization where id = 1")
        assert cursor.fetchone()[1] == "7 by a function"
        cursor.execute("select 1 where upper(renamed(1, '7 by a condition')) is not null")
        rename("7 after an iterator")

    with auditdb.context(actor_id=7, details={"user_agent": "it's 100% \\' \\\" {} ü\n"}):
        with connection.cursor() as cursor:
            cases(cursor)
            # A procedure that commits runs in no other transaction.
            cursor.execute("call commits('- committed')")
            with suppress(DatabaseError):
                cursor.execute("update workflow set nam = 'x' where id = 1")
                raise AssertionError("no error")
        with transaction.atomic(), connection.cursor() as cursor:
            cases(cursor)
            with suppress(DatabaseError), transaction.atomic():
                cursor.execute("update workflow set nam = 'x' where id = 1")
            rename("7 after an error")
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("set transaction isolation level serializable")
            cursor.execute("lock table workflow in share mode")
            rename("7 serializable")
            cursor.execute("select audit.set_context('9')")
            rename("9 by sql")
            rename("9 by sql again", pk=2)
        with connection.cursor() as cursor:
            cursor.execute("begin")
            rename("7 begun by sql")
            cursor.execute("rollback and chain")
            rename("7 in a chain")
            cursor.execute("commit")


PROCEDURE = """
create procedure commits(name text) language plpgsql as $$
begin
    update workflow set name = commits.name where id = 1;
    commit;
end $$;
create function renamed(id int, name text) returns text language sql as $$
    update workflow set name = $2 where id = $1 returning name
$$
"""


def copies() -> None:
    """Rows that are copied in, which Django does not show."""
    from io import StringIO

    from django.db import connection, transaction

    from auditdb.integrations.django import send_context

    with auditdb.context(actor_id=7), transaction.atomic(), connection.cursor() as cursor:
        send_context()
        send_context()
        statement = "copy workflow (organization_id, name) from stdin"
        if hasattr(cursor, "copy_expert"):
            cursor.copy_expert(statement, StringIO("1\t7 copied\n"))
        else:
            with cursor.copy(statement) as copy:
                copy.write("1\t7 copied\n")


def main() -> None:
    """Run all of it without psycopg."""

    class Blocked:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] in ("psycopg", "psycopg_binary", "psycopg_pool"):
                raise ImportError(f"no {name}")

    sys.meta_path.insert(0, Blocked())
    import django

    django.setup()
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    assert not is_psycopg3
    scopes()
    forms()
    copies()
    from django.contrib.auth import get_user_model
    from django.core.exceptions import PermissionDenied
    from django.core.management import CommandError, call_command
    from django.test import Client

    from auditdb.integrations.django import attempt, record

    user = get_user_model().objects.create_user("7", pk=7)
    made = Client()
    made.force_login(user)
    assert made.post("/rename/1/", {"name": "7 requested"}).content == b"done"
    with auditdb.context(actor_id=7):
        with suppress(PermissionDenied), attempt("workflow.deleted", target_id="7 attempted"):
            raise PermissionDenied
        record("report.exported", target_id="7 recorded")
        with suppress(auditdb.Refused):
            record("Report")
            raise AssertionError("no error")
    try:
        call_command("auditdb", "status")
    except CommandError as error:
        print(error)
    assert "psycopg" not in sys.modules


if __name__ == "__main__":
    main()
