-- One row an attempt of one device to move to one release. Inserted by the device, never changed.
--
-- Partitioned by month of started_at, so that old months are dropped and not deleted. The partitions live in
-- schema private: reading goes through the parent and its policies. The default partition catches clocks that
-- are years wrong.

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
  received_at timestamptz not null default now(),
  primary key (id, started_at),
  constraint "commits must be 40 or 64 hex digits"
    check (to_commit ~ '^([0-9a-f]{40}|[0-9a-f]{64})$' and from_commit ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
  constraint "texts must be at most 4000 characters"
    check (length(failed_phase) <= 4000 and length(error_kind) <= 4000 and length(error) <= 4000 and length(agent_version) <= 4000)
) partition by range (started_at);
comment on table public.update_history is 'Every attempt to update a device, with its outcome. Append-only.';
comment on column public.update_history.id is 'Made on the device when the attempt starts, so sending it twice is harmless.';
comment on column public.update_history.outcome is 'failed: never swapped. rolled_back: swapped, not healthy, swapped back.';
comment on column public.update_history.evidence is 'What the device saw when it failed: health checks, exit codes, log lines.';
comment on column public.update_history.started_at is 'By the device''s clock; decides the month the row is kept in.';
comment on column public.update_history.received_at is 'Server time of arrival; set by a trigger.';
comment on column public.update_history.phase_durations_ms is 'Milliseconds spent in each phase.';
create index update_history_by_device on public.update_history (device_id, started_at desc);
create index update_history_by_release on public.update_history (release_id, outcome);
create index update_history_by_arrival on public.update_history (received_at desc);

create table private.update_history_default partition of public.update_history default;
comment on table private.update_history_default is 'Attempts whose clock was so wrong that no month was ready for them.';
alter table private.update_history_default enable row level security;

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

alter table public.update_history enable row level security;
grant select, insert on public.update_history to fleet_device, service_role;
grant select on public.update_history to authenticated;
create policy "operators read update history" on public.update_history for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "an active device reads its own attempts" on public.update_history for select to fleet_device
  using (device_id = (select private.device_id()) and (select private.device_is_active()));
create policy "an active device records its own attempts" on public.update_history for insert to fleet_device
  with check (device_id = (select private.device_id()) and (select private.device_is_active()));
