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

-- The stages are computed once (materialized), and everything else once per device. Computing the floor of each stage
-- for every device is quadratic: 20,000 devices took longer than any timeout.
create function private.rollout_devices(wanted_id uuid) returns table (
  device_id uuid, name text, segment text, bucket int, stage int, current_release uuid, reported_at timestamptz)
language sql stable security definer set search_path = ''
as $$
  -- Definer: policy's own view of the fleet. The whole audience at once, the same rule as stage_holds() written
  -- out, because a call for each of 100,000 devices would take seconds. Stages not open yet get the floor that
  -- opening them now would give.
  with matching as materialized (
    select d.id, d.name, d.segment, s.current_release, s.reported_at,
      private.bucket(r.release_id, d.id) as bucket
    from public.rollouts r
    join public.devices d on d.branch = r.branch and (r.role is null or d.role = r.role)
      and private.device_matches(d, r.selector) and d.state = 'active' and d.pinned_release is null
    left join public.device_status s on s.device_id = d.id
    where r.id = wanted_id
  ),
  lowest as materialized (
    select m.segment, min(m.bucket) + 1 as bucket from matching m group by m.segment
  ),
  stages as materialized (
    select s.position, s.segment, s.device_ids,
      coalesce(s.percent, case when s.device_ids is null then 100 else 0 end) * 1000 as share,
      greatest(
        coalesce(s.percent, case when s.device_ids is null then 100 else 0 end) * 1000,
        coalesce(s.floor_bucket, (select min(l.bucket) from lowest l where s.segment is null or l.segment = s.segment), 0)) as below
    from public.rollout_stages s where s.rollout_id = wanted_id
  )
  select m.id, m.name, m.segment, m.bucket, (
      select min(s.position) from stages s
      where m.id = any (s.device_ids)
         or ((s.segment is null or s.segment = m.segment) and s.share > 0 and m.bucket < s.below)),
    m.current_release, m.reported_at
  from matching m
$$;
comment on function private.rollout_devices(uuid) is 'Every device that a rollout is for, with its bucket and first stage (null: no stage includes it).';
revoke execute on function private.rollout_devices(uuid) from public;
