-- Offline is derived, never stored: the last contact, the device's own interval and one frozen now. One function says
-- it for every report.
--
-- Its body is bound when it is created (`return`, not a text), so it needs no search_path; with one, PostgreSQL could
-- not inline it, and 100,000 calls would take longer than the report around them.

create function private.is_offline(
  last_contact timestamptz, poll_interval_s int, default_poll_interval_s int, offline_after_intervals int, at timestamptz
) returns boolean
language sql stable parallel safe
return coalesce(
  last_contact < at - make_interval(secs => coalesce(poll_interval_s, default_poll_interval_s) * offline_after_intervals), false);
comment on function private.is_offline(timestamptz, int, int, int, timestamptz) is
  'Has a device missed so many polls? False for one that never reported: it is not heard yet, which is something else.';
revoke execute on function private.is_offline(timestamptz, int, int, int, timestamptz) from public;
grant execute on function private.is_offline(timestamptz, int, int, int, timestamptz) to authenticated, service_role;

-- Row-level security asks these in every report. Nothing in them is unsafe in a parallel worker, which is sent the
-- claims with all other settings; unmarked, they would keep reports over the whole fleet on one core.
alter function private.claims() parallel safe;
alter function private.claimed_id(text) parallel safe;
alter function private.operator_rank() parallel safe;
alter function private.operator_is(public.operator_rank) parallel safe;

create view public.offline_devices with (security_invoker = true) as
select d.id as device_id, d.name, d.role, d.segment, d.branch, s.state as last_state, s.current_release,
  s.reported_at as last_contact, now() - s.reported_at as offline_for,
  coalesce(d.poll_interval_s, f.default_poll_interval_s) as expected_every_s
from public.devices d
join public.device_status s on s.device_id = d.id
cross join public.fleet_settings f
where d.state = 'active'
  and private.is_offline(s.reported_at, d.poll_interval_s, f.default_poll_interval_s, f.offline_after_intervals, now());
comment on view public.offline_devices is
  'Active devices that missed fleet_settings.offline_after_intervals polls, as of now. Order by last_contact for the longest silence.';
comment on column public.offline_devices.last_state is 'What it said of itself when it was last heard.';
comment on column public.offline_devices.expected_every_s is 'Its own interval, or the fleet''s.';

create view public.devices_by_state with (security_invoker = true) as
select d.segment, d.role, d.state, s.state as report_state,
  count(*) as devices,
  count(*) filter (where d.state = 'active'
    and private.is_offline(s.reported_at, d.poll_interval_s, f.default_poll_interval_s, f.offline_after_intervals, now())) as offline
from public.devices d
cross join public.fleet_settings f
left join public.device_status s on s.device_id = d.id
group by d.segment, d.role, d.state, s.state;
comment on view public.devices_by_state is 'How many devices are in which state, by segment and role; sum over what you do not ask for.';
comment on column public.devices_by_state.state is 'What operators decided: pending, active, suspended, retired.';
comment on column public.devices_by_state.report_state is 'What the devices said last; empty for those not heard yet.';
comment on column public.devices_by_state.offline is 'How many of them missed their polls, whatever they said last.';

alter table public.fleet_settings add column clock_drift_s int not null default 60
  constraint "clock_drift_s must be 1 to 86400 seconds" check (clock_drift_s between 1 and 86400);
comment on column public.fleet_settings.clock_drift_s is 'A device whose clock is further off than this is listed in drifted_clocks.';

create view public.drifted_clocks with (security_invoker = true) as
select d.id as device_id, d.name, d.segment, d.timezone, s.device_time, s.reported_at,
  round(extract(epoch from s.device_time - s.reported_at), 1) as ahead_s,
  format('The clock of %s was %s s %s when it reported at %s.', d.name,
    round(abs(extract(epoch from s.device_time - s.reported_at))),
    case when s.device_time > s.reported_at then 'ahead' else 'behind' end,
    to_char(s.reported_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI UTC')) as sentence
from public.device_status s
join public.devices d on d.id = s.device_id
cross join public.fleet_settings f
where d.state = 'active'
  and abs(extract(epoch from s.device_time - s.reported_at)) > f.clock_drift_s;
comment on view public.drifted_clocks is
  'Active devices whose clock was off by more than fleet_settings.clock_drift_s at their last report.';
comment on column public.drifted_clocks.ahead_s is 'Seconds ahead of the server; negative means behind. Includes the way of the report, well under a second.';

revoke all on public.offline_devices, public.devices_by_state, public.drifted_clocks from public;
grant select on public.offline_devices, public.devices_by_state, public.drifted_clocks to authenticated, service_role;
