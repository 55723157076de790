-- A change that concerns devices wakes them, whoever made it and however. A wake is a hint: it says that
-- something changed, never what; the device then asks desired_state(). Polling alone is always enough.
--
-- Definer functions owned by postgres, because realtime.send() inserts as the caller and realtime.messages has
-- no insert policy: nobody can forge a wake.

create function private.spread_s(audience bigint) returns int
language sql stable set search_path = ''
as $$
  select (greatest(audience - 1, 0) * s.spread_ms_per_device / 1000)::int from public.fleet_settings s
$$;
comment on function private.spread_s(bigint) is 'Over how many seconds so many woken devices should spread their calls.';

create function private.send_wake(topic text, reason text, audience bigint) returns void
language sql volatile security definer set search_path = ''
as $$
  -- Definer: sends as postgres, see above.
  select realtime.send(
    jsonb_build_object('v', 1, 'reason', send_wake.reason, 'spread_s', private.spread_s(audience)),
    'wake', send_wake.topic, true)
$$;
comment on function private.send_wake(text, text, bigint) is 'Sends one wake to one private topic.';

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
comment on function private.wake_devices(uuid[], text) is 'Wakes these devices: each by itself while they are few, else their segments.';

create function private.wake_scope(scope public.halt_scope, target text, reason text) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: reads devices and releases. Wakes whom a halt of this scope concerns.
declare
  concerned uuid[];
begin
  if scope in ('fleet', 'rollout') then
    perform private.wake_segments(array(select s.name from public.segments s), reason);
  elsif scope = 'segment' then
    perform private.wake_segments(array[target], reason);
  else
    concerned := array(
      select d.id from public.devices d
      where d.state = 'active'
        and case wake_scope.scope
          when 'role' then d.role = target
          when 'branch' then d.branch = target
          else d.branch = (select r.branch from public.releases r where r.id::text = target)
            or d.pinned_release::text = target
        end);
    perform private.wake_devices(concerned, reason);
  end if;
end
$$;
comment on function private.wake_scope(public.halt_scope, text, text) is 'Wakes the devices that a halt of this scope and target concerns.';

create function private.wake_after_device_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  concerned uuid[];
begin
  select array_agg(n.id) into concerned
  from new_rows n join old_rows o using (id)
  where (n.state = 'active' or o.state = 'active')
    and (n.role, n.segment, n.branch, n.state, n.pinned_release, n.hold, n.hold_until, n.maintenance_window,
         n.poll_interval_s, n.timezone, n.labels)
        is distinct from
        (o.role, o.segment, o.branch, o.state, o.pinned_release, o.hold, o.hold_until, o.maintenance_window,
         o.poll_interval_s, o.timezone, o.labels);
  if concerned is not null then
    perform private.wake_devices(concerned, 'device_changed');
  end if;
  return null;
end
$$;
create trigger wake after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement execute function private.wake_after_device_change();

create function private.wake_after_release_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  concerned uuid[];
begin
  if tg_op = 'UPDATE' and new.state = old.state then
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
create trigger wake after insert or update of state on public.releases
  for each row execute function private.wake_after_release_change();

create function private.wake_after_command() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  perform private.wake_devices(array(select distinct n.device_id from new_rows n), 'command');
  return null;
end
$$;
create trigger wake after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function private.wake_after_command();

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
create trigger wake after delete on public.known_bad_releases
  referencing old table as old_rows
  for each statement execute function private.wake_after_forgiveness();

revoke execute on function private.spread_s(bigint), private.send_wake(text, text, bigint),
  private.wake_segments(text[], text), private.wake_devices(uuid[], text),
  private.wake_scope(public.halt_scope, text, text), private.wake_after_device_change(),
  private.wake_after_release_change(), private.wake_after_command(), private.wake_after_halt_change(),
  private.wake_after_settings_change(), private.wake_after_forgiveness() from public;
