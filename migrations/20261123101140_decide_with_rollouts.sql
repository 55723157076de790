-- The policy, second form: rollouts between the pin and the release's own brakes, then downgrade, window, slots.
-- See docs/policy.md for every gate with an example.

alter type private.decision add attribute stage int;
alter type private.decision add attribute needs_slot boolean;

create or replace function private.decide(device public.devices, at timestamptz) returns private.decision
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: reads policy tables that devices cannot. Pure reading: same rows and same `at`, same answer.
declare
  answer private.decision;
  gates jsonb;
  blocked boolean := false;
  current_id uuid;
  current_release public.releases;
  target public.releases;
  brake public.halts;
  bad public.known_bad_releases;
  rollout public.rollouts;
  chosen public.rollouts;
  claim public.rollout_claims;
  counters private.rollout_counters;
  stage_counters private.rollout_counters;
  in_stage int;
  stage_limit int;
  window_name text;
  open_until timestamptz;
  opens_at timestamptz;
  back_to uuid;
  fleet_limit int;
begin
  select s.current_release into current_id from public.device_status s where s.device_id = device.id;
  if current_id is not null then
    select r.* into current_release from public.releases r where r.id = current_id;
  end if;
  select coalesce(device.poll_interval_s, s.default_poll_interval_s), s.max_in_flight
    into answer.next_poll_s, fleet_limit from public.fleet_settings s;
  answer.needs_slot := false;

  -- device state
  if device.state = 'active' then
    gates := private.gate('device_state', 'pass', 'The device is active.');
  else
    blocked := true;
    gates := private.gate('device_state', 'refuse', format('The device is %s.', device.state));
  end if;

  -- halts of the fleet and of what the device belongs to
  select h.* into brake from public.halts h
  where h.lifted_at is null
    and (h.scope, coalesce(h.target, '')) in (
      ('fleet', ''), ('segment', device.segment), ('role', device.role), ('branch', device.branch))
  order by h.scope, h.opened_at limit 1;
  if brake.id is null then
    gates := gates || private.gate('halt', 'pass', 'No halt is open.');
  else
    blocked := true;
    gates := gates || private.gate('halt', 'wait', format('%s is halted: %s',
      case brake.scope when 'fleet' then 'The fleet' else initcap(brake.scope::text) || ' ' || brake.target end, brake.reason));
  end if;

  -- hold
  if device.hold and (device.hold_until is null or at < device.hold_until) then
    blocked := true;
    gates := gates || private.gate('hold', 'wait', format('Held%s%s.',
      coalesce(' until ' || to_char(device.hold_until at time zone device.timezone, 'YYYY-MM-DD HH24:MI ') || device.timezone, ''),
      coalesce(': ' || device.hold_reason, '')));
    if device.hold_until is not null then
      answer.next_poll_s := private.poll_by(answer.next_poll_s, at, device.hold_until);
    end if;
  else
    gates := gates || private.gate('hold', 'pass',
      case when device.hold then 'The hold has ended.' else 'Not held.' end);
  end if;

  -- a halt that takes devices back beats everything below: what it runs is known to hurt
  if current_id is not null and not blocked then
    select h.* into brake from public.halts h
    where h.lifted_at is null and h.roll_back and h.scope in ('release', 'rollout')
      and (h.target = current_id::text or exists (
        select from public.rollout_claims c
        where h.scope = 'rollout' and c.rollout_id::text = h.target and c.device_id = device.id and c.to_release = current_id))
    order by h.opened_at limit 1;
    if brake.id is not null then
      select c.from_release into back_to from public.rollout_claims c join public.releases r on r.id = c.from_release
      where c.device_id = device.id and c.to_release = current_id and r.state = 'available'
        and not exists (select from public.halts h where h.lifted_at is null and h.scope = 'release' and h.target = r.id::text)
      order by c.claimed_at desc limit 1;
      if back_to is not null then
        answer.gates := gates || private.gate('roll_back', 'pass', format('%s is taken back (%s): back to %s.',
          current_release.version, brake.reason, private.release_name(back_to)));
        answer.action := 'rollback';
        answer.release_id := back_to;
        return answer;
      end if;
      gates := gates || private.gate('roll_back', 'wait', format(
        '%s is taken back (%s), but no release to go back to is known.', current_release.version, brake.reason));
    end if;
  end if;

  if device.pinned_release is not null then
    -- the pin
    select r.* into target from public.releases r where r.id = device.pinned_release;
    if target.state = 'withdrawn' then
      blocked := true;
      gates := gates || private.gate('pin', 'refuse', format('Pinned to %s, which is withdrawn.', target.version));
    else
      gates := gates || private.gate('pin', 'pass', format('Pinned to %s.', target.version));
    end if;
  else
    gates := gates || private.gate('pin', 'pass', 'Not pinned.');

    -- the newest rollout that concerns the device and has an open stage for it
    for rollout in
      select r.* from public.rollouts r
      where r.branch = device.branch and r.state in ('running', 'paused', 'completed')
        and (r.role is null or r.role = device.role) and device.labels @> r.label_selector
      order by r.started_at desc, r.id
    loop
      select r.* into target from public.releases r where r.id = rollout.release_id and r.state = 'available';
      if target.id is null then
        continue;
      end if;
      select min(s.position) into in_stage from public.rollout_stages s
      where s.rollout_id = rollout.id and s.opened_at is not null
        and private.stage_holds(s, device.id, device.segment, private.bucket(rollout.release_id, device.id));
      if in_stage is not null then
        chosen := rollout;
        exit;
      end if;
      target := null;
      select min(s.position) into in_stage from public.rollout_stages s
      where s.rollout_id = rollout.id and s.opened_at is null
        and private.stage_holds(s, device.id, device.segment, private.bucket(rollout.release_id, device.id));
      gates := gates || private.gate('stage', 'wait', format('%s is being rolled out, but %s.',
        private.release_name(rollout.release_id),
        case when in_stage is null then 'no stage holds this device' else format('stage %s is not open yet', in_stage) end));
      in_stage := null;
    end loop;

    if chosen.id is not null then
      select c.* into claim from public.rollout_claims c where c.rollout_id = chosen.id and c.device_id = device.id;
      if chosen.state = 'paused' and claim.state is distinct from 'claimed' and target.id is distinct from current_id then
        blocked := true;
        gates := gates || private.gate('rollout', 'wait', format('The rollout of %s is paused.', target.version));
      else
        gates := gates || private.gate('rollout', 'pass', format('%s is %s.', target.version,
          case chosen.state when 'completed' then 'rolled out' else 'being rolled out' end));
      end if;
      gates := gates || private.gate('stage', 'pass', format('Stage %s holds this device and is open.', in_stage));
      answer.rollout_id := chosen.id;
      answer.stage := in_stage;
    elsif (select b.requires_rollout from public.branches b where b.name = device.branch) then
      blocked := true;
      gates := gates || private.gate('release', 'wait', format('Branch %s gives releases by rollout only.', device.branch));
    else
      -- no rollout: the newest release of the branch that never had one
      select r.* into target from public.releases r
      where r.branch = device.branch and r.state = 'available'
        and not exists (select from public.rollouts o where o.release_id = r.id)
      order by r.created_at desc, r.id limit 1;
      if target.id is null then
        blocked := true;
        gates := gates || private.gate('release', 'wait',
          format('Branch %s has no available release for it.', device.branch));
      else
        gates := gates || private.gate('release', 'pass', format(
          case when target.id = current_id then 'It runs %s, the newest of branch %s.' else '%s is the newest of branch %s.' end,
          target.version, device.branch));
      end if;
    end if;
  end if;

  if target.id is not null and target.id is distinct from current_id then
    -- halts of the release and of the rollout
    select h.* into brake from public.halts h
    where h.lifted_at is null
      and ((h.scope = 'release' and h.target = target.id::text) or (h.scope = 'rollout' and h.target = chosen.id::text))
    order by h.opened_at limit 1;
    if brake.id is null then
      gates := gates || private.gate('release_halt', 'pass', format('%s is not halted.', target.version));
    else
      blocked := true;
      gates := gates || private.gate('release_halt', 'wait', format('%s%s is halted: %s',
        case brake.scope when 'rollout' then 'The rollout of ' else '' end, target.version, brake.reason));
    end if;

    -- known bad, unless a pin made afterwards says to try again
    select k.* into bad from public.known_bad_releases k
    where k.device_id = device.id and k.release_id = target.id;
    if bad.device_id is null then
      gates := gates || private.gate('known_bad', 'pass', format('It never rolled back from %s.', target.version));
    elsif device.pinned_at > bad.at then
      gates := gates || private.gate('known_bad', 'pass',
        format('It rolled back from %s, but was pinned to it afterwards.', target.version));
    else
      blocked := true;
      gates := gates || private.gate('known_bad', 'refuse', format(
        'It rolled back from %s on %s%s. Delete its row in known_bad_releases, or pin it again, to let it try.',
        target.version, to_char(bad.at at time zone 'UTC', 'YYYY-MM-DD HH24:MI UTC'), coalesce(': ' || bad.error, '')));
    end if;

    -- never back by itself: only a pin, a withdrawal, another branch or the rollout may say so
    if device.pinned_release is null and not coalesce(chosen.allow_downgrade, false)
       and current_release.state = 'available' and current_release.branch = target.branch
       and target.created_at < current_release.created_at then
      blocked := true;
      gates := gates || private.gate('downgrade', 'refuse', format(
        'It runs %s, which is newer than %s. Withdraw %s, pin the device, or allow the rollout to downgrade.',
        current_release.version, target.version, current_release.version));
    else
      gates := gates || private.gate('downgrade', 'pass', format('Going to %s is not going back unasked.', target.version));
    end if;
  end if;

  -- the window: a device that has one always polls inside it
  window_name := coalesce(device.maintenance_window,
    (select s.maintenance_window from public.segments s where s.name = device.segment));
  if window_name is not null then
    select w.open_until, w.opens_at into open_until, opens_at from private.window_at(window_name, device.timezone, at) w;
    if open_until is null and opens_at is not null then
      -- A few minutes in, different for each device, so that a window does not open with a stampede.
      answer.next_poll_s := private.poll_by(answer.next_poll_s, at, opens_at + make_interval(
        secs => private.bucket(device.id, device.id) * 120 / 100000));
    end if;
  end if;
  if target.id is not null and target.id is distinct from current_id then
    if window_name is null then
      gates := gates || private.gate('window', 'pass', 'It has no maintenance window: any time will do.');
    elsif open_until is not null then
      gates := gates || private.gate('window', 'pass', format('Window %s is open until %s %s.', window_name,
        to_char(open_until at time zone device.timezone, 'YYYY-MM-DD HH24:MI'), device.timezone));
    elsif claim.state = 'claimed' then
      gates := gates || private.gate('window', 'pass', format('Window %s has closed, but the update has begun.', window_name));
    else
      blocked := true;
      gates := gates || private.gate('window', 'wait', case when opens_at is null
        then format('Window %s never opens: it has no row in maintenance_openings.', window_name)
        else format('Window %s opens %s %s.', window_name,
          to_char(opens_at at time zone device.timezone, 'YYYY-MM-DD HH24:MI'), device.timezone) end);
    end if;

    -- slots: who holds one goes on; the others need a free one
    if chosen.id is not null then
      if claim.state = 'claimed' then
        gates := gates || private.gate('slot', 'pass', format('It holds a slot since %s.',
          to_char(claim.claimed_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI UTC')));
      elsif claim.attempts >= chosen.max_attempts and claim.state in ('failed', 'expired') then
        blocked := true;
        gates := gates || private.gate('slot', 'refuse', format(
          'It tried %s times, as often as the rollout allows. Raise max_attempts or pin it.', claim.attempts));
      else
        select c.* into counters from private.rollout_counters c where c.rollout_id = chosen.id and c.position = 0;
        select c.* into stage_counters from private.rollout_counters c where c.rollout_id = chosen.id and c.position = in_stage;
        select s.max_in_flight into stage_limit from public.rollout_stages s where s.rollout_id = chosen.id and s.position = in_stage;
        if counters.in_flight >= chosen.max_in_flight then
          answer.needs_slot := not blocked;
          blocked := true;
          gates := gates || private.gate('slot', 'wait', format('All %s slots of the rollout are taken.', chosen.max_in_flight));
        elsif stage_counters.in_flight >= stage_limit then
          answer.needs_slot := not blocked;
          blocked := true;
          gates := gates || private.gate('slot', 'wait', format('All %s slots of stage %s are taken.', stage_limit, in_stage));
        elsif at < counters.minute_start + interval '1 minute' and counters.minute_count >= chosen.max_per_minute then
          answer.needs_slot := not blocked;
          blocked := true;
          answer.next_poll_s := private.poll_by(answer.next_poll_s, at, counters.minute_start + interval '1 minute');
          gates := gates || private.gate('slot', 'wait', format('%s devices started within this minute, as many as allowed.', chosen.max_per_minute));
        elsif fleet_limit is not null
          and (select sum(c.in_flight) from private.rollout_counters c where c.position = 0 and c.in_flight > 0) >= fleet_limit then
          answer.needs_slot := not blocked;
          blocked := true;
          gates := gates || private.gate('slot', 'wait', format('All %s slots of the fleet are taken.', fleet_limit));
        else
          answer.needs_slot := not blocked;
          gates := gates || private.gate('slot', 'pass', 'A slot is free.');
        end if;
      end if;
    end if;
  end if;

  answer.gates := gates;
  if blocked or target.id is not distinct from current_id then
    answer.action := 'run';
    answer.release_id := current_id;
  else
    answer.action := 'update';
    answer.release_id := target.id;
  end if;
  return answer;
end
$$;

create function private.claim_slot(device public.devices, decided private.decision, at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: devices may not write claims. The caller holds the policy lock (shared), the device's row and, where the
-- fleet has a cap, that lock; it has locked the rollout's counters and decided once more after that.
begin
  insert into public.rollout_claims as c
    (rollout_id, device_id, stage, claimed_at, lease_until, from_release, to_release)
  select r.id, device.id, decided.stage, at, at + make_interval(secs => r.lease_s),
    (select s.current_release from public.device_status s where s.device_id = device.id), r.release_id
  from public.rollouts r where r.id = decided.rollout_id
  on conflict (rollout_id, device_id) do update
    set state = 'claimed', stage = excluded.stage, claimed_at = excluded.claimed_at, lease_until = excluded.lease_until,
        ended_at = null, attempt_id = null, attempts = c.attempts + 1,
        from_release = coalesce(excluded.from_release, c.from_release)
    where c.state <> 'claimed';
  if found then
    update private.rollout_counters c
    set minute_start = case when at < c.minute_start + interval '1 minute' then c.minute_start else at end,
        minute_count = case when at < c.minute_start + interval '1 minute' then c.minute_count + 1 else 1 end
    where c.rollout_id = decided.rollout_id and c.position = 0;
    delete from private.rollout_queue q where q.rollout_id = decided.rollout_id and q.device_id = device.id;
  end if;
end
$$;
comment on function private.claim_slot(public.devices, private.decision, timestamptz) is 'Gives the device its slot; everything was checked under locks.';

create function private.count_claim() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Counters follow the claims, whatever changes them. Slots are (rollout, 0) and (rollout, stage).
begin
  if tg_op = 'UPDATE' and (old.state, old.stage) is not distinct from (new.state, new.stage) then
    return null;
  end if;
  if tg_op <> 'INSERT' then
    update private.rollout_counters c
    set in_flight = c.in_flight - (old.state = 'claimed')::int,
        succeeded = c.succeeded - (old.state = 'succeeded')::int,
        failed = c.failed - (old.state in ('failed', 'rolled_back', 'expired', 'regressed'))::int
    where c.rollout_id = old.rollout_id and c.position in (0, old.stage);
  end if;
  if tg_op <> 'DELETE' then
    update private.rollout_counters c
    set in_flight = c.in_flight + (new.state = 'claimed')::int,
        succeeded = c.succeeded + (new.state = 'succeeded')::int,
        failed = c.failed + (new.state in ('failed', 'rolled_back', 'expired', 'regressed'))::int
    where c.rollout_id = new.rollout_id and c.position in (0, new.stage);
  end if;
  return null;
end
$$;
create trigger count_claim after insert or update or delete on public.rollout_claims
  for each row execute function private.count_claim();

create or replace function public.desired_state() returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: a device reads no policy table itself. It can only ever ask about itself.
declare
  device public.devices;
  decided private.decision;
  locked_rollout uuid;
  at timestamptz := clock_timestamp();
begin
  select d.* into device from public.devices d where d.id = private.device_id();
  if device.id is null then
    perform private.refuse('device_unknown', 'The control plane does not know this device.',
      'Enroll it again.', 'PT403');
  end if;
  if device.state <> 'active' then
    perform private.refuse('device_' || device.state,
      format('%s is %s, so it is told nothing.', device.name, device.state),
      case device.state when 'pending' then 'An operator must accept it: set its state to active.'
        when 'suspended' then 'An operator can set its state back to active.'
        else 'Enroll the machine again with a new key.' end, 'PT403');
  end if;
  decided := private.decide(device, at);
  if decided.needs_slot and decided.action = 'update' then
    -- A slot looks free. Decide again under the locks, in the order that 20261123101110 gives: each statement
    -- here sees what was committed before it, so a halt, a pause or a taken slot that raced us is seen now.
    perform private.lock_policy_shared();
    select d.* into device from public.devices d where d.id = device.id for no key update;
    if (select s.max_in_flight from public.fleet_settings s) is not null then
      perform pg_advisory_xact_lock(7305422303);
    end if;
    perform from private.rollout_counters c where c.rollout_id = decided.rollout_id and c.position = 0 for update;
    locked_rollout := decided.rollout_id;
    decided := private.decide(device, at);
    if decided.needs_slot and decided.action = 'update' then
      if decided.rollout_id is distinct from locked_rollout then
        -- Another rollout took over in between, and its counters are not locked: the device asks again.
        decided.action := 'run';
        decided.release_id := (select s.current_release from public.device_status s where s.device_id = device.id);
        decided.next_poll_s := 1;
        decided.gates := decided.gates || private.gate('slot', 'wait', 'A newer rollout has just begun: ask again.');
        decided.needs_slot := false;
      else
        perform private.claim_slot(device, decided, at);
      end if;
    end if;
  end if;
  if decided.needs_slot and decided.action <> 'update' then
    -- It stands in line: the first in line are woken when a slot is free.
    insert into private.rollout_queue (rollout_id, device_id, asked_at) values (decided.rollout_id, device.id, at)
    on conflict do nothing;
  end if;
  return private.answer(device, decided, at);
end
$$;

revoke execute on function private.claim_slot(public.devices, private.decision, timestamptz), private.count_claim() from public;
