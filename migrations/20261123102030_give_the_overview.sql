-- The whole fleet in one row, and how it does against what was promised.

create view public.fleet_overview with (security_invoker = true) as
with counted as (
  select d.state, s.state as report_state,
    -- The settings as two subqueries: joined, they would cost a look for each device.
    private.is_offline(s.reported_at, d.poll_interval_s, (select f.default_poll_interval_s from public.fleet_settings f),
      (select f.offline_after_intervals from public.fleet_settings f), now()) as offline,
    count(*) as devices,
    count(*) filter (where d.hold and (d.hold_until is null or d.hold_until > now())) as held,
    count(d.pinned_release) as pinned
  from public.devices d left join public.device_status s on s.device_id = d.id
  group by 1, 2, 3
),
fleet as (
  select
    coalesce(sum(c.devices), 0)::bigint as devices,
    coalesce(sum(c.devices) filter (where c.state = 'active'), 0)::bigint as active,
    coalesce(sum(c.devices) filter (where c.state = 'pending'), 0)::bigint as pending,
    coalesce(sum(c.devices) filter (where c.state = 'suspended'), 0)::bigint as suspended,
    coalesce(sum(c.devices) filter (where c.state = 'retired'), 0)::bigint as retired,
    coalesce(sum(c.devices) filter (where c.state = 'active' and c.report_state is not null and not c.offline), 0)::bigint as online,
    coalesce(sum(c.devices) filter (where c.state = 'active' and c.offline), 0)::bigint as offline,
    coalesce(sum(c.devices) filter (where c.state = 'active' and c.report_state is null), 0)::bigint as not_heard_yet,
    coalesce(sum(c.devices) filter (where c.state = 'active' and not c.offline and c.report_state = 'healthy'), 0)::bigint as healthy,
    coalesce(sum(c.devices) filter (where c.state = 'active' and not c.offline and c.report_state = 'updating'), 0)::bigint as updating,
    coalesce(sum(c.devices) filter (where c.state = 'active' and not c.offline and c.report_state = 'degraded'), 0)::bigint as degraded,
    coalesce(sum(c.devices) filter (where c.state = 'active' and not c.offline and c.report_state = 'rolled_back'), 0)::bigint as rolled_back,
    coalesce(sum(c.devices) filter (where c.state = 'active' and not c.offline and c.report_state = 'isolated'), 0)::bigint as isolated,
    coalesce(sum(c.devices) filter (where c.state = 'active' and not c.offline and c.report_state = 'safe_mode'), 0)::bigint as safe_mode,
    coalesce(sum(c.held) filter (where c.state = 'active'), 0)::bigint as held,
    coalesce(sum(c.pinned) filter (where c.state = 'active'), 0)::bigint as pinned
  from counted c
)
select fleet.*,
  (select count(*) from public.rollouts r where r.state = 'running') as rollouts_running,
  (select count(*) from public.rollout_claims c where c.state = 'claimed') as devices_in_flight,
  (select count(*) from public.halts h where h.lifted_at is null) as open_halts,
  (select count(*) from public.alerts a where a.resolved_at is null) as open_alerts,
  now() as as_of
from fleet;
comment on view public.fleet_overview is
  'The whole fleet in one row, as of now. active = online + offline + not_heard_yet; online = the sum of the six report states.';
comment on column public.fleet_overview.healthy is 'This and the five after it: what online devices say of themselves.';
comment on column public.fleet_overview.devices_in_flight is 'Devices that hold a slot in a rollout at this moment.';

create table public.slo_targets (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and _" check (name ~ '^[a-z0-9_]{1,63}$'),
  target numeric not null,
  unit text not null constraint "unit must be percent or seconds" check (unit in ('percent', 'seconds')),
  description text not null default ''
);
comment on table public.slo_targets is 'What the fleet promises. Admins change the targets; the report is in the view slo.';
comment on column public.slo_targets.target is 'percent: at least this. seconds: at most this.';
insert into public.slo_targets (name, target, unit, description) values
  ('devices_online', 99, 'percent', 'Active devices that were heard within their polls, now.'),
  ('devices_healthy', 98, 'percent', 'Online devices that say they are healthy or updating, now.'),
  ('updates_succeeded', 98, 'percent', 'Attempts that ended healthy on the new release, in 30 days; skipped ones do not count.'),
  ('time_to_update_p95', 900, 'seconds', '95 of 100 successful updates took at most this, in 30 days.'),
  ('time_to_roll_back_p95', 600, 'seconds', '95 of 100 roll backs were over after at most this, in 30 days.');
alter table public.slo_targets enable row level security;
grant select, update on public.slo_targets to authenticated, service_role;
create policy "operators read targets" on public.slo_targets for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "admins change targets" on public.slo_targets for update to authenticated
  using ((select private.operator_is('admin'))) with check ((select private.operator_is('admin')));
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
comment on view public.slo is 'What the fleet promises (slo_targets) and how it does; days are UTC.';
comment on column public.slo.sample is 'How many devices or attempts the value is about.';
comment on column public.slo.met is 'Empty while there is nothing to measure.';

revoke all on public.fleet_overview, public.slo from public;
grant select on public.fleet_overview, public.slo to authenticated, service_role;
