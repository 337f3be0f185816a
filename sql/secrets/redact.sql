-- Redaction: removes secrets from texts, documents and bytes. audit_private.redact_text,
-- redact_bytes and redact_json raise for no value. If a value cannot be parsed and may hold a
-- secret, all of it is redacted: the detail is lost, but not the event.
-- Queries over a document keep their generic plan: planning costs more than running them.

-- Matches parts of keys of known shape, and the word "Bearer" before tokens.
create or replace function audit_private.may_hold_key(value text) returns boolean
language sql immutable parallel safe
return value collate "C" like any
    ('{%earer %,%eyJ%,"%\\_%",%A_IA%,%AIza%,%xox%,%glpat-%}');
comment on function audit_private.may_hold_key is
    'Whether a text may hold a key of a known shape, without a name';

-- The first check of a text, short so that it is inlined: a session keeps it for each column. It
-- looks for characters between a name and a secret: a colon, an equals sign, a tag, an option of a
-- command, bytes in hex, a list of pairs; and, in a text that is long enough, for a key. A long
-- text may be compressed, and each condition would decompress it again:
-- audit_private.redact_text() does it once.
create or replace function audit_private.may_hold_secret(value text) returns boolean
language sql immutable parallel safe
return octet_length(value) > 7 and (octet_length(value) > 2000
    or value collate "C" like any ('{%:%,%=%,%<%,%--%,"\\\\x%",[%[%}')
    or octet_length(value) > 17 and audit_private.may_hold_key(value));
comment on function audit_private.may_hold_secret is
    'Whether audit_private.redact_text may find a secret; '
    'false for most short texts, at hardly any cost';

-- The second check: every secret that is redacted comes with one of these words, in any case. Only
-- words: the states of a larger pattern cost more than the text.
create or replace function audit_private.secret_signs() returns text
language sql immutable parallel safe
return audit_private.secret_words()
    || '|begin|basic|-user|-u[ =]|@|\\u00|%[3-7]|sig|sid|ticket|state|nonce|sas|hmac|header'
    '|\\x|eyj|_live_|_test_|_prod_|ghp_|gho_|ghu_|ghs_|ghr_|glpat|npm_|whsec|xox|akia|asia|aiza';
comment on function audit_private.secret_signs is
    'Pattern, to match in any case, for texts and documents that must be searched for secrets';

-- Keys of known shapes, wherever they are.
create or replace function audit_private.key_shapes() returns text
language sql immutable parallel safe
return '\m(?:sk|rk|sbp|key|pat|api)_(?:live|test|prod)_[A-Za-z0-9]{10,}'
    '|\m(?:gh[pousr]|github_pat|glpat|npm|whsec)[_-][A-Za-z0-9_-]{16,}'
    '|\mxox[abeoprs]-[A-Za-z0-9-]{10,}|\m(?:AKIA|ASIA)[A-Z0-9]{16}|\mAIza[A-Za-z0-9_-]{30,}';
comment on function audit_private.key_shapes is
    'Pattern for keys of known shapes';

