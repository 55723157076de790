-- A change that concerns devices wakes them, whoever made it and however. A wake is a hint: it says that something
-- changed, not what; the device then calls desired_state(). Polling alone is always enough.
--
-- Definer functions owned by postgres, because realtime.send() inserts as the caller and realtime.messages has no insert
-- policy: nobody can forge a wake.

create function private.spread_s(audience bigint) returns int
language sql stable set search_path = ''
as $$
  select (greatest(audience - 1, 0) * s.spread_ms_per_device / 1000)::int from public.fleet_settings s
$$;
comment on function private.spread_s(bigint) is 'Over how many seconds this many woken devices should spread their calls.';
revoke execute on function private.spread_s(bigint) from public;

create function private.send_wake(topic text, reason text, audience bigint) returns void
language sql volatile security definer set search_path = ''
as $$
  -- Definer: sends as postgres, see above.
  select realtime.send(
    jsonb_build_object('v', 1, 'reason', send_wake.reason, 'spread_s', private.spread_s(audience)),
    'wake', send_wake.topic, true)
$$;
comment on function private.send_wake(text, text, bigint) is 'Sends one wake to one private topic.';
revoke execute on function private.send_wake(text, text, bigint) from public;

create function private.wake_segments(names text[], reason text) returns void
language sql volatile security definer set search_path = ''
as $$
  -- Definer: counts devices. An empty segment is not woken: Realtime bills by message.
  select private.send_wake('segment:' || d.segment, wake_segments.reason, count(*))
  from public.devices d
  where d.segment = any (names) and d.state = 'active'
  group by d.segment
$$;
comment on function private.wake_segments(text[], text) is 'Wakes every active device of these segments, one message a segment.';
revoke execute on function private.wake_segments(text[], text) from public;

create function private.wake_devices(ids uuid[], reason text) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: reads devices. Few devices: one message each. Many: one message for each of their segments, which
-- wakes some that are not concerned; they ask, and nothing changes for them.
declare
  audience int := cardinality(ids);
begin
  if audience <= (select s.wake_one_by_one_up_to from public.fleet_settings s) then
    perform private.send_wake('device:' || id, wake_devices.reason, audience) from unnest(ids) id;
  else
    perform private.wake_segments(
      array(select distinct d.segment from public.devices d where d.id = any (ids)), wake_devices.reason);
  end if;
end
$$;
comment on function private.wake_devices(uuid[], text) is 'Wakes these devices: one by one if they are few, otherwise their segments.';
revoke execute on function private.wake_devices(uuid[], text) from public;

-- Which change wakes which devices.

create function private.wake_after_device_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  concerned uuid[];
begin
  select array_agg(n.id) into concerned
  from new_rows n join old_rows o using (id)
  where (n.state = 'active' or o.state = 'active')
    and ((n.role, n.segment, n.branch, n.state, n.pinned_release, n.hold, n.hold_until, n.maintenance_window,
         n.ignore_window_until, n.poll_interval_s, n.timezone, n.labels, n.hardware_model, n.os)
        is distinct from
        (o.role, o.segment, o.branch, o.state, o.pinned_release, o.hold, o.hold_until, o.maintenance_window,
         o.ignore_window_until, o.poll_interval_s, o.timezone, o.labels, o.hardware_model, o.os)
      -- A name means nothing to policy, unless a selector calls it.
      or n.state = 'active' and n.name <> o.name and (
        exists (select from public.rollouts r where r.selector -> 'name' ? n.name and r.state not in ('draft', 'cancelled'))
        or exists (select from public.known_bad_patterns k where k.selector -> 'name' ? n.name and k.lifted_at is null)));
  if concerned is not null then
    perform private.wake_devices(concerned, 'device_changed');
  end if;
  return null;
end
$$;
revoke execute on function private.wake_after_device_change() from public;
create trigger wake after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement execute function private.wake_after_device_change();

create function private.wake_after_release_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  concerned uuid[];
begin
  if tg_op = 'UPDATE' and (new.state, new.all_at_once) = (old.state, old.all_at_once) then
    return null;
  end if;
  -- A release that only a rollout can give is no news until that starts.
  if tg_op = 'INSERT' and not private.is_given_at_once(new) then
    return null;
  end if;
  concerned := array(
    select d.id from public.devices d
    where d.state = 'active' and (d.branch = new.branch or d.pinned_release = new.id));
  if cardinality(concerned) > 0 then
    perform private.wake_devices(concerned,
      case when tg_op = 'INSERT' then 'release_added' else 'release_' || new.state end);
  end if;
  return null;
