-- decide() is the only place that decides: desired_state() and explain_device() both call it, so operators read what the
-- device was told.

create type private.decision as (
  action text,
  release_id uuid,
  prefetch_id uuid,
  rollout_id uuid,
  stage int,
  needs_slot boolean,
  way_back public.roll_back_slots,
  goes_back boolean,
  keeps_command boolean,
  in_line uuid,
  gates jsonb,
  next_poll_s int
);
comment on type private.decision is
  'What a device should do: release_id is what it should be on, null for nothing yet; prefetch_id is what it may fetch ahead of its window, or null; way_back is its slot to go back, which it takes now if goes_back; keeps_command: a command to go back has no slot yet; in_line: the rollout for whose slot it waits.';

create function private.leads_back(device public.devices, current_release public.releases, target public.releases, rollout public.rollouts) returns boolean
language sql immutable
return coalesce(current_release.state = 'withdrawn' and device.pinned_release is null and target.branch = current_release.branch
  and target.created_at < current_release.created_at and coalesce(rollout.state not in ('running', 'paused'), true), false);
comment on function private.leads_back(public.devices, public.releases, public.releases, public.rollouts) is
  'Does a withdrawal take the device back to this release? A rollout that runs has limits of its own.';
revoke execute on function private.leads_back(public.devices, public.releases, public.releases, public.rollouts) from public;

create function private.decide(device public.devices, at timestamptz) returns private.decision
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: its gates read policy tables that devices cannot. Pure reading: same rows and same `at`, same answer.
declare
  answer private.decision;
  said private.gate_result[];
  current_release public.releases := private.release_on(device.id);
  brake public.halts;
  back_to uuid;
  offer private.offer;
  target public.releases;
  opening private.gate_result;
  begun boolean;
  slot private.gate_result;
  back private.gate_result;
  way public.roll_back_slots;
  at_once boolean;
begin
  answer.next_poll_s := coalesce(device.poll_interval_s, (select s.default_poll_interval_s from public.fleet_settings s));
  answer.action := 'run';
  answer.release_id := current_release.id;
  answer.needs_slot := false;
  answer.goes_back := false;
  answer.keeps_command := false;
  said := array[private.judge_state(device), private.judge_halt(device), private.judge_hold(device, at)];

  -- A halt that takes devices back beats everything below: what it runs is known to hurt.
  if current_release.id is not null and private.all_pass(said) then
    brake := private.taken_back_by(device.id, current_release.id);
    if brake.id is not null then
      back_to := private.release_before(device.id, current_release.id);
      said := said || private.judge_roll_back(current_release, brake, back_to);
      if back_to is not null then
        answer.way_back := private.way_back(device.id, current_release.id, back_to);
        back := private.judge_roll_back_slot(answer.way_back, brake.all_at_once, at);
        said := said || back;
        if not back.blocks then
          answer.action := 'rollback';
          answer.release_id := back_to;
          answer.goes_back := (answer.way_back).state is distinct from 'claimed';
        elsif back.verdict = 'wait' then
          answer.in_line := (answer.way_back).rollout_id;
        end if;
        answer.keeps_command := back.blocks and private.told_to_go_back(device.id, at) is not true;
        answer.gates := private.gates(said);
        answer.next_poll_s := private.poll_by(answer.next_poll_s, at, back.look_again);
        return answer;
      end if;
    end if;
  end if;

  offer := private.offer_to(device, current_release, at);
  target := offer.release;
  answer.rollout_id := (offer.rollout).id;
  answer.stage := offer.stage;
  said := said || offer.said;
  -- An update that it has not reported as begun is judged by the window again: the answer may have been lost.
  begun := (offer.claim).state = 'claimed' and exists (
    select from public.device_status s where s.device_id = device.id and private.has_begun(offer.claim, s));
  opening := private.judge_window(device, coalesce(begun, false), at);
  if target.id is distinct from current_release.id and target.id is not null then
    said := said || array[
      private.judge_release_halt(target, answer.rollout_id),
      private.judge_known_bad(device, target),
      private.judge_downgrade(device, current_release, target, (offer.rollout).allow_downgrade),
      opening];
    if private.leads_back(device, current_release, target, offer.rollout) then
      answer.way_back := private.way_back(device.id, current_release.id, target.id);
      back := private.judge_roll_back_slot(answer.way_back, current_release.all_at_once, at);
    end if;
    if answer.rollout_id is not null then
      slot := private.judge_slot(offer.rollout, offer.stage, offer.claim, at);
      answer.needs_slot := private.all_pass(said) and slot.verdict <> 'refuse' and (offer.claim).state is distinct from 'claimed';
      if slot.verdict = 'wait' and back.gate is not null and current_release.all_at_once then
        slot := private.gate_pass('slot', 'All go back at once.');
      end if;
      answer.in_line := case when answer.needs_slot and slot.blocks then answer.rollout_id end;
    end if;
    if back.verdict = 'wait' and private.all_pass(said) and slot.blocks is not true then
      answer.in_line := (answer.way_back).rollout_id;
    end if;
    said := said || array_remove(array[slot, back], null);
    answer.goes_back := back.gate is not null and private.all_pass(said) and (answer.way_back).state is distinct from 'claimed';
    if private.all_pass(said) then
      answer.action := 'update';
      answer.release_id := target.id;
    elsif opening.blocks and opening.look_again is not null and private.may_prefetch(device)
      and not exists (select from unnest(said) j where j.blocks and j.gate <> 'window') then
      answer.prefetch_id := target.id;
    end if;
  end if;
  at_once := private.told_to_go_back(device.id, at);
  if at_once is not null and current_release.id is not null and back.gate is null then
    way := private.way_back(device.id, current_release.id, null);
    -- A person says it again: earlier tries do not count.
    way.attempts := 0;
    back := private.judge_roll_back_slot(way, at_once, at);
    answer.way_back := way;
    answer.keeps_command := back.verdict = 'wait';
    answer.goes_back := not answer.keeps_command and (answer.way_back).state is distinct from 'claimed';
    answer.in_line := coalesce(answer.in_line, case when answer.keeps_command then (answer.way_back).rollout_id end);
    said := said || back;
  else
    answer.keeps_command := back.blocks is true and at_once is not true;
  end if;
  answer.gates := private.gates(said);
  answer.next_poll_s := private.poll_by(answer.next_poll_s, at,
    least(opening.look_again, (select min(j.look_again) from unnest(said) j)));
  return answer;
