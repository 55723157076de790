-- Who was told to stay gives its slot back, without blame: a device that was held, halted, pinned, moved, suspended,
-- retired or shut out by its window while it held a slot. It may take one again afterward, and what it reports of the
-- attempt counts whenever it comes.
--
-- When it asks, and is told to stay. At the edit already, if it had not reported that it has begun, or is not answered
-- any more. And at the latest when its lease ends.

create function private.leads_away(claim public.rollout_claims, decided private.decision) returns boolean
language sql immutable
return decided.release_id is distinct from claim.to_release or coalesce(decided.rollout_id <> claim.rollout_id, false);
comment on function private.leads_away(public.rollout_claims, private.decision) is
  'Does this answer tell the device something other than to use its slot?';
revoke execute on function private.leads_away(public.rollout_claims, private.decision) from public;

create function private.lock_policy_if_free() returns boolean
language sql volatile set search_path = ''
as $$ select pg_catalog.pg_try_advisory_xact_lock(7305422302) $$;
comment on function private.lock_policy_if_free() is
  'As lock_policy(), but never waits: for what holds rows already, or can be done later as well.';
revoke execute on function private.lock_policy_if_free() from public;

create function private.give_back(device public.devices, decided private.decision, at timestamptz) returns boolean
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: devices may not write claims. Returns whether a slot was given back; another claim in progress postpones it.
declare
  claim public.rollout_claims;
  given boolean := private.give_back_way(device, decided, at);
begin
  for claim in
    select c.* from public.rollout_claims c where c.device_id = device.id and c.state = 'claimed' order by c.rollout_id
  loop
    if private.leads_away(claim, decided) then
      exit when not private.lock_policy_if_free();
      perform private.end_claim(claim, 'released', null, at);
      given := true;
    end if;
  end loop;
  return given;
end
$$;
comment on function private.give_back(public.devices, private.decision, timestamptz) is
  'Takes the slots of a device that is told to stay, or to go elsewhere.';
revoke execute on function private.give_back(public.devices, private.decision, timestamptz) from public;

create function private.give_back_unused(concerned uuid[], at timestamptz) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy writes claims. After an edit: of these devices, those that have not begun and that policy now tells to
-- stay. At most 200, so that the emergency stop stays quick; the others give theirs back when they ask.
declare
  claim public.rollout_claims;
  device public.devices;
  said public.device_status;
  given int := 0;
begin
  if cardinality(concerned) = 0 or not private.lock_policy_if_free() then
    return 0;
  end if;
  for claim in
    select c.* from public.rollout_claims c where c.device_id = any (concerned) and c.state = 'claimed'
    order by c.rollout_id, c.device_id limit 200
  loop
    select d.* into device from public.devices d where d.id = claim.device_id;
    select s.* into said from public.device_status s where s.device_id = claim.device_id;
    if device.state <> 'active'
       or not private.has_begun(claim, said) and private.leads_away(claim, private.decide(device, at)) then
      perform private.end_claim(claim, 'released', null, at);
      given := given + 1;
    end if;
  end loop;
  return given;
end
$$;
comment on function private.give_back_unused(uuid[], timestamptz) is
  'Takes the slots of those of these devices that have not begun and are to stay. Returns how many.';
revoke execute on function private.give_back_unused(uuid[], timestamptz) from public;

-- Which edit concerns whom.

create function private.give_back_after_device_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  perform private.give_back_unused(array(
    select n.id
    from new_rows n join old_rows o using (id) join public.rollout_claims c on c.device_id = n.id and c.state = 'claimed'
    where (n.role, n.segment, n.branch, n.state, n.pinned_release, n.hold, n.hold_until, n.maintenance_window,
           n.ignore_window_until, n.timezone, n.labels, n.name, n.hardware_model, n.os)
          is distinct from
          (o.role, o.segment, o.branch, o.state, o.pinned_release, o.hold, o.hold_until, o.maintenance_window,
           o.ignore_window_until, o.timezone, o.labels, o.name, o.hardware_model, o.os)
      -- What else has the name may not have followed yet, and nothing changes by it.
      and not (private.is_rename('segment', o.segment, n.segment) or private.is_rename('role', o.role, n.role)
        or private.is_rename('branch', o.branch, n.branch))), now());
  return null;
end
$$;
revoke execute on function private.give_back_after_device_change() from public;
create trigger give_back after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement execute function private.give_back_after_device_change();

create function private.give_back_after_halt() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  perform private.give_back_unused(array(
    select c.device_id from public.rollout_claims c join public.devices d on d.id = c.device_id
    where c.state = 'claimed' and case new.scope
      when 'fleet' then true
      when 'segment' then d.segment = new.target
      when 'role' then d.role = new.target
      when 'branch' then d.branch = new.target
      when 'release' then c.to_release::text = new.target
      else c.rollout_id::text = new.target end
    limit 200), now());
  return null;
end
$$;
revoke execute on function private.give_back_after_halt() from public;
create trigger give_back after insert on public.halts
  for each row execute function private.give_back_after_halt();

create function private.give_back_release() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- A release that was withdrawn, or that is known bad for some.
declare
  release_id uuid := case when tg_table_name = 'releases' then to_jsonb(new) ->> 'id' else to_jsonb(new) ->> 'release_id' end;
begin
  perform private.give_back_unused(array(
    select c.device_id from public.rollout_claims c where c.state = 'claimed' and c.to_release = release_id limit 200), now());
  return null;
end
$$;
revoke execute on function private.give_back_release() from public;
create trigger give_back after update of state on public.releases
  for each row when (new.state = 'withdrawn' and old.state <> 'withdrawn') execute function private.give_back_release();
create trigger give_back after insert on public.known_bad_patterns
  for each row execute function private.give_back_release();

create function private.give_back_after_window_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Another window for a segment, or other openings of a window.
declare
  changed text := case when tg_table_name = 'segments' then to_jsonb(new) ->> 'name'
    else coalesce(to_jsonb(new), to_jsonb(old)) ->> 'maintenance_window' end;
begin
  perform private.give_back_unused(array(
    select c.device_id
    from public.rollout_claims c join public.devices d on d.id = c.device_id join public.segments s on s.name = d.segment
    where c.state = 'claimed'
      and case when tg_table_name = 'segments' then s.name else coalesce(d.maintenance_window, s.maintenance_window) end = changed
    limit 200), now());
  return null;
end
$$;
revoke execute on function private.give_back_after_window_change() from public;
create trigger give_back after update of maintenance_window on public.segments
  for each row when (new.maintenance_window is distinct from old.maintenance_window)
  execute function private.give_back_after_window_change();
create trigger give_back after insert or update or delete on public.maintenance_openings
  for each row execute function private.give_back_after_window_change();
