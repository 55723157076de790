-- What each device says of itself, one row a device, overwritten at every check-in.

create table public.device_status (
  device_id uuid primary key references public.devices on delete cascade,
  state public.report_state not null default 'healthy',
  phase text,
  reason text,
  current_release uuid references public.releases,
  target_release uuid references public.releases,
  agent_version text,
  booted_at timestamptz,
  device_time timestamptz,
  reported_at timestamptz not null default now(),
  resources jsonb not null default '{}'
    constraint "resources must be an object of at most 8 kB" check (jsonb_typeof(resources) = 'object' and octet_length(resources::text) <= 8192),
  containers jsonb not null default '[]'
    constraint "containers must be a list of at most 64 kB" check (jsonb_typeof(containers) = 'array' and octet_length(containers::text) <= 65536),
  error_kind text,
  error text,
  log_tail jsonb not null default '[]'
    constraint "log_tail must be a list of at most 64 kB" check (jsonb_typeof(log_tail) = 'array' and octet_length(log_tail::text) <= 65536),
  constraint "texts must be at most 4000 characters"
    check (length(phase) <= 4000 and length(reason) <= 4000 and length(agent_version) <= 4000
           and length(error_kind) <= 4000 and length(error) <= 4000)
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);  -- room for heartbeats in place (HOT)
comment on table public.device_status is 'The last report of each device. Written by the device itself, read by operators.';
comment on column public.device_status.phase is 'The agent''s phase in an update, like fetching or probation.';
comment on column public.device_status.reason is 'Why the device is in this state, as a sentence.';
comment on column public.device_status.current_release is 'What it runs; empty before the first release.';
comment on column public.device_status.target_release is 'What it is moving to, while it moves.';
comment on column public.device_status.device_time is 'The device''s own clock when it reported; compare with reported_at for drift.';
comment on column public.device_status.reported_at is 'Server time of the last report; set by a trigger whatever the device sends.';
comment on column public.device_status.resources is 'cpu_percent, memory_used_bytes, memory_total_bytes, disk_free_bytes, disk_total_bytes, load_1m, temperature_c, uptime_s.';
comment on column public.device_status.containers is 'List of {service, image, state, health, restarts, exit_code, started_at}.';
comment on column public.device_status.log_tail is 'Last warnings and errors of the agent: list of {at, level, message}.';

create function private.stamp_reported_at() returns trigger
language plpgsql set search_path = ''
as $$
begin
  new.reported_at := now();
  return new;
end
$$;
revoke execute on function private.stamp_reported_at() from public;
create trigger stamp_reported_at before insert or update on public.device_status
  for each row execute function private.stamp_reported_at();

alter table public.device_status enable row level security;
grant select, insert, update on public.device_status to fleet_device;
grant select on public.device_status to authenticated;
grant select, insert, update on public.device_status to service_role;
create policy "operators read what devices report" on public.device_status for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "an active device reads its own report" on public.device_status for select to fleet_device
  using (device_id = (select private.device_id()) and (select private.device_is_active()));
create policy "an active device makes its own report" on public.device_status for insert to fleet_device
  with check (device_id = (select private.device_id()) and (select private.device_is_active()));
create policy "an active device renews its own report" on public.device_status for update to fleet_device
  using (device_id = (select private.device_id()) and (select private.device_is_active()))
  with check (device_id = (select private.device_id()) and (select private.device_is_active()));
