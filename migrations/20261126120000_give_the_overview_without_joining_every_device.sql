-- fleet_overview joined each of 100,000 devices to its report and looked at each of them, which was most of its time.
-- Nearly every device is active, not held, not pinned and polls at the fleet's interval: a small index now has the
-- others, and only they are looked at and joined. The rest is counted. Same columns, same numbers.
--
-- Risk: an edit of `hold`, `hold_until` or `poll_interval_s` writes to the device's indexes, as one of `state` or
-- `pinned_release` did before.

create index devices_out_of_the_ordinary on public.devices (id)
  include (state, poll_interval_s, hold, hold_until, pinned_release)
  where state <> 'active' or poll_interval_s is not null or hold or pinned_release is not null;
comment on index public.devices_out_of_the_ordinary is 'What fleet_overview must look at one by one.';

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
heard as (
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
