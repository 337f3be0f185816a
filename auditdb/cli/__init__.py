"""The command line: parses arguments, calls functions, prints results."""

from __future__ import annotations

import io
import os
import sys

import click

try:
    import psycopg  # noqa: F401
except ImportError as error:
    raise SystemExit(
        "Error: the commands of auditdb need psycopg 3, which cannot be loaded. Install them "
        "apart from the application: pipx install 'auditdb[binary]'; or install the system's libpq "
        f"({' '.join(str(error).split())})"
    ) from None

import auditdb
from auditdb.cli import (
    archive,
    bundle,
    collect,
    erase,
    evidence,
    export,
    hold,
    mapping,
    operate,
    query,
    read,
    reconcile,
    record,
    web,
)
from auditdb.cli.errors import Cli

__all__ = ["main"]


@click.group("auditdb", cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(auditdb.__version__, prog_name="auditdb")
@click.option(
    "--dsn",
    envvar="AUDITDB_DSN",
    default="",
    metavar="CONNINFO",
    help="The database: a URI or key=value pairs. Default: AUDITDB_DSN, else the PG* variables.",
)
@click.pass_context
def main(ctx: click.Context, dsn: str) -> None:
    """Keep an audit log of who did what in a multi-tenant product on PostgreSQL."""
    ctx.obj = dsn
    if sys.stdout is None:  # Closed: a file or socket must not get its number.
        sys.stdout = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal cannot encode are shown as escapes.
            stream.reconfigure(errors="backslashreplace")


for command in (
    operate.install,
    operate.uninstall,
    operate.print_sql,
    operate.demo,
    operate.status,
    operate.key,
    operate.maintain,
    operate.doctor,
    reconcile.reconcile,
    hold.hold,
    hold.visible,
    mapping.detect,
    mapping.attach,
    mapping.detach,
    record.record,
    read.log,
    query.query,
    export.export,
    export.subscription,
    web.serve,
    evidence.seal,
    evidence.verify,
    erase.erase,
    erase.access,
    bundle.prove,
    bundle.bundle,
    archive.archive,
    archive.restore,
    collect.publish,
    collect.collect,
):
    main.add_command(command)
