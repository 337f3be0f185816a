-- Grants: the only file that gives privileges. Everything is revoked from PUBLIC first.

do $$
begin
    -- Functions that may run code of the application: they must not run as audit_owner.
    grant create on schema audit_private to audit_mapper;
    alter function audit_private.rescue owner to audit_mapper;
    alter function audit_private.examine owner to audit_mapper;
    alter function audit_private.try_expression owner to audit_mapper;
end
$$;

alter default privileges for role audit_owner revoke execute on functions from public;
revoke all on all tables in schema audit, audit_private from public;
revoke all on all sequences in schema audit, audit_private from public;
revoke all on all functions in schema audit, audit_private from public;
revoke usage on type audit_private.fact, audit.finding from public;
-- Grants that somebody made by hand do not survive an upgrade.
revoke all on all tables in schema audit, audit_private
    from audit_operator, audit_writer, audit_reader, audit_auditor, audit_backup;
revoke all on all sequences in schema audit, audit_private
    from audit_operator, audit_writer, audit_reader, audit_auditor, audit_backup;
revoke all on all functions in schema audit, audit_private
    from audit_operator, audit_writer, audit_reader, audit_auditor, audit_backup;

-- Also revokes the right to create, which audit_mapper was given for a moment.
revoke all on schema audit, audit_private
    from audit_mapper, audit_operator, audit_writer, audit_reader, audit_auditor, audit_backup;
grant usage on schema audit
    to audit_operator, audit_writer, audit_reader, audit_auditor, audit_backup;
-- Readers call the functions that audit.events_since uses.
grant usage on schema audit_private
    to audit_mapper, audit_operator, audit_reader, audit_auditor, audit_backup;

-- audit_mapper: the functions that the fallback and the check of an expression use.
grant execute on function
    audit_private.rescue, audit_private.examine, audit_private.try_expression
    to audit_owner;
grant execute on function
    audit_private.read_row, audit_private.evaluate, audit_private.evaluate_each,
    audit_private.changed_among, audit_private.images_of, audit_private.redact, audit_private.holds,
    audit_private.parse_expression, audit_private.probe, audit_private.called_functions,
    audit_private.action_of, audit_private.holds_row, audit_private.degraded,
    audit_private.read_change, audit_private.handed_of, audit_private.handed_parts,
    audit_private.late_values
    to audit_mapper;

grant execute on function
    audit.set_context, audit.clear_context, audit.current_context, audit.record_event, audit.version
    to audit_writer;

grant select on
    audit.event, audit.action,
    audit.log, audit.auth_log, audit.membership_log, audit.api_key_log, audit.workflow_log,
    audit.role_change, audit.impersonation, audit.api_key_lifecycle, audit.login_activity,
    audit.failed_login, audit.denied_attempt, audit.login_burst, audit.unusual_login,
    audit.new_owner, audit.open_impersonation, audit.old_api_key
    to audit_reader, audit_auditor;
grant execute on function
    audit.viewer_organization, audit_private.viewer_start, audit.version
    to audit_reader;
grant execute on function audit.canonical, audit_private.canonical_time
    to audit_reader, audit_auditor;
grant execute on function
    audit.record_reading, audit.viewer_problem, audit.list_logged, audit_private.visible_since,
    audit_private.called, audit_private.names_owner, audit_private.gives_owner,
    audit_private.archived_months
    to audit_reader, audit_auditor;
-- Ticks show how much every organisation writes.
grant select on audit.series, audit.tick, audit.tick_month to audit_auditor;
grant select on audit.series to audit_reader;
grant execute on function
    audit.viewer_organization, audit.events_since, audit_private.refuse_batch,
    audit_private.refuse_reading, audit_private.try_tick,
    audit_private.tick_parts, audit_private.last_cursor, audit_private.tick_cursor,
    audit_private.filter_condition, audit_private.part_events
    to audit_reader, audit_auditor;
grant execute on function audit.make_tick to audit_operator, audit_auditor;
-- A subscription sends events away, so only a role that may read them makes one.
grant select on audit.subscription to audit_operator, audit_auditor;
grant execute on function
    audit.subscribe, audit.reset_subscription, audit_private.begin_exporting,
    audit_private.exporter_lock,
    audit_private.claim_batches, audit_private.finish_batch, audit_private.leave_batch,
    audit_private.advance_subscriptions, audit_private.set_event_aside,
    audit_private.place_cursor, audit_private.parts_between, audit_private.part_query,
    audit_private.line_of,
    audit_private.read_batch, audit_private.last_tick, audit_private.skip_hidden_everywhere
    to audit_auditor;
grant execute on function
    audit.pause_subscription, audit.resume_subscription, audit.drop_subscription,
    audit.list_subscriptions, audit.list_set_aside
    to audit_operator, audit_auditor;
