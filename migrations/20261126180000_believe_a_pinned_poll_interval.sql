-- A device whose own file pins a long poll interval was offline for ever by the row's interval, with an alert that never
-- resolved. It reports what it goes by (device_status.settings), so every report believes it; and rollout_progress()
-- counts silence by the device's own interval, too, not by the fleet's alone.
--
-- A device can only say how often it may be expected: 1 second to a week, as its file allows. One that lies is heard of
-- less, and gets nothing for it.
--
-- Risk: a stored generated column rewrites device_status once (a second at 100,000 devices), under an exclusive lock;
-- reports wait for it.

alter table public.device_status
  add column pinned_poll_interval_s int generated always as (
    case when settings -> 'pinned' @> '"poll_interval_s"' and jsonb_typeof(settings -> 'poll_interval_s') = 'number' then
      case when (settings ->> 'poll_interval_s')::numeric between 1 and 604800
        then round((settings ->> 'poll_interval_s')::numeric)::int end
    end) stored;
comment on column public.device_status.pinned_poll_interval_s is
  'Seconds between its polls where its own file decides them (from settings); empty where the control plane does.';

create or replace view public.offline_devices with (security_invoker = true) as
select d.id as device_id, d.name, d.role, d.segment, d.branch, s.state as last_state, s.current_release,
  s.reported_at as last_contact, now() - s.reported_at as offline_for,
  coalesce(s.pinned_poll_interval_s, d.poll_interval_s, f.default_poll_interval_s) as expected_every_s
from public.devices d
join public.device_status s on s.device_id = d.id
cross join public.fleet_settings f
where d.state = 'active'
  and private.is_offline(s.reported_at, coalesce(s.pinned_poll_interval_s, d.poll_interval_s), f.default_poll_interval_s,
    f.offline_after_intervals, now());
comment on column public.offline_devices.expected_every_s is 'What its own file pins, else its row''s interval, else the fleet''s.';

create or replace view public.devices_by_state with (security_invoker = true) as
select d.segment, d.role, d.state, s.state as report_state,
  count(*) as devices,
  count(*) filter (where d.state = 'active'
    and private.is_offline(s.reported_at, coalesce(s.pinned_poll_interval_s, d.poll_interval_s), f.default_poll_interval_s,
    f.offline_after_intervals, now())) as offline
from public.devices d
cross join public.fleet_settings f
left join public.device_status s on s.device_id = d.id
group by d.segment, d.role, d.state, s.state;

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
      when odd.poll_interval_s is null and s.pinned_poll_interval_s is null
      then (select now() - make_interval(secs => f.default_poll_interval_s * f.offline_after_intervals) from public.fleet_settings f)
      else now() - make_interval(secs => coalesce(s.pinned_poll_interval_s, odd.poll_interval_s)
        * (select f.offline_after_intervals from public.fleet_settings f))
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

create or replace function private.watch_offline(at timestamptz) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: alerts are policy's own rows. Offline is derived from the last report; only the alert is stored.
declare
  opened int;
  resolved int;
