"""`manage.py auditdb COMMAND`: the command line of auditdb, on a database of the project."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from auditdb.integrations.django.address import conninfo


class Command(BaseCommand):
    """Passes its arguments to the commands of auditdb."""

    help = "Runs a command of auditdb, such as install, detect, attach, status or doctor."
    requires_system_checks: ClassVar[list[str]] = []

    def add_arguments(self, parser: Any) -> None:
        """Accept the arguments of the command line of auditdb."""
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections))
        parser.add_argument("command", help="such as install; --help lists them")
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        connection = connections[options["database"]]
        if connection.vendor != "postgresql":
            raise CommandError(f"{options['database']} is not PostgreSQL; give --database")
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise CommandError(
                "auditdb's commands need psycopg 3. Install them apart from the project: pipx "
                "install 'auditdb[binary]', then set AUDITDB_DSN and run "
                f"auditdb {options['command']}"
            ) from error
        from auditdb.cli import main

        given = ["--dsn", conninfo(connection), options["command"], *options["arguments"]]
        main(given, prog_name="manage.py auditdb")
