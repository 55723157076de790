-- One row per attempt of one device to move to one release. Inserted by the device, never changed.
--
-- Partitioned by the month of started_at, so that old months are dropped and not deleted row by row. The partitions are
-- in schema private: they are read through the parent and its policies. The default partition takes the rows of clocks
-- that are years off.

create table public.update_history (
  id uuid not null,
  device_id uuid not null references public.devices,
  release_id uuid references public.releases,
  rollout_id uuid,
  from_commit text,
  to_commit text not null,
  outcome public.update_outcome not null,
  failed_phase text,
  error_kind text,
  error text,
  evidence jsonb not null default '{}'
    constraint "evidence must be an object of at most 64 kB" check (jsonb_typeof(evidence) = 'object' and octet_length(evidence::text) <= 65536),
  started_at timestamptz not null,
  finished_at timestamptz not null,
  phase_durations_ms jsonb not null default '{}'
    constraint "phase_durations_ms must be an object of numbers"
    check (jsonb_typeof(phase_durations_ms) = 'object'
           and not jsonb_path_exists(phase_durations_ms, '$.* ? (@.type() != "number")')
           and octet_length(phase_durations_ms::text) <= 4096),
  bytes_fetched bigint not null default 0 constraint "bytes_fetched must be 0 or more" check (bytes_fetched >= 0),
  agent_version text,
  signer text,
  received_at timestamptz not null default now(),
  primary key (id, started_at),
  constraint "commits must be 40 or 64 hex digits"
    check (to_commit ~ '^([0-9a-f]{40}|[0-9a-f]{64})$' and from_commit ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
  constraint "texts must be at most 4000 characters"
    check (length(failed_phase) <= 4000 and length(error_kind) <= 4000 and length(error) <= 4000 and length(agent_version) <= 4000
           and length(signer) <= 4000),
  constraint "texts must be one line, without control characters"
    check (private.is_one_line(failed_phase) and private.is_one_line(error_kind) and private.is_one_line(agent_version)
           and private.is_one_line(signer)),
  constraint "error must be plain text, without control characters" check (private.is_plain_text(error)),
  constraint "times must be between 1970 and 2200"
    check (started_at between '1970-01-01Z' and '2200-01-01Z' and finished_at between '1970-01-01Z' and '2200-01-01Z'
           and received_at between '1970-01-01Z' and '2200-01-01Z')
) partition by range (started_at);
comment on table public.update_history is 'Every attempt to update a device, with its outcome. Append-only.';
comment on column public.update_history.id is 'Made on the device when the attempt starts, so sending it twice is harmless.';
comment on column public.update_history.outcome is 'failed: never swapped. rolled_back: swapped, not healthy, swapped back.';
comment on column public.update_history.failed_phase is 'The phase of the update in which it failed.';
comment on column public.update_history.error_kind is 'Stable word for why it failed; docs/usage/errors.md lists them.';
comment on column public.update_history.evidence is 'What the device saw when it failed: health checks, exit codes, log lines. passing: the cause was a passing problem of the device or its surroundings, not the release.';
comment on column public.update_history.started_at is 'By the device''s clock; decides the month the row is kept in.';
comment on column public.update_history.phase_durations_ms is 'Milliseconds spent in each phase.';
comment on column public.update_history.bytes_fetched is 'Bytes that came over the network for it.';
comment on column public.update_history.signer is 'Who signed the release, as this device verified it; empty if it did not get that far.';
comment on column public.update_history.received_at is 'Server time of arrival; set by a trigger.';
create index update_history_by_device on public.update_history (device_id, started_at desc);
create index update_history_by_release on public.update_history (release_id, outcome);
create index update_history_by_rollout on public.update_history (rollout_id) where rollout_id is not null;
create index update_history_by_arrival on public.update_history (received_at desc);

alter table public.update_history enable row level security;
grant select, insert on public.update_history to fleet_device, service_role;
grant select on public.update_history to authenticated;
create policy "operators read update history" on public.update_history for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "an active device reads its own attempts" on public.update_history for select to fleet_device
  using (device_id = (select private.device_id()) and (select private.device_is_active()));
create policy "an active device records its own attempts" on public.update_history for insert to fleet_device
  with check (device_id = (select private.device_id()) and (select private.device_is_active()));

-- Before anything was verified, what went wrong is the Git host's, the line's or the device's doing, and nothing was touched.
-- Later the device says so. Bound when created, so that PostgreSQL inlines it into the queries that count.
create function private.is_passing(outcome public.update_outcome, failed_phase text, evidence jsonb) returns boolean
language sql immutable
return coalesce(outcome = 'failed' and (failed_phase = 'fetching' or evidence -> 'passing' = 'true'), false);
comment on function private.is_passing(public.update_outcome, text, jsonb) is
  'Did this attempt fail before the swap because of a passing problem of the device or its surroundings? Then it does not count against the release.';
revoke execute on function private.is_passing(public.update_outcome, text, jsonb) from public;
grant execute on function private.is_passing(public.update_outcome, text, jsonb) to authenticated, service_role;

create function private.stamp_received_at() returns trigger
language plpgsql set search_path = ''
as $$
begin
  new.received_at := now();
  return new;
end
$$;
revoke execute on function private.stamp_received_at() from public;
create trigger stamp_received_at before insert on public.update_history
  for each row execute function private.stamp_received_at();

create trigger keep_what_happened before update or delete on public.update_history
  for each row execute function private.keep_what_happened('update_history', 'received_at', 'history_retention_months');
create trigger refuse_truncate before truncate on public.update_history
  for each statement execute function private.refuse_truncate();

create table private.update_history_default partition of public.update_history default;
comment on table private.update_history_default is 'Attempts with a clock that was so wrong that there was no month for them.';

alter table private.update_history_default enable row level security;
create trigger refuse_truncate before truncate on private.update_history_default
  for each statement execute function private.refuse_truncate();

-- Months are created ahead of time, and dropped when they are past the retention; private.tick() does both.

create function private.make_history_partitions(at timestamptz, months_ahead int default 3) returns int
language plpgsql security definer set search_path = ''
as $$
-- Definer: creates tables. Returns how many months were made. Safe to run twice, or late: rows that were
-- caught by the default partition meanwhile are moved to their month.
declare
  first_month date := date_trunc('month', at at time zone 'UTC')::date;
  month date;
  partition_name text;
  made int := 0;
begin
  perform pg_advisory_xact_lock(hashtext('private.make_history_partitions'));
  for month in
    select generate_series(first_month - interval '1 month', first_month + make_interval(months => months_ahead),
                           interval '1 month')::date
  loop
    partition_name := 'update_history_' || to_char(month, 'YYYY_MM');
    if to_regclass(format('private.%I', partition_name)) is not null then
      continue;
    end if;
    execute format('create table private.%I (like public.update_history including all)', partition_name);
    execute format('alter table private.%I enable row level security', partition_name);
    execute format('comment on table private.%I is %L', partition_name,
      'Attempts that started in ' || to_char(month, 'YYYY-MM') || ' (UTC). Part of public.update_history.');
    execute format('create trigger refuse_truncate before truncate on private.%I '
      'for each statement execute function private.refuse_truncate()', partition_name);
    -- Moved, not deleted, so the trigger steps aside; attaching locks the default partition in any case.
    alter table private.update_history_default disable trigger keep_what_happened;
    execute format(
      'with moved as (delete from private.update_history_default where started_at >= %L and started_at < %L returning *)
       insert into private.%I select * from moved',
      month::text || ' 00:00+00', (month + interval '1 month')::date::text || ' 00:00+00', partition_name);
    alter table private.update_history_default enable trigger keep_what_happened;
    execute format('alter table public.update_history attach partition private.%I for values from (%L) to (%L)',
      partition_name, month::text || ' 00:00+00', (month + interval '1 month')::date::text || ' 00:00+00');
    made := made + 1;
  end loop;
  return made;
end
$$;
comment on function private.make_history_partitions(timestamptz, int) is 'Makes the months of update_history from the last one to months_ahead.';
revoke execute on function private.make_history_partitions(timestamptz, int) from public;
grant execute on function private.make_history_partitions(timestamptz, int) to service_role;

create function private.drop_old_history(at timestamptz, at_most int default 20000) returns int
language plpgsql security definer set search_path = ''
as $$
-- Definer: drops tables. Returns how many months were dropped.
declare
  keep_from date := (date_trunc('month', at at time zone 'UTC')
    - make_interval(months => (select s.history_retention_months from public.fleet_settings s)))::date;
  old_partition text;
  dropped int := 0;
  deleted int;
begin
  for old_partition in
    select c.relname from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'public.update_history'::regclass
      and c.relname ~ '^update_history_\d{4}_\d{2}$'
      and c.relname < 'update_history_' || to_char(keep_from, 'YYYY_MM')
  loop
    execute format('drop table private.%I', old_partition);
    dropped := dropped + 1;
  end loop;
  -- A wild clock says nothing about age: what is in the default partition ages by its arrival. In parts.
  delete from private.update_history_default where (id, started_at) in (
    select o.id, o.started_at from private.update_history_default o where o.received_at < keep_from limit at_most);
  get diagnostics deleted = row_count;
  if deleted = at_most then
    perform private.do_again('retention');
  end if;
  return dropped;
end
$$;
comment on function private.drop_old_history(timestamptz, int) is 'Drops months of update_history past fleet_settings.history_retention_months.';
revoke execute on function private.drop_old_history(timestamptz, int) from public;
grant execute on function private.drop_old_history(timestamptz, int) to service_role;

select private.make_history_partitions(now());

create trigger zz_ration_insert after insert on public.update_history referencing new table as new_rows
  for each statement execute function private.ration_writes();
