"""Sealing, verifying and proving run nothing of whoever may create objects in the path."""

from __future__ import annotations

from pathlib import Path

from auditdb.evidence.bundle import Bundler
from tests.conftest import Database
from tests.evidence.test_seal import Setting

# Better matches than PostgreSQL's own wherever public is in the path.
NEARER = """
create function public.caught() returns boolean language plpgsql as
    $$ begin raise exception 'shadowed: run as %', current_user; end $$;
create function public.to_json(date) returns json language sql
    as 'select public.caught()::text::json';
create function public.to_json(timestamptz) returns json language sql
    as 'select public.caught()::text::json';
create function public.array_position(int[], int) returns int language sql
    as 'select public.caught()::int';
create function public.contains(bigint[], bigint[]) returns boolean language sql
    as 'select public.caught()';
create operator public.@> (leftarg = bigint[], rightarg = bigint[], function = public.contains);
create function public.array_agg(bigint) returns bigint[] language sql
    as 'select array[public.caught()::int::bigint]';
"""


def test_who_may_create_functions_in_the_path_has_none_run_by_an_auditor(
    db: Database, tmp_path: Path
) -> None:
    setting = Setting(db, tmp_path)
    db.connect().execute("grant create on schema public to app_owner")
    db.connect("app_owner").execute(NEARER)
    setting.record(20)
    setting.sealer.run()
    assert setting.findings() == []
    bundler = Bundler(setting.auditor)
    assert bundler.bundle("o1", tmp_path / "bundle.zip") == 20
    ids = db.connect().execute("select min(id) from audit.event where organization_id = 'o1'")
    assert bundler.prove([ids.fetchall()[0][0]], tmp_path / "proof.zip") == 1
    assert setting.auditor.execute("show search_path").fetchone() == ('"$user", public',)
