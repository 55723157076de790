-- The whole fleet in one row, which devices are offline, whose clock is off, and how the fleet does against its targets.

create view public.offline_devices with (security_invoker = true) as
select d.id as device_id, d.name, d.role, d.segment, d.branch, s.state as last_state, s.current_release,
  s.reported_at as last_contact, now() - s.reported_at as offline_for,
  coalesce(s.pinned_poll_interval_s, d.poll_interval_s, f.default_poll_interval_s) as expected_every_s
from public.devices d
join public.device_status s on s.device_id = d.id
cross join public.fleet_settings f
where d.state = 'active'
  and private.is_offline(s.reported_at, coalesce(s.pinned_poll_interval_s, d.poll_interval_s), f.default_poll_interval_s,
    f.offline_after_intervals, now());
comment on view public.offline_devices is
  'Active devices that missed fleet_settings.offline_after_intervals polls, as of now. Order by last_contact to see the longest offline first.';
comment on column public.offline_devices.last_state is 'The state in its last report.';
comment on column public.offline_devices.expected_every_s is 'The interval that its own file pins, otherwise its row''s, otherwise the fleet''s.';
revoke all on public.offline_devices from public;
grant select on public.offline_devices to authenticated, service_role;

create view public.devices_by_state with (security_invoker = true) as
select d.segment, d.role, d.state, s.state as report_state,
  count(*) as devices,
  count(*) filter (where d.state = 'active'
    and private.is_offline(s.reported_at, coalesce(s.pinned_poll_interval_s, d.poll_interval_s), f.default_poll_interval_s,
    f.offline_after_intervals, now())) as offline
from public.devices d
cross join public.fleet_settings f
left join public.device_status s on s.device_id = d.id
group by d.segment, d.role, d.state, s.state;
comment on view public.devices_by_state is 'How many devices are in which state, by segment and role; sum over the columns that you do not need.';
comment on column public.devices_by_state.state is 'What operators decided: pending, active, suspended, retired.';
comment on column public.devices_by_state.report_state is 'The state that the devices reported last; empty for those never seen.';
comment on column public.devices_by_state.offline is 'How many of them missed their polls, whatever they reported last.';
revoke all on public.devices_by_state from public;
grant select on public.devices_by_state to authenticated, service_role;

