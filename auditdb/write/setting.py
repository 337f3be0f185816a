"""The statements that set a context and put back what was before, for every driver.

Each name says its schema: the session's search_path is the application's. JSON travels as text, so
that no driver's own idea of JSON matters.
"""

from __future__ import annotations

from typing import LiteralString

READ: LiteralString = "select pg_catalog.current_setting('auditdb.context', true) as before"
RESTORE: LiteralString = """
select pg_catalog.set_config('auditdb.context', coalesce(%(before)s, ''), true)
"""
# What `audit.set_context` does outside of a transaction, at less cost; no row for a login that may
# not call it. `%(setting)s` is that of a claim.
SET: LiteralString = """
select pg_catalog.set_config('auditdb.context', %(setting)s, true)
where pg_catalog.has_function_privilege(
    'audit.set_context(text, text, text, text, text, jsonb)', 'execute')
"""
# Outside of a transaction no context can be in force.
ENTER: LiteralString = """
select null as before,
    audit.set_context(%(actor_id)s, coalesce(%(actor_type)s, 'user'), %(impersonator_id)s,
        coalesce(%(source)s, 'web'), %(organization_id)s,
        case when cast(%(details)s as pg_catalog.text) operator(pg_catalog.<>) '{}'
            then cast(cast(%(details)s as pg_catalog.text) as pg_catalog.jsonb) end)
"""
# Inside of one, what is not given comes from the context in force, which only the server knows for
# certain: a savepoint that was rolled back, or SQL of the application, may have changed it.
ENTER_INNER: LiteralString = """
select before, audit.set_context(
    coalesce(%(actor_id)s, c operator(pg_catalog.->>) 'actor_id'),
    coalesce(%(actor_type)s, c operator(pg_catalog.->>) 'actor_type', 'user'),
    coalesce(%(impersonator_id)s, c operator(pg_catalog.->>) 'impersonator_id'),
    coalesce(%(source)s, c operator(pg_catalog.->>) 'source', 'web'),
    coalesce(%(organization_id)s, c operator(pg_catalog.->>) 'organization_id'),
    (
        select d
        from (
            select coalesce(c operator(pg_catalog.->) 'details', '{}') operator(pg_catalog.||)
                cast(cast(%(details)s as pg_catalog.text) as pg_catalog.jsonb) as d
        ) as merged
        where d operator(pg_catalog.<>) '{}'
    ))
from pg_catalog.current_setting('auditdb.context', true) as before, audit.current_context() as c
"""
