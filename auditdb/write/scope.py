"""The context variable: one for every driver and framework, of each task and thread its own."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import NoReturn, Unpack

from auditdb.write.claim import Claim, ContextFields, make_claim


class Scope:
    """What `with auditdb.context(...)` opens; threads and tasks begun inside of it share it.

    An integration whose claim is known late overrides `claim`, which is asked at each statement.
    """

    def __init__(self, claim: Claim, conn: object = None) -> None:
        self._claim = claim
        self.conn = conn
        """The connection that the claim was sent to, where the scope is a block of one."""

    @property
    def claim(self) -> Claim:
        """Who acts now."""
        return self._claim

    def update(self, claim: Claim) -> None:
        """Let it say more, or something else, from now on."""
        self._claim = self._claim.with_inner(claim)


_variable: ContextVar[Scope | None] = ContextVar("auditdb_context", default=None)


def current_claim(conn: object = None) -> Claim | None:
    """Return the claim in force in this task or thread, or None outside of every context.

    Args:
        conn: a connection. What it was sent by a block of its own it knows best: None as well.
    """
    scope = _variable.get()
    return None if scope is None or (conn is not None and scope.conn is conn) else scope.claim


class in_force:
    """Puts a scope in force for a block, and at its end what was before."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._token = _variable.set(self._scope)

    def __exit__(self, *error: object) -> None:
        # A framework may end a block in another copy of the context than it began it in, such as
        # FastAPI a synchronous dependency. Both copies end with the request.
        with suppress(ValueError):
            _variable.reset(self._token)

    async def __aenter__(self) -> NoReturn:
        raise TypeError("without a connection the context is `with`, also in asynchronous code")

    async def __aexit__(self, *error: object) -> None:
        """Never called."""


def in_scope(claim: Claim, conn: object = None) -> in_force:
    """Put a claim in force for a block, inside of the one that is.

    Args:
        claim: who acts.
        conn: the connection that it was sent to.
    """
    outer = current_claim()
    return in_force(Scope(claim if outer is None else outer.with_inner(claim), conn))


def update_context(**given: Unpack[ContextFields]) -> None:
    """Change the innermost context of this task or thread for the rest of its block.

    For what is known only later, such as the user of a request once it is authenticated. What was
    sent to a connection as a block of `auditdb.context(conn, ...)` stays as it is.

    Args:
        given: as in `auditdb.context`; what is not given stays.

    Raises:
        LookupError: no context is in force.
        TypeError: an argument is misspelt.
        InvalidInput: a value is invalid.

    Example:
        >>> with auditdb.context(source="api"):  # doctest: +SKIP
        ...     user = authenticate(request)
        ...     auditdb.update_context(actor_id=user.id)
    """
    claim = make_claim("update_context()", given)
    scope = _variable.get()
    if scope is None:
        raise LookupError(
            "no context is in force: use update_context inside of auditdb.context(), or in a "
            "request, whose application has the AuditMiddleware of auditdb.integrations"
        )
    scope.update(claim)
