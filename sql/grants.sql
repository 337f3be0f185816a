-- Grants: the one place that opens anything. Everything is closed to PUBLIC first.

do $$
begin
    -- Code of the application meets these: it may not run as audit_owner.
    grant create on schema audit_private to audit_mapper;
    alter function audit_private.rescue(text, anyelement, anyelement, jsonb, text) owner to audit_mapper;
    alter function audit_private.examine(regclass, text, text) owner to audit_mapper;
    alter function audit_private.try_expression(regclass, text, text) owner to audit_mapper;
    revoke create on schema audit_private from audit_mapper;
end
$$;

alter default privileges for role audit_owner revoke execute on functions from public;
revoke all on all tables in schema audit, audit_private from public;
revoke all on all sequences in schema audit, audit_private from public;
revoke all on all functions in schema audit, audit_private from public;
revoke usage on type audit_private.fact, audit.finding from public;
-- What somebody granted by hand does not outlive an upgrade.
revoke all on all tables in schema audit, audit_private
    from audit_operator, audit_writer, audit_reader, audit_auditor;
revoke all on all functions in schema audit, audit_private
    from audit_operator, audit_writer, audit_reader, audit_auditor;

revoke all on schema audit, audit_private
    from audit_mapper, audit_operator, audit_writer, audit_reader, audit_auditor;
grant usage on schema audit to audit_operator, audit_writer, audit_reader, audit_auditor;
grant usage on schema audit_private to audit_mapper, audit_operator, audit_auditor;

-- audit_mapper: what the fallback and the check of an expression are made of.
grant execute on function
    audit_private.rescue(text, anyelement, anyelement, jsonb, text),
    audit_private.examine(regclass, text, text),
    audit_private.try_expression(regclass, text, text)
    to audit_owner;
grant execute on function
    audit_private.read_row(anyelement),
    audit_private.evaluate(text, anyelement),
    audit_private.evaluate_each(jsonb, anyelement, anyelement, text, text[]),
    audit_private.changed_among(text[], anyelement, anyelement),
    audit_private.images_of(jsonb, text, jsonb, jsonb, text[], text[]),
    audit_private.redact(jsonb, jsonb, text[]),
    audit_private.holds(text, text[]),
    audit_private.parse_expression(regclass, text, text),
    audit_private.probe(regclass, text, text, text, text),
    audit_private.action_of(jsonb, text, boolean, boolean, text, text)
    to audit_mapper;

grant execute on function
    audit.set_context(text, text, text, text, text, jsonb),
    audit.clear_context(),
    audit.current_context(),
    audit.record_event(text, text, text, text, text, text, text, text, text, text, jsonb, jsonb,
        jsonb),
    audit.version()
    to audit_writer;

grant select on
    audit.event, audit.action,
    audit.log, audit.auth_log, audit.membership_log, audit.api_key_log, audit.workflow_log,
    audit.role_change, audit.impersonation, audit.api_key_lifecycle, audit.login_activity
    to audit_reader, audit_auditor;
grant execute on function
    audit.viewer_organization(), audit_private.viewer_start(), audit.version()
    to audit_reader;
-- Which events are a former organisation's.
grant select on audit_private.organization_start to audit_auditor;
grant execute on function
    audit.list_tables(), audit.list_partitions(), audit.list_members(), audit.version()
    to audit_auditor;
grant select on audit_private.attachment, audit.kind to audit_auditor;

