-- Going back: what takes a device back, where to, and under which limits.

-- Gate roll_back. A halt that takes devices back comes before every gate below: what the device runs is known to do
-- harm.

create function private.taken_back_by(device_id uuid, release_id uuid) returns public.halts
language plpgsql stable set search_path = ''
as $$
declare
  brake public.halts;
begin
  select h.* into brake from public.halts h
  where h.lifted_at is null and h.roll_back and h.scope in ('release', 'rollout')
    and (h.target = release_id::text or exists (
      select from public.rollout_claims c
      where h.scope = 'rollout' and c.rollout_id::text = h.target
        and c.device_id = taken_back_by.device_id and c.to_release = taken_back_by.release_id))
  order by h.all_at_once desc, h.opened_at limit 1;
  return brake;
end
$$;
comment on function private.taken_back_by(uuid, uuid) is 'The open halt that takes this release back from this device, or all null.';
revoke execute on function private.taken_back_by(uuid, uuid) from public;

-- A device that is taken back from one release does not go to another one that is known bad for it.
create function private.release_before(device_id uuid, release_id uuid) returns uuid
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select c.from_release
    from public.rollout_claims c join public.releases r on r.id = c.from_release join public.devices d on d.id = c.device_id
    where c.device_id = release_before.device_id and c.to_release = release_before.release_id and r.state = 'available'
      and not exists (select from public.halts h where h.lifted_at is null and h.scope = 'release' and h.target = r.id::text)
      and (private.known_bad_for(d, r.id)).id is null
      and not exists (select from public.known_bad_releases k where k.device_id = d.id and k.release_id = r.id)
    order by c.claimed_at desc limit 1);
end
$$;
comment on function private.release_before(uuid, uuid) is 'What the device ran before a rollout gave it this release, if it may still run that; null when not known.';
revoke execute on function private.release_before(uuid, uuid) from public;

create function private.judge_roll_back(current_release public.releases, brake public.halts, back_to uuid) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if back_to is null then
    return private.gate_note('roll_back', format('%s is taken back (%s), but no release to go back to is known.',
      current_release.version, brake.reason),
      'What it ran before is not known, or it is withdrawn, halted or known bad for it. Pin the device to a release that is known to be good.');
  end if;
  return private.gate_pass('roll_back', format('%s is taken back (%s): back to %s.',
    current_release.version, brake.reason, private.release_name(back_to)));
end
$$;
comment on function private.judge_roll_back(public.releases, public.halts, uuid) is 'Gate roll_back: is the release that it runs being taken back, and to which one does it go?';
revoke execute on function private.judge_roll_back(public.releases, public.halts, uuid) from public;

-- Gate roll_back_slot. Going back takes a slot of the rollout that brought the release, whatever has become of that rollout,
-- and of the fleet.

create function private.way_back(device_id uuid, from_release uuid, to_release uuid) returns public.roll_back_slots
language plpgsql stable set search_path = ''
as $$
declare
  way public.roll_back_slots;
begin
  select b.* into way from public.roll_back_slots b
  where b.device_id = way_back.device_id and b.from_release = way_back.from_release;
  way.to_release := way_back.to_release;
  if way.state = 'claimed' then
    return way;
  end if;
  way.device_id := way_back.device_id;
  way.from_release := way_back.from_release;
  select c.rollout_id, c.stage into way.rollout_id, way.stage from public.rollout_claims c
  where c.device_id = way_back.device_id and c.to_release = way_back.from_release order by c.claimed_at desc limit 1;
  if way.rollout_id is null then
    -- It came to run it without a slot: the limits are still those under which the release went out.
    select r.id into way.rollout_id from public.rollouts r
    where r.release_id = way_back.from_release and r.state <> 'draft' and r.started_at is not null order by r.started_at desc, r.id limit 1;
  end if;
  return way;
end
$$;
comment on function private.way_back(uuid, uuid, uuid) is
  'The slot to go back from a release that a device holds, held, or would take: under the limits of the rollout that brought it.';
revoke execute on function private.way_back(uuid, uuid, uuid) from public;

create function private.judge_roll_back_slot(way public.roll_back_slots, all_at_once boolean, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  rollout public.rollouts;
  tried public.rollout_claims;
  said private.gate_result;
begin
  if way.state is distinct from 'claimed' and all_at_once then
    return private.gate_pass('roll_back_slot', 'All go back at once.');
  end if;
  select r.* into rollout from public.rollouts r where r.id = way.rollout_id;
  tried.state := way.state;
  tried.attempts := way.attempts;
  tried.claimed_at := way.taken_at;
  said := private.judge_slot(rollout, way.stage, tried, at);
  if said.verdict = 'wait' then
    said.detail := format('It waits for a slot to go back from %s. %s', private.release_name(way.from_release), said.detail);
    -- Without a rollout there is no line in which it could stand.
    said.look_again := coalesce(said.look_again, case when way.rollout_id is null then at + interval '1 minute' end);
  end if;
  said.gate := 'roll_back_slot';
  return said;
end
$$;
comment on function private.judge_roll_back_slot(public.roll_back_slots, boolean, timestamptz) is
  'Gate roll_back_slot: may it go back now, under the limits of the rollout that brought the release, and of the fleet?';
revoke execute on function private.judge_roll_back_slot(public.roll_back_slots, boolean, timestamptz) from public;

-- A command to go back is kept from the device until it has a slot. One that says all_at_once needs none.
create function private.told_to_go_back(device_id uuid, at timestamptz) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select bool_or(coalesce(c.args -> 'all_at_once' = 'true', false)) from public.device_commands c
    where c.device_id = told_to_go_back.device_id and c.state = 'queued' and c.kind = 'rollback' and at < c.expires_at);
end
$$;
comment on function private.told_to_go_back(uuid, timestamptz) is
  'Is there a command to go back? Null: no; false: under the limits of slots; true: at once.';
revoke execute on function private.told_to_go_back(uuid, timestamptz) from public;

create function private.is_taken_back(rollout public.rollouts) returns boolean
language sql stable set search_path = ''
as $$
  select exists (select from public.releases r where r.id = rollout.release_id and r.state = 'withdrawn')
    or exists (select from public.halts h where h.lifted_at is null and h.roll_back and h.target in (rollout.id::text, rollout.release_id::text))
    or exists (
      select from public.device_commands c join private.rollout_queue q on q.rollout_id = rollout.id and q.device_id = c.device_id
      where c.kind = 'rollback' and c.state = 'queued')
$$;
comment on function private.is_taken_back(public.rollouts) is 'Are devices going back from the release of this rollout, or do they wait to?';
revoke execute on function private.is_taken_back(public.rollouts) from public;
