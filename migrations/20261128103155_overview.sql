-- What the front page of the dashboard shows next to fleet_overview: the last day, the rollouts that run, and what is
-- halted, in words.

create view public.fleet_last_day with (security_invoker = true) as
with since as (
  select now() - interval '1 day' as at
),
attempts as (
  select count(*) filter (where h.outcome = 'succeeded') as succeeded, count(*) filter (where h.outcome = 'failed') as failed,
    count(*) filter (where h.outcome = 'rolled_back') as rolled_back, count(*) filter (where h.outcome = 'skipped') as skipped,
    count(distinct h.device_id) as devices
  from public.update_history h where h.received_at >= (select s.at from since s)
)
select a.succeeded as updates_succeeded, a.failed as updates_failed, a.rolled_back as updates_rolled_back, a.skipped as updates_skipped,
  a.devices as devices_that_tried,
  (select count(*) from public.devices d where d.enrolled_at >= s.at) as devices_joined,
  (select count(*) from public.releases r where r.created_at >= s.at) as releases_added,
  (select count(*) from public.rollouts r where r.started_at >= s.at) as rollouts_started,
  (select count(*) from public.rollouts r where r.ended_at >= s.at) as rollouts_ended,
  (select count(*) from public.halts h where h.opened_at >= s.at) as halts_opened,
  (select count(*) from public.halts h where h.lifted_at >= s.at) as halts_lifted,
  (select count(*) from public.alerts l where l.opened_at >= s.at) as alerts_opened,
  (select count(*) from public.alerts l where l.resolved_at >= s.at) as alerts_resolved,
  (select count(*) from public.audit_log l where l.at >= s.at and l.actor_id is not null) as edits,
  (select count(distinct l.actor_id) from public.audit_log l where l.at >= s.at) as people
from since s, attempts a;
comment on view public.fleet_last_day is 'What happened in the last 24 hours, in one row.';
comment on column public.fleet_last_day.devices_that_tried is 'Devices with at least one attempt, whatever its outcome.';
comment on column public.fleet_last_day.edits is 'Changes of rows by people; people is how many they were.';
revoke all on public.fleet_last_day from public;
grant select on public.fleet_last_day to authenticated, service_role;

-- Rollouts.

create function public.open_rollouts(at timestamptz default now()) returns jsonb
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: reads policy's counters. Any operator may ask. `next` is what keeps the next stage shut, as devices are told.
declare
  rollout public.rollouts;
  because private.gate_result;
  following public.rollout_stages;
  answer jsonb := '[]';
begin
  perform private.require_rank('viewer');
  for rollout in
    select r.* from public.rollouts r where r.state in ('running', 'paused') order by r.started_at desc limit 20
  loop
    because := private.shut_because(rollout, 'UTC', open_rollouts.at);
    select s.* into following from public.rollout_stages s
    where s.rollout_id = rollout.id and s.opened_at is null order by s.position limit 1;
    answer := answer || (public.rollout_progress(rollout.id) || jsonb_build_object('branch', rollout.branch, 'role', rollout.role,
      'next', jsonb_build_object('stage', following.position, 'at', because.look_again, 'because', because.detail, 'hint', because.hint,
        'approval', coalesce(following.needs_approval and following.approved_at is null, false))));
  end loop;
  return answer;
end
$$;
comment on function public.open_rollouts(timestamptz) is
  'The progress of every rollout that runs or is paused, the latest first, and what comes next: the stage, when it opens if that is known, and why not yet.';
revoke execute on function public.open_rollouts(timestamptz) from public;
grant execute on function public.open_rollouts(timestamptz) to authenticated, service_role;

-- Halts.

create function private.to_uuid(word text) returns uuid
language sql immutable parallel safe
return case when word ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then word::uuid end;
comment on function private.to_uuid(text) is 'An id from a column of texts; null for any other text.';
revoke execute on function private.to_uuid(text) from public;
grant execute on function private.to_uuid(text) to authenticated, service_role;

create function public.halt_reach(scope public.halt_scope default 'fleet', target text default null) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set work_mem = '64MB' set plan_cache_mode = force_custom_plan
as $$
-- Definer: policy's own view of the fleet. Active devices: nobody else gets updates. Of a release, those that it could
-- still go to; of a rollout, those of its stages that do not run its release.
declare
  answer jsonb;
  concerned uuid;
  rollout public.rollouts;
