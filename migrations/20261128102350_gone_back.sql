-- How going back ends: by what the device records or reports, by its answer to the command, because policy does not say it
-- any more, or because its lease ends. What failed is an alert.

create function private.end_way_back(way public.roll_back_slots, ended_as public.claim_state, error text, at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy writes slots.
declare
  device_name text := (select d.name from public.devices d where d.id = way.device_id);
begin
  update public.roll_back_slots b
  set state = ended_as, ended_at = at, error = left(end_way_back.error, 4000)
  where b.device_id = way.device_id and b.from_release = way.from_release and b.state = 'claimed';
  if not found then
    return;
  end if;
  if private.is_failure(ended_as) then
    perform private.open_alert('roll_back_failed', 'warning',
      left(format('%s did not get back from %s%s: %s', device_name, private.release_name(way.from_release),
        coalesce(' to ' || private.release_name(way.to_release), ''), coalesce(end_way_back.error, ended_as::text)), 4000), at,
      device_id => way.device_id, subject => way.from_release::text,
      evidence => jsonb_build_object('rollout_id', way.rollout_id, 'from_release', way.from_release, 'to_release', way.to_release));
  else
    update public.alerts a set resolved_at = at
    where a.kind = 'roll_back_failed' and a.device_id = way.device_id and a.resolved_at is null;
  end if;
  if way.rollout_id is not null then
    perform private.wake_waiting(way.rollout_id);
  end if;
end
$$;
comment on function private.end_way_back(public.roll_back_slots, public.claim_state, text, timestamptz) is
  'Ends a slot to go back, and lets the next one have it. A failure opens an alert.';
revoke execute on function private.end_way_back(public.roll_back_slots, public.claim_state, text, timestamptz) from public;

create function private.settle_way_back() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  way public.roll_back_slots;
  slot public.rollout_claims;
begin
  for way in select b.* from public.roll_back_slots b where b.device_id = new.device_id and b.state = 'claimed' loop
    slot.device_id := way.device_id;
    slot.state := way.state;
    slot.claimed_at := way.taken_at;
    slot.to_release := way.to_release;
    continue when private.is_late(slot, new) or case when way.to_release is null
      then exists (select from public.releases r where r.id = way.from_release and r.commit_sha = new.to_commit)
      else not exists (select from public.releases r where r.id = way.to_release and r.commit_sha = new.to_commit) end;
    perform private.end_way_back(way, case new.outcome when 'skipped' then 'released' else new.outcome::text end::public.claim_state,
      new.error, now());
  end loop;
  return null;
end
$$;
revoke execute on function private.settle_way_back() from public;
create trigger settle_way_back after insert on public.update_history
  for each row execute function private.settle_way_back();

create function private.notice_way_back() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Health on another release is proof, whatever became of the row of history.
begin
  perform private.end_way_back(b, 'succeeded', null, now()) from public.roll_back_slots b
  where b.device_id = new.device_id and b.state = 'claimed' and b.from_release <> new.current_release;
  return null;
end
$$;
revoke execute on function private.notice_way_back() from public;
create trigger notice_way_back after update on public.device_status
  for each row when (new.state = 'healthy' and new.current_release is not null
    and (new.state, new.current_release) is distinct from (old.state, old.current_release))
  execute function private.notice_way_back();

create function private.follow_roll_back_command() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  perform private.end_way_back(b, case new.state when 'succeeded' then 'succeeded' else 'failed' end::public.claim_state,
    case when new.state = 'failed' then new.result ->> 'message' end, now())
  from public.roll_back_slots b where b.device_id = new.device_id and b.state = 'claimed' and b.to_release is null;
  return null;
end
$$;
revoke execute on function private.follow_roll_back_command() from public;
create trigger follow_roll_back after update of state on public.device_commands
  for each row when (new.kind = 'rollback' and old.state = 'queued' and new.state in ('succeeded', 'failed'))
  execute function private.follow_roll_back_command();

-- The device is told something else: it was held or pinned, the halt is lifted, or it has left the release.
create function private.give_back_way(device public.devices, decided private.decision, at timestamptz) returns boolean
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: devices may not write slots. Returns whether a slot was given back.
declare
  way public.roll_back_slots;
  said public.device_status;
  given boolean := false;
begin
  for way in select b.* from public.roll_back_slots b where b.device_id = device.id and b.state = 'claimed' loop
    continue when (decided.way_back).from_release = way.from_release;
    select s.* into said from public.device_status s where s.device_id = device.id;
    continue when device.state = 'active' and said.state = 'updating';
    if said.current_release <> way.from_release then
      perform private.end_way_back(way, case said.state when 'healthy' then 'succeeded' else 'failed' end::public.claim_state,
        case when said.state <> 'healthy' then coalesce(said.error, said.reason, 'It is not healthy there.') end, at);
    else
      perform private.end_way_back(way, 'released', null, at);
    end if;
    given := true;
  end loop;
  return given;
end
$$;
comment on function private.give_back_way(public.devices, private.decision, timestamptz) is
  'Ends the slot to go back of a device that is not told to go back any more.';
revoke execute on function private.give_back_way(public.devices, private.decision, timestamptz) from public;

create function private.expire_ways_back(
  at timestamptz, for_at_most interval default '3 seconds', alerts_at_most int default 200
) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy writes slots. As with a slot to update: a device that still reports keeps it, up to ten leases, and the next
-- tick goes on.
declare
  began timestamptz := clock_timestamp();
  way public.roll_back_slots;
  device public.devices;
  reported_at timestamptz;
  lease interval;
  expired int := 0;
begin
  if exists (select from public.roll_back_slots b join public.devices d on d.id = b.device_id
      where b.state = 'claimed' and (b.lease_until <= at or d.state <> 'active')) then
    perform private.lock_policy();
  end if;
  for way in
    select b.* from public.roll_back_slots b join public.devices d on d.id = b.device_id
    where b.state = 'claimed' and (b.lease_until <= at or d.state <> 'active') order by b.rollout_id, b.device_id
  loop
    select d.* into device from public.devices d where d.id = way.device_id;
    select s.reported_at into reported_at from public.device_status s where s.device_id = way.device_id;
    lease := make_interval(secs => coalesce((select r.lease_s from public.rollouts r where r.id = way.rollout_id), 3600));
    if private.give_back_way(device, private.decide(device, at), at) then
      null;
    elsif device.state <> 'active' then
      perform private.end_way_back(way, 'released', null, at);
    elsif reported_at + lease > at and at < way.taken_at + 10 * lease then
      update public.roll_back_slots b set lease_until = reported_at + lease
      where b.device_id = way.device_id and b.from_release = way.from_release;
    else
      perform private.end_way_back(way, 'expired', 'It was not heard of again.', at);
      expired := expired + 1;
    end if;
    exit when clock_timestamp() > began + for_at_most;
  end loop;
  -- Nobody waits any more for who is gone, or is not to go back. A few of them at once, and by chance: those that stay open
  -- must not keep the others from their turn.
  update public.alerts a set resolved_at = at
  from (
    select o.id, o.device_id from public.alerts o
    where o.kind = 'roll_back_failed' and o.resolved_at is null order by random() limit alerts_at_most) o
  join public.devices d on d.id = o.device_id
  where a.id = o.id and (d.state <> 'active' or ((private.decide(d, at)).way_back).device_id is null);
  return expired;
end
$$;
comment on function private.expire_ways_back(timestamptz, interval, int) is 'Ends the slots to go back of devices that went offline past their lease.';
revoke execute on function private.expire_ways_back(timestamptz, interval, int) from public;
