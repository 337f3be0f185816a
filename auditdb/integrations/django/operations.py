"""Operations of migrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import DatabaseError
from django.db.migrations.operations.base import Operation

from auditdb.errors import Refused, from_message
from auditdb.integrations.django.conf import covers, current


class Attach(Operation):
    """Captures every change of a model's table from now on; backwards, ends that.

    Args:
        model: the model, such as `"shop.Invoice"`, or `"Invoice"` of the migration's own app.
        kind: as in `audit.attach`, such as `membership`, or a word of your own.
        options: as in `audit.attach`.

    Example:
        >>> operations = [Attach("shop.Invoice", kind="invoice")]  # doctest: +SKIP
    """

    reduces_to_sql = True
    reversible = True

    # Explicit parameters: a squashed migration keeps only these.
    def __init__(
        self,
        model: str,
        kind: str,
        organization: str | None = None,
        target_id: str | None = None,
        subject: str | None = None,
        role: str | None = None,
        alive: str | None = None,
        admin: str | None = None,
        parent: str | None = None,
        ignore: Sequence[str] | None = None,
        redact: Sequence[str] | None = None,
        email: str | None = None,
        password: str | None = None,
        two_factor: str | None = None,
        token: str | None = None,
    ) -> None:
        self.model = model
        self.kind = kind
        given = {
            "organization": organization, "target_id": target_id, "subject": subject, "role": role,
            "alive": alive, "admin": admin, "parent": parent, "ignore": ignore, "redact": redact,
            "email": email, "password": password, "two_factor": two_factor, "token": token,
        }  # fmt: skip
        for name in ("ignore", "redact"):
            if isinstance(given[name], str):
                raise TypeError(f"{name} is a list of columns: {name}=[{given[name]!r}]")
        self.options = {name: value for name, value in given.items() if value is not None}

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """Return the arguments for a migration file."""
        return (type(self).__name__, [self.model, self.kind], dict(self.options))

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no model."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Attach the table."""
        table = self._table(app_label, schema_editor, to_state)
        if table is not None:
            named = "".join(f", {name} => %s" for name in self.options)
            given = [v if isinstance(v, str) else list(v) for v in self.options.values()]
            query = f"select audit.attach(%s::pg_catalog.regclass, %s{named})"
            try:
                schema_editor.execute(query, [table, self.kind, *given])
            except DatabaseError as error:
                raise self._refused(table, error) from error

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Detach the table."""
        table = self._table(app_label, schema_editor, from_state)
        if table is not None:
            schema_editor.execute("select audit.detach(%s::pg_catalog.regclass)", [table])

    def describe(self) -> str:
        """Return the line for `migrate --plan`."""
        return f"Keep an audit log of {self.model} as {self.kind}"

    @property
    def migration_name_fragment(self) -> str:
        """Return a part of a migration's name."""
        return f"audit_{self.model.rpartition('.')[2].lower()}"

    def _refused(self, table: str, error: Exception) -> Refused:
        """Return what the server said, in a line, without where in its functions it was."""
        diag: Any = getattr(error.__cause__, "diag", None)
        if diag is None or diag.message_primary is None:
            return Refused(f"{table} cannot be attached as {self.kind}: {error}")
        refused = from_message(
            diag.message_primary, diag.message_detail, diag.message_hint, diag.sqlstate
        )
        return Refused(f"{table} cannot be attached as {self.kind}: {refused}")

    def _table(self, app_label: str, schema_editor: Any, state: Any) -> str | None:
        """Return the quoted table of the model; None if no log is kept in this database."""
        label, _, name = self.model.rpartition(".")
        model = state.apps.get_model(label or app_label, name)
        connection = schema_editor.connection
        if not (
            current().attach
            and covers(connection.alias, connection.vendor)
            and self.allow_migrate_model(connection.alias, model)
        ):
            return None
        if not schema_editor.collect_sql:
            with connection.cursor() as cursor:
                cursor.execute("select pg_catalog.to_regnamespace('audit') is not null")
                if not cursor.fetchone()[0]:
                    raise Refused(
                        f"auditdb is not installed in {connection.alias!r}. Run manage.py auditdb "
                        "install; or set AUDITDB['ATTACH'] = False where no log is kept, such as "
                        "in tests"
                    )
        return str(connection.ops.quote_name(model._meta.db_table))
