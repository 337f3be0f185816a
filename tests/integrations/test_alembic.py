"""Alembic: real migrations that install auditdb, and the hook that attaches after them."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, create_engine

import auditdb
from auditdb.errors import InvalidInput
from auditdb.integrations.alembic import attach_after_upgrade, install
from tests.conftest import Database

ENV = """
import asyncio
from alembic import context
from sqlalchemy import NullPool, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from auditdb.integrations.alembic import attach_after_upgrade

url = context.config.get_main_option("sqlalchemy.url")


def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_async():
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    attach_after_upgrade(engine, "{mapping}")
    await engine.dispose()


if context.is_offline_mode():
    context.configure(url=url, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif "asyncpg" in url:
    asyncio.run(migrate_async())
else:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        migrate(connection)
    attach_after_upgrade(engine, "{mapping}")
    engine.dispose()
"""
FIRST = """
from alembic import op
from auditdb.integrations.alembic import install

revision = "1"
down_revision = None

def upgrade():
    install(op)
    op.execute("create table membership (organization_id int, user_id int, role text, "
               "primary key (organization_id, user_id))")

def downgrade():
    op.execute("drop table membership")
"""
SECOND = """
from alembic import op

revision = "2"
down_revision = "1"

def upgrade():
    op.execute("alter table membership rename column role to member_role")

def downgrade():
    op.execute("alter table membership rename column member_role to role")
"""
MAPPING = """
[[table]]
name = "public.membership"
kind = "membership"
organization = "organization_id"
subject = "user_id"
"""


def config(db: Database, folder: Path, driver: str) -> Config:
    given: dict[str, Any] = conninfo_to_dict(db.dsn)
    url = URL.create(
        f"postgresql+{driver}", "postgres", None, given["host"], int(given["port"]),
        given["dbname"],
    )  # fmt: skip
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(ENV.replace("{mapping}", str(folder / "auditdb.toml")))
    (folder / "script.py.mako").write_text("")
    (folder / "versions" / "1.py").write_text(FIRST)
    (folder / "versions" / "2.py").write_text(SECOND)
    (folder / "auditdb.toml").write_text(MAPPING)
    made = Config()
    made.set_main_option("script_location", str(folder))
    made.set_main_option("sqlalchemy.url", url.render_as_string(hide_password=False))
    return made


@pytest.fixture
def bare(empty_db: Database) -> Database:
    """A database without auditdb."""
    conn = empty_db.connect()
    conn.execute("drop schema audit, audit_private cascade")
    return empty_db


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_migrations_install_and_the_hook_attaches(
    bare: Database, tmp_path: Path, driver: str
) -> None:
    made = config(bare, tmp_path, driver)
    command.upgrade(made, "1")
    conn = bare.connect()
    conn.execute("insert into membership values (1, 2, 'MEMBER')")
    command.upgrade(made, "2")
    conn.execute("update membership set member_role = 'ADMIN'")
    command.downgrade(made, "1")
    conn.execute("update membership set role = 'OWNER'")
    assert bare.actions() == ["membership.added"] + ["membership.role_changed"] * 2
    (own,) = conn.execute("select count(*) from audit.event where action = 'audit.installed'")
    assert own == (1,)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_a_login_that_may_not_install_is_told_so_without_the_script(
    bare: Database, tmp_path: Path, driver: str
) -> None:
    made = config(bare, tmp_path, driver)
    url = str(made.get_main_option("sqlalchemy.url")).replace("postgres@", "stranger:secret@")
    made.set_main_option("sqlalchemy.url", url)
    bare.connect().execute("grant create on schema public to stranger")
    with pytest.raises(auditdb.Refused, match="may not grant the roles of auditdb") as refused:
        command.upgrade(made, "1")
    shown = "".join(traceback.format_exception(refused.value))
    assert "\n" not in str(refused.value) and len(shown) < 20_000


def test_offline_the_script_is_written(
    bare: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = config(bare, tmp_path, "psycopg")
    command.upgrade(made, "1", sql=True)
    written = capsys.readouterr().out
    # As psql would; its BEGIN and COMMIT are in it.
    bare.connect().execute(written.encode())
    assert bare.connect().execute("select audit.version()").fetchone() == (auditdb.__version__,)


def test_a_mapping_that_is_refused_leaves_all_as_it_was(bare: Database, tmp_path: Path) -> None:
    made = config(bare, tmp_path, "psycopg")
    (tmp_path / "auditdb.toml").write_text(MAPPING.replace('"user_id"', '"nope"'))
    with pytest.raises(auditdb.Refused, match="nope"):
        command.upgrade(made, "1")
    assert bare.connect().execute("select count(*) from membership").fetchone() == (0,)


@pytest.mark.parametrize(
    "more", ["ssl=disable", "sslmode=disable", "prepared_statement_cache_size=0"]
)
def test_an_address_may_have_parameters_of_its_driver(
    bare: Database, tmp_path: Path, more: str
) -> None:
    made = config(bare, tmp_path, "psycopg2")
    command.upgrade(made, "1")
    bare.connect().execute("select audit.detach('membership')")
    url = f"{made.get_main_option('sqlalchemy.url')}?{more}"
    address = url.replace("psycopg2", "asyncpg")
    (line,) = attach_after_upgrade(address, tmp_path / "auditdb.toml")
    assert line.startswith("attach    public.membership")


def test_what_is_no_engine_is_refused() -> None:
    engine = create_engine("sqlite://")
    with pytest.raises(TypeError, match="one of sqlite; auditdb is for PostgreSQL"):
        attach_after_upgrade(engine)
    with engine.connect() as conn, pytest.raises(TypeError, match="is a Connection; give the eng"):
        attach_after_upgrade(conn)  # type: ignore[arg-type]


def test_another_database_is_refused() -> None:
    context = SimpleNamespace(dialect=SimpleNamespace(name="mysql"))
    with pytest.raises(TypeError, match="for mysql; auditdb is for PostgreSQL"):
        install(SimpleNamespace(get_context=lambda: context))
    with pytest.raises(InvalidInput, match=r"nowhere[.]toml cannot be read: No such file"):
        attach_after_upgrade(create_engine("postgresql+psycopg://"), "nowhere.toml")