begin
  with late as (
    select d.id, d.name, s.reported_at
    from public.devices d join public.device_status s on s.device_id = d.id cross join public.fleet_settings f
    where d.state = 'active'
      and s.reported_at < at - make_interval(secs => coalesce(s.pinned_poll_interval_s, d.poll_interval_s, f.default_poll_interval_s)
        * f.offline_after_intervals)
  ),
  made as (
    insert into public.alerts (kind, severity, device_id, summary, opened_at)
    select 'device_offline', 'warning', l.id, format('%s was last heard of at %s.', l.name,
      to_char(l.reported_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI UTC')), at
    from late l where not exists (
      select from public.alerts a where a.kind = 'device_offline' and a.device_id = l.id and a.resolved_at is null)
    on conflict do nothing returning 1
  ),
  gone as (
    update public.alerts a set resolved_at = at
    where a.kind = 'device_offline' and a.resolved_at is null and not exists (select from late l where l.id = a.device_id)
    returning 1
  )
  select (select count(*) from made), (select count(*) from gone) into opened, resolved;
  return jsonb_build_object('offline_opened', opened, 'offline_resolved', resolved);
end
$$;

create or replace function public.rollout_progress(rollout_id uuid) returns jsonb
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: reads policy's counters. Any operator may ask. Counts devices as they are now; one frozen now().
declare
  rollout public.rollouts;
  answer jsonb;
begin
  perform private.require_rank('viewer');
  select r.* into rollout from public.rollouts r where r.id = rollout_progress.rollout_id;
  if rollout.id is null then
    perform private.refuse('rollout_unknown', 'There is no such rollout.', 'Look it up in the table rollouts.', 'PT404');
  end if;
  with concerned as materialized (
    select p.stage, p.current_release = rollout.release_id as done, c.state as claim,
      p.reported_at is null or private.is_offline(p.reported_at, coalesce(said.pinned_poll_interval_s, d.poll_interval_s),
        f.default_poll_interval_s, f.offline_after_intervals, now()) as offline,
      k.device_id is not null as known_bad
    from private.rollout_devices(rollout.id) p
    cross join public.fleet_settings f
    join public.devices d on d.id = p.device_id
    left join public.device_status said on said.device_id = p.device_id
    left join private.known_bad_devices(rollout.release_id) k on k.device_id = p.device_id
    left join public.rollout_claims c on c.rollout_id = rollout.id and c.device_id = p.device_id
  ),
  stages as (
    select s.position, jsonb_build_object(
      'position', s.position, 'segment', s.segment, 'percent', s.percent, 'opened_at', s.opened_at, 'proved_at', s.proved_at,
      'soaked_at', s.proved_at + make_interval(secs => s.soak_s),
      'needs_approval', s.needs_approval, 'approved_at', s.approved_at,
      'devices', (select count(*) from concerned p where p.stage = s.position),
      'on_release', (select count(*) from concerned p where p.stage = s.position and p.done),
      'in_flight', coalesce(c.in_flight, 0), 'succeeded', coalesce(c.succeeded, 0), 'failed', coalesce(c.failed, 0),
      'known_bad', (select count(*) from concerned p where p.stage = s.position and p.done is not true and p.claim is null and p.known_bad),
      'waiting', (select count(*) from concerned p
        where p.stage = s.position and p.done is not true and p.claim is null and not p.known_bad and not p.offline),
      'offline', (select count(*) from concerned p
        where p.stage = s.position and p.done is not true and p.claim is null and not p.known_bad and p.offline)
    ) as stage
    from public.rollout_stages s
    left join private.rollout_counters c on c.rollout_id = s.rollout_id and c.position = s.position
    where s.rollout_id = rollout.id
  )
  select jsonb_build_object(
    'rollout_id', rollout.id, 'name', rollout.name, 'state', rollout.state, 'release_id', rollout.release_id,
    'version', private.release_name(rollout.release_id), 'started_at', rollout.started_at, 'ended_at', rollout.ended_at,
    'devices', (select count(*) from concerned p where p.stage is not null),
    'on_release', (select count(*) from concerned p where p.done),
    'in_flight', coalesce(t.in_flight, 0), 'succeeded', coalesce(t.succeeded, 0), 'failed', coalesce(t.failed, 0),
    'known_bad', (select count(*) from concerned p where p.stage is not null and p.done is not true and p.claim is null and p.known_bad),
    'in_line', (select count(*) from private.rollout_queue q where q.rollout_id = rollout.id),
    'halts', coalesce((
      select jsonb_agg(jsonb_build_object('id', h.id, 'scope', h.scope, 'cause', h.cause, 'reason', h.reason, 'opened_at', h.opened_at) order by h.opened_at)
      from public.halts h where h.lifted_at is null and (h.scope = 'fleet'
        or (h.scope = 'rollout' and h.target = rollout.id::text) or (h.scope = 'release' and h.target = rollout.release_id::text)
        or (h.scope = 'branch' and h.target = rollout.branch) or (h.scope = 'role' and h.target = rollout.role))), '[]'),
    'known_bad_patterns', coalesce((
      select jsonb_agg(jsonb_build_object('id', k.id, 'match', k.match, 'cause', k.cause, 'reason', k.reason, 'opened_at', k.opened_at) order by k.opened_at)
      from public.known_bad_patterns k where k.lifted_at is null and k.release_id = rollout.release_id), '[]'),
    'stages', coalesce((select jsonb_agg(s.stage order by s.position) from stages s), '[]'))
  into answer
  from (select 1) one left join private.rollout_counters t on t.rollout_id = rollout.id and t.position = 0;
  return answer || jsonb_build_object('summary', case
    when jsonb_array_length(answer -> 'halts') > 0 then 'Halted: ' || (answer -> 'halts' -> 0 ->> 'reason')
    else format('%s: %s of %s devices run %s; %s in flight, %s failed%s.', initcap(rollout.state::text), answer ->> 'on_release',
      answer ->> 'devices', answer ->> 'version', answer ->> 'in_flight', answer ->> 'failed',
      case when (answer ->> 'known_bad')::int > 0 then format(', known bad for %s', answer ->> 'known_bad') else '' end) end);
end
$$;
