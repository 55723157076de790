-- Which device belongs to which stage. It depends only on the ids of the release and the device, so that a percentage is
-- the same set on every call, raising it only adds devices, and the first ones differ from release to release.

-- Bound when created, so that PostgreSQL inlines it into the query over the whole fleet.
create function private.bucket(release_id uuid, device_id uuid) returns int
language sql immutable
-- md5, not hashtext: the bucket must not move when PostgreSQL is upgraded. 28 bits stay positive in an int.
return ('x' || left(md5(release_id::text || device_id::text), 7))::bit(28)::int % 100000;
comment on function private.bucket(uuid, uuid) is 'A device''s fixed place in the order of one release: 0 to 99999, evenly spread.';
revoke execute on function private.bucket(uuid, uuid) from public;

create function private.stage_holds(stage public.rollout_stages, device_id uuid, segment text, bucket int) returns boolean
language sql immutable set search_path = ''
as $$
  select coalesce(device_id = any (stage.device_ids), false)
    or (coalesce(stage.segment = stage_holds.segment, true)
        and coalesce(stage.percent, case when stage.device_ids is null then 100 else 0 end) > 0
        and bucket < greatest(coalesce(stage.percent, case when stage.device_ids is null then 100 else 0 end) * 1000,
                              coalesce(stage.floor_bucket, 0)))
$$;
comment on function private.stage_holds(public.rollout_stages, uuid, text, int) is 'Does this stage include a matching device of this segment and bucket?';
revoke execute on function private.stage_holds(public.rollout_stages, uuid, text, int) from public;

create function private.stage_for(device public.devices, rollout public.rollouts, opened boolean) returns int
language plpgsql stable set search_path = ''
as $$
declare
  bucket int := private.bucket(rollout.release_id, device.id);
begin
  return (
    select min(s.position) from public.rollout_stages s
    where s.rollout_id = rollout.id and (s.opened_at is not null) = opened
      and private.stage_holds(s, device.id, device.segment, bucket));
end
$$;
comment on function private.stage_for(public.devices, public.rollouts, boolean) is 'The first stage, of the open ones or of the others, that includes the device; null for none.';
revoke execute on function private.stage_for(public.devices, public.rollouts, boolean) from public;

-- The stages are computed once, and everything else once per device. Computing the floor of each stage for every device
-- is quadratic: 20,000 devices took longer than any timeout.
--
-- Bound when created, so that PostgreSQL inlines it into the query of the caller, which then reads only what it asks for, and
-- writes no list of 100,000 devices in between. For that the caller's settings have to be right: a plan of its own for each
-- rollout (plan_cache_mode), in which what the selector does not name costs nothing; memory to join all reports at once
-- (work_mem); no compiling (jit), which for so many expected rows takes a tenth of a second each time, however small the fleet.
create function private.rollout_devices(rollout public.rollouts) returns table (
  device_id uuid, name text, segment text, stage int, current_release uuid, reported_at timestamptz,
  report_state public.report_state, poll_interval_s int)
language sql stable
begin atomic
  -- The same rule as stage_holds() written out, because a call for each of 100,000 devices would take seconds. Stages that
  -- are not open yet get the floor that opening them now would give.
  with matching as not materialized (
    select d.id, d.name, d.segment, d.poll_interval_s
    from public.devices d
    where d.branch = rollout.branch and (rollout.role is null or d.role = rollout.role)
      and private.device_matches(d, rollout.selector) and d.state = 'active' and d.pinned_release is null
  ),
  lowest as materialized (
    select m.segment, min(private.bucket(rollout.release_id, m.id)) + 1 as bucket from matching m group by m.segment
  ),
  shares as (
    select s.position, s.segment, s.floor_bucket,
      coalesce(s.percent, case when s.device_ids is null then 100 else 0 end) * 1000 as share
    from public.rollout_stages s where s.rollout_id = rollout.id
  ),
  stages as (
    -- Only where a part of the devices is meant does the lowest one matter.
    select s.position, s.segment, case when s.share >= 100000 then 100000 else ceil(greatest(s.share,
        coalesce(s.floor_bucket, (select min(l.bucket) from lowest l where s.segment is null or l.segment = s.segment), 0)))::int end as below
    from shares s where s.share > 0
  ),
  -- Of each segment, which stage adds which buckets to those before it.
  steps as materialized (
    select g.name as segment, t.position, t.below, coalesce(max(t.below) over (
        partition by g.name order by t.position rows between unbounded preceding and 1 preceding), 0) as at_least
    from public.segments g join stages t on t.segment is null or t.segment = g.name
  ),
  named as (
    select n.id, min(s.position) as position
    from public.rollout_stages s cross join unnest(s.device_ids) as n (id) where s.rollout_id = rollout.id group by n.id
  ),
  -- The offset has each bucket computed once, however often it is compared; and not at all where every stage is for all.
  placed as (
    select m.id, m.name, m.segment, m.poll_interval_s,
      case when (select bool_or(t.at_least > 0 or t.below < 100000) from steps t)
        then private.bucket(rollout.release_id, m.id) else 0 end as bucket
    from matching m offset 0
  )
  select p.id, p.name, p.segment, least(t.position, n.position), s.current_release, s.reported_at, s.state,
    coalesce(s.pinned_poll_interval_s, p.poll_interval_s)
  from placed p
  left join public.device_status s on s.device_id = p.id
  left join steps t on t.segment = p.segment and p.bucket >= t.at_least and p.bucket < t.below
  left join named n on n.id = p.id;
end;
comment on function private.rollout_devices(public.rollouts) is
  'Every device that a rollout is for, with its first stage (null: no stage includes it) and its last report; poll_interval_s is null for the fleet''s own.';
revoke execute on function private.rollout_devices(public.rollouts) from public;
