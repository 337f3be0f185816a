-- Image: what capture would show of an existing row, to compare rows with their events. Each table
-- has a generated function for it, audit_private.image_<id>, which writes nothing.

-- The identifier of a row: the key of a child row, otherwise the target of its events.
create or replace function audit_private.row_part(mapping jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return case when mapping ? 'row_id' then 'row_id' when mapping ? 'target_id' then 'target_id' end;
comment on function audit_private.row_part is
    'Which identifier of a mapping tells one row from another; null if there is none';

-- Never a digest: a caller could try values until one of them gives a digest that they know.
create or replace function audit_private.open_name_code(mapping jsonb, part text) returns text
language sql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
return (
    select case
        when part is null or mapping -> 'digest' ? part then 'null'
        when not mapping -> 'long' ? part then code
        else format(E'case\n            when octet_length(%1$s) > 200'
            ' then audit_private.refuse_long()\n'
            '            when audit_private.safe_name(%1$s, %2$s) = %1$s then %1$s\n        end',
            code, audit_private.secrets_code(mapping, 'INSERT')) end
    from audit_private.part_code(mapping, part, 'new') as code
);
comment on function audit_private.open_name_code is
    'Generated expression for an identifier; null if it is a secret or contains one';

-- Reads a row as capture reads an INSERT: the same code, and the same fallback.
create or replace function audit_private.row_code(id int, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format($sql$
declare
    _id text;
    _new jsonb;
    _said jsonb;
    _locks text[];
    _is_read boolean;%s
begin
    begin%s%s%s
        _new := %s;
        _id := %s;
        _is_read := true;
        raise sqlstate 'AU001';
    exception
        when query_canceled then
            perform audit_private.release_locks(_locks);
            raise;
        when assert_failure or others then
            perform audit_private.release_locks(_locks);
            if _is_read is null then
                _said := audit_private.fall_back_%s('INSERT', old, new, sqlstate);
                return audit_private.said_image(_said, %L);
            end if;
    end;
    return jsonb_build_object('id', _id, 'row', _new);
end$sql$,
        case when is_raw then E'\n    _after text[];' end,
        audit_private.shape_code(mapping, 'new'),
        E'\n        _locks := case when ' || audit_private.foreign_code(mapping)
            || ' then audit_private.held_locks() end;',
        case when is_raw then audit_private.read_call_code(id, mapping, 'INSERT') end,
        audit_private.image_code(mapping, 'new'), audit_private.open_name_code(mapping, part),
        id, part)
    from audit_private.row_part(mapping) as part
        cross join lateral (
            select mapping -> 'raw' ? part
                or mapping -> 'raw' @? '$[*] ? (@ starts with "column ")') as r (is_raw)
);
comment on function audit_private.row_code is
    'Body of audit_private.image_<id>: what the event of an INSERT of this row would show';

create or replace function audit_private.said_image(said jsonb, part text) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return jsonb_build_object(
    -- The last resort does not know which identifiers are digests.
    'id', case when said ? 'digest'
        and not coalesce(nullif(said -> 'digest', 'null') ? (part || '.new'), false)
        then said #>> array['said', part || '.new'] end,
    'row', said -> 'new_values',
    'lost', coalesce(said #> '{degraded,lost}', '[]')
        || coalesce(said #> '{degraded,as_text}', '[]'));
comment on function audit_private.said_image is
    'The image of a row that audit_private.fall_back() read, to compare it with its events';
