-- The overview read the pinned poll interval of every device, which lies at the end of the row behind all that a device
-- reports: a fifth more time at 100,000 devices. Pinned ones are few: they are counted by the row as all others, and
-- put right by an index of their own.
--
-- Risk: building the index keeps heartbeats waiting for a moment (a tenth of a second at 100,000 devices). They stay
-- cheap: what the index holds does not change with them.

create index device_status_pinned_poll_interval on public.device_status (device_id) where pinned_poll_interval_s is not null;

create or replace view public.fleet_overview with (security_invoker = true) as
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
select r.devices, r.devices - r.pending - r.suspended - r.retired as active, r.pending, r.suspended, r.retired,
  s.online, s.offline, r.devices - r.pending - r.suspended - r.retired - s.online - s.offline as not_heard_yet,
  s.healthy, s.updating, s.degraded, s.rolled_back, s.isolated, s.safe_mode, r.held, r.pinned,
  (select count(*) from public.rollouts r where r.state = 'running') as rollouts_running,
  (select count(*) from public.rollout_claims c where c.state = 'claimed') as devices_in_flight,
  (select count(*) from public.halts h where h.lifted_at is null) as open_halts,
  (select count(*) from public.alerts a where a.resolved_at is null) as open_alerts,
  now() as as_of
from registered r, reported s;
