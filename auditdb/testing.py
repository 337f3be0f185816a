"""For tests of applications: a database with auditdb, and assertions on what was recorded.

A pytest plugin. In conftest.py, with pytest-postgresql, auditdb is installed once and copied for
each test:

    from pathlib import Path
    from pytest_postgresql import factories
    from auditdb.testing import load

    pytest_plugins = ["auditdb.testing"]
    postgresql_proc = factories.postgresql_proc(load=[Path("schema.sql"), load("auditdb.toml")])

A test that asks for `assert_audited` says what must have been recorded since it began:

    def test_promotion(postgresql, assert_audited):
        promote(postgresql, user_id=2)
        assert_audited("membership.role_changed", organization_id=1, subject_id=2)

A database that other tools make, such as Django's, is named by a fixture `auditdb_connection` of
your own: any connection of the DB-API to it. To see what is not committed, give the one that wrote.

PYTEST_DONT_REWRITE: a conftest.py imports `load` before pytest could, which would be a warning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pytest

from auditdb.values.arguments import ALIASES, unknown_argument
from auditdb.values.convert import json_value

_MAPPINGS = ("old_values", "new_values", "details")
_TEXTS = (
    "result", "actor_id", "actor_type", "impersonator_id", "organization_id", "target_type",
    "target_id", "subject_id", "source", "db_user", "captured_from",
)  # fmt: skip
_NAMES = (*_TEXTS, *_MAPPINGS)
_ACTION = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_NEWEST = "select coalesce(max(id), 0), count(*) from audit.event"
# JSON as text: what drivers make of jsonb differs.
_EVENTS = f"""
select action, {", ".join(_TEXTS)}, {", ".join(f"{name}::text" for name in _MAPPINGS)}
from audit.event where id > %s and action not like 'audit.%%' order by id
"""


def load(mapping: str | Path, *, sql: str | None = None) -> Callable[..., None]:
    """Return a loader of pytest-postgresql that installs auditdb and attaches tables.

    Args:
        mapping: a mapping file, as `auditdb detect` writes it.
        sql: statements to run afterwards, such as `grant audit_writer to app`.

    Raises:
        AuditError: when it is loaded: as `auditdb.install` and `auditdb.operator.apply` do.

    Example:
        >>> loaders = [Path("schema.sql"), load("auditdb.toml")]  # doctest: +SKIP
        >>> postgresql_proc = factories.postgresql_proc(load=loaders)  # doctest: +SKIP
    """
    path = Path(mapping)

    def install_and_attach(
        *, host: str, port: int, user: str, dbname: str, password: str | None, **_: object
    ) -> None:
        import psycopg

        from auditdb import operator

        dsn = psycopg.conninfo.make_conninfo(
            "", host=host, port=port, user=user, dbname=dbname, password=password or ""
        )
        operator.install(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            operator.apply(conn, operator.load(path.read_text("utf-8"), source=str(path)))
            if sql is not None:
                conn.execute(sql.encode())

    return install_and_attach


@dataclass(frozen=True)
class AuditedEvent:
    """An event that a test caused; identifiers are texts, values and details mappings."""

    action: str
    fields: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None


class AuditAssertions:
    """Calls of it assert that an event was recorded; made by the fixture `assert_audited`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        [(self._start, _)] = self._rows(_NEWEST)

    def __call__(self, action: str, **expected: Any) -> AuditedEvent:
        """Assert that an event of an action was recorded since the test began, and return it.

        Args:
            action: `category.verb`.
            expected: columns of `audit.event` with what they must hold. Identifiers may be given as
                they are; None means null; of `old_values`, `new_values` and `details` what is given
                must be in them.

        Raises:
            AssertionError: there is none, with the nearest and where it differs.
            TypeError: a column is misspelt.

        Example:
            >>> assert_audited("api_key.revoked", organization_id=1)  # doctest: +SKIP
        """
        __tracebackhide__ = True
        wanted = self._wanted(expected)
        events = self.events
        found = [event for event in events if event.action == action]
        for event in found:
            if not _differences(event, wanted):
                return event
        raise AssertionError(self._failure(action, wanted, found, events))

    def nothing(self, action: str | None = None, **expected: Any) -> None:
        """Assert that no such event was recorded since the test began; or none at all.

        Args:
            action: `category.verb`. Default: any.
            expected: as for an event that must be there.

        Raises:
            AssertionError: there is one, with what it holds.
            TypeError: a column is misspelt.
            ValueError: the action is none, so that it could never be recorded.

        Example:
            >>> assert_audited.nothing("membership.role_changed")  # doctest: +SKIP
        """
        __tracebackhide__ = True
        wanted = self._wanted(expected)
        if action is not None and not _ACTION.fullmatch(action):
            raise ValueError(f"{action!r} is no action, such as membership.removed")
        for event in self.events:
            if action in (None, event.action) and not _differences(event, wanted):
                raise AssertionError(f"there is an event that must not be: {_shown(event)}")

    @property
    def events(self) -> list[AuditedEvent]:
        """The events since the test began, oldest first, without those of the log itself."""
        return [
            AuditedEvent(
                action,
                {
                    name: json.loads(value) if name in _MAPPINGS and value is not None else value
                    for name, value in zip(_NAMES, values, strict=True)
                },
            )
            for action, *values in self._rows(_EVENTS, [self._start])
        ]

    def _rows(self, query: str, parameters: list[Any] | None = None) -> list[Any]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(query, parameters)
            return [tuple(row) for row in cursor.fetchall()]
        finally:
            cursor.close()

    @staticmethod
    def _wanted(expected: Mapping[str, Any]) -> dict[str, Any]:
        for name in expected:
            if name not in _NAMES:
                raise unknown_argument("assert_audited()", name, _NAMES, ALIASES)
        return {
            name: json_value(value) if name in _MAPPINGS else None if value is None else str(value)
            for name, value in expected.items()
        }

    def _failure(
        self,
        action: str,
        wanted: Mapping[str, Any],
        found: list[AuditedEvent],
        events: list[AuditedEvent],
    ) -> str:
        asked = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
        lines = [f"no event {action}{' with ' * bool(asked)}{asked} since the test began"]
        if found:
            nearest = min(found, key=lambda event: len(_differences(event, wanted)))
            lines.append(f"the nearest of {len(found)} differs in:")
            lines += [f"  {line}" for line in _differences(nearest, wanted)]
        elif events:
            near = get_close_matches(action, {event.action for event in events}, 1)
            lines += [f"did you mean {near[0]}?"] if near else []
            lines.append("recorded were:")
            lines += [f"  {_shown(event)}" for event in events]
        else:
            lines.append(
                "no event is visible at all: is the table attached, is the change committed or is "
                "auditdb_connection the one that made it, and may its login read the log (a "
                "superuser or a member of audit_auditor)?"
            )
        return "\n".join(lines)


def _differences(event: AuditedEvent, wanted: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in wanted.items():
        actual = event.fields[name]
        if name in _MAPPINGS and isinstance(value, dict) and isinstance(actual, dict):
            for key, item in value.items():
                if key not in actual or actual[key] != item:
                    found.append(f"{name}[{key!r}]: {actual.get(key)!r}, not {item!r}")
        elif actual != value:
            found.append(f"{name}: {actual!r}, not {value!r}")
    return found


def _shown(event: AuditedEvent) -> str:
    told = {name: value for name, value in event.fields.items() if value is not None}
    return f"{event.action} {', '.join(f'{name}={value!r}' for name, value in told.items())}"


@pytest.fixture
def auditdb_connection(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A connection that reads the log; here to the database of the fixture `postgresql`."""
    import psycopg

    postgresql = request.getfixturevalue("postgresql")
    dsn = psycopg.conninfo.make_conninfo(
        postgresql.info.dsn, password=postgresql.info.password or ""
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def assert_audited(auditdb_connection: Any) -> AuditAssertions:
    """Assert what was recorded since the test began; see `auditdb.testing`."""
    return AuditAssertions(auditdb_connection)