-- A sealer is an auditor, because it reads everything. A verifier trusts nothing that it writes.
grant select on audit.seal, audit.tile, audit.checkpoint, audit.key_rotation,
    audit.organization_seal, audit.sealed_organization
    to audit_auditor;
grant execute on function
    audit.seal_next, audit_private.keep_tiles, audit_private.keep_checkpoint,
    audit_private.keep_rotation,
    audit_private.month_of, audit_private.has_month, audit_private.refuse_restored
    to audit_auditor;
-- Not for operators, whose own acts may be in the log.
grant select on audit.erasure to audit_auditor;
grant execute on function
    audit.erase, audit.list_personal, audit.personal_events, audit.list_mentions,
    audit_private.is_of_person, audit_private.is_erased, audit_private.series_of
    to audit_auditor;
-- Archiving reads everything and drops months: it needs both roles.
grant select on audit.archive to audit_operator, audit_auditor;
grant select on audit.archive_erasure to audit_auditor;
grant execute on function audit.list_archive, audit.count_archive_erasures to audit_auditor;
grant execute on function
    audit.move_archive, audit_private.begin_archive, audit_private.note_written,
    audit_private.note_verified, audit_private.note_lost, audit_private.drop_archived,
    audit_private.begin_restore, audit_private.take_back, audit_private.finish_restore
    to audit_operator;
grant execute on function
    audit_private.begin_archive_erasure, audit_private.note_rewritten,
    audit_private.finish_archive_erasure
    to audit_auditor;
-- Operators may not release a legal hold.
grant select on audit.legal_hold, audit.visible_retention to audit_operator, audit_auditor;
grant execute on function audit.hold_organization, audit.release_organization to audit_auditor;
grant execute on function audit.limit_visibility to audit_operator;
-- Each of these requires the token of an admin.
grant execute on function
    audit.create_stream, audit.list_streams, audit.pause_stream, audit.resume_stream,
    audit.drop_stream
    to audit_reader;
-- Shows which events belong to a former organisation of the same identifier.
grant select on audit_private.organization_start to audit_auditor;
grant execute on function
    audit.list_tables, audit.list_partitions, audit.list_members, audit.list_limits,
    audit.list_settings, audit.metrics, audit.version
    to audit_auditor;
grant select on audit_private.attachment, audit.kind to audit_auditor;
-- The functions that reconciling calls.
grant execute on function
    audit_private.describe_rows, audit_private.foreign_to_plan, audit_private.table_name,
    audit_private.is_there
    to audit_auditor;

-- pg_dump reads each table by itself, also months that are created later.
grant select on all tables in schema audit, audit_private to audit_backup;
grant select on all sequences in schema audit, audit_private to audit_backup;
alter default privileges for role audit_owner in schema audit
    grant select on tables to audit_backup;

-- audit_operator: attach and detach run as the table's owner and call these on the way.
grant select on audit_private.attachment, audit.action, audit.kind, audit_private.migration
    to audit_operator;