end
$$;
comment on function private.decide(public.devices, timestamptz) is 'The policy: every gate''s verdict and what follows for this device at this time.';
revoke execute on function private.decide(public.devices, timestamptz) from public;

-- A device's request, in its parts.

create function private.asking_device() returns public.devices
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: devices read no policy table. It can only ever be about the caller.
declare
  device public.devices;
begin
  select d.* into device from public.devices d where d.id = private.device_id();
  if device.id is null then
    perform private.refuse('device_unknown', 'The control plane does not know this device.',
      'Enroll it again.', 'PT403');
  end if;
  if device.key_number <> private.key_number() then
    perform private.refuse('device_replaced', format('Another machine has taken the place of %s.', device.name),
      'Enroll this one again with a new key.', 'PT403');
  end if;
  if device.state <> 'active' then
    perform private.refuse('device_' || device.state,
      format('%s is %s, so it gets no answer.', device.name, device.state),
      case device.state when 'pending' then format('An operator must accept it: fleetctl device accept %s.', device.name)
        when 'suspended' then format('An operator can end the suspension: fleetctl device activate %s.', device.name)
        else 'Enroll the machine again with a new key.' end, 'PT403');
  end if;
  return device;
end
$$;
comment on function private.asking_device() is 'The calling device; refused if it is not active.';
revoke execute on function private.asking_device() from public;

create function private.lock_for_claim(device_id uuid, rollout_ids uuid[]) returns public.devices
language plpgsql volatile set search_path = ''
as $$
-- Raises lock_not_available after lock_patience(): see the file policy_lock. In the order that the file policy_lock gives. Each statement of the caller after this one sees what was committed before
-- it, so a halt, a pause or a taken slot that raced us is seen.
declare
  device public.devices;
  before text := current_setting('lock_timeout');
begin
  perform set_config('lock_timeout', private.lock_patience(), true);
  perform private.lock_policy_shared();
  select d.* into device from public.devices d where d.id = lock_for_claim.device_id for no key update;
  if (select s.max_in_flight from public.fleet_settings s) is not null then
    perform pg_advisory_xact_lock(7305422303);
  end if;
  perform from private.rollout_counters c where c.rollout_id = any (rollout_ids) and c.position = 0 order by c.rollout_id for update;
  perform set_config('lock_timeout', before, true);
  return device;
end
$$;
comment on function private.lock_for_claim(uuid, uuid[]) is 'Takes every lock under which a slot may be given, and returns the device as it is then.';
revoke execute on function private.lock_for_claim(uuid, uuid[]) from public;

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
        ended_at = null, attempts = c.attempts + (c.state <> 'released')::int,
        from_release = coalesce(excluded.from_release, c.from_release)
    where c.state <> 'claimed';
  if found then
    delete from private.rollout_queue q where q.rollout_id = decided.rollout_id and q.device_id = device.id;
  end if;
