-- The table editor shows a column's comment under its name. A template's columns mean what those of a rollout mean.

comment on column public.rollouts.halt_min_attempted is 'halt_failure_ratio is looked at once so many devices were attempted.';
comment on column public.rollout_stages.position is 'Stages open in this order; gaps are fine.';
comment on column public.rollout_stages.max_in_flight is 'So many devices of the stage may be updating at once; empty means no limit but the rollout''s.';
comment on column public.rollout_claims.stage is 'The position of the stage that gave the slot.';
comment on column public.rollout_claims.state is 'claimed while the device is at it; then how it ended. expired: it went dark past its lease.';
comment on column public.rollout_claims.attempts is 'How often the device took a slot in this rollout.';
comment on column public.rollout_claims.to_release is 'The release that it was given.';
comment on column public.rollout_templates.role is 'Rollouts made from it are for devices of this role only; empty means all.';
comment on column public.rollout_template_stages.position is 'Stages open in this order; gaps are fine.';
comment on column public.maintenance_openings.days is 'The days on which it starts, on the device''s own calendar.';
comment on column public.alerts.severity is 'critical: policy stopped something, or many devices are silent. warning: look when you can.';
comment on column public.alerts.evidence is 'The numbers and ids behind the summary.';
comment on column public.device_commands.kind is 'What the device is to do, once, at its next check-in.';
comment on column public.device_commands.expires_at is 'A command that is not answered by then is dropped.';
comment on column public.device_status.state is 'What the device says of itself; offline devices say nothing, see the view offline_devices.';
comment on column public.device_status.error_kind is 'Stable word for what is wrong; docs/errors.md lists them.';
comment on column public.update_history.error_kind is 'Stable word for why it failed; docs/errors.md lists them.';
comment on column public.update_history.failed_phase is 'The phase of the update in which it failed.';
comment on column public.update_history.bytes_fetched is 'Bytes that came over the network for it.';
comment on column public.known_bad_releases.error_kind is 'Why it rolled back, as in update_history.';
comment on column public.halts.reason is 'In words, for whoever decides to lift it.';
comment on column public.devices.hold_reason is 'In words, for whoever wonders why it is not updated.';

do $$
declare
  wanted record;
begin
  for wanted in
    select t.relname as template, a.attname as name, col_description(s.oid, b.attnum) as text
    from (values ('rollout_templates', 'rollouts'), ('rollout_template_stages', 'rollout_stages')) pair (template, source)
    join pg_class t on t.relname = pair.template and t.relnamespace = 'public'::regnamespace
    join pg_class s on s.relname = pair.source and s.relnamespace = 'public'::regnamespace
    join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
    join pg_attribute b on b.attrelid = s.oid and b.attname = a.attname and b.attnum > 0
    where col_description(t.oid, a.attnum) is null and col_description(s.oid, b.attnum) is not null
  loop
    execute format('comment on column public.%I.%I is %L', wanted.template, wanted.name, wanted.text);
  end loop;
end
$$;