-- A value after a name: in quotes, in escaped quotes, or in brackets. No pattern finds the end of
-- brackets, so all the rest belongs to the value.
create or replace function audit_private.quoted_value() returns text
language sql immutable parallel safe
return '[bru]?"(?:[^"\\]|\\.|"")*(?:"|\\?$)|[bru]?''(?:[^''\\]|\\.|'''')*(?:''|\\?$)'
    '|\\+"(?:[^"]|"(?!\s*[,}\]]))*"?|\\+''(?:[^'']|''(?!\s*[,}\]]))*''?'
    '|(?!\[redacted\])[\[{(].*';
comment on function audit_private.quoted_value is
    'Pattern for a value in quotes or brackets';

-- The separator between a name and its value, and the value: in JSON, Python and hstore, in YAML
-- and headers, in settings and code, in XML.
create or replace function audit_private.assigned_value(tags boolean) returns text
language sql immutable parallel safe
return '(?:(\\*["'']\s*(?:=>|[:=])\s*)(' || audit_private.quoted_value() || '|[^\s,}\]"''\[{(]+)'
    || '|([ \t]*:[ \t]*)(' || audit_private.quoted_value()
    || '|(?:[|>][-+0-9]*)?[ \t]*(?:\r?\n[ \t]+[^\n]*)+|[^\s"''\[{(][^\r\n]*|\[redacted\])'
    || '|(\s*(?:=>|:=|={1,3})\s*)(' || audit_private.quoted_value()
    || '|[^\s"''\[{(]\S*|\[redacted\])'
    || case when tags
        then '|((?:\s[^<>]*)?>)((?:<!\[CDATA\[(?:[^\]]|\](?!\]>))*\]\]>|[^<])+|\s*<(?![/!]).*)'
        else '' end || ')';
comment on function audit_private.assigned_value is
    'Pattern for a separator and the value after a name';

create or replace function audit_private.find_names(value text, pattern text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
as $$
declare
    _names constant text[] := array(
        select name
        from (
            select distinct m[1]
            from regexp_matches(find_names.value collate "C", find_names.pattern, 'gi') as m
        ) as found (name)
        where audit_private.is_secret(name));
begin
    if cardinality(_names) > 100 then
        -- A pattern of so many names would take too long.
        raise exception using errcode = 'program_limit_exceeded';
    end if;
    return nullif(array_to_string(_names, '|'), '');
end
$$;
comment on function audit_private.find_names is
    'The names of secrets that a pattern finds in a text, as a pattern; they consist of letters, '
    'digits, "_" and "-". Raises if there are more than 100, '
    'so that audit_private.redact_text redacts the whole text';

create or replace function audit_private.percent_decode(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _hex text;
    _text text := percent_decode.value;
begin
    for _hex in
        select distinct m[1]
        from regexp_matches(percent_decode.value collate "C", '%([2-7][0-9a-fA-F])', 'g') as m
    loop
        _text := replace(_text, '%' || _hex, chr(get_byte(decode(_hex, 'hex'), 0)));
    end loop;
    return _text;
end
$$;
comment on function audit_private.percent_decode is
    'An address with its percent escapes of ASCII decoded';

create or replace function audit_private.redact_value(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
begin
    return case
        when value collate "C" ~* '^(?:null|none|nil|true|false|undefined|\[redacted\])?,?$'
            then value
        else coalesce(substring(value collate "C" from '^[bru]?\\*["'']'), '') || '[redacted]'
            || case when value collate "C" ~ '^[bru]?\\*["''].*["'']$'
                then substring(value collate "C" from '\\*["'']$') else '' end
    end;
end
$$;
comment on function audit_private.redact_value is
    'A redacted value in a text, in the quotes that it had; null, true and false stay';

create or replace function audit_private.redact_parameter(parts text[]) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _name text := case when parts[2] like '%\%%' then audit_private.percent_decode(parts[2])
        else parts[2] end;
    _plain text := case when parts[3] like '%\%%' then audit_private.percent_decode(parts[3]) end;
begin
    return parts[1] || parts[2] || '=' || case
        when parts[3] = '' then ''
        when audit_private.is_secret(_name)
            or audit_private.says_parameter(audit_private.normal_name(_name)) then '[redacted]'
        when _plain <> parts[3] and audit_private.redact_steps(_plain) <> _plain then '[redacted]'
        else parts[3] end;
end
$$;
comment on function audit_private.redact_parameter is
    'A parameter of an address (the text before it, its name, its value), '
    'redacted if it is a secret';

-- The texts between the matches, and the matches, alternate; both are counted from 1.
create or replace function audit_private.redact_addresses(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
    set plan_cache_mode = force_generic_plan
as $$
declare
    _pattern constant text := '([?&#;])([^\s?&#;=/"''<>\\]{1,200})=([^\s&#;"''<>\\]*)';
begin
    return (
        select string_agg(piece || coalesce(audit_private.redact_parameter(m), ''), '' order by n)
        from unnest(regexp_split_to_array(redact_addresses.value collate "C", _pattern))
                with ordinality as p (piece, n)
            left join regexp_matches(redact_addresses.value collate "C", _pattern, 'g')
                with ordinality as f (m, k) on k = n
    );
end
$$;
comment on function audit_private.redact_addresses is
    'A text with the secret parameters of its addresses redacted, also if they are escaped';

-- user[password]=x is a parameter even if nothing precedes it.
create or replace function audit_private.redact_brackets(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _names constant text := audit_private.find_names(redact_brackets.value, '\[([\w-]+)\]=');
begin
    return case when _names is null then redact_brackets.value else regexp_replace(
        redact_brackets.value collate "C", '(\[(?:' || _names || ')\]=)[^\s&#;"''<>\\]+',
        '\1[redacted]', 'gi') end;
end
$$;
comment on function audit_private.redact_brackets is
    'A text with the secrets under names in brackets redacted, as forms send them';

create or replace function audit_private.assignment_names(value text) returns text
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return audit_private.find_names(assignment_names.value, '\m((?:\w+-){0,4}\w+)(?:\\*["'']?\s*[=:>]'
    || case when assignment_names.value like '%<%>%'
        then '|\s[^<>\s]*=["''][^<>]*>)' else ')' end);
comment on function audit_private.assignment_names is
    'Names of secrets to which a text assigns a value, as a pattern';

create or replace function audit_private.redact_assignments(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
    set plan_cache_mode = force_generic_plan
as $$
declare
    _names constant text := audit_private.assignment_names(redact_assignments.value);
    _tags constant boolean := redact_assignments.value like '%<%>%';
    _pattern constant text :=
        '\m((?:' || _names || '))(?![\w-])' || audit_private.assigned_value(_tags);
    -- The name in a closing tag has no value. With this mark before it, it does not match as a
    -- word. A look-behind at each name would take as long as reading all of the text before it.
    _mark constant text := E'<\x02z';
    _text constant text := replace(redact_assignments.value, '</', _mark) collate "C";
begin
    if _names is null then
        return redact_assignments.value;
    elsif _tags and strpos(redact_assignments.value, E'\x02') > 0 then
        return '[redacted]';
    end if;
    return (
        select replace(string_agg(piece || coalesce(m[1] || coalesce(m[2], m[4], m[6], m[8])
            || audit_private.redact_value(coalesce(m[3], m[5], m[7], m[9])), ''), '' order by n),
            _mark, '</')
        from unnest(regexp_split_to_array(_text, _pattern, 'i')) with ordinality as p (piece, n)
            left join regexp_matches(_text, _pattern, 'gi') with ordinality as f (m, k) on k = n
    );
end
$$;
comment on function audit_private.redact_assignments is
    'A text with the values of secret names redacted';

create or replace function audit_private.before_pair() returns text
language sql immutable parallel safe
return '\m(?:name|key|header|field|k|parameter|id)\\*["'']?\s*(?:=>|[:=])\s*\\*["'']?';
comment on function audit_private.before_pair is
    'Pattern for the text before a name whose value has a name of its own';

-- A name and its value, each under a name of its own: {name: password, value: x}.
create or replace function audit_private.redact_pairs(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _head constant text := audit_private.before_pair();
    _names constant text := audit_private.find_names(redact_pairs.value, _head || '([\w.-]+)');
    _text text := redact_pairs.value collate "C";
begin
    if _names is null then
        return _text;
    elsif _text like '%<%>%' then
        -- <property name="password">x</property>
        _text := regexp_replace(_text, '(<[^<>]*' || _head || '(?:' || _names || ')\M[^<>]*[^<>/]>'
            '(?:\s*<value[^<>]*>)?)'
            '(?:\s*<!\[CDATA\[(?:[^\]]|\](?!\]>))*(?:\]\]>)?|(?!\s*<)[^<]+)',
            '\1[redacted]', 'gi');
    end if;
    return regexp_replace(_text,
        '(' || _head || '(?:' || _names || ')\\*["'']?\s*[,;]?\s*\\*["'']?'
        || '(?:value|val|v|content)\\*["'']?\s*(?:=>|[:=])\s*)(?:'
        || audit_private.quoted_value() || '|[^\s,}\]"''\[{(]+)', '\1[redacted]', 'gi');
end
$$;
comment on function audit_private.redact_pairs is
    'A text with the secrets redacted whose name and value stand side by side';

create or replace function audit_private.before_option() returns text
language sql immutable parallel safe
return '(?:^|[\s"''`=,;|&(\[{])--?';
comment on function audit_private.before_option is
    'Pattern for the beginning of an option of a command: a separator, then - or --';

-- Two numbers are a user and a group, and //host is an address.
create or replace function audit_private.user_option() returns text
language sql immutable parallel safe
return '(' || audit_private.before_option() || '(?:u|(?:proxy-)?user)(?:[ \t]*=[ \t]*|[ \t]+))'
    '(?:("[^":]+:)[^"]+|(''[^'':]+:)[^'']+'
    '|([^\s:"''/]+:)(?!//|[0-9]+(?:["''\s]|$))[^\s"'']+)';
comment on function audit_private.user_option is
    'Pattern for an option of a command that takes a user and a password in one word';

create or replace function audit_private.redact_options(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _names constant text := audit_private.find_names(
        redact_options.value, audit_private.before_option() || '(\w[\w-]*)\s');
begin
    return regexp_replace(case when _names is null then redact_options.value else regexp_replace(
        redact_options.value collate "C", '(' || audit_private.before_option() || '(?:' || _names
        || ')[ \t]+)'
        || '(?:"[^"]*"?|''[^'']*''?|[^\s"''-]\S*)', '\1[redacted]', 'gi') end collate "C",
        audit_private.user_option(), '\1\2\3\4[redacted]', 'g');
end
$$;
comment on function audit_private.redact_options is
    'A command with the values of secret options redacted';

-- If a setting is on a line of its own, the rest of the line is its value.
create or replace function audit_private.redact_lines(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _head constant text := '(?:^|[\r\n])[ \t]*(?:export[ \t]+|set[ \t]+|-[ \t]+)?';
    _names constant text := audit_private.find_names(
        redact_lines.value, _head || '([\w-]+)[ \t]*=');
begin
    return case when _names is null then redact_lines.value else regexp_replace(
        redact_lines.value collate "C", '(' || _head || '(?:' || _names || ')[ \t]*=[ \t]*)'
        || '([^\s"''=][^\r\n=]*)(?=[\r\n]|$)', '\1[redacted]', 'gi') end;
end
$$;
comment on function audit_private.redact_lines is
    'A text with the values of secret settings redacted that are on lines of their own';

create or replace function audit_private.redact_url(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _text text := redact_url.value;
begin
    if _text not like '%@%' then
        return _text;
    elsif length(_text) > 4000 then
        return '://[redacted]';
    end if;
    _text := regexp_replace(_text, '(://[^\s/?#@:"''<>]*:)(?!\[redacted\]@)'
        '(?:[^\s/?#"''<>]*@|(?![0-9]{1,5}[/?#])[^\s"''<>@]*@)', '\1[redacted]@', 'g');
    return regexp_replace(_text, '://[^\s/?#@:"''<>\[]{16,}@', '://[redacted]@', 'g');
end
$$;
comment on function audit_private.redact_url is
    'An address from its :// on, with the password or the token before its host redacted';

-- Each address is matched to its end at once:
-- searching "@" from each "://" of a long text may take hours.
create or replace function audit_private.redact_urls(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
    set plan_cache_mode = force_generic_plan
as $$
declare
    _pattern constant text := '(://[^\s"''<>]*)';
begin
    return (
        select string_agg(piece || coalesce(audit_private.redact_url(m[1]), ''), '' order by n)
        from unnest(regexp_split_to_array(redact_urls.value collate "C", _pattern))
                with ordinality as p (piece, n)
            left join regexp_matches(redact_urls.value collate "C", _pattern, 'g')
                with ordinality as f (m, k) on k = n
    );
end
$$;
comment on function audit_private.redact_urls is
    'A text with the passwords and tokens before the hosts of its addresses redacted';

-- The same conditions, without finding where a secret ends.
create or replace function audit_private.has_secret(value text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
begin
    return audit_private.assignment_names(value) is not null
        or audit_private.find_names(value, audit_private.before_pair() || '([\w-]+)') is not null
        or value like '%://%:%@%' or value ~ '-----BEGIN [A-Z0-9 ]*PRIVATE KEY'
        or value ~ audit_private.key_shapes() or value like '%eyJ%.%'
        or value ~* '\m(?:basic|bearer)\s+\S{6,}'
        or audit_private.find_names(value, '\[([\w-]+)\]=') is not null
        or audit_private.find_names(value, audit_private.before_option() || '(\w[\w-]*)\s')
            is not null
        or value ~ audit_private.user_option()
        or exists (
            select from regexp_matches(value, '[?&#;]([^\s?&#;=/"''<>\\]{1,200})=', 'g') as m
                cross join audit_private.percent_decode(m[1]) as name
            where audit_private.is_secret(name)
                or audit_private.says_parameter(audit_private.normal_name(name)));
end
$$;
comment on function audit_private.has_secret is
    'Whether a text that is too long to be redacted in parts may hold a secret';

create or replace function audit_private.redact_steps(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _text text := redact_steps.value collate "C";
begin
    if _text like '%-----BEGIN %' then
        _text := regexp_replace(_text, '-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----'
            '(?:[^-]|-(?!----END))*(?:-----END [A-Z0-9 ]*-----)?', '[redacted]', 'g');
    end if;
    if _text like '%://%@%' then
        _text := audit_private.redact_urls(_text);
    end if;
    _text := regexp_replace(_text, '\m(bearer|basic)(\s+)(?=[a-z]*[^a-z\s])[a-z0-9._~+/=-]{8,}',
        '\1\2[redacted]', 'gi');
    _text := regexp_replace(_text, audit_private.key_shapes(), '[redacted]', 'g');
    if _text like '%eyJ%' then
        -- Starts where a word starts: otherwise it would try each position of a long text.
        _text := regexp_replace(_text,
            '(^|[^A-Za-z0-9_-])(?:[A-Za-z0-9_-]*[_-])?eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+'
            '(?:\.[A-Za-z0-9_-]*)*', '\1[redacted]', 'g');
    end if;
    if _text like '%=%' then
        _text := audit_private.redact_addresses(_text);
        if _text like '%]=%' then
            _text := audit_private.redact_brackets(_text);
        end if;
        _text := audit_private.redact_lines(_text);
    end if;
    if _text like '%-%' then
        _text := audit_private.redact_options(_text);
    end if;
    return audit_private.redact_assignments(audit_private.redact_pairs(_text));
end
$$;
comment on function audit_private.redact_steps is
    'A text that is no JSON document, with its secrets redacted';

-- The text stays as it is if nothing was redacted, and if parsing lost nothing: of two values under
-- one name, a document keeps only the last.
create or replace function audit_private.redact_document(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _given jsonb;
    _node jsonb;
begin
    _given := redact_document.value::jsonb;
    _node := audit_private.redact_json(_given);
    return case when _node = _given and length(regexp_replace(_given::text, '\s', '', 'g'))
            = length(regexp_replace(redact_document.value, '\s', '', 'g'))
        then redact_document.value else _node::text end;
exception when assert_failure or others then
    -- Names may contain escapes, which only a parser decodes.
    return case when redact_document.value collate "C"
            ~ '\\u00(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])' then '[redacted]' end;
end
$$;
comment on function audit_private.redact_document is
    'A JSON text with its secrets redacted; null if it is no valid JSON';

create or replace function audit_private.redact_text(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _text text;
    _last text;
begin
    if octet_length(value) > 2000 then
        -- Decompresses the value, once.
        value := value || '';
    elsif value is null or not audit_private.may_hold_secret(value) then
        return value;
    end if;
    if octet_length(value) > 16000000 then
        return '[redacted]';
    elsif value collate "C" like '\\x%' and value collate "C" ~ '^\\x(?:[0-9a-fA-F]{2})*$' then
        return case audit_private.redact_bytes(decode(substr(value, 3), 'hex'))
            when '[redacted]' then '[redacted]' else value end;
    elsif value collate "C" !~* audit_private.secret_signs() then
        return value;
    end if;
    begin
        _text := case when value collate "C" ~ '^\s*[\[{"]'
            then audit_private.redact_document(value) end;
        if _text is not null then
            return _text;
        elsif octet_length(value) > 100000 then
            return case when audit_private.has_secret(value) then '[redacted]' else value end;
        end if;
        _text := value;
        -- What one step leaves, another may redact.
        for _n in 1 .. 5 loop
            _last := _text;
            _text := audit_private.redact_steps(_text);
            if _text = _last then
                return _text;
            end if;
        end loop;
        return '[redacted]';
    exception when assert_failure or others then
        return '[redacted]';
    end;
end
$$;
comment on function audit_private.redact_text is
    'A text with its secrets redacted: '
    'in JSON, addresses, assignments, headers, keys, bytes in hex';

-- Inlined into its callers: most short texts cost only a check.
create or replace function audit_private.safe_text(value text) returns text
language sql immutable parallel safe
return case when audit_private.may_hold_secret(value) then audit_private.redact_text(value)
    else value end;
comment on function audit_private.safe_text is
    'A text with its secrets redacted; the fast path for short texts without any';

-- Bytes are read as UTF-8; if invalid, with all but ASCII escaped and zeros left out,
-- which reads UTF-16 as well.
create or replace function audit_private.redact_bytes(value bytea) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _text text;
begin
    if octet_length(value) > 16000000 then
        return '[redacted]';
    end if;
    begin
        _text := convert_from(value, 'UTF8');
    exception when assert_failure or others then
        _text := replace(encode(value, 'escape'), '\000', '');
    end;
    return case when audit_private.redact_text(_text) is distinct from _text then '[redacted]'
        else '\x' || encode(value, 'hex') end;
exception when assert_failure or others then
    return '[redacted]';
end
$$;
comment on function audit_private.redact_bytes is
    'Bytes in hex, or "[redacted]" if they contain text with a secret';

-- The names of secrets in a document, so that each is judged only once, however often it occurs.
create or replace function audit_private.names_in(value jsonb) returns text[]
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
as $$
begin
    return array(
        select name
        from (
            select distinct k #>> '{}'
            from jsonb_path_query(names_in.value,
                '$.**{0 to 40} ? (@.type() == "object").keyvalue().key') as k
            -- Otherwise the planner would judge each name before it removes duplicates.
            offset 0
        ) as named (name)
        where audit_private.is_secret(name)
            or audit_private.says_headers(audit_private.normal_name(name))
    );
end
$$;
comment on function audit_private.names_in is
    'Names of secrets, and of headers, in the 40 upper levels of a document';

create or replace function audit_private.is_option(value jsonb) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
begin
    return jsonb_typeof(value) = 'string' and (value #>> '{}') collate "C" like '-%'
        and (value #>> '{}') collate "C" !~ '[=:\s]' and audit_private.is_secret(value #>> '{}');
end
$$;
comment on function audit_private.is_option is
    'Whether a value is an option of a command before a secret, such as --password';

create or replace function audit_private.redact_array(
    value jsonb,
    secrets text[],
    needles text[],
    depth int
)
returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
as $$
declare
    -- ["Authorization", "Bearer x"] in a list of pairs is a name and its value.
    _pair constant boolean := depth > 0 and jsonb_array_length(value) = 2
        and jsonb_typeof(value -> 0) = 'string' and audit_private.is_secret(value ->> 0);
begin
    return (
        select coalesce(jsonb_agg(case
            when jsonb_typeof(e) in ('null', 'boolean') then e
            when _pair and n = 2 then '"[redacted]"'
            when jsonb_typeof(e) = 'number' then e
            when jsonb_typeof(e) in ('object', 'array') then case
                when needles is null or e::text collate "C" like any (needles)
                    then audit_private.redact_node(e, secrets, needles, depth + 1, false) else e end
            when n > 1 and audit_private.is_option(value -> (n - 2)::int) then '"[redacted]"'
            when audit_private.may_hold_secret(e #>> '{}')
                then to_jsonb(audit_private.redact_text(e #>> '{}'))
            else e end order by n), '[]')
        from jsonb_array_elements(value) with ordinality as a (e, n)
    );
end
$$;
comment on function audit_private.redact_array is
    'An array within a document, with its secrets redacted';

create or replace function audit_private.redact_object(
    value jsonb,
    secrets text[],
    needles text[],
    depth int,
    header boolean
) returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
as $$
declare
    -- {"name": "password", "value": "x"}
    _pair constant boolean := value ?| '{value,val,v,content,Value,VALUE}' and exists (
        select from jsonb_each(value) as e (name, held)
        where lower(name) in ('name', 'key', 'header', 'field', 'k', 'parameter', 'id')
            and jsonb_typeof(held) = 'string' and audit_private.is_secret(held #>> '{}'));
begin
    return (
        select coalesce(jsonb_object_agg(name, case
            when jsonb_typeof(held) in ('null', 'boolean') then held
            when name = any (secrets) and audit_private.is_secret(name)
                or _pair and lower(name) in ('value', 'val', 'v', 'content')
                or header and not audit_private.says_harmless(audit_private.normal_name(name))
                then '"[redacted]"'
            when jsonb_typeof(held) in ('object', 'array') then case
                when needles is null or name = any (secrets)
                        or held::text collate "C" like any (needles)
                    then audit_private.redact_node(
                        held, secrets, needles, depth + 1, name = any (secrets))
                else held end
            when jsonb_typeof(held) = 'string' and audit_private.may_hold_secret(held #>> '{}')
                then to_jsonb(audit_private.redact_text(held #>> '{}'))
            else held end), '{}')
        from jsonb_each(value) as e (name, held)
    );
end
$$;
comment on function audit_private.redact_object is
    'An object within a document, with its secrets redacted; '
    'values of headers have rules of their own';

-- So that no document exhausts the stack:
-- below 40 levels, everything that may hold a secret is redacted.
create or replace function audit_private.redact_node(
    value jsonb,
    secrets text[],
    needles text[],
    depth int,
    header boolean
) returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return case
        when jsonb_typeof(value) = 'string' then to_jsonb(audit_private.redact_text(value #>> '{}'))
        when jsonb_typeof(value) not in ('object', 'array') then value
        when depth > 40 then case when value::text collate "C" ~* audit_private.secret_signs()
            then '"[redacted]"' else value end
        when jsonb_typeof(value) = 'array'
            then audit_private.redact_array(value, secrets, needles, depth)
        else audit_private.redact_object(value, secrets, needles, depth, header) end;
end
$$;
comment on function audit_private.redact_node is
    'A part of a document, with its secrets redacted; values of headers have rules of their own';

create or replace function audit_private.needles_in(value jsonb, secrets text[]) returns text[]
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _text constant text := value::text collate "C";
begin
    return case
        when jsonb_path_exists(value, '$.**{41}')
            or _text ~ '=|://|\\[\\u"nrt]|--|"-|<|[a-zA-Z0-9_''\s]:|eyJ|earer |_(?:live|test|prod)_'
                '|gh[pousr][_-]|github_pat|glpat|npm[_-]|whsec|xox|A[KS]IA|AIza'
            or _text ~* '"(?:value|val|v|content)": '
                and _text ~* '"(?:name|key|header|field|k|parameter|id)": "'
            or _text like '%["%' and exists (
                -- A pair in a list of pairs. Distinct, so that each name is judged once.
                select from (
                    select distinct m[1] from regexp_matches(_text, '\["([^"\\]+)", ', 'g') as m
                    offset 0
                ) as first (name) where audit_private.is_secret(name))
            or array_to_string(secrets, '') ~ '[\\"\x01-\x1f]'
            or cardinality(secrets) > 100
            then null
        else array(select '%"' || name || '"%' from unnest(secrets) as name) end;
end
$$;
comment on function audit_private.needles_in is
    'LIKE patterns for the parts of a document that hold a secret, for given names of secrets; '
    'null if any part may hold one';

create or replace function audit_private.redact_json(value jsonb) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _secrets text[];
    _needles text[];
    _small constant boolean := pg_column_size(value) < 16000000;
begin
    if _small and value::text collate "C" !~* audit_private.secret_signs() then
        return value;
    end if;
    begin
        _secrets := audit_private.names_in(value);
        _needles := case when _small then audit_private.needles_in(value, _secrets) end;
        return case when _needles = '{}' then value
            else audit_private.redact_node(value, _secrets, _needles, 0, false) end;
    exception when assert_failure or others then
        return '"[redacted]"';
    end;
end
$$;
comment on function audit_private.redact_json is
    'A document with its secrets redacted: values of secret names, and secrets within texts';

create or replace function audit_private.redact_details(value jsonb) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _redacted constant jsonb := audit_private.redact_json(value);
begin
    return case when jsonb_typeof(_redacted) = 'object' then _redacted
        else jsonb_build_object('all', _redacted) end;
end
$$;
comment on function audit_private.redact_details is
    'Details with their secrets redacted; still an object if all of it is redacted';

create or replace function audit_private.redact_byte_array(value bytea[]) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
    set bytea_output = hex
as $$
begin
    return audit_private.redact_json(to_jsonb(value));
end
$$;
comment on function audit_private.redact_byte_array is
    'A JSON array of bytes in hex, each as audit_private.redact_bytes() returns it';