-- audit_operator: attach and detach run as the table's owner and call these on the way.
grant select on audit_private.attachment, audit.action, audit.kind, audit_private.migration to audit_operator;
grant insert on audit_private.request to audit_operator;
grant execute on function
    audit.attach(regclass, text, text, text, text, text, text, text, text, text[], text[], text,
        text, text),
    audit.detach(regclass),
    audit_private.refuse_target(regclass, text),
    audit_private.resolve_mapping(regclass, text, jsonb),
    audit_private.check_options(regclass, text, jsonb),
    audit_private.kind_of(text),
    audit_private.default_verbs(text),
    audit_private.default_options(),
    audit_private.verbs_of(audit.kind),
    audit_private.facts_of(audit.kind, regclass),
    audit_private.check_kind_name(text),
    audit.define_kind(text, text, jsonb, jsonb, text, text, text[]),
    audit_private.user_facts(regclass, jsonb),
    audit_private.column_like(regclass, text[]),
    audit_private.over_row(regclass, text),
    audit_private.name_of(regclass, text),
    audit_private.key_of(regclass),
    audit_private.key_columns(regclass),
    audit_private.key_form(oid, text),
    audit_private.secret_columns(regclass, text),
    audit_private.default_alive(regclass),
    audit_private.default_admin(regclass, text),
    audit_private.parent_organization(regclass, text, text),
    audit_private.attach_given(regclass, text, jsonb),
    audit_private.prepare_attach(regclass, text, jsonb),
    audit_private.open_schemas(regclass, jsonb),
    audit_private.open_lookups(regclass),
    audit_private.open_lookup(regclass, text[], oid),
    audit_private.close_lookups(regclass),
    audit_private.trigger_function(int, text),
    audit_private.create_trigger(regclass, int, text),
    audit_private.create_triggers(regclass, int),
    audit_private.forget(regclass),
    audit.define_action(text, text),
    audit.create_key(interval),
    audit.list_keys(),
    audit_private.create_months(int),
    audit.maintain(interval, int),
    audit.list_tables(),
    audit.list_partitions(),
    audit.list_members(),
    audit.version()
    to audit_operator;

-- Whoever takes secrets out of values; audit_private.is_secret alone is asked for more.
grant execute on function
    audit_private.secret_words(), audit_private.normal_name(text), audit_private.is_secret(text), audit_private.says_harmless(text),
    audit_private.says_headers(text), audit_private.says_parameter(text)
    to audit_mapper, audit_operator;
grant execute on function
    audit_private.may_hold_key(text), audit_private.may_hold_secret(text), audit_private.secret_signs(),
    audit_private.key_shapes(), audit_private.quoted_value(), audit_private.assigned_value(boolean),
    audit_private.assignment_names(text), audit_private.before_option(), audit_private.before_pair(),
    audit_private.redact_url(text), audit_private.redact_urls(text), audit_private.has_secret(text),
    audit_private.find_names(text, text), audit_private.percent_decode(text),
    audit_private.redact_value(text), audit_private.redact_parameter(text[]), audit_private.redact_addresses(text),
    audit_private.redact_brackets(text), audit_private.redact_assignments(text),
    audit_private.redact_pairs(text), audit_private.redact_options(text), audit_private.redact_lines(text),
    audit_private.redact_steps(text), audit_private.redact_document(text), audit_private.redact_text(text),
    audit_private.redact_bytes(bytea), audit_private.names_in(jsonb), audit_private.is_option(jsonb),
    audit_private.redact_array(jsonb, text[], text[], int),
    audit_private.redact_object(jsonb, text[], text[], int, boolean),
    audit_private.redact_node(jsonb, text[], text[], int, boolean),
    audit_private.needles_in(jsonb, text[]), audit_private.redact_json(jsonb)
    to audit_mapper;
grant execute on function
    audit_private.base_type(oid), audit_private.is_store(regclass, text), audit_private.is_harmless_type(oid),
    audit_private.holds_hash(regclass, int2), audit_private.is_secret_column(regclass, int2, boolean, boolean),
    audit_private.says_store(text), audit_private.says_store_with_a_secret(text), audit_private.says_connector(text),
    audit_private.says_settings(text), audit_private.secret_columns(regclass, text)
    to audit_operator;

-- The attestation says what was set up, and no secret.
grant select on audit_private.attestation to audit_operator, audit_auditor;
grant usage on type audit.finding to audit_operator, audit_auditor;
grant execute on function audit.doctor() to audit_operator, audit_auditor;
grant execute on function
    audit.attest(regclass),
    audit.reattach(regclass),
    audit_private.attach_command(text, text, jsonb),
    audit.mend_guards(),
    audit.mend_columns()
    to audit_operator;
