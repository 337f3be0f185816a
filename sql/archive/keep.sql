-- What retention waits for when months are archived.

create or replace function audit_private.unarchived(month date, events bigint) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select format('keep %s: %s, or use force', to_char(unarchived.month, 'YYYY-MM'), case
        when a.restored_at is not null
            then 'it was restored from its archive: auditdb archive --restored lets it go'
        when a.state = 'dropped' then 'these events came after it was archived and dropped'
        when a.state is distinct from 'verified'
            then 'it is not archived yet: let auditdb archive run'
        else 'events of it came or changed since it was archived: let auditdb archive run' end)
    from (select) as one left join audit.archive as a on a.month = unarchived.month
    where exists (select from audit.archive) and (a.restored_at is not null
        or a.state is distinct from 'verified' or a.events <> unarchived.events);
$$;
comment on function audit_private.unarchived is
    'Why retention keeps a month: the archive lacks events of it, or it was restored; null if '
    'neither, or if no month is archived';

-- Without this check, the file would keep erased events for ever.
create or replace function audit_private.outdated(month date) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('keep %s: its archived file must be written again: let auditdb archive run',
        to_char(outdated.month, 'YYYY-MM'))
    from audit.archive as a
    where a.month = outdated.month and a.state in ('pending', 'written') and a.sha256 is not null);
comment on function audit_private.outdated is
    'Why retention keeps a month even with force: '
    'its file holds events that were changed since; null otherwise';

create or replace function audit_private.note_gone(month date) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    delete from audit.archive as a where a.month = note_gone.month and a.state = 'pending';
    update audit.archive as a
    set state = 'dropped', dropped_at = coalesce(a.dropped_at, now()), restored_at = null
    where a.month = note_gone.month;
$$;
comment on function audit_private.note_gone is
    'Notes for the archive that a month was dropped; forgets the month if it was never archived';
