"""Management commands act as the system, with source cli."""

from __future__ import annotations

from functools import wraps
from typing import Any

from django.core.management.base import BaseCommand

from auditdb.write.claim import Claim
from auditdb.write.scope import current_claim, in_scope

# These commands serve requests or tasks, which have their own context.
_SERVERS = ("runserver", "test", "testserver")


def claim_commands() -> None:
    """Run each command under a claim, by a patch, because Django has no signal for it."""
    execute = BaseCommand.execute
    if hasattr(execute, "auditdb"):
        return

    @wraps(execute)
    def run(command: Any, /, *args: Any, **options: Any) -> Any:
        name = type(command).__module__.rpartition(".")[2]
        if name in _SERVERS:
            return execute(command, *args, **options)
        details = {"command": name}
        # A command called in a request or task keeps their context.
        claim = (
            Claim(actor_type="system", source="cli", details=details)
            if current_claim() is None
            else Claim(details=details)
        )
        with in_scope(claim):
            return execute(command, *args, **options)

    run.auditdb = True  # type: ignore[attr-defined]
    BaseCommand.execute = run