grant insert on audit_private.request to audit_operator;
grant execute on function
    audit.attach, audit.detach, audit.baseline, audit_private.walk_key,
    audit_private.walk_query, audit_private.block_query, audit_private.record_page,
    audit_private.foreign_to_plan, audit_private.is_own, audit_private.read_rows,
    audit_private.refuse_target, audit_private.target_problem,
    audit_private.is_system_schema,
    audit_private.resolve_mapping,
    audit_private.check_options, audit_private.kind_of, audit_private.default_verbs,
    audit_private.default_options, audit_private.verbs_of, audit_private.facts_of,
    audit_private.check_kind_name, audit.define_kind, audit_private.user_facts,
    audit_private.fact_column, audit_private.fact_columns, audit_private.check_generated,
    audit_private.mapped_verbs, audit_private.default_role, audit_private.column_like,
    audit_private.over_row, audit_private.name_of, audit_private.key_of, audit_private.key_columns,
    audit_private.key_form, audit_private.secret_columns, audit_private.parent_organization,
    audit_private.words, audit_private.label_words, audit_private.columns_of,
    audit_private.labels_of,
    audit_private.labels_that, audit_private.one_of, audit_private.status_of,
    audit_private.has_password, audit_private.is_factor, audit_private.token_column,
    audit_private.default_alive, audit_private.unexpired, audit_private.admin_among,
    audit_private.admin_names,
    audit_private.role_scope, audit_private.is_permission_set, audit_private.named_role,
    audit_private.policy_admin, audit_private.referring_tables,
    audit_private.organization_word, audit_private.is_constant, audit_private.in_no_part,
    audit_private.accepted, audit_private.admin_labels,
    audit_private.are_roles, audit_private.any_admin, audit_private.role_column,
    audit_private.role_flags, audit_private.role_of, audit_private.linked_role,
    audit_private.given_role, audit_private.carriers_of, audit_private.carried_role,
    audit_private.named_owner, audit_private.links_of, audit_private.have_one_owner,
    audit_private.named_table, audit_private.is_named_as, audit_private.are_alike,
    audit_private.lookup,
    audit_private.parent_link,
    audit_private.tables_named, audit_private.undeclared_links, audit_private.admin_conditions,
    audit_private.owners_of, audit_private.owned_organization,
    audit_private.above_group, audit_private.referred_part, audit_private.users_own_organization,
    audit_private.named_organization, audit_private.first_of, audit_private.organization_way,
    audit_private.own_organization, audit_private.group_organizations, audit_private.user_column,
    audit_private.may_name_user,
    audit_private.members_of, audit_private.first_membership, audit_private.user_organization,
    audit_private.given_parts, audit_private.default_organization, audit_private.own_key,
    audit_private.default_subject, audit_private.group_of, audit_private.with_role,
    audit_private.is_membership,
    audit_private.default_admin, audit_private.default_ignore, audit_private.ignored_columns,
    audit_private.redacted_columns(regclass, text, jsonb), audit_private.finish_mapping,
    audit_private.attach_given, audit_private.prepare_attach, audit_private.open_schemas,
    audit_private.open_lookups, audit_private.open_lookup, audit_private.close_lookups,
    audit_private.trigger_function, audit_private.create_trigger, audit_private.create_triggers,
    audit_private.forget, audit_private.forget_gone, audit_private.leave_former,
    audit_private.is_there, audit_private.table_name, audit_private.table_of,
    audit_private.present_name, audit.define_action,
    audit.create_key, audit.list_keys, audit.read_context_from,
    audit_private.check_attach, audit_private.try_locks, audit_private.lock_together,
    audit_private.trigger_faults, audit_private.trigger_locks, audit_private.missing_policies,
    audit_private.create_policy, audit_private.open_rows, audit_private.lock_for_attach,
    audit_private.lock_for_detach, audit_private.capture_triggers, audit_private.stale_tables,
    audit_private.report_progress, audit_private.end_with_client,
    audit_private.create_months, audit.maintain, audit.list_tables, audit.list_partitions,
    audit.list_members, audit.list_limits, audit.list_settings, audit.metrics,
    audit.limit_recording, audit.version
    to audit_operator;

-- For audit_mapper, which redacts secrets in values, and for operators: attaching finds secret
-- columns by audit_private.is_secret.
grant execute on function
    audit_private.expand, audit_private.secret_words, audit_private.secret_names,
    audit_private.open_names, audit_private.is_secret,
    audit_private.says_harmless, audit_private.says_headers, audit_private.says_parameter
    to audit_mapper, audit_operator;
grant execute on function audit_private.normal_name
    to audit_mapper, audit_operator, audit_reader, audit_auditor;
grant execute on function
    audit_private.may_hold_key, audit_private.may_hold_secret, audit_private.secret_signs,
    audit_private.key_shapes, audit_private.quoted_value, audit_private.assigned_value,
    audit_private.assignment_names, audit_private.before_option, audit_private.before_pair,
    audit_private.user_option,
    audit_private.redact_url, audit_private.redact_urls, audit_private.has_secret,
    audit_private.find_names, audit_private.percent_decode, audit_private.redact_value,
    audit_private.redact_parameter, audit_private.redact_addresses, audit_private.redact_brackets,
    audit_private.redact_assignments, audit_private.redact_pairs, audit_private.redact_options,
    audit_private.redact_lines, audit_private.redact_steps, audit_private.redact_document,
    audit_private.redact_text, audit_private.redact_bytes, audit_private.names_in,
    audit_private.is_option, audit_private.redact_array, audit_private.redact_object,
    audit_private.redact_node, audit_private.needles_in, audit_private.redact_json
    to audit_mapper;
grant execute on function
    audit_private.base_type, audit_private.is_store, audit_private.is_harmless_type,
    audit_private.holds_hash, audit_private.is_secret_column, audit_private.says_store,
    audit_private.says_store_with_a_secret, audit_private.says_connector,
    audit_private.says_settings, audit_private.secret_columns
    to audit_operator;

-- The attestation shows what was set up, but no secret.
grant select on audit_private.attestation to audit_operator, audit_auditor;
grant usage on type audit.finding to audit_operator, audit_auditor;
grant execute on function audit.doctor to audit_operator, audit_auditor;
grant execute on function
    audit.attest, audit.reattach, audit_private.attach_command, audit.mend_guards,
    audit.mend_columns
    to audit_operator;

-- These functions check their caller themselves.
do $$
declare
    _function regprocedure;
begin
    for _function in
        select oid from pg_proc
        where pronamespace = 'audit_private'::regnamespace and proname ~ '^baseline_[0-9]+$'
    loop
        execute format('grant execute on function %s to audit_operator', _function);
    end loop;
    for _function in
        select oid from pg_proc
        where pronamespace = 'audit_private'::regnamespace and proname ~ '^image_[0-9]+$'
    loop
        execute format('grant execute on function %s to audit_auditor', _function);
    end loop;
end
$$;