end
$$;
revoke execute on function private.wake_after_release_change() from public;
create trigger wake after insert or update of state, all_at_once on public.releases
  for each row execute function private.wake_after_release_change();

create function private.wake_after_branch_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  perform private.wake_devices(array(select d.id from public.devices d where d.branch = new.name and d.state = 'active'), 'branch_immediate');
  return null;
end
$$;
revoke execute on function private.wake_after_branch_change() from public;
create trigger wake after update on public.branches
  for each row when (new.delivery = 'immediate' and old.delivery <> 'immediate')
  execute function private.wake_after_branch_change();

create function private.wake_after_command() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  perform private.wake_devices(array(select distinct n.device_id from new_rows n), 'command');
  return null;
end
$$;
revoke execute on function private.wake_after_command() from public;
create trigger wake after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function private.wake_after_command();

create function private.wake_scope(scope public.halt_scope, target text, reason text) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: reads devices, reports and claims. Wakes whom a halt of this scope concerns.
declare
  concerned uuid[];
begin
  if scope = 'fleet' then
    perform private.wake_segments(array(select s.name from public.segments s), reason);
  elsif scope = 'segment' then
    perform private.wake_segments(array[target], reason);
  elsif scope in ('role', 'branch') then
    perform private.wake_devices(array(
      select d.id from public.devices d
      where d.state = 'active' and case wake_scope.scope when 'role' then d.role = target else d.branch = target end), reason);
  else
    -- Who is moving to it, who runs it (it may be taken back), who is pinned to it; when it is lifted, who could
    -- have it now.
    perform private.wake_devices(array(
      select c.device_id from public.rollout_claims c
      where c.state in ('claimed', 'succeeded', 'regressed')
        and ((wake_scope.scope = 'rollout' and c.rollout_id::text = target) or (wake_scope.scope = 'release' and c.to_release::text = target))
      union
      select d.id from public.devices d where wake_scope.scope = 'release' and d.state = 'active' and d.pinned_release::text = target
      union
      select d.id from public.devices d join public.releases r on r.branch = d.branch
      where wake_scope.scope = 'release' and d.state = 'active' and r.id::text = target
        and private.is_given_at_once(r)), reason);
    if reason = 'halt_lifted' then
      perform private.wake_candidates(r.id, reason) from public.rollouts r
      where r.state in ('running', 'completed', 'superseded')
        and ((wake_scope.scope = 'rollout' and r.id::text = target) or (wake_scope.scope = 'release' and r.release_id::text = target));
    end if;
  end if;
end
$$;
comment on function private.wake_scope(public.halt_scope, text, text) is 'Wakes the devices that a halt of this scope and target affects.';
revoke execute on function private.wake_scope(public.halt_scope, text, text) from public;

create function private.wake_after_halt_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if tg_op = 'INSERT' then
    perform private.wake_scope(new.scope, new.target, 'halt_opened');
  elsif new.lifted_at is not null and old.lifted_at is null then
    perform private.wake_scope(new.scope, new.target, 'halt_lifted');
  end if;
  return null;
end
$$;
revoke execute on function private.wake_after_halt_change() from public;
create trigger wake after insert or update on public.halts
  for each row execute function private.wake_after_halt_change();

create function private.wake_after_settings_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.default_poll_interval_s is distinct from old.default_poll_interval_s then
    perform private.wake_segments(array(select s.name from public.segments s), 'settings_changed');
  end if;
  return null;
end
$$;
revoke execute on function private.wake_after_settings_change() from public;
create trigger wake after update on public.fleet_settings
  for each row execute function private.wake_after_settings_change();

create function private.wake_after_forgiveness() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  -- A device that caused it itself, by succeeding, needs no wake.
  if private.device_id() is null then
    perform private.wake_devices(array(select distinct o.device_id from old_rows o), 'release_forgiven');
  end if;
  return null;
end
$$;
revoke execute on function private.wake_after_forgiveness() from public;
create trigger wake after delete on public.known_bad_releases
  referencing old table as old_rows
  for each statement execute function private.wake_after_forgiveness();

create function private.wake_after_segment_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.maintenance_window is distinct from old.maintenance_window then
    perform private.wake_segments(array[new.name], 'window_changed');
  end if;
  return null;
end
$$;
revoke execute on function private.wake_after_segment_change() from public;
create trigger wake after update on public.segments
  for each row execute function private.wake_after_segment_change();

