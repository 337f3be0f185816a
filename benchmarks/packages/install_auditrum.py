"""Installs auditrum in the database given as first argument."""

import sys

from auditrum.integrations.sqlalchemy import bootstrap_schema, sync
from auditrum.tracking import TrackSpec

from benchmarks.packages.engine import engine

connectable = engine(sys.argv[1])
bootstrap_schema(connectable)
sync(connectable, specs=[TrackSpec(table="member"), TrackSpec(table="wide")])
