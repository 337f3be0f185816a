"""Who is measured: nothing, the INSERT written by hand, auditdb, and packages from PyPI.

Each lives in a database of its own on one server, with the same tables and the same settings.
Packages install themselves through their own code (`packages/`), as their documentation says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

import auditdb
from benchmarks import packages
from benchmarks.workloads import TABLES

ATTACH = """
select audit.attach('public.member', 'membership');
select audit.attach('public.wide', 'document');
select audit.attach('public.seat', 'membership');
select audit.attach('public.account', 'user');
select audit.attach('public.project', 'project');
select audit.attach('public.task', 'project', parent => 'project_id');
select audit.attach('public.ticket', 'ticket', organization =>
    'select p.organization_id from public.project as p where p.id = r.project_id');
"""
JSONB_TRIGGER = Path(__file__).with_name("jsonb_trigger.sql")

# What auditdb.context sends, and what each package would put into its own context.
CONTEXT = (
    "perform audit.set_context(actor_id => 'u_4711', source => 'web', "
    """details => '{"ip": "203.0.113.9", "request_id": "7f3c2f1e-5a0b"}');"""
)
# What postgresql_audit.VersioningManager.set_activity_values sends before the first flush.
POSTGRESQL_AUDIT_CONTEXT = (
    "insert into transaction (native_transaction_id, issued_at, client_addr, actor_id) "
    "values (pg_current_xact_id(), now() at time zone 'UTC', '203.0.113.9', 'u_4711') "
    "on conflict on constraint transaction_unique_native_tx_id do nothing;"
)
# What django-pghistory and auditrum's Django integration prefix to each statement.
METADATA = '{"user": 4711, "url": "/members", "ip": "203.0.113.9", "request_id": "7f3c2f1e-5a0b"}'


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to keep a log.

    Attributes:
        name: as the report prints it, and the key in the JSON.
        install: prepares its database, whose tables exist already.
        log: the tables that its events go to; by default, all outside of public.
        context: PL/pgSQL that says who acts, run once at the start of a transaction.
        floor: whether the workloads insert the event by hand.
        shapes: whether it keeps a log of the tables of every shape, or of `member` and `wide`.
        client: how an application uses it; a key of `clients.TRANSACTIONS`, or none.
    """

    name: str
    install: Callable[[str], None]
    log: tuple[str, ...] = ()
    context: str = ""
    floor: bool = False
    shapes: bool = False
    client: str | None = None

    @property
    def database(self) -> str:
        """Return the name of its database."""
        return "bench_" + "".join(c if c.isalnum() else "_" for c in self.name)

    def prepare(self, dsn: str) -> None:
        """Create its tables and install it, in its own empty database."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(TABLES.encode())
        self.install(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("vacuum analyze")


def _nothing(dsn: str) -> None:
    del dsn


def _installed(dsn: str) -> None:
    auditdb.install(dsn)


def _attached(dsn: str) -> None:
    auditdb.install(dsn)
    with psycopg.connect(dsn) as conn:
        conn.execute(ATTACH.encode())


def _jsonb_trigger(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute(JSONB_TRIGGER.read_bytes())


def _settings(prefix: str) -> str:
    return (
        f"perform set_config('{prefix}.context_id', gen_random_uuid()::text, true), "
        f"set_config('{prefix}.context_metadata', '{METADATA}', true);"
    )


def of_script(name: str, script: Path) -> Contender:
    """Return the contender that a script of SQL installs and puts on `member` and `wide`."""

    def install(dsn: str) -> None:
        with psycopg.connect(dsn) as conn:
            conn.execute(script.read_bytes())

    return Contender(name=name, install=install)


EVENT = ("audit.event",)
CONTENDERS = [
    Contender(name="no audit", install=_nothing, shapes=True, client="plain"),
    Contender(name="floor", install=_installed, log=EVENT, floor=True, shapes=True),
    Contender(name="by hand", install=_installed, log=EVENT, client="by_hand"),
    Contender(name="auditdb without context", install=_attached, log=EVENT, client="plain"),
    Contender(
        name="auditdb", install=_attached, log=EVENT, context=CONTEXT, shapes=True,
        client="auditdb",
    ),
    Contender(
        name="jsonb trigger", install=_jsonb_trigger, log=("logged_action",), shapes=True,
    ),
    Contender(
        name="postgresql-audit, rows", install=packages.postgresql_audit_rows,
        log=("activity", "transaction"), context=POSTGRESQL_AUDIT_CONTEXT,
        client="postgresql_audit",
    ),
    Contender(
        name="postgresql-audit, statements", install=packages.postgresql_audit_statements,
        log=("activity", "transaction"), context=POSTGRESQL_AUDIT_CONTEXT,
        client="postgresql_audit",
    ),
    Contender(
        name="auditrum", install=packages.auditrum, log=("auditlog", "audit_context"),
        context=_settings("auditrum"), client="auditrum",
    ),
    Contender(
        name="django-pghistory", install=packages.pghistory,
        log=("pghistory_app_memberevent", "pghistory_app_wideevent", "pghistory_context"),
        context=_settings("pghistory"), client="pghistory",
    ),
]  # fmt: skip
AS_APPLICATION = [c for c in CONTENDERS if c.client is not None]
