-- rollout_devices() computed the floor of each stage once for every device, which is quadratic: 20,000 devices took
-- longer than any timeout. The stages are now computed once (materialized), and everything else once per device. preview_rollout() asks for windows only where there is one.

create or replace function private.rollout_devices(wanted_id uuid) returns table (
  device_id uuid, name text, segment text, bucket int, stage int, current_release uuid, reported_at timestamptz)
language sql stable security definer set search_path = ''
as $$
  -- Definer: policy's own view of the fleet. The whole audience at once, the same rule as stage_holds() written
  -- out, because a call for each of 100,000 devices would take seconds. Stages not open yet get the floor that
  -- opening them now would give.
  with matching as materialized (
    select d.id, d.name, d.segment, s.current_release, s.reported_at,
      ('x' || left(md5(r.release_id::text || d.id::text), 7))::bit(28)::int % 100000 as bucket
    from public.rollouts r
    join public.devices d on d.branch = r.branch and (r.role is null or d.role = r.role)
      and d.labels @> r.label_selector and d.state = 'active' and d.pinned_release is null
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

create or replace function public.preview_rollout(rollout_id uuid, at timestamptz default now()) returns table (
  stage int, device_id uuid, name text, segment text, already_there boolean, known_bad boolean, held boolean, earliest timestamptz)
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: policy's own view of the fleet. Any operator may ask; nothing is started. `earliest` adds up the soak times
-- before the stage and the device's window; caps and failures can only make it later. Approvals count as given.
begin
  perform private.require_rank('viewer');
  if not exists (select from public.rollouts r where r.id = preview_rollout.rollout_id) then
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
    p.current_release is not distinct from r.release_id, k.device_id is not null,
    d.hold and (d.hold_until is null or d.hold_until > preview_rollout.at),
    case
      when p.current_release is not distinct from r.release_id or k.device_id is not null then null
      when d.hold and d.hold_until is null then null
      when g.window_name is null then g.ready
      else case when w.open_until is not null then g.ready else w.opens_at end
    end
  from private.rollout_devices(preview_rollout.rollout_id) p
  join public.rollouts r on r.id = preview_rollout.rollout_id
  join stages s on s.position = p.stage
  join public.devices d on d.id = p.device_id
  join public.segments ring on ring.name = d.segment
  left join public.known_bad_releases k on k.device_id = p.device_id and k.release_id = r.release_id
  cross join lateral (
    select coalesce(d.maintenance_window, ring.maintenance_window) as window_name,
      greatest(s.opens, preview_rollout.at, case when d.hold then d.hold_until end) as ready) g
  -- The condition stands inside, so that devices without a window do not pay for the question.
  left join lateral (
    select asked.* from private.window_at(g.window_name, d.timezone, g.ready) asked where g.window_name is not null) w on true
  order by p.stage, p.bucket;
end
$$;

-- The live topic: a statement that changes 100,000 rows must not build 100,000 summaries to say "many".
create or replace function private.announce_rows() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- For statements; the transition tables are called new_rows and old_rows.
declare
  changed jsonb;
begin
  if tg_op = 'INSERT' then
    select coalesce(jsonb_agg(private.summary(tg_table_name, to_jsonb(n))), '[]') into changed
    from (select * from new_rows limit 5000) n;
  elsif tg_op = 'DELETE' then
    select coalesce(jsonb_agg(private.summary(tg_table_name, to_jsonb(o))), '[]') into changed
    from (select * from old_rows limit 5000) o;
  else
    -- Rows whose summary changed. Of a large edit only a part is looked at: the message says "many", not how many.
    select coalesce(jsonb_agg(s.summary), '[]') into changed from (
      select private.summary(tg_table_name, to_jsonb(n)) as summary from (select * from new_rows limit 5000) n
      except
      select private.summary(tg_table_name, to_jsonb(o)) from old_rows o
      where (select count(*) from (select from old_rows limit 5001) few) <= 5000
    ) s;
  end if;
  perform private.announce(tg_table_name, lower(tg_op), changed);
  return null;
end
$$;