create function private.wake_window(changed text) returns void
language sql volatile security definer set search_path = ''
as $$
  -- Definer: reads the fleet.
  select private.wake_devices(array(
    select d.id from public.devices d join public.segments s on s.name = d.segment
    where d.state = 'active' and coalesce(d.maintenance_window, s.maintenance_window) = changed), 'window_changed')
$$;
comment on function private.wake_window(text) is 'Wakes the devices that have this window, their own or that of their segment.';
revoke execute on function private.wake_window(text) from public;

create function private.wake_after_window_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  perform private.wake_window(case when tg_op = 'DELETE' then old.maintenance_window else new.maintenance_window end);
  return null;
end
$$;
revoke execute on function private.wake_after_window_change() from public;
create trigger wake after insert or update or delete on public.maintenance_openings
  for each row execute function private.wake_after_window_change();

-- Whether devices may prefetch matters to the devices that have the window, as a new opening does.

create function private.wake_after_prefetch_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  perform private.wake_window(new.name);
  return null;
end
$$;
comment on function private.wake_after_prefetch_change() is 'Wakes the devices of a window that may, or may no longer, prefetch.';
revoke execute on function private.wake_after_prefetch_change() from public;
create trigger wake after update on public.maintenance_windows
  for each row when (new.prefetch is distinct from old.prefetch)
  execute function private.wake_after_prefetch_change();

-- Which devices could get a slot in a rollout now.

create function private.wake_candidates(wanted_id uuid, reason text, outside_stages boolean default false) returns void
language plpgsql volatile security definer set search_path = '' set jit = off set work_mem = '64MB' set plan_cache_mode = force_custom_plan
as $$
-- Definer: reads the fleet. Wakes whom the rollout could give a slot now: the free slots' worth of devices, in the
-- order of their buckets, those heard of last before the offline ones; everybody where there is no limit. With
-- `outside_stages` only whom no stage holds.
declare
  rollout public.rollouts;
  free int;
  chosen uuid[];
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  if rollout.state is null or rollout.state not in ('running', 'completed', 'superseded') then
    return;
  end if;
  free := least(
    rollout.max_in_flight - (select c.in_flight from private.rollout_counters c where c.rollout_id = wanted_id and c.position = 0),
    private.starts_left(rollout, now()));
  chosen := array(
    select p.device_id from private.rollout_devices(rollout) p
    left join public.rollout_stages s on s.rollout_id = wanted_id and s.position = p.stage
    left join public.rollout_claims c on c.rollout_id = wanted_id and c.device_id = p.device_id
    where p.current_release is distinct from rollout.release_id
      and p.device_id not in (select k.device_id from private.known_bad_devices(rollout.release_id) k)
      and (s.opened_at is not null and not outside_stages or p.stage is null and rollout.state = 'completed')
      -- Who gave its slot back may have one again.
      and coalesce(c.state, 'released') = 'released'
    order by p.reported_at is null, private.bucket(rollout.release_id, p.device_id)
    -- greatest() would turn "no limit" into none at all.
    limit case when free is not null then greatest(free, 0) end);
  if cardinality(chosen) > 0 then
    perform private.wake_devices(chosen, reason);
  end if;
end
$$;
comment on function private.wake_candidates(uuid, text, boolean) is 'Wakes the devices that could get a slot in this rollout now.';
revoke execute on function private.wake_candidates(uuid, text, boolean) from public;

create function private.wake_waiting(wanted_id uuid) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the queue is policy's own. Wakes as many of those who stand in line as there are free slots.
declare
  free int;
  chosen uuid[];
begin
  select least(r.max_in_flight - c.in_flight, private.starts_left(r, now())) into free
  from public.rollouts r join private.rollout_counters c on c.rollout_id = r.id and c.position = 0
  where r.id = wanted_id
    and (r.state in ('running', 'completed', 'superseded') and not exists (select from private.halts_on(r)) or private.is_taken_back(r));
  if not found then
    return;
  end if;
  with woken as (
    delete from private.rollout_queue q
    where q.rollout_id = wanted_id and q.device_id in (
      select w.device_id from private.rollout_queue w where w.rollout_id = wanted_id
      -- Without a limit of the rollout they wait for one of a stage or the fleet: a few are enough.
      order by w.asked_at limit greatest(coalesce(free, 3), 0) for update skip locked)
    returning q.device_id)
  select array_agg(device_id) into chosen from woken;
  if chosen is not null then
    perform private.wake_devices(chosen, 'slot_free');
  end if;
end
$$;
comment on function private.wake_waiting(uuid) is 'Wakes the first in the queue when slots are free.';
revoke execute on function private.wake_waiting(uuid) from public;
