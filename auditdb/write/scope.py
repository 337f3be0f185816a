"""The context variable, shared by all drivers and frameworks, a value for each task or thread."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import NoReturn, Unpack

from auditdb.write.claim import Claim, ContextFields, make_claim


class Scope:
    """What `with auditdb.context(...)` opens; threads and tasks begun inside of it share it.

    An integration whose claim is known late overrides `claim`, which is asked at each statement.
    """

    def __init__(self, claim: Claim, conn: object = None) -> None:
        self._claim = claim
        self.conn = conn
        """The connection that the claim was sent to, while the scope is a block of one."""

    @property
    def claim(self) -> Claim:
        """Who acts now."""
        return self._claim

    def update(self, claim: Claim) -> None:
        """Add or change values from now on."""
        self._claim = self._claim.with_inner(claim)


class _Entry:
    """A scope in force, and the scope around it."""

    __slots__ = ("has_ended", "outer", "owner", "scope", "token")

    def __init__(self, scope: Scope, owner: object, outer: _Entry | None) -> None:
        self.scope = scope
        self.owner = owner
        self.outer = outer
        self.token: Token[_Entry | None] | None = None
        self.has_ended = False


_variable: ContextVar[_Entry | None] = ContextVar("auditdb_context", default=None)


def _innermost() -> _Entry | None:
    entry = _variable.get()
    while entry is not None and entry.has_ended:
        entry = entry.outer
    return entry


def current_claim(conn: object = None) -> Claim | None:
    """Return the claim in force in this task or thread, or None outside of every context.

    Args:
        conn: a connection. What it was sent by a block of its own it knows best: None as well.
    """
    entry = _innermost()
    if entry is None or (conn is not None and entry.scope.conn is conn):
        return None
    return entry.scope.claim


def claim_within(conn: object, claim: Claim) -> Claim:
    """Return what a block on a connection tells the server: its claim, inside of what is in force.

    Args:
        conn: the connection, which keeps what it was sent itself.
        claim: that of the block.
    """
    outer = current_claim(conn)
    return claim if outer is None else outer.with_inner(claim)


class in_force:
    """Puts a scope in force for a block, and at its end what was before.

    It may be entered again, also by other threads and tasks meanwhile, and its blocks may end in
    another order than they began in, as those of generators do.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        entry = _Entry(self._scope, self, _innermost())
        entry.token = _variable.set(entry)

    def __exit__(self, *error: object) -> None:
        last = entry = _variable.get()
        while entry is not None and (entry.has_ended or entry.owner is not self):
            entry = entry.outer
        # A framework may end a block in another copy of the context, as FastAPI does for
        # synchronous dependencies. All copies end with the request.
        if entry is None:
            return
        # A pool may lend the connection to a task that was begun inside.
        entry.scope.conn = None
        token, entry.token = entry.token, None
        try:
            if entry is last and token is not None:
                _variable.reset(token)
                return
        except ValueError:
            # The event loop ends a generator that was left in a task of its own.
            pass
        entry.has_ended = True

    async def __aenter__(self) -> NoReturn:
        raise TypeError("without a connection, write `with`, also in asynchronous code")

    async def __aexit__(self, *error: object) -> None:
        """Never called."""


class in_scope(in_force):
    """Puts a claim in force for a block, inside of the one that is.

    Args:
        claim: who acts.
        conn: the connection that it was sent to.
    """

    __slots__ = ("_claim", "_conn")

    def __init__(self, claim: Claim, conn: object = None) -> None:
        self._claim = claim
        self._conn = conn

    def __enter__(self) -> None:
        outer = current_claim()
        claim = self._claim if outer is None else outer.with_inner(self._claim)
        entry = _Entry(Scope(claim, self._conn), self, _innermost())
        entry.token = _variable.set(entry)


class in_turns:
    """Puts a scope in force while a stream makes a part, with the blocks the stream is within."""

    __slots__ = ("_entry", "_token")

    def __init__(self, scope: Scope) -> None:
        self._entry: _Entry | None = _Entry(scope, self, None)

    def __enter__(self) -> None:
        self._token = _variable.set(self._entry)

    def __exit__(self, *error: object) -> None:
        self._entry = _variable.get()
        _variable.reset(self._token)


class before_now:
    """Puts in force for a block what is in force when this is made."""

    __slots__ = ("_entry", "_token")

    def __init__(self) -> None:
        self._entry = _variable.get()

    def __enter__(self) -> None:
        self._token = _variable.set(self._entry)

    def __exit__(self, *error: object) -> None:
        _variable.reset(self._token)


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
    entry = _innermost()
    if entry is None:
        raise LookupError(
            "no context is in force: use update_context inside of auditdb.context(), or in a "
            "request, whose application has the AuditMiddleware of auditdb.integrations"
        )
    entry.scope.update(claim)
