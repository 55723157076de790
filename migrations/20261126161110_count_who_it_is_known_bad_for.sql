-- Who cannot have a release because it is known bad for them is counted as that, by preview_rollout() and
-- rollout_progress(), is not woken for a slot, and keeps no stage from being proved.

create or replace function public.preview_rollout(rollout_id uuid, at timestamptz default now()) returns table (
  stage int, device_id uuid, name text, segment text, already_there boolean, known_bad boolean, held boolean, earliest timestamptz)
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: policy's own view of the fleet. Any operator may ask; nothing is started. `earliest` adds up the soak times
-- before the stage and the device's window; caps and failures can only make it later. Approvals count as given.
declare
  asked_for public.rollouts;
begin
  perform private.require_rank('viewer');
  select r.* into asked_for from public.rollouts r where r.id = preview_rollout.rollout_id;
  if asked_for.id is null then
    perform private.refuse('rollout_unknown', 'There is no such rollout.', 'Look it up in the table rollouts.', 'PT404');
  end if;
  return query
  with stages as (
    select s.position, coalesce(s.opened_at, preview_rollout.at + make_interval(secs => coalesce((
      select sum(b.soak_s) from public.rollout_stages b
      where b.rollout_id = s.rollout_id and b.position < s.position
        and b.position >= coalesce((select max(o.position) from public.rollout_stages o
          where o.rollout_id = s.rollout_id and o.opened_at is not null), 0)), 0))) as opens
    from public.rollout_stages s where s.rollout_id = preview_rollout.rollout_id
  )
  select p.stage, p.device_id, p.name, p.segment,
    p.current_release is not distinct from asked_for.release_id, k.device_id is not null,
    d.hold and (d.hold_until is null or d.hold_until > preview_rollout.at),
    case
      when p.current_release is not distinct from asked_for.release_id or k.device_id is not null then null
      when d.hold and d.hold_until is null then null
      when g.window_name is null or g.ready < d.ignore_window_until then g.ready
      else case when w.open_until is not null then g.ready else w.opens_at end
    end
  from private.rollout_devices(preview_rollout.rollout_id) p
  join stages s on s.position = p.stage
  join public.devices d on d.id = p.device_id
  join public.segments ring on ring.name = d.segment
  left join private.known_bad_devices(asked_for.release_id) k on k.device_id = p.device_id
  cross join lateral (
    select coalesce(d.maintenance_window, ring.maintenance_window) as window_name,
      greatest(s.opens, preview_rollout.at, case when d.hold then d.hold_until end) as ready) g
  -- The condition stands inside, so that devices without a window do not pay for the question.
  left join lateral (
    select asked.* from private.window_at(g.window_name, d.timezone, g.ready) asked where g.window_name is not null) w on true
  order by p.stage, p.bucket;
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
      p.reported_at is null or p.reported_at < now() - make_interval(secs =>
        (select f.default_poll_interval_s * f.offline_after_intervals from public.fleet_settings f)) as offline,
      k.device_id is not null as known_bad
    from private.rollout_devices(rollout.id) p
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
comment on function public.rollout_progress(uuid) is
  'Where a rollout stands, stage by stage, and what holds it. offline: never offered, because not heard of. known_bad: not offered, by device or by pattern.';

create or replace function private.wake_candidates(wanted_id uuid, reason text) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: reads the fleet. Wakes whom the rollout could give a slot now: the free slots' worth of devices, in the
-- order of their buckets, those heard of last before the offline ones; everybody where there is no limit.
declare
  rollout public.rollouts;
  free int;
  chosen uuid[];
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  if rollout.state is distinct from 'running' and rollout.state is distinct from 'completed' then
    return;
  end if;
  free := least(
    rollout.max_in_flight - (select c.in_flight from private.rollout_counters c where c.rollout_id = wanted_id and c.position = 0),
    rollout.max_per_minute);
  chosen := array(
    select p.device_id from private.rollout_devices(wanted_id) p
    join public.rollout_stages s on s.rollout_id = wanted_id and s.position = p.stage and s.opened_at is not null
    left join public.rollout_claims c on c.rollout_id = wanted_id and c.device_id = p.device_id
    left join private.known_bad_devices(rollout.release_id) k on k.device_id = p.device_id
    where p.current_release is distinct from rollout.release_id and c.device_id is null and k.device_id is null
    order by p.reported_at is null, p.bucket
    -- greatest() would turn "no limit" into none at all.
    limit case when free is not null then greatest(free, 0) end);
  if cardinality(chosen) > 0 then
    perform private.wake_devices(chosen, reason);
  end if;
end
$$;

create function private.stage_size(wanted_id uuid, wanted_position int) returns int
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: policy's own view of the fleet. Who already took a slot counts whatever is known by now.
begin
  return (
    select count(*)
    from private.rollout_devices(wanted_id) p
    left join private.known_bad_devices((select r.release_id from public.rollouts r where r.id = wanted_id)) k on k.device_id = p.device_id
    left join public.rollout_claims c on c.rollout_id = wanted_id and c.device_id = p.device_id
    where p.stage = wanted_position and (k.device_id is null or c.device_id is not null));
end
$$;
comment on function private.stage_size(uuid, int) is 'How many devices a stage has that could try the release: those it is known bad for cannot prove it.';

create or replace function private.open_stage(wanted_id uuid, wanted_position int, at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy moves its own rows. The floor keeps a small percentage of a small fleet from being nobody.
declare
  stage public.rollout_stages;
  lowest int;
begin
  select s.* into stage from public.rollout_stages s where s.rollout_id = wanted_id and s.position = wanted_position;
  select min(p.bucket) filter (where stage.segment is null or p.segment = stage.segment) + 1
    into lowest from private.rollout_devices(wanted_id) p;
  insert into private.rollout_counters (rollout_id, position) values (wanted_id, wanted_position) on conflict do nothing;
  update public.rollout_stages s
  set opened_at = coalesce(s.opened_at, at), floor_bucket = lowest, size_at_opening = private.stage_size(wanted_id, wanted_position)
  where s.rollout_id = wanted_id and s.position = wanted_position;
end
$$;
comment on column public.rollout_stages.size_at_opening is
  'Kept by policy: devices that this stage added and that could try the release; counted again when a known-bad pattern comes or goes.';

create function private.count_stages_again() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: policy moves its own rows. A stage whose last open slots are all known bad would never be proved.
declare
  open_stage record;
begin
  if tg_op = 'UPDATE' and (new.lifted_at is null or old.lifted_at is not null) then
    return null;
  end if;
  for open_stage in
    select s.rollout_id, max(s.position) as position
    from public.rollout_stages s join public.rollouts r on r.id = s.rollout_id
    where r.release_id = new.release_id and r.state in ('running', 'paused') and s.size_at_opening is not null
    group by s.rollout_id order by s.rollout_id
  loop
    update public.rollout_stages s set size_at_opening = private.stage_size(s.rollout_id, s.position)
    where s.rollout_id = open_stage.rollout_id and s.position = open_stage.position;
    perform private.advance_rollout(open_stage.rollout_id, now());
  end loop;
  return null;
end
$$;
create trigger count_stages_again after insert or update on public.known_bad_patterns
  for each row execute function private.count_stages_again();
revoke execute on function private.stage_size(uuid, int), private.count_stages_again() from public;
