"""Management commands act as the system, by the command line."""

from __future__ import annotations

from functools import wraps
from typing import Any

from django.core.management.base import BaseCommand

from auditdb.write.claim import Claim
from auditdb.write.scope import current_claim, in_scope

# They serve others, who say themselves who they are.
_SERVERS = ("runserver", "test", "testserver")


def claim_commands() -> None:
    """Let each command run under a claim; Django has no signal for it."""
    execute = BaseCommand.execute
    if hasattr(execute, "auditdb"):
        return

    @wraps(execute)
    def run(command: Any, /, *args: Any, **options: Any) -> Any:
        name = type(command).__module__.rpartition(".")[2]
        if name in _SERVERS:
            return execute(command, *args, **options)
        details = {"command": name}
        # One that a request or a task calls is theirs.
        claim = (
            Claim(actor_type="system", source="cli", details=details)
            if current_claim() is None
            else Claim(details=details)
        )
        with in_scope(claim):
            return execute(command, *args, **options)

    run.auditdb = True  # type: ignore[attr-defined]
    BaseCommand.execute = run
