-- What each device reports about itself: one row per device, overwritten at every check-in.
--
-- The settings that a device uses can differ from its row, because its own file can pin values and add labels. So it
-- reports what is in effect (settings). Every report uses a pinned poll interval: by the row's interval, a device that
-- pins a long one would be offline forever, with an alert that never resolves. A device can only say how often to expect
-- it: 1 second to a week, as its file allows. A device that lies gains nothing by it.

create table public.device_status (
  device_id uuid primary key references public.devices on delete cascade,
  state public.report_state not null default 'healthy',
  phase text,
  reason text,
  current_release uuid references public.releases,
  target_release uuid references public.releases,
  agent_version text,
  booted_at timestamptz,
  boot_id uuid,
  attempt_id uuid,
  device_time timestamptz,
  reported_at timestamptz not null default now(),
  settings jsonb not null default '{}'
    constraint "settings must be an object of at most 32 kB"
    check (jsonb_typeof(settings) = 'object' and octet_length(settings::text) <= 32768),
  pinned_poll_interval_s int generated always as (
    case when settings -> 'pinned' @> '"poll_interval_s"' and jsonb_typeof(settings -> 'poll_interval_s') = 'number' then
      case when (settings ->> 'poll_interval_s')::numeric between 1 and 604800
        then round((settings ->> 'poll_interval_s')::numeric)::int end
    end) stored,
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
           and length(error_kind) <= 4000 and length(error) <= 4000),
  constraint "texts must be one line, without control characters"
    check (private.is_one_line(phase) and private.is_one_line(reason) and private.is_one_line(agent_version)
           and private.is_one_line(error_kind)),
  constraint "error must be plain text, without control characters" check (private.is_plain_text(error)),
  constraint "times must be between 1970 and 2200"
    check (booted_at between '1970-01-01Z' and '2200-01-01Z' and device_time between '1970-01-01Z' and '2200-01-01Z'
           and reported_at between '1970-01-01Z' and '2200-01-01Z')
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);  -- room for heartbeats in place (HOT)
comment on table public.device_status is 'The last report of each device. Written by the device itself, read by operators.';
comment on column public.device_status.state is 'The state that the device reported last; for devices that stopped reporting, see the view offline_devices.';
comment on column public.device_status.phase is 'The agent''s phase in an update, like fetching or probation.';
comment on column public.device_status.reason is 'Why the device is in this state, as a sentence.';
comment on column public.device_status.current_release is 'What it runs; empty before the first release.';
comment on column public.device_status.target_release is 'What it is moving to, while it moves.';
comment on column public.device_status.boot_id is 'Which start of which installation reported: changes once when the machine is started again.';
comment on column public.device_status.attempt_id is 'The attempt that it works on, later a row of update_history; empty between attempts.';
comment on column public.device_status.device_time is 'The device''s own clock when it reported; compare with reported_at for drift.';
comment on column public.device_status.reported_at is 'Server time of the last report; set by a trigger whatever the device sends.';
comment on column public.device_status.settings is 'The settings in effect on the device: poll_interval_s, labels, and pinned: the names of those that its own file sets.';
comment on column public.device_status.pinned_poll_interval_s is
  'Seconds between its polls if its own file pins them (from settings); empty if the control plane sets them.';
comment on column public.device_status.resources is 'cpu_percent, memory_used_bytes, memory_total_bytes, disk_free_bytes, disk_total_bytes, load_1m, temperature_c, uptime_s.';
comment on column public.device_status.containers is 'List of {service, image, state, health, restarts, exit_code, started_at}.';
comment on column public.device_status.error_kind is 'Stable word for what is wrong; docs/usage/errors.md lists them.';
comment on column public.device_status.log_tail is 'Last warnings and errors of the agent: list of {at, level, message}.';
-- Pinned intervals are few, and are stored in the row among everything that a device reports: reading them from every
-- row took the overview a fifth longer at 100,000 devices. So all devices are counted by their row, and this index
-- corrects the count for the pinned ones. Heartbeats stay cheap, because they do not change what the index contains.
create index device_status_pinned_poll_interval on public.device_status (device_id) where pinned_poll_interval_s is not null;

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

create function private.release_on(device_id uuid) returns public.releases
language plpgsql stable set search_path = ''
as $$
declare
  found_release public.releases;
begin
  select r.* into found_release
  from public.device_status s join public.releases r on r.id = s.current_release where s.device_id = release_on.device_id;
  return found_release;
end
$$;
comment on function private.release_on(uuid) is 'What the device last said it runs; all null before its first release.';
revoke execute on function private.release_on(uuid) from public;

-- Offline is computed, never stored: from the last contact, the device's own interval and one fixed now(). Every report
-- uses this function.
--
-- Its body is bound when it is created (`return`, not a string), so it needs no search_path. With one, PostgreSQL could
-- not inline it, and 100,000 calls would take longer than the rest of the report.
create function private.is_offline(
  last_contact timestamptz, poll_interval_s int, default_poll_interval_s int, offline_after_intervals int, at timestamptz
) returns boolean
language sql stable parallel safe
return coalesce(
  last_contact < at - make_interval(secs => coalesce(poll_interval_s, default_poll_interval_s) * offline_after_intervals), false);
comment on function private.is_offline(timestamptz, int, int, int, timestamptz) is
  'Has a device missed this many polls? False for one that never reported: it was never seen, which is different.';
revoke execute on function private.is_offline(timestamptz, int, int, int, timestamptz) from public;
grant execute on function private.is_offline(timestamptz, int, int, int, timestamptz) to authenticated, service_role;

-- Immutable in fact: no part of it depends on a setting.
create function private.clock_offset(device_time timestamptz, reported_at timestamptz) returns text
language plpgsql immutable set search_path = ''
as $$
declare
  ahead_s constant numeric := extract(epoch from device_time - reported_at);
  off constant numeric := abs(ahead_s);
begin
  return format('%s %s',
    case
      when off < 120 then round(off) || ' s'
      when off < 7200 then trunc(off / 60) || ' minutes'
      when off < 172800 then trunc(off / 3600) || ' hours'
      else trunc(off / 86400) || ' days'
    end,
    case when ahead_s > 0 then 'ahead' else 'behind' end);
end
$$;
comment on function private.clock_offset(timestamptz, timestamptz) is 'How far a device''s clock was off when it reported, in words: "3 days behind".';
revoke execute on function private.clock_offset(timestamptz, timestamptz) from public;
grant execute on function private.clock_offset(timestamptz, timestamptz) to authenticated, service_role;

create trigger zz_ration_insert after insert on public.device_status referencing new table as new_rows
  for each statement execute function private.ration_writes();
create trigger zz_ration_update after update on public.device_status referencing new table as new_rows
  for each statement execute function private.ration_writes();
