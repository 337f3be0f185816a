"""Attaches what a mapping file names, after each migrate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from auditdb.integrations.django.address import conninfo
from auditdb.integrations.django.conf import covers, current


def attach_after_migrate(*, using: str, verbosity: int = 1, plan: Any = None, **_: Any) -> None:
    """Attach the tables of `AUDITDB["MAPPING"]`; unchanged tables stay untouched."""
    chosen = current()
    # A flush also sends the signal, but without a plan.
    if plan is None or chosen.mapping is None or not chosen.attach:
        return
    if not covers(using, connections[using].vendor):
        return
    try:
        import psycopg
    except ImportError as error:
        raise ImproperlyConfigured(
            "AUDITDB['MAPPING'] needs psycopg 3. Leave it out, and run after each migrate, as "
            f"pipx install 'auditdb[binary]' brings it: auditdb attach {chosen.mapping}"
        ) from error
    from auditdb.mapping.apply import apply
    from auditdb.mapping.file import load

    path = Path(chosen.mapping)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ImproperlyConfigured(
            f"AUDITDB['MAPPING']: cannot read {path.absolute()}: {error.strerror}. Make it with "
            f"manage.py auditdb detect > {path}"
        ) from error
    mappings = load(text, str(path))
    with psycopg.connect(conninfo(connections[using]), autocommit=True) as conn:
        for change in apply(conn, mappings):
            if verbosity > 1 or (verbosity and change.verb not in ("unchanged", "unlisted")):
                print(f"  auditdb: {change}")
