"""Installs postgresql-audit in the database given as first argument."""

import sys

import sqlalchemy as sa
from postgresql_audit import VersioningManager
from sqlalchemy.orm import configure_mappers, declarative_base

from benchmarks.packages.engine import engine

base = declarative_base()
manager = VersioningManager(use_statement_level_triggers=sys.argv[2] == "statements")
manager.init(base)
configure_mappers()  # adds transaction.actor_id

connectable = engine(sys.argv[1])
base.metadata.create_all(connectable)
with connectable.begin() as conn:
    for table in ("member", "wide"):
        conn.execute(manager.build_audit_table_query(sa.table(table)))
