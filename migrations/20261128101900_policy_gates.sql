-- The policy as gates. Each is one small function that you can read, call and replace on its own, for example
--   select (private.judge_window(d, false, now())).* from public.devices d where d.name = 'lobby';
-- decide() only calls them, in this order, and calls all of them, even if an earlier one refuses: an explanation names
-- everything that blocks the device. A gate that does not pass also says what would have to change (`hint`), separately from
-- what the problem is (`detail`). docs/usage/policy.md describes every gate with an example.

-- The result of a gate.

create type private.gate_result as (
  gate text,
  verdict text,
  detail text,
  hint text,
  look_again timestamptz,
  blocks boolean
);
comment on type private.gate_result is
  'What one gate says: pass, wait or refuse; what is the matter; what would have to change; when to ask again (null: no special time); whether it keeps the device where it is.';

-- These bodies are bound when created, so that PostgreSQL inlines them into the gates and a gate costs microseconds.
create function private.gate_pass(gate text, detail text) returns private.gate_result
language sql immutable
return row(gate, 'pass', detail, null, null, false)::private.gate_result;
comment on function private.gate_pass(text, text) is 'A gate that is open.';
revoke execute on function private.gate_pass(text, text) from public;

create function private.gate_wait(gate text, detail text, hint text, look_again timestamptz default null) returns private.gate_result
language sql immutable
return row(gate, 'wait', detail, hint, look_again, true)::private.gate_result;
comment on function private.gate_wait(text, text, text, timestamptz) is 'A gate that time or a person will open.';
revoke execute on function private.gate_wait(text, text, text, timestamptz) from public;

create function private.gate_refuse(gate text, detail text, hint text) returns private.gate_result
language sql immutable
return row(gate, 'refuse', detail, hint, null, true)::private.gate_result;
comment on function private.gate_refuse(text, text, text) is 'A gate that only a person will open.';
revoke execute on function private.gate_refuse(text, text, text) from public;

create function private.gate_note(gate text, detail text, hint text, look_again timestamptz default null) returns private.gate_result
language sql immutable
return row(gate, 'wait', detail, hint, look_again, false)::private.gate_result;
comment on function private.gate_note(text, text, text, timestamptz) is 'Says why something newer is not offered; what is older is not held up by it.';
revoke execute on function private.gate_note(text, text, text, timestamptz) from public;

create function private.all_pass(said private.gate_result[]) returns boolean
language sql immutable
return not exists (select from unnest(said) j where j.blocks);
comment on function private.all_pass(private.gate_result[]) is 'Does none of these gates keep the device where it is?';
revoke execute on function private.all_pass(private.gate_result[]) from public;

create function private.gates(said private.gate_result[]) returns jsonb
language sql immutable
return (
  select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('gate', j.gate, 'verdict', j.verdict, 'detail', j.detail, 'hint', j.hint)) order by n)
  from unnest(said) with ordinality as j (gate, verdict, detail, hint, look_again, blocks, n));
comment on function private.gates(private.gate_result[]) is 'The gates as devices and people are told them.';
revoke execute on function private.gates(private.gate_result[]) from public;

create function private.poll_by(next_poll_s int, at timestamptz, event timestamptz) returns int
language sql immutable set search_path = ''
as $$
  -- One second late rather than early: asking before the event would cost a poll and learn nothing.
  -- Compared before the cast: an event may be too far away for an int.
  select greatest(1, least(next_poll_s, ceil(extract(epoch from event - at)) + 1)::int)
$$;
comment on function private.poll_by(int, timestamptz, timestamptz) is 'The poll interval in seconds, shortened so that a poll falls just after an event.';
revoke execute on function private.poll_by(int, timestamptz, timestamptz) from public;

-- Gate device_state.

create function private.judge_state(device public.devices) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if device.state = 'active' then
    return private.gate_pass('device_state', 'The device is active.');
  end if;
  return private.gate_refuse('device_state', format('The device is %s.', device.state), case device.state
    when 'pending' then format('Accept it: fleetctl device accept %s.', device.name)
    when 'suspended' then format('Reactivate it: fleetctl device activate %s.', device.name)
    else 'Enroll the machine again with a new key.' end);