create view public.drifted_clocks with (security_invoker = true) as
select d.id as device_id, d.name, d.segment, d.timezone, s.device_time, s.reported_at,
  round(extract(epoch from s.device_time - s.reported_at), 1) as ahead_s,
  format('The clock of %s was %s when it reported at %s.', d.name, private.clock_offset(s.device_time, s.reported_at),
    to_char(s.reported_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI UTC')) as sentence
from public.device_status s
join public.devices d on d.id = s.device_id
cross join public.fleet_settings f
where d.state = 'active'
  and abs(extract(epoch from s.device_time - s.reported_at)) > f.clock_drift_s;
comment on view public.drifted_clocks is
  'Active devices whose clock was off by more than fleet_settings.clock_drift_s at their last report.';
comment on column public.drifted_clocks.ahead_s is 'Seconds ahead of the server; negative means behind. Includes the transit time of the report, well under a second.';
revoke all on public.drifted_clocks from public;
grant select on public.drifted_clocks to authenticated, service_role;

-- Joining each of 100,000 devices to its report and reading each of them took most of the overview's time. Only the
-- unusual ones (devices_out_of_the_ordinary, device_status_pinned_poll_interval) are read and joined; the rest are
-- counted.

create view public.fleet_overview with (security_invoker = true) as
with out_of_the_ordinary as (
  select
    count(*) filter (where d.state = 'pending') as pending,
    count(*) filter (where d.state = 'suspended') as suspended,
    count(*) filter (where d.state = 'retired') as retired,
    count(*) filter (where d.state = 'active' and d.hold and (d.hold_until is null or d.hold_until > now())) as held,
    count(d.pinned_release) filter (where d.state = 'active') as pinned
  from public.devices d
  where d.state <> 'active' or d.poll_interval_s is not null or d.hold or d.pinned_release is not null
),
registered as (
  select d.devices, o.* from out_of_the_ordinary o, (select count(*) as devices from public.devices) d
),
by_row as (
  select s.state as report_state,
    count(*) filter (where odd.state is null or odd.state = 'active') as devices,
    count(*) filter (where (odd.state is null or odd.state = 'active') and s.reported_at < case
      -- As private.is_offline() has it. The settings as subqueries: joined, they would cost a look for each device.
      when odd.poll_interval_s is null
      then (select now() - make_interval(secs => f.default_poll_interval_s * f.offline_after_intervals) from public.fleet_settings f)
      else now() - make_interval(secs => odd.poll_interval_s * (select f.offline_after_intervals from public.fleet_settings f))
    end) as offline
  from public.device_status s
  left join public.devices odd on odd.id = s.device_id and (odd.state <> 'active' or odd.poll_interval_s is not null)
  group by s.state
),
by_own_file as (
  select s.state as report_state,
    count(*) filter (where private.is_offline(s.reported_at, s.pinned_poll_interval_s, f.default_poll_interval_s, f.offline_after_intervals, now()))
      - count(*) filter (where private.is_offline(s.reported_at, d.poll_interval_s, f.default_poll_interval_s, f.offline_after_intervals, now()))
      as more_offline
  from public.device_status s
  join public.devices d on d.id = s.device_id and d.state = 'active'
  cross join public.fleet_settings f
  where s.pinned_poll_interval_s is not null
  group by s.state
),
heard as (
  select r.report_state, r.devices, r.offline + coalesce(o.more_offline, 0) as offline
  from by_row r left join by_own_file o on o.report_state = r.report_state
),
reported as (
  select
    coalesce(sum(h.devices - h.offline), 0)::bigint as online,
    coalesce(sum(h.offline), 0)::bigint as offline,
    coalesce(sum(h.devices - h.offline) filter (where h.report_state = 'healthy'), 0)::bigint as healthy,
    coalesce(sum(h.devices - h.offline) filter (where h.report_state = 'updating'), 0)::bigint as updating,
    coalesce(sum(h.devices - h.offline) filter (where h.report_state = 'degraded'), 0)::bigint as degraded,
    coalesce(sum(h.devices - h.offline) filter (where h.report_state = 'rolled_back'), 0)::bigint as rolled_back,
    coalesce(sum(h.devices - h.offline) filter (where h.report_state = 'isolated'), 0)::bigint as isolated,
    coalesce(sum(h.devices - h.offline) filter (where h.report_state = 'safe_mode'), 0)::bigint as safe_mode
  from heard h
)
select r.devices - r.retired as devices, r.devices - r.pending - r.suspended - r.retired as active, r.pending, r.suspended, r.retired,
  s.online, s.offline, r.devices - r.pending - r.suspended - r.retired - s.online - s.offline as not_heard_yet,
  s.healthy, s.updating, s.degraded, s.rolled_back, s.isolated, s.safe_mode, r.held, r.pinned,
  (select count(*) from public.rollouts r where r.state = 'running') as rollouts_running,
  (select count(*) from public.rollout_claims c where c.state = 'claimed') as devices_in_flight,
  (select count(*) from public.halts h where h.lifted_at is null) as open_halts,
  (select count(*) from public.alerts a where a.resolved_at is null) as open_alerts,
  now() as as_of
from registered r, reported s;
comment on view public.fleet_overview is
  'The whole fleet in one row, as of now. active = online + offline + not_heard_yet; online = the sum of the six report states.';
comment on column public.fleet_overview.healthy is 'This and the next five: the state that online devices report.';
comment on column public.fleet_overview.devices_in_flight is 'Devices that hold a slot in a rollout at this moment.';
revoke all on public.fleet_overview from public;
grant select on public.fleet_overview to authenticated, service_role;

create table public.slo_targets (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and _" check (name ~ '^[a-z0-9_]{1,63}$'),
  target numeric not null constraint "target must be 0 to 31536000" check (target between 0 and 31536000),
  unit text not null constraint "unit must be percent or seconds" check (unit in ('percent', 'seconds')),
  description text not null default '',
  constraint "description must be at most 4000 characters"
    check (length(description) <= 4000),
  constraint "description must be plain text, without control characters" check (private.is_plain_text(description))
);
comment on table public.slo_targets is 'The fleet''s service level objectives. Admins change the targets; the report is in the view slo.';
comment on column public.slo_targets.target is 'percent: at least this. seconds: at most this.';

alter table public.slo_targets enable row level security;
grant select, update on public.slo_targets to authenticated, service_role;
create policy "operators read targets" on public.slo_targets for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "admins change targets" on public.slo_targets for update to authenticated
  using ((select private.operator_is('admin'))) with check ((select private.operator_is('admin')));
create trigger a_check_rank_first before update on public.slo_targets
  for each statement execute function private.require_rank_to_write('admin');

insert into public.slo_targets (name, target, unit, description) values
  ('devices_online', 99, 'percent', 'Active devices that are online now.'),
  ('devices_healthy', 98, 'percent', 'Online devices that report healthy or updating now.'),
  ('updates_succeeded', 98, 'percent', 'Attempts that ended healthy on the new release, in 30 days; skipped ones do not count.'),
  ('time_to_update_p95', 900, 'seconds', '95 of 100 successful updates took at most this, in 30 days.'),
  ('time_to_roll_back_p95', 600, 'seconds', '95 of 100 rollbacks took at most this, in 30 days.');

create trigger audit after insert or update or delete on public.slo_targets
  for each row execute function private.audit_change('name');

create view public.slo with (security_invoker = true) as
with month as (
  select u.outcome, u.seconds, sum(u.attempts) as attempts
  from private.update_days_now u where u.day > (now() at time zone 'UTC')::date - 30
  group by u.outcome, u.seconds
),
ranked as (
  select m.outcome, m.seconds, sum(m.attempts) over (partition by m.outcome order by m.seconds) as so_far,
    sum(m.attempts) over (partition by m.outcome) as total
  from month m
),
durations as (
  select r.outcome, min(r.seconds) filter (where r.so_far >= 0.95 * r.total) as p95, max(r.total) as attempts
  from ranked r group by r.outcome
),
overview as materialized (
  select o.* from public.fleet_overview o
),
measured (name, value, sample) as (
  select 'devices_online', 100.0 * o.online / nullif(o.active, 0), o.active from overview o
  union all
  select 'devices_healthy', 100.0 * (o.healthy + o.updating) / nullif(o.online, 0), o.online from overview o
  union all
  select 'updates_succeeded', 100.0 * coalesce(sum(m.attempts) filter (where m.outcome = 'succeeded'), 0) / nullif(sum(m.attempts), 0),
    coalesce(sum(m.attempts), 0)
  from month m where m.outcome <> 'skipped'
  union all
  select 'time_to_update_p95', (select d.p95 from durations d where d.outcome = 'succeeded'),
    coalesce((select d.attempts from durations d where d.outcome = 'succeeded'), 0)
  union all
  select 'time_to_roll_back_p95', (select d.p95 from durations d where d.outcome = 'rolled_back'),
    coalesce((select d.attempts from durations d where d.outcome = 'rolled_back'), 0)
)
select t.name, round(m.value, 2) as value, t.target, t.unit, coalesce(m.sample, 0)::bigint as sample,
  case when m.value is not null then
    case t.unit when 'percent' then m.value >= t.target else m.value <= t.target end end as met,
  t.description
from public.slo_targets t left join measured m on m.name = t.name;
comment on view public.slo is 'The fleet''s service level objectives (slo_targets) and whether they are met; days are UTC.';
comment on column public.slo.sample is 'How many devices or attempts the value is about.';
comment on column public.slo.met is 'Empty if there is nothing to measure.';
revoke all on public.slo from public;
grant select on public.slo to authenticated, service_role;