begin
  perform private.require_rank('viewer');
  concerned := case when halt_reach.scope in ('release', 'rollout') then private.to_uuid(halt_reach.target) end;
  select r.* into rollout from public.rollouts r where r.id = concerned;
  with reached as (
    select d.segment, s.state as reported
    from public.devices d left join public.device_status s on s.device_id = d.id
    where d.state = 'active' and case halt_reach.scope
      when 'fleet' then true
      when 'segment' then d.segment = halt_reach.target
      when 'role' then d.role = halt_reach.target
      when 'branch' then d.branch = halt_reach.target
      when 'release' then d.branch = (select r.branch from public.releases r where r.id = concerned)
        and s.current_release is distinct from concerned
      else d.id in (
        select p.device_id from private.rollout_devices(rollout) p
        where p.stage is not null and p.current_release is distinct from rollout.release_id)
    end
  ),
  by_segment as (
    select r.segment, count(*) as devices from reached r group by r.segment
  )
  select jsonb_build_object('devices', coalesce((select sum(b.devices) from by_segment b), 0),
    'updating', (select count(*) from reached r where r.reported = 'updating'),
    'by_segment', coalesce((select jsonb_agg(jsonb_build_object('segment', b.segment, 'devices', b.devices) order by b.segment) from by_segment b), '[]'))
  into answer;
  return answer;
end
$$;
comment on function public.halt_reach(public.halt_scope, text) is
  'How many active devices a halt keeps from updates (in all and by segment), and how many of them update at this moment.';
revoke execute on function public.halt_reach(public.halt_scope, text) from public;
grant execute on function public.halt_reach(public.halt_scope, text) to authenticated, service_role;

create function private.is_offered(release public.releases) returns boolean
language sql stable set search_path = ''
as $$
select release.state = 'available' and (
  exists (select from public.rollouts r where r.release_id = release.id and r.state in ('running', 'paused', 'completed'))
  or exists (select from public.devices d where d.pinned_release = release.id and d.state = 'active')
  or not release.by_rollout_only and exists (select from public.branches b where b.name = release.branch and b.delivery = 'immediate')
    and not exists (select from public.releases n where n.branch = release.branch and n.state = 'available' and not n.by_rollout_only
      and n.created_at > release.created_at))
$$;
comment on function private.is_offered(public.releases) is 'Does a rollout, a pin or an immediate branch still offer this release to anybody?';
revoke execute on function private.is_offered(public.releases) from public;

create function public.open_halts() returns table (
  id uuid, scope public.halt_scope, target text, subject text, cause text, reason text, roll_back boolean, all_at_once boolean,
  opened_at timestamptz, opened_by text, devices bigint, going_back bigint, is_past boolean)
language plpgsql stable security definer set search_path = '' set jit = off
as $$
-- Definer: policy's own view of the fleet. Any operator may ask.
begin
  perform private.require_rank('viewer');
  return query
  select h.id, h.scope, h.target,
    case h.scope
      when 'fleet' then 'The whole fleet'
      when 'release' then 'Release ' || coalesce(l.version, 'that is gone')
      when 'rollout' then format('Rollout %s', coalesce(r.name, 'that is gone')) || coalesce(
        case when r.name <> l.version then format(' of release %s', l.version) end, '')
      else upper(left(h.scope::text, 1)) || substr(h.scope::text, 2) || ' ' || h.target
    end,
    h.cause, h.reason, h.roll_back, h.all_at_once, h.opened_at,
    (select o.email from public.operators o where o.user_id = h.opened_by),
    case when past.is_past then 0 else (public.halt_reach(h.scope, h.target) ->> 'devices')::bigint end,
    past.still_there, past.is_past
  from public.halts h
  left join public.rollouts r on h.scope = 'rollout' and r.id = private.to_uuid(h.target)
  left join public.releases l on l.id = coalesce(r.release_id, case when h.scope = 'release' then private.to_uuid(h.target) end)
  cross join lateral (
    select count(*) as devices from public.device_status s join public.devices d on d.id = s.device_id
    where h.roll_back and s.current_release = l.id and d.state = 'active') back
  cross join lateral (
    -- It says nothing to anybody any more, and takes nobody back.
    select back.devices as still_there, back.devices = 0 and case h.scope
      when 'rollout' then r.id is null or r.state in ('superseded', 'cancelled') or not private.is_offered(l)
      when 'release' then l.id is null or not private.is_offered(l)
      else false end as is_past) past
  where h.lifted_at is null
  order by past.is_past, h.opened_at;
end
$$;
comment on function public.open_halts() is
  'Open halts in words. devices: the active devices that it keeps from updates. going_back: those that still run what it takes back. is_past: its rollout is over, or its release is offered to nobody.';
revoke execute on function public.open_halts() from public;
grant execute on function public.open_halts() to authenticated, service_role;
