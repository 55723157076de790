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
create function private.rollout_devices(wanted_id uuid) returns table (
  device_id uuid, name text, segment text, bucket int, stage int, current_release uuid, reported_at timestamptz,
  report_state public.report_state, poll_interval_s int)
language plpgsql stable security definer set search_path = '' set work_mem = '64MB' set plan_cache_mode = force_custom_plan set jit = off
rows 100000
as $$
-- Definer: policy's own view of the fleet. The whole audience at once, the same rule as stage_holds() written
-- out, because a call for each of 100,000 devices would take seconds. Stages not open yet get the floor that
-- opening them now would give. A plan of its own for each rollout, and an estimate of many rows: looking for the report of
-- one device after the other takes ten times as long as reading all. No compiling (jit), here and in
-- all that reads this: for so many expected rows it takes a tenth of a second each time, however small the fleet.
#variable_conflict use_column
declare
  rollout public.rollouts;
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  return query
  -- Not materialized: to write 100,000 rows down costs more than to compute their buckets again, and only for a stage that
  -- is not open yet is the lowest one looked for. The offset has each bucket computed once, however often it is compared.
  with matching as not materialized (
    select d.id, d.name, d.segment, d.poll_interval_s, private.bucket(rollout.release_id, d.id) as bucket
    from public.devices d
    where d.branch = rollout.branch and (rollout.role is null or d.role = rollout.role)
      and private.device_matches(d, rollout.selector) and d.state = 'active' and d.pinned_release is null
    offset 0
  ),
  lowest as materialized (
    select m.segment, min(m.bucket) + 1 as bucket from matching m group by m.segment
  ),
  shares as (
    select s.position, s.segment, s.floor_bucket,
      coalesce(s.percent, case when s.device_ids is null then 100 else 0 end) * 1000 as share
    from public.rollout_stages s where s.rollout_id = wanted_id
  ),
  stages as (
    select s.position, s.segment, ceil(greatest(s.share,
        coalesce(s.floor_bucket, (select min(l.bucket) from lowest l where s.segment is null or l.segment = s.segment), 0)))::int as below
    from shares s where s.share > 0
  ),
  -- Of each segment, which stage adds which buckets to those before it.
  steps as (
    select g.name as segment, s.position, s.below, coalesce(max(s.below) over (
        partition by g.name order by s.position rows between unbounded preceding and 1 preceding), 0) as at_least
    from public.segments g join stages s on s.segment is null or s.segment = g.name
  ),
  named as (
    select n.id, min(s.position) as position
    from public.rollout_stages s cross join unnest(s.device_ids) as n (id) where s.rollout_id = wanted_id group by n.id
  )
  select m.id, m.name, m.segment, m.bucket, least(t.position, n.position), s.current_release, s.reported_at, s.state,
    coalesce(s.pinned_poll_interval_s, m.poll_interval_s)
  from matching m
  left join public.device_status s on s.device_id = m.id
  left join steps t on t.segment = m.segment and m.bucket >= t.at_least and m.bucket < t.below
  left join named n on n.id = m.id;
end
$$;
comment on function private.rollout_devices(uuid) is
  'Every device that a rollout is for, with its bucket, its first stage (null: no stage includes it) and its last report; poll_interval_s is null for the fleet''s own.';
revoke execute on function private.rollout_devices(uuid) from public;
