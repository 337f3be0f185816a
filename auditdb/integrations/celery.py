"""Celery: a task acts as the actor who published it, else as the system.

A task writes under its context: `auditdb.context(conn)`, `auditdb.record`, an instrumented engine.
The header `auditdb` of the message carries the actor, the organisation and the details.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from auditdb.write.claim import Claim
from auditdb.write.scope import current_claim, in_scope

_HEADER = "auditdb"
_FIELDS = ("actor_id", "actor_type", "impersonator_id", "organization_id", "details")
_BLOCK = "auditdb_block"


def instrument() -> None:
    """Run each task under a context, in every Celery app of this process.

    Call it where the app is created, so that publishers and workers both run it. A second call
    changes nothing. `source` is `system`, and `details.task` the name of the task. Under Django,
    the app `auditdb.integrations.django` calls it.

    Example:
        >>> app = Celery("shop", broker="redis://")  # doctest: +SKIP
        >>> instrument()
    """
    for signal, receiver in (
        (signals.before_task_publish, _publish),
        (signals.task_prerun, _begin),
        (signals.task_postrun, _end),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"auditdb.{receiver.__name__}")


def _publish(*, headers: Any = None, **_: Any) -> None:
    claim = current_claim()
    if claim is None or not isinstance(headers, dict):
        return
    said = {name: getattr(claim, name) for name in _FIELDS}
    headers[_HEADER] = {name: value for name, value in said.items() if value}


def _begin(*, task: Any, **_: Any) -> None:
    request = task.request
    said = getattr(request, _HEADER, None) or (request.headers or {}).get(_HEADER) or {}
    given = {name: said.get(name) for name in _FIELDS} if isinstance(said, dict) else {}
    outer = current_claim() or Claim()
    details = {**(given.pop("details", None) or {}), "task": str(task.name)}
    published = Claim(**given, source="system", details=details)
    if published.actor_id is None and outer.actor_id is None and published.actor_type is None:
        published = Claim(actor_type="system").with_inner(published)
    block = in_scope(published)
    # Keyed by run, because a broker may give a task to two threads at once.
    setattr(request, _BLOCK, block)
    block.__enter__()


def _end(*, task: Any, **_: Any) -> None:
    block = vars(task.request).pop(_BLOCK, None)
    if block is not None:
        block.__exit__(None, None, None)
