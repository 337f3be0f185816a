-- Grants: the one place that opens anything. Everything is closed to PUBLIC first.

do $$
begin
    -- Code of the application meets these: it may not run as audit_owner.
    grant create on schema audit to audit_mapper;
    alter function audit.rescue(text, anyelement, anyelement, jsonb, text) owner to audit_mapper;
    alter function audit.examine(regclass, text, text) owner to audit_mapper;
    alter function audit.try_expression(regclass, text, text) owner to audit_mapper;
    revoke create on schema audit from audit_mapper;
end
$$;

alter default privileges for role audit_owner revoke execute on functions from public;
revoke all on all tables in schema audit from public;
revoke all on all sequences in schema audit from public;
revoke all on all functions in schema audit from public;
revoke usage on type audit.fact, audit.finding from public;
-- What somebody granted by hand does not outlive an upgrade.
revoke all on all tables in schema audit
    from audit_operator, audit_writer, audit_reader, audit_auditor;
revoke all on all functions in schema audit
    from audit_operator, audit_writer, audit_reader, audit_auditor;

grant usage on schema audit to audit_mapper, audit_operator, audit_writer, audit_reader,
    audit_auditor;

-- audit_mapper: what the fallback and the check of an expression are made of.
grant execute on function
    audit.rescue(text, anyelement, anyelement, jsonb, text),
    audit.examine(regclass, text, text),
    audit.try_expression(regclass, text, text)
    to audit_owner;
grant execute on function
    audit.read_row(anyelement),
    audit.evaluate(text, anyelement),
    audit.evaluate_each(jsonb, anyelement, anyelement, text, text[]),
    audit.changed_among(text[], anyelement, anyelement),
    audit.images_of(jsonb, text, jsonb, jsonb, text[], text[]),
    audit.redact(jsonb, jsonb, text[]),
    audit.holds(text, text[]),
    audit.parse_expression(regclass, text, text),
    audit.probe(regclass, text, text, text, text),
    audit.action_of(jsonb, text, boolean, boolean, text, text)
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
    audit.viewer_organization(), audit.viewer_start(), audit.version()
    to audit_reader;
-- Which events are a former organisation's.
grant select on audit.organization_start to audit_auditor;
grant execute on function
    audit.list_tables(), audit.list_partitions(), audit.list_members(), audit.version()
    to audit_auditor;
grant select on audit.attachment, audit.kind to audit_auditor;

-- audit_operator: attach and detach run as the table's owner and call these on the way.
grant select on audit.attachment, audit.action, audit.kind, audit.migration to audit_operator;
grant insert on audit.request to audit_operator;
grant execute on function
    audit.attach(regclass, text, text, text, text, text, text, text, text, text[], text[], text,
        text, text),
    audit.detach(regclass),
    audit.refuse_target(regclass, text),
    audit.resolve_mapping(regclass, text, jsonb),
    audit.check_options(regclass, text, jsonb),
    audit.kind_of(text),
    audit.default_verbs(text),
    audit.default_options(),
    audit.verbs_of(audit.kind),
    audit.facts_of(audit.kind, regclass),
    audit.check_kind_name(text),
    audit.define_kind(text, text, jsonb, jsonb, text, text, text[]),
    audit.user_facts(regclass, jsonb),
    audit.column_like(regclass, text[]),
    audit.over_row(regclass, text),
    audit.name_of(regclass, text),
    audit.key_of(regclass),
    audit.key_columns(regclass),
    audit.key_form(oid, text),
    audit.secret_columns(regclass, text),
    audit.default_alive(regclass),
    audit.default_admin(regclass, text),
    audit.parent_organization(regclass, text, text),
    audit.attach_given(regclass, text, jsonb),
    audit.prepare_attach(regclass, text, jsonb),
    audit.open_schemas(regclass, jsonb),
    audit.open_lookups(regclass),
    audit.open_lookup(regclass, text[], oid),
    audit.close_lookups(regclass),
    audit.trigger_function(int, text),
    audit.create_trigger(regclass, int, text),
    audit.create_triggers(regclass, int),
    audit.forget(regclass),
    audit.define_action(text, text),
    audit.create_key(interval),
    audit.list_keys(),
    audit.create_months(int),
    audit.maintain(interval, int),
    audit.list_tables(),
    audit.list_partitions(),
    audit.list_members(),
    audit.version()
    to audit_operator;

-- Whoever takes secrets out of values; audit.is_secret alone is asked for more.
grant execute on function
    audit.secret_words(), audit.normal_name(text), audit.is_secret(text), audit.says_harmless(text),
    audit.says_headers(text), audit.says_parameter(text)
    to audit_mapper, audit_operator;
grant execute on function
    audit.may_hold_key(text), audit.may_hold_secret(text), audit.secret_signs(),
    audit.key_shapes(), audit.quoted_value(), audit.assigned_value(boolean),
    audit.assignment_names(text), audit.before_option(), audit.before_pair(),
    audit.redact_url(text), audit.redact_urls(text), audit.has_secret(text),
    audit.find_names(text, text), audit.percent_decode(text),
    audit.redact_value(text), audit.redact_parameter(text[]), audit.redact_addresses(text),
    audit.redact_brackets(text), audit.redact_assignments(text),
    audit.redact_pairs(text), audit.redact_options(text), audit.redact_lines(text),
    audit.redact_steps(text), audit.redact_document(text), audit.redact_text(text),
    audit.redact_bytes(bytea), audit.names_in(jsonb), audit.is_option(jsonb),
    audit.redact_array(jsonb, text[], text[], int),
    audit.redact_object(jsonb, text[], text[], int, boolean),
    audit.redact_node(jsonb, text[], text[], int, boolean),
    audit.needles_in(jsonb, text[]), audit.redact_json(jsonb)
    to audit_mapper;
grant execute on function
    audit.base_type(oid), audit.is_store(regclass, text), audit.is_harmless_type(oid),
    audit.holds_hash(regclass, int2), audit.is_secret_column(regclass, int2, boolean, boolean),
    audit.says_store(text), audit.says_store_with_a_secret(text), audit.says_connector(text),
    audit.says_settings(text), audit.secret_columns(regclass, text)
    to audit_operator;

-- The attestation says what was set up, and no secret.
grant select on audit.attestation to audit_operator, audit_auditor;
grant usage on type audit.finding to audit_operator, audit_auditor;
grant execute on function audit.doctor() to audit_operator, audit_auditor;
grant execute on function
    audit.attest(regclass),
    audit.reattach(regclass),
    audit.attach_command(text, text, jsonb),
    audit.mend_guards(),
    audit.mend_columns()
    to audit_operator;