end
$$;
comment on function private.judge_state(public.devices) is 'Gate device_state: is the device active?';
revoke execute on function private.judge_state(public.devices) from public;

-- Gate halt.

create function private.judge_halt(device public.devices) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  brake public.halts;
begin
  select h.* into brake from public.halts h
  where h.lifted_at is null
    and (h.scope, coalesce(h.target, '')) in (
      ('fleet', ''), ('segment', device.segment), ('role', device.role), ('branch', device.branch))
  order by h.scope, h.opened_at limit 1;
  if brake.id is null then
    return private.gate_pass('halt', 'No halt is open.');
  end if;
  return private.gate_wait('halt', private.upper_first(format('%s is halted: %s', private.what_is_halted(brake), brake.reason)),
    private.how_to_lift(brake));
end
$$;
comment on function private.judge_halt(public.devices) is 'Gate halt: is the fleet halted, or the device''s segment, role or branch?';
revoke execute on function private.judge_halt(public.devices) from public;

-- Gate hold.

create function private.judge_hold(device public.devices, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if not device.hold then
    return private.gate_pass('hold', 'Not held.');
  elsif device.hold_until <= at then
    return private.gate_pass('hold', 'The hold has ended.');
  end if;
  return private.gate_wait('hold', format('Held%s%s.',
    coalesce(' until ' || private.local_time(device.hold_until, device.timezone), ''), coalesce(': ' || device.hold_reason, '')),
    case when device.hold_until is null then format('End the hold: fleetctl hold clear %s.', device.name)
      else format('No action needed: the hold ends automatically. To end it now: fleetctl hold clear %s.', device.name) end,
    device.hold_until);
end
$$;
comment on function private.judge_hold(public.devices, timestamptz) is 'Gate hold: was the device put on hold, and has the hold ended?';
revoke execute on function private.judge_hold(public.devices, timestamptz) from public;

-- Gate pin.

create function private.judge_pin(target public.releases) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if target.id is null then
    return private.gate_pass('pin', 'Not pinned.');
  elsif target.state = 'withdrawn' then
    return private.gate_refuse('pin', format('Pinned to %s, which is withdrawn.', target.version),
      format('Unpin the device, pin it to another release, or set %s back to available.', target.version));
  end if;
  return private.gate_pass('pin', format('Pinned to %s.', target.version));
end
$$;
comment on function private.judge_pin(public.releases) is 'Gate pin: is the device pinned, and to a release that is available?';
revoke execute on function private.judge_pin(public.releases) from public;

-- Gate stepping_stone.

create function private.judge_stepping_stone(target public.releases, step public.releases, pinned boolean)
returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  matter text := format('%s needs %s first.', target.version, step.version);
begin
  if pinned then
    return private.gate_refuse('stepping_stone', matter, format('Pin the device to %s until it runs it.', step.version));
  end if;
  if step.state = 'withdrawn' then
    return private.gate_note('stepping_stone', format('%s needs %s first, which is withdrawn.', target.version, step.version),
      format('Set %s back to available, or empty requires_release of %s.', step.version, target.version));
  end if;
  return private.gate_note('stepping_stone', matter, format('No action needed: it is offered the way to %s first.', step.version));
end
$$;
comment on function private.judge_stepping_stone(public.releases, public.releases, boolean) is
  'Gate stepping_stone: is a mandatory release (`step`, see missing_step()) in the way? Asked only if one is.';
revoke execute on function private.judge_stepping_stone(public.releases, public.releases, boolean) from public;

-- Gate rollout.

create function private.judge_rollout_state(rollout public.rollouts, target public.releases, claim public.rollout_claims, current_id uuid) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if rollout.state = 'paused' and claim.state is distinct from 'claimed' and target.id is distinct from current_id then
    return private.gate_wait('rollout', format('The rollout of %s is paused.', target.version), format('Resume it: fleetctl rollout resume %s.', target.version));
  end if;
  return private.gate_pass('rollout', format('%s is %s.', target.version,
    case rollout.state when 'completed' then 'rolled out'
      when 'superseded' then 'rolled out as far as a newer rollout let it'
      when 'cancelled' then 'kept here, though its rollout is cancelled'
      else 'being rolled out' end));
end
$$;
comment on function private.judge_rollout_state(public.rollouts, public.releases, public.rollout_claims, uuid) is 'Gate rollout: does the rollout hand out slots? A device that holds one continues.';
revoke execute on function private.judge_rollout_state(public.rollouts, public.releases, public.rollout_claims, uuid)
  from public;

-- Gate stage. An open stage that contains the device passes (offer_by_rollout()); this is about stages that are not
-- open.

create function private.proof_lacking(stage public.rollout_stages) returns text
language plpgsql stable set search_path = ''
as $$
declare
  counters private.rollout_counters;
  good int;
  attempted int;
  needed int;
begin
  select c.* into counters from private.rollout_counters c where c.rollout_id = stage.rollout_id and c.position = stage.position;
  good := counters.succeeded + counters.proved_otherwise;
  attempted := good + greatest(0, counters.failed - counters.failed_and_gone);
  needed := least(stage.min_attempted, counters.devices);
  if attempted < needed then
    return format('%s of %s attempted it%s', attempted, private.counted(needed), case when counters.kept > 0
      then format('; %s kept from it (held, no opening of the window, or something newer)',
        case when counters.kept = 1 then '1 is' else counters.kept || ' are' end) else '' end);
  elsif good < stage.min_success_ratio * attempted then
    return format('%s of %s succeeded, %s %% are required%s', good, private.counted(attempted), trim_scale(stage.min_success_ratio * 100),
      case when counters.unprovable then ', and no device is left that could still succeed' else '' end);
  end if;
  return null;
end
$$;
comment on function private.proof_lacking(public.rollout_stages) is 'What an open stage still needs to be proved, as half a sentence; null for nothing.';
revoke execute on function private.proof_lacking(public.rollout_stages) from public;

create function private.is_unprovable(stage public.rollout_stages) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return exists (
    select from private.rollout_counters c
    where c.rollout_id = stage.rollout_id and c.position = stage.position and c.unprovable);
end
$$;
comment on function private.is_unprovable(public.rollout_stages) is
  'Could, when it was counted last, not even a success of all devices that are left prove the stage?';
revoke execute on function private.is_unprovable(public.rollout_stages) from public;

create function private.how_to_go_on(rollout public.rollouts, stage int) returns text
language plpgsql stable set search_path = ''
as $$
declare
  following int := (
    select min(s.position) from public.rollout_stages s where s.rollout_id = rollout.id and s.opened_at is null);
begin
  return format('Decide: let the devices that failed try again (fleetctl retry), retire or move them, %s, or cancel it: fleetctl rollout cancel %s.',
    case when following is null then format('lower min_success_ratio of stage %s', stage)
      else format('set opened_at of stage %s to continue without proof', following) end,
    private.release_name(rollout.release_id));
end
$$;
comment on function private.how_to_go_on(public.rollouts, int) is 'What a person can do about a stage that cannot be proved.';
revoke execute on function private.how_to_go_on(public.rollouts, int) from public;

-- The only place that says why a stage is not open: advance_rollout() opens a stage if this returns nothing, and a
-- device is told the same reason, so that the explanation always matches the rule.
create function private.shut_because(rollout public.rollouts, timezone text, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  last_open public.rollout_stages;
  following public.rollout_stages;
  brake public.halts;
  lacking text;
  soaked_at timestamptz;
  skip constant text := 'To skip the wait, set opened_at of the stage.';
begin
  if rollout.state = 'paused' then
    return private.gate_note('stage', 'the rollout is paused.',
      format('Resume it: fleetctl rollout resume %s.', private.release_name(rollout.release_id)));
  elsif rollout.state = 'completed' then
    return private.gate_note('stage', 'the rollout was completed without it.', 'Set opened_at of the stage to open it.');
  end if;
  select s.* into last_open from public.rollout_stages s
  where s.rollout_id = rollout.id and s.opened_at is not null order by s.position desc limit 1;
  if last_open.position is not null then
    select h.* into brake from private.halts_on(rollout) h order by h.opened_at limit 1;
    if brake.id is null then
      -- Who is to prove the stage may not try.
      select h.* into brake from public.halts h
      where h.lifted_at is null and h.scope = 'segment' and h.target = last_open.segment order by h.opened_at limit 1;
    end if;
    lacking := private.proof_lacking(last_open);
    soaked_at := last_open.proved_at + make_interval(secs => last_open.soak_s);
    if brake.id is not null then
      return private.gate_note('stage', format('%s is halted: %s', private.what_is_halted(brake), brake.reason), private.how_to_lift(brake));
    elsif lacking is not null then
      return private.gate_note('stage', format('stage %s is not proved (%s).', last_open.position, lacking),
        case when private.is_unprovable(last_open) then private.how_to_go_on(rollout, last_open.position) else format('No action needed: it opens when stage %s is proved and has soaked. %s%s', last_open.position,
          case when exists (select from private.rollout_counters c where c.rollout_id = rollout.id and c.position = last_open.position and c.kept > 0)
            then format('A device that is kept from it is waited for until %s. ', private.local_time(
              last_open.opened_at + make_interval(secs => rollout.offline_patience_s), timezone)) else '' end, skip) end);
    elsif at < soaked_at then
      return private.gate_note('stage', format('stage %s soaks until %s.', last_open.position, private.local_time(soaked_at, timezone)),
        'No action needed: it opens automatically. ' || skip, soaked_at);
    end if;
  end if;
  select s.* into following from public.rollout_stages s
  where s.rollout_id = rollout.id and s.opened_at is null order by s.position limit 1;
  if following.needs_approval and following.approved_at is null then
    return private.gate_note('stage', format('stage %s waits for approval.', following.position),
      format('Approve it: fleetctl rollout approve %s %s.', private.release_name(rollout.release_id), following.position));
  end if;
  return null;
end
$$;
comment on function private.shut_because(public.rollouts, text, timestamptz) is
  'What keeps the next stage of a rollout shut (after the last: keeps it from being completed), as half a sentence, on the clock of a time zone; all null when it is due.';
revoke execute on function private.shut_because(public.rollouts, text, timestamptz) from public;

create function private.remark_shut_stage(rollout public.rollouts, stage int, timezone text, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  because private.gate_result;
  version text := private.release_name(rollout.release_id);
begin
  if stage is null then
    return private.gate_note('stage', format('%s %s rolled out, but no stage includes this device.', version,
        case rollout.state when 'completed' then 'was' else 'is being' end),
      'Add a stage that includes it, raise the percentage of a stage, or pin the device.');
  end if;
  because := private.shut_because(rollout, timezone, at);
  return private.gate_note('stage',
    format('%s is being rolled out, but stage %s is not open yet: %s', version, stage, coalesce(because.detail, 'it is due.')),
    coalesce(because.hint, 'No action needed: it opens within a minute.'), because.look_again);
end
$$;
comment on function private.remark_shut_stage(public.rollouts, int, text, timestamptz) is
  'Gate stage: why a rollout that concerns the device has no open stage for it, on the device''s clock. `stage` is the one it waits for; null for none.';
revoke execute on function private.remark_shut_stage(public.rollouts, int, text, timestamptz) from public;

-- Gate release.

create function private.judge_release(branch text, immediate boolean, target public.releases, current_id uuid)
returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if target.id is null and not immediate then
    return private.gate_wait('release', format('No release was given to this device yet: branch %s gives by rollout only.', branch),
      'Start a rollout with an open stage for it, or pin the device.');
  elsif target.id is null then
    return private.gate_wait('release', format('Branch %s has no release available for it.', branch),
      'Add a release, start a rollout with an open stage for it, or pin the device.');
  end if;
  return private.gate_pass('release', format(
    case when target.id = current_id then 'It runs %s, the newest of branch %s.' else '%s is the newest of branch %s.' end,
    target.version, branch));
end
$$;
comment on function private.judge_release(text, boolean, public.releases, uuid) is
  'Gate release: what does the branch itself give to a device for which no rollout spoke?';
revoke execute on function private.judge_release(text, boolean, public.releases, uuid) from public;

-- Gate release_halt.

create function private.judge_release_halt(target public.releases, rollout_id uuid) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  brake public.halts;
begin
  select h.* into brake from public.halts h
  where h.lifted_at is null
    and ((h.scope = 'release' and h.target = judge_release_halt.target.id::text)
      or (h.scope = 'rollout' and h.target = judge_release_halt.rollout_id::text))
  order by h.opened_at limit 1;
  if brake.id is null then
    return private.gate_pass('release_halt', format('%s is not halted.', target.version));
  end if;
  return private.gate_wait('release_halt', private.upper_first(format('%s is halted: %s', private.what_is_halted(brake), brake.reason)),
    private.how_to_lift(brake));
end
$$;
comment on function private.judge_release_halt(public.releases, uuid) is 'Gate release_halt: is the release halted, or the rollout that offers it?';
revoke execute on function private.judge_release_halt(public.releases, uuid) from public;

-- Gate known_bad.

create function private.judge_known_bad(device public.devices, target public.releases) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  bad public.known_bad_releases;
  pattern public.known_bad_patterns;
begin
  select k.* into bad from public.known_bad_releases k where k.device_id = device.id and k.release_id = target.id;
  if bad.device_id is not null and (device.pinned_at > bad.at) is not true then
    return private.gate_refuse('known_bad', format('It rolled back from %s on %s%s.', target.version,
        private.local_time(bad.at, 'UTC'), coalesce(': ' || bad.error, '')),
      format('To try it again: fleetctl retry %s --release %s.', device.name, target.version));
  end if;
  pattern := private.known_bad_for(device, target.id);
  if pattern.id is not null then
    return private.gate_refuse('known_bad', format('%s is known bad for devices with %s: %s', target.version,
        private.describe_selector(pattern.selector), pattern.reason),
      format('Allow it again: fleetctl known-bad lift %s "why". To try it on this device only, pin the device.', pattern.id));
  elsif bad.device_id is not null then
    return private.gate_pass('known_bad', format('It rolled back from %s, but was pinned to it later.', target.version));
  end if;
  return private.gate_pass('known_bad', format('It never rolled back from %s.', target.version));
end
$$;
comment on function private.judge_known_bad(public.devices, public.releases) is
  'Gate known_bad: did it roll back from this release before, or is the release known bad for devices like it? A later pin means: try again.';
revoke execute on function private.judge_known_bad(public.devices, public.releases) from public;

-- Gate downgrade.

create function private.judge_downgrade(device public.devices, current_release public.releases, target public.releases, allowed boolean) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if device.pinned_release is null and not coalesce(allowed, false)
     and current_release.state = 'available' and current_release.branch = target.branch
     and target.created_at < current_release.created_at then
    return private.gate_refuse('downgrade', format('It runs %s, which is newer than %s.', current_release.version, target.version),
      format('Withdraw %s, pin the device, or allow the rollout to downgrade.', current_release.version));
  end if;
  return private.gate_pass('downgrade', format('%s is not an unintended downgrade.', target.version));
end
$$;
comment on function private.judge_downgrade(public.devices, public.releases, public.releases, boolean) is
  'Gate downgrade: a device never goes back automatically. Only a pin, a withdrawal, another branch or the rollout (`allowed`) can allow it.';
revoke execute on function private.judge_downgrade(public.devices, public.releases, public.releases, boolean)
  from public;

-- Gate window.

-- A device with a window always polls inside it, even if it polls less often than the window opens and asks while the
-- window is open or does not count: the next opening counts whatever the verdict is. Otherwise the device would miss it.
create function private.judge_window(device public.devices, begun boolean, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  judged private.gate_result;
  window_name text := private.window_of(device);
  open_until timestamptz;
  opens_at timestamptz;
begin
  if window_name is null then
    return private.gate_pass('window', 'It has no maintenance window, so it may update at any time.');
  end if;
  select w.open_until, w.opens_at into open_until, opens_at from private.window_at(window_name, device.timezone, at) w;
  judged := case
    when open_until is not null then private.gate_pass('window',
      format('Window %s is open until %s.', window_name, private.local_time(open_until, device.timezone)))
    when at < device.ignore_window_until then private.gate_pass('window',
      format('Window %s is ignored until %s.', window_name, private.local_time(device.ignore_window_until, device.timezone)))
    when begun then private.gate_pass('window', format('Window %s has closed, but the update has begun.', window_name))
    when opens_at is null then private.gate_wait('window',
      format('Window %s never opens: it has no row in maintenance_openings.', window_name),
      'Add an opening to maintenance_openings, or give the device another window.')
    else private.gate_wait('window', format('Window %s opens %s.', window_name, private.local_time(opens_at, device.timezone)),
      format('No action needed: the window opens automatically. To update sooner: fleetctl device ignore-window %s --for 2h.', device.name))
  end;
  -- Up to two minutes in, different for each device, so that a window does not open with a stampede.
  judged.look_again := opens_at + make_interval(secs => private.bucket(device.id, device.id) * 120 / 100000);
  return judged;
end
$$;
comment on function private.judge_window(public.devices, boolean, timestamptz) is 'Gate window: may it start now? An update that has begun continues.';
revoke execute on function private.judge_window(public.devices, boolean, timestamptz) from public;

-- Gate slot.

create function private.all_taken(slots bigint, place text) returns text
language sql immutable
return case when slots = 1 then format('The only slot of %s is taken.', place) else format('All %s slots of %s are taken.', slots, place) end;
comment on function private.all_taken(bigint, text) is 'The sentence of a limit that is reached.';
revoke execute on function private.all_taken(bigint, text) from public;

create function private.judge_slot(rollout public.rollouts, stage int, claim public.rollout_claims, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  counters private.rollout_counters;
  stage_in_flight int;
  stage_limit int;
  fleet_limit int;
  in_line constant text := 'No action needed: it is queued, and woken when a slot is free. ';
begin
  if claim.state = 'claimed' then
    return private.gate_pass('slot', format('It has held a slot since %s.', private.local_time(claim.claimed_at, 'UTC')));
  elsif claim.attempts >= rollout.max_attempts and claim.state in ('failed', 'rolled_back', 'expired') then
    return private.gate_refuse('slot', format('It has tried %s, as often as the rollout allows.', private.counted(claim.attempts, 'time')),
      'Raise max_attempts of the rollout, or pin the device.');
  end if;
  select c.* into counters from private.rollout_counters c where c.rollout_id = rollout.id and c.position = 0;
  if counters.in_flight >= rollout.max_in_flight then
    return private.gate_wait('slot', private.all_taken(rollout.max_in_flight, 'the rollout'),
      in_line || 'To update more at once, raise max_in_flight of the rollout.');
  end if;
  select s.max_in_flight, c.in_flight into stage_limit, stage_in_flight
  from public.rollout_stages s
  left join private.rollout_counters c on c.rollout_id = s.rollout_id and c.position = s.position
  where s.rollout_id = rollout.id and s.position = stage;
  if stage_in_flight >= stage_limit then
    return private.gate_wait('slot', private.all_taken(stage_limit, 'stage ' || stage),
      in_line || 'To update more at once, raise max_in_flight of the stage.');
  elsif private.starts_left(rollout, at) = 0 then
    return private.gate_wait('slot', format('%s started in the last minute, as many as allowed.', private.counted(rollout.max_per_minute)),
      'No action needed: it asks again when the minute is over. To start more per minute, raise max_per_minute of the rollout.',
      private.next_start(rollout, at));
  elsif rollout.max_per_minute is not null and at <= claim.claimed_at + interval '1 minute' then
    return private.gate_wait('slot', 'It started less than a minute ago.',
      'No action needed: it asks again when the minute is over.', claim.claimed_at + interval '1 minute');
  end if;
  select s.max_in_flight into fleet_limit from public.fleet_settings s;
  if fleet_limit is not null
    and (select coalesce(sum(c.in_flight), 0) from private.rollout_counters c where c.position = 0 and c.in_flight > 0)
      + (select count(*) from public.roll_back_slots b where b.state = 'claimed' and b.rollout_id is null) >= fleet_limit then
    return private.gate_wait('slot', private.all_taken(fleet_limit, 'the fleet'),
      in_line || 'To update more at once: fleetctl settings set max_in_flight=N.');
  end if;
  return private.gate_pass('slot', 'A slot is free.');
end
$$;
comment on function private.judge_slot(public.rollouts, int, public.rollout_claims, timestamptz) is
  'Gate slot: is a slot free under every limit? A device that holds one continues.';
revoke execute on function private.judge_slot(public.rollouts, int, public.rollout_claims, timestamptz) from public;