end
$$;
comment on function private.claim_slot(public.devices, private.decision, timestamptz) is 'Gives the device its slot; everything was checked under locks.';
revoke execute on function private.claim_slot(public.devices, private.decision, timestamptz) from public;

create function private.take_way_back(decided private.decision, at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: devices may not write slots. The caller holds the locks of claim_slot().
declare
  way public.roll_back_slots := decided.way_back;
  lease interval := make_interval(secs => coalesce((select r.lease_s from public.rollouts r where r.id = way.rollout_id), 3600));
begin
  insert into public.roll_back_slots as b (device_id, from_release, to_release, rollout_id, stage, taken_at, lease_until)
  values (way.device_id, way.from_release, way.to_release, way.rollout_id, way.stage, at, at + lease)
  on conflict (device_id, from_release) do update
    set state = 'claimed', to_release = excluded.to_release, rollout_id = excluded.rollout_id, stage = excluded.stage,
        taken_at = excluded.taken_at, lease_until = excluded.lease_until, ended_at = null, error = null,
        attempts = case b.state when 'succeeded' then 1 when 'released' then b.attempts else b.attempts + 1 end
    where b.state <> 'claimed';
  delete from private.rollout_queue q where q.rollout_id = way.rollout_id and q.device_id = way.device_id;
end
$$;
comment on function private.take_way_back(private.decision, timestamptz) is 'Gives the device its slot to go back; everything was checked under locks.';
revoke execute on function private.take_way_back(private.decision, timestamptz) from public;

create function private.decide_under_locks(device public.devices, locked uuid[], at timestamptz) returns private.decision
language plpgsql volatile set search_path = ''
as $$
declare
  decided private.decision := private.decide(device, at);
  claims boolean := decided.needs_slot and decided.action = 'update';
begin
  if (not claims or decided.rollout_id = any (locked))
     and (not decided.goes_back or (decided.way_back).rollout_id is null or (decided.way_back).rollout_id = any (locked)) then
    if claims then
      perform private.claim_slot(device, decided, at);
    end if;
    if decided.goes_back then
      perform private.take_way_back(decided, at);
    end if;
    return decided;
  end if;
  -- Another rollout took over in between, and its counters are not locked: the device asks again.
  decided.action := 'run';
  decided.release_id := (private.release_on(device.id)).id;
  decided.next_poll_s := 1;
  decided.gates := decided.gates || private.gates(array[private.gate_wait('slot', 'A newer rollout has just begun: ask again.',
    'No action needed: the device asks again at once.')]);
  decided.keeps_command := true;
  return decided;
end
$$;
comment on function private.decide_under_locks(public.devices, uuid[], timestamptz) is 'Decides once more, and claims the slot if it is still free.';
revoke execute on function private.decide_under_locks(public.devices, uuid[], timestamptz) from public;

create function private.answer(device public.devices, decided private.decision, at timestamptz) returns jsonb
language sql stable security definer set search_path = ''
as $$
  -- Definer: reads releases and commands for the device.
  select jsonb_build_object(
    'action', decided.action,
    'device', jsonb_build_object('id', device.id, 'name', device.name, 'role', device.role,
      'segment', device.segment, 'branch', device.branch),
    'release', private.release_facts(decided.release_id),
    'prefetch', private.release_facts(decided.prefetch_id),
    'rollout_id', decided.rollout_id,
    'gates', decided.gates,
    'commands', coalesce((
      select jsonb_agg(jsonb_build_object('id', c.id, 'kind', c.kind, 'args', c.args) order by c.requested_at, c.id)
      from public.device_commands c
      where c.device_id = device.id and c.state = 'queued' and at < c.expires_at
        and not (decided.keeps_command and c.kind = 'rollback')), '[]'),
    'config', jsonb_build_object('poll_interval_s', device.poll_interval_s, 'labels', device.labels),
    'next_poll_s', decided.next_poll_s,
    'server_time', at)
$$;
comment on function private.answer(public.devices, private.decision, timestamptz) is 'The JSON that desired_state() and explain_device() share.';
revoke execute on function private.answer(public.devices, private.decision, timestamptz) from public;

create function private.ask_again(device public.devices, decided private.decision) returns private.decision
language plpgsql volatile set search_path = ''
as $$
-- Spread over a minute, and not sooner than one: a thousand devices that ask every few seconds would be the next crowd.
begin
  decided.action := 'run';
  decided.release_id := (private.release_on(device.id)).id;
  decided.next_poll_s := least(decided.next_poll_s, 60 + floor(random() * 60)::int);
  decided.gates := decided.gates || private.gates(array[private.gate_wait('slot',
    'Policy is being changed in another transaction.', format('No action needed: the device asks again in %s s.', decided.next_poll_s))]);
  decided.keeps_command := true;
  return decided;
end
$$;
comment on function private.ask_again(public.devices, private.decision) is 'The answer for a device that could not have the policy lock at once.';
revoke execute on function private.ask_again(public.devices, private.decision) from public;

create function public.desired_state() returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: a device reads no policy table itself. It can only ever ask about itself.
declare
  device public.devices := private.asking_device();
  at timestamptz := clock_timestamp();
  decided private.decision := private.decide(device, at);
begin
  if private.give_back(device, decided, at) then
    decided := private.decide(device, at);
  end if;
  if decided.needs_slot and decided.action = 'update' or decided.goes_back then
    -- A slot looks free: decide again under the locks.
    declare
      locked uuid[] := array_remove(array[decided.rollout_id, (decided.way_back).rollout_id], null);
    begin
      device := private.lock_for_claim(device.id, locked);
      at := clock_timestamp();
      decided := private.decide_under_locks(device, locked, at);
    exception when lock_not_available then
      decided := private.ask_again(device, decided);
    end;
  end if;
  if decided.in_line is not null then
    -- It stands in line: the first in line are woken when a slot is free.
    insert into private.rollout_queue (rollout_id, device_id, asked_at) values (decided.in_line, device.id, at)
    on conflict do nothing;
  end if;
  return private.answer(device, decided, at);
end
$$;
comment on function public.desired_state() is 'For devices: what the calling device should do now, why, and when to ask again.';
revoke execute on function public.desired_state() from public;
grant execute on function public.desired_state() to fleet_device;

-- The same answer, for operators.

create function private.missed(device public.devices, decided private.decision) returns jsonb
language plpgsql stable set search_path = ''
as $$
-- A release that other devices of its branch were given by a rollout, newer than what it runs, and not what it waits for.
declare
  current_release public.releases := private.release_on(device.id);
  rollout public.rollouts;
  missed_release public.releases;
begin
  select r.* into rollout from public.rollouts r join public.releases l on l.id = r.release_id
  where r.branch = device.branch and r.state <> 'draft' and r.started_at is not null and l.state = 'available'
    and (current_release.id is null or l.branch <> current_release.branch or l.created_at > current_release.created_at)
  order by l.created_at desc, r.started_at desc limit 1;
  if rollout.id is null or rollout.id = decided.rollout_id
     or rollout.release_id in (decided.release_id, decided.prefetch_id) then
    return null;
  end if;
  select l.* into missed_release from public.releases l where l.id = rollout.release_id;
  return jsonb_build_object('release', private.release_facts(missed_release.id), 'rollout_id', rollout.id, 'rollout', rollout.name,
    'why', format('It missed %s: the rollout %s (%s) %s.', missed_release.version, rollout.name, left(rollout.id::text, 8),
      case when rollout.state = 'cancelled' then 'was cancelled before it had a turn'
        when not private.takes(rollout, device) then 'is for other devices'
        when device.pinned_release is not null then 'does not reach a device that is pinned'
        else format('is %s and does not reach it', rollout.state) end));
end
$$;
comment on function private.missed(public.devices, private.decision) is
  'The newest release that a rollout gave to others of its branch and this device neither runs nor waits for; null for none.';
revoke execute on function private.missed(public.devices, private.decision) from public;

create function public.explain_device(device_id uuid, at timestamptz default now()) returns jsonb
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: policy functions are not granted to people. Any operator may ask.
declare
  device public.devices;
  decided private.decision;
  missed jsonb;
begin
  perform private.require_rank('viewer');
  select d.* into device from public.devices d where d.id = explain_device.device_id;
  if device.id is null then
    perform private.refuse_unknown('device', 'device list');
  end if;
  decided := private.decide(device, at);
  missed := private.missed(device, decided);
  return private.answer(device, decided, at) || jsonb_build_object(
    'missed', missed,
    'blocked_by', coalesce((
      select jsonb_agg(g ->> 'gate') from jsonb_array_elements(decided.gates) g where g ->> 'verdict' <> 'pass'), '[]'),
    'summary', concat_ws(' ', coalesce((
      select string_agg(g ->> 'detail', ' ') from jsonb_array_elements(decided.gates) g where g ->> 'verdict' <> 'pass'),
      case decided.action when 'run' then format('It runs %s, as it should.', private.release_name(decided.release_id))
        else format('It may go to %s now.', private.release_name(decided.release_id)) end), missed ->> 'why'));
end
$$;
comment on function public.explain_device(uuid, timestamptz) is
  'For operators: every gate of one device with its verdict and sentence, judged by the code that answers the device.';
revoke execute on function public.explain_device(uuid, timestamptz) from public;
grant execute on function public.explain_device(uuid, timestamptz) to authenticated, service_role;
