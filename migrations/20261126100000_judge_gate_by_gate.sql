-- The policy cut into its gates: each is one small function that a person can read, call and replace alone, such as
--   select (private.judge_window(d, false, now())).* from public.devices d where d.name = 'lobby';
-- decide() only asks them in order. Verdicts and order are as before. New: a gate that does not pass also says what
-- would have to change (`hint`), apart from what is the matter (`detail`).

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

-- Bodies that are bound when created, so that PostgreSQL puts them into the gates and a gate costs microseconds.
create function private.gate_pass(gate text, detail text) returns private.gate_result
language sql immutable
return row(gate, 'pass', detail, null, null, false)::private.gate_result;
comment on function private.gate_pass(text, text) is 'A gate that is open.';

create function private.gate_wait(gate text, detail text, hint text, look_again timestamptz default null) returns private.gate_result
language sql immutable
return row(gate, 'wait', detail, hint, look_again, true)::private.gate_result;
comment on function private.gate_wait(text, text, text, timestamptz) is 'A gate that time or a person will open.';

create function private.gate_refuse(gate text, detail text, hint text) returns private.gate_result
language sql immutable
return row(gate, 'refuse', detail, hint, null, true)::private.gate_result;
comment on function private.gate_refuse(text, text, text) is 'A gate that only a person will open.';

create function private.gate_note(gate text, detail text, hint text, look_again timestamptz default null) returns private.gate_result
language sql immutable
return row(gate, 'wait', detail, hint, look_again, false)::private.gate_result;
comment on function private.gate_note(text, text, text, timestamptz) is 'Says why something newer is not offered; what is older is not held up by it.';

create function private.all_pass(said private.gate_result[]) returns boolean
language sql immutable
return not exists (select from unnest(said) j where j.blocks);
comment on function private.all_pass(private.gate_result[]) is 'Does none of these gates keep the device where it is?';

create function private.gates(said private.gate_result[]) returns jsonb
language sql immutable
return (
  select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('gate', j.gate, 'verdict', j.verdict, 'detail', j.detail, 'hint', j.hint)) order by n)
  from unnest(said) with ordinality as j (gate, verdict, detail, hint, look_again, blocks, n));
comment on function private.gates(private.gate_result[]) is 'The gates as devices and people are told them.';

create function private.local_time(at timestamptz, timezone text) returns text
language sql stable
return to_char(at at time zone timezone, 'YYYY-MM-DD HH24:MI') || ' ' || timezone;
comment on function private.local_time(timestamptz, text) is 'A time for sentences, on the clock of a time zone, which it names.';

-- What policy would have a device go to.

create type private.offer as (
  release public.releases,
  rollout public.rollouts,
  stage int,
  claim public.rollout_claims,
  said private.gate_result[]
);
comment on type private.offer is
  'The release that a device would go to, by which rollout and stage (null: pinned, or no rollout), the slot it holds or held there, and what the gates said on the way.';

create function private.release_on(device_id uuid) returns public.releases
language plpgsql stable set search_path = ''
as $$
declare
  found_release public.releases;
begin
  select r.* into found_release
  from public.device_status s join public.releases r on r.id = s.current_release where s.device_id = release_on.device_id;
  return found_release;
end
$$;
comment on function private.release_on(uuid) is 'What the device last said it runs; all null before its first release.';

-- Gates of the device itself.

create function private.judge_state(device public.devices) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if device.state = 'active' then
    return private.gate_pass('device_state', 'The device is active.');
  end if;
  return private.gate_refuse('device_state', format('The device is %s.', device.state), case device.state
    when 'pending' then 'Accept it: accept_device(), or set its state to active.'
    when 'suspended' then 'Set its state back to active.'
    else 'Enroll the machine again with a new key.' end);
end
$$;
comment on function private.judge_state(public.devices) is 'Gate device_state: is the device active?';

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
  return private.gate_wait('halt', format('%s is halted: %s',
    case brake.scope when 'fleet' then 'The fleet' else initcap(brake.scope::text) || ' ' || brake.target end, brake.reason),
    private.how_to_lift(brake));
end
$$;
comment on function private.judge_halt(public.devices) is 'Gate halt: is the fleet halted, or the device''s segment, role or branch?';

create function private.how_to_lift(brake public.halts) returns text
language sql immutable
return format('Lift halt %s with a reason: lift_halt(), or its lift_reason.', brake.id);
comment on function private.how_to_lift(public.halts) is 'The hint of every gate that a halt shuts.';

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
    case when device.hold_until is null then 'Switch its hold off.'
      else 'Nothing to do: the hold ends by itself. Switch it off to go on now.' end,
    device.hold_until);
end
$$;
comment on function private.judge_hold(public.devices, timestamptz) is 'Gate hold: was the device put on hold, and has the hold ended?';

-- Taking back what it runs.

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
  order by h.opened_at limit 1;
  return brake;
end
$$;
comment on function private.taken_back_by(uuid, uuid) is 'The open halt that takes this release back from this device, or all null.';

create function private.release_before(device_id uuid, release_id uuid) returns uuid
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select c.from_release from public.rollout_claims c join public.releases r on r.id = c.from_release
    where c.device_id = release_before.device_id and c.to_release = release_before.release_id and r.state = 'available'
      and not exists (select from public.halts h where h.lifted_at is null and h.scope = 'release' and h.target = r.id::text)
    order by c.claimed_at desc limit 1);
end
$$;
comment on function private.release_before(uuid, uuid) is 'What the device ran before a rollout gave it this release, if it may still run that; null when not known.';

create function private.judge_roll_back(current_release public.releases, brake public.halts, back_to uuid) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if back_to is null then
    return private.gate_note('roll_back', format('%s is taken back (%s), but no release to go back to is known.',
      current_release.version, brake.reason), 'Pin the device to a release that is known to be good.');
  end if;
  return private.gate_pass('roll_back', format('%s is taken back (%s): back to %s.',
    current_release.version, brake.reason, private.release_name(back_to)));
end
$$;
comment on function private.judge_roll_back(public.releases, public.halts, uuid) is 'Gate roll_back: is what it runs being taken back, and where to?';

-- Gates on the way to an offer.

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

create function private.offer_by_pin(device public.devices, current_release public.releases) returns private.offer
language plpgsql stable set search_path = ''
as $$
declare
  offer private.offer;
  target public.releases;
  step public.releases;
begin
  select r.* into target from public.releases r where r.id = device.pinned_release;
  step := private.missing_step(target, current_release);
  if step.id is not null then
    offer.said := array[private.gate_refuse('stepping_stone', format('%s needs %s first.', target.version, step.version),
      format('Pin the device to %s until it runs it.', step.version))];
  end if;
  offer.said := offer.said || private.judge_pin(target);
  offer.release := target;
  return offer;
end
$$;
comment on function private.offer_by_pin(public.devices, public.releases) is 'What a pinned device goes to.';

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
comment on function private.stage_for(public.devices, public.rollouts, boolean) is 'The first stage, of those that are open or of those that are not, that holds the device; null for none.';

create function private.proof_lacking(stage public.rollout_stages) returns text
language plpgsql stable set search_path = ''
as $$
declare
  counters private.rollout_counters;
  attempted int;
  needed int := least(stage.min_attempted, stage.size_at_opening);
begin
  select c.* into counters from private.rollout_counters c where c.rollout_id = stage.rollout_id and c.position = stage.position;
  attempted := counters.succeeded + counters.failed;
  if attempted < needed then
    return format('%s of %s devices have tried it', attempted, needed);
  elsif counters.succeeded < stage.min_success_ratio * attempted then
    return format('%s of %s devices succeeded, %s %% must', counters.succeeded, attempted, trim_scale(stage.min_success_ratio * 100));
  end if;
  return null;
end
$$;
comment on function private.proof_lacking(public.rollout_stages) is 'What an open stage still lacks to be proved, as half a sentence; null for nothing.';

create function private.brake_on_stages(rollout public.rollouts) returns public.halts
language plpgsql stable set search_path = ''
as $$
declare
  brake public.halts;
begin
  select h.* into brake from public.halts h
  where h.lifted_at is null
    and (h.scope = 'fleet' or (h.scope = 'rollout' and h.target = rollout.id::text)
      or (h.scope = 'release' and h.target = rollout.release_id::text)
      or (h.scope = 'branch' and h.target = rollout.branch) or (h.scope = 'role' and h.target = rollout.role))
  order by h.opened_at limit 1;
  return brake;
end
$$;
comment on function private.brake_on_stages(public.rollouts) is 'The open halt that keeps the next stage of this rollout shut, or all null.';

create function private.remark_shut_stage(rollout public.rollouts, stage int, timezone text, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  shut text := format('%s is being rolled out, but stage %s is not open yet', private.release_name(rollout.release_id), stage);
  skip constant text := 'Set opened_at of the stage to skip the wait.';
  last_open public.rollout_stages;
  following public.rollout_stages;
  lacking text;
  soaked_at timestamptz;
  brake public.halts;
begin
  if stage is null then
    return private.gate_note('stage', format('%s is being rolled out, but no stage holds this device.', private.release_name(rollout.release_id)),
      'Add a stage that holds it, raise the percentage of one, or pin the device.');
  elsif rollout.state = 'paused' then
    return private.gate_note('stage', shut || ': the rollout is paused.', 'Resume the rollout: resume_rollout(), or set its state to running.');
  elsif rollout.state = 'completed' then
    return private.gate_note('stage', shut || ': the rollout was completed without it.', 'Set opened_at of the stage to open it.');
  end if;
  select s.* into last_open from public.rollout_stages s
  where s.rollout_id = rollout.id and s.opened_at is not null order by s.position desc limit 1;
  lacking := private.proof_lacking(last_open);
  brake := private.brake_on_stages(rollout);
  if brake.id is not null then
    return private.gate_note('stage', format('%s: %s is halted: %s', shut,
      case brake.scope when 'fleet' then 'the fleet' when 'rollout' then 'the rollout' when 'release' then 'the release'
        else brake.scope::text || ' ' || brake.target end, brake.reason), private.how_to_lift(brake));
  elsif lacking is not null then
    return private.gate_note('stage', format('%s: stage %s is not proved (%s).', shut, last_open.position, lacking),
      format('Nothing to do: it opens when stage %s is proved and has soaked. %s', last_open.position, skip));
  end if;
  soaked_at := last_open.proved_at + make_interval(secs => last_open.soak_s);
  if at < soaked_at then
    return private.gate_note('stage', format('%s: stage %s soaks until %s.', shut, last_open.position, private.local_time(soaked_at, timezone)),
      'Nothing to do: it opens by itself. ' || skip, soaked_at);
  end if;
  select s.* into following from public.rollout_stages s
  where s.rollout_id = rollout.id and s.opened_at is null order by s.position limit 1;
  if following.needs_approval and following.approved_at is null then
    return private.gate_note('stage', format('%s: stage %s waits for approval.', shut, following.position),
      format('Approve it: approve_stage(''%s'', %s), or set its approved_at.', rollout.id, following.position));
  end if;
  return private.gate_note('stage', shut || ': it is due.', 'Nothing to do: it opens within a minute.');
end
$$;
comment on function private.remark_shut_stage(public.rollouts, int, text, timestamptz) is
  'Gate stage: why a rollout that concerns the device has no open stage for it, on the device''s clock. `stage` is the one it waits for; null for none.';

create function private.judge_rollout_state(rollout public.rollouts, target public.releases, claim public.rollout_claims, current_id uuid) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
begin
  if rollout.state = 'paused' and claim.state is distinct from 'claimed' and target.id is distinct from current_id then
    return private.gate_wait('rollout', format('The rollout of %s is paused.', target.version), 'Resume the rollout: resume_rollout(), or set its state to running.');
  end if;
  return private.gate_pass('rollout', format('%s is %s.', target.version,
    case rollout.state when 'completed' then 'rolled out' else 'being rolled out' end));
end
$$;
comment on function private.judge_rollout_state(public.rollouts, public.releases, public.rollout_claims, uuid) is 'Gate rollout: does the rollout give slots? Who holds one goes on.';

create function private.offer_by_rollout(device public.devices, current_release public.releases, at timestamptz) returns private.offer
language plpgsql stable set search_path = ''
as $$
-- The newest rollout that concerns the device and has an open stage for it; what is newer still is remarked on.
declare
  offer private.offer;
  rollout public.rollouts;
  target public.releases;
  step public.releases;
  claim public.rollout_claims;
begin
  for rollout in
    select r.* from public.rollouts r
    where r.branch = device.branch and r.state in ('running', 'paused', 'completed')
      and (r.role is null or r.role = device.role) and device.labels @> r.label_selector
    order by r.started_at desc, r.id
  loop
    select r.* into target from public.releases r where r.id = rollout.release_id and r.state = 'available';
    continue when target.id is null;
    step := private.missing_step(target, current_release);
    if step.id is not null then
      offer.said := offer.said || private.gate_note('stepping_stone', format('%s needs %s first.', target.version, step.version),
        format('Nothing to do: it is offered what leads to %s.', step.version));
      continue;
    end if;
    offer.stage := private.stage_for(device, rollout, opened => true);
    if offer.stage is null then
      offer.said := offer.said || private.remark_shut_stage(
        rollout, private.stage_for(device, rollout, opened => false), device.timezone, at);
      continue;
    end if;
    select c.* into claim from public.rollout_claims c where c.rollout_id = rollout.id and c.device_id = device.id;
    offer.release := target;
    offer.rollout := rollout;
    offer.claim := claim;
    offer.said := offer.said || private.judge_rollout_state(rollout, target, claim, current_release.id)
      || private.gate_pass('stage', format('Stage %s holds this device and is open.', offer.stage));
    return offer;
  end loop;
  return offer;
end
$$;
comment on function private.offer_by_rollout(public.devices, public.releases, timestamptz) is 'What rollouts offer a device; without a release when none has an open stage for it.';

create function private.offer_by_branch(device public.devices, current_release public.releases) returns private.offer
language plpgsql stable set search_path = ''
as $$
-- The newest release of the branch that never had a rollout.
declare
  offer private.offer;
  target public.releases;
begin
  if (select b.requires_rollout from public.branches b where b.name = device.branch) then
    offer.said := array[private.gate_wait('release', format('Branch %s gives releases by rollout only.', device.branch),
      'Start a rollout with an open stage for it, pin the device, or switch requires_rollout of the branch off.')];
    return offer;
  end if;
  select r.* into target from public.releases r
  where r.branch = device.branch and r.state = 'available'
    and not exists (select from public.rollouts o where o.release_id = r.id)
    and (r.requires_release is null or (private.missing_step(r, current_release)).id is null)
  order by r.created_at desc, r.id limit 1;
  if target.id is null then
    offer.said := array[private.gate_wait('release', format('Branch %s has no available release for it.', device.branch),
      'Add a release, start a rollout with an open stage for it, or pin the device.')];
    return offer;
  end if;
  offer.release := target;
  offer.said := array[private.gate_pass('release', format(
    case when target.id = current_release.id then 'It runs %s, the newest of branch %s.' else '%s is the newest of branch %s.' end,
    target.version, device.branch))];
  return offer;
end
$$;
comment on function private.offer_by_branch(public.devices, public.releases) is 'What a device is offered that no rollout serves.';

create function private.offer_to(device public.devices, current_release public.releases, at timestamptz) returns private.offer
language plpgsql stable set search_path = ''
as $$
declare
  offer private.offer;
  nothing_newer private.gate_result[];
begin
  if device.pinned_release is not null then
    return private.offer_by_pin(device, current_release);
  end if;
  offer := private.offer_by_rollout(device, current_release, at);
  if (offer.rollout).id is null then
    nothing_newer := offer.said;
    offer := private.offer_by_branch(device, current_release);
    offer.said := nothing_newer || offer.said;
  end if;
  offer.said := private.judge_pin(null) || offer.said;
  return offer;
end
$$;
comment on function private.offer_to(public.devices, public.releases, timestamptz) is 'What policy would have a device run: its pin, else the newest rollout with an open stage for it, else the newest release of its branch that never had a rollout.';

-- Gates of a move.

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
  return private.gate_wait('release_halt', format('%s%s is halted: %s',
    case brake.scope when 'rollout' then 'The rollout of ' else '' end, target.version, brake.reason), private.how_to_lift(brake));
end
$$;
comment on function private.judge_release_halt(public.releases, uuid) is 'Gate release_halt: is the release halted, or the rollout that offers it?';

create function private.judge_known_bad(device public.devices, target public.releases) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  bad public.known_bad_releases;
begin
  select k.* into bad from public.known_bad_releases k where k.device_id = device.id and k.release_id = target.id;
  if bad.device_id is null then
    return private.gate_pass('known_bad', format('It never rolled back from %s.', target.version));
  elsif device.pinned_at > bad.at then
    return private.gate_pass('known_bad', format('It rolled back from %s, but was pinned to it afterwards.', target.version));
  end if;
  return private.gate_refuse('known_bad', format('It rolled back from %s on %s%s.', target.version,
      private.local_time(bad.at, 'UTC'), coalesce(': ' || bad.error, '')),
    'Delete its row in known_bad_releases, or pin it again, to let it try.');
end
$$;
comment on function private.judge_known_bad(public.devices, public.releases) is 'Gate known_bad: did it roll back from this release before? A pin made afterwards says to try again.';

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
  return private.gate_pass('downgrade', format('Going to %s is not going back unasked.', target.version));
end
$$;
comment on function private.judge_downgrade(public.devices, public.releases, public.releases, boolean) is
  'Gate downgrade: never back by itself. Only a pin, a withdrawal, another branch or the rollout (`allowed`) may say so.';

create function private.window_of(device public.devices) returns text
language plpgsql stable set search_path = ''
as $$
begin
  return coalesce(device.maintenance_window, (select s.maintenance_window from public.segments s where s.name = device.segment));
end
$$;
comment on function private.window_of(public.devices) is 'The maintenance window of the device, its own or that of its segment; null for any time.';

create function private.may_prefetch(device public.devices) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return coalesce((select w.prefetch from public.maintenance_windows w where w.name = private.window_of(device)), false);
end
$$;
comment on function private.may_prefetch(public.devices) is 'May the device fetch a release before its window opens?';

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
    return private.gate_pass('window', 'It has no maintenance window: any time will do.');
  elsif at < device.ignore_window_until then
    return private.gate_pass('window', format('Window %s does not count until %s.', window_name,
      private.local_time(device.ignore_window_until, device.timezone)));
  end if;
  select w.open_until, w.opens_at into open_until, opens_at from private.window_at(window_name, device.timezone, at) w;
  if open_until is not null then
    return private.gate_pass('window', format('Window %s is open until %s.', window_name, private.local_time(open_until, device.timezone)));
  end if;
  judged := case
    when begun then private.gate_pass('window', format('Window %s has closed, but the update has begun.', window_name))
    when opens_at is null then private.gate_wait('window',
      format('Window %s never opens: it has no row in maintenance_openings.', window_name),
      'Add an opening to maintenance_openings, or give the device another window.')
    else private.gate_wait('window', format('Window %s opens %s.', window_name, private.local_time(opens_at, device.timezone)),
      'Nothing to do: the window opens by itself. Set ignore_window_until of the device to go on sooner.')
  end;
  -- Asked for whatever the verdict: a device that has a window always polls inside it. A few minutes in, different for
  -- each device, so that a window does not open with a stampede.
  judged.look_again := opens_at + make_interval(secs => private.bucket(device.id, device.id) * 120 / 100000);
  return judged;
end
$$;
comment on function private.judge_window(public.devices, boolean, timestamptz) is 'Gate window: may it start now? What has begun goes on.';

create function private.judge_slot(rollout public.rollouts, stage int, claim public.rollout_claims, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  counters private.rollout_counters;
  stage_in_flight int;
  stage_limit int;
  fleet_limit int;
  in_line constant text := 'Nothing to do: it stands in line, and is woken when a slot is free. ';
begin
  if claim.state = 'claimed' then
    return private.gate_pass('slot', format('It holds a slot since %s.', private.local_time(claim.claimed_at, 'UTC')));
  elsif claim.attempts >= rollout.max_attempts and claim.state in ('failed', 'expired') then
    return private.gate_refuse('slot', format('It tried %s times, as often as the rollout allows.', claim.attempts),
      'Raise max_attempts of the rollout, or pin the device.');
  end if;
  select c.* into counters from private.rollout_counters c where c.rollout_id = rollout.id and c.position = 0;
  if counters.in_flight >= rollout.max_in_flight then
    return private.gate_wait('slot', format('All %s slots of the rollout are taken.', rollout.max_in_flight),
      in_line || 'Raise max_in_flight of the rollout for more at once.');
  end if;
  select s.max_in_flight, c.in_flight into stage_limit, stage_in_flight
  from public.rollout_stages s
  left join private.rollout_counters c on c.rollout_id = s.rollout_id and c.position = s.position
  where s.rollout_id = rollout.id and s.position = stage;
  if stage_in_flight >= stage_limit then
    return private.gate_wait('slot', format('All %s slots of stage %s are taken.', stage_limit, stage),
      in_line || 'Raise max_in_flight of the stage for more at once.');
  elsif at < counters.minute_start + interval '1 minute' and counters.minute_count >= rollout.max_per_minute then
    return private.gate_wait('slot', format('%s devices started within this minute, as many as allowed.', rollout.max_per_minute),
      'Nothing to do: it asks again when the minute is over. Raise max_per_minute of the rollout for more.',
      counters.minute_start + interval '1 minute');
  end if;
  select s.max_in_flight into fleet_limit from public.fleet_settings s;
  if fleet_limit is not null
    and (select sum(c.in_flight) from private.rollout_counters c where c.position = 0 and c.in_flight > 0) >= fleet_limit then
    return private.gate_wait('slot', format('All %s slots of the fleet are taken.', fleet_limit),
      in_line || 'Raise max_in_flight of fleet_settings for more at once.');
  end if;
  return private.gate_pass('slot', 'A slot is free.');
end
$$;
comment on function private.judge_slot(public.rollouts, int, public.rollout_claims, timestamptz) is
  'Gate slot: is a slot free under every limit? Who holds one goes on.';

create or replace function private.decide(device public.devices, at timestamptz) returns private.decision
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
  slot private.gate_result;
begin
  answer.next_poll_s := coalesce(device.poll_interval_s, (select s.default_poll_interval_s from public.fleet_settings s));
  answer.action := 'run';
  answer.release_id := current_release.id;
  answer.needs_slot := false;
  said := array[private.judge_state(device), private.judge_halt(device), private.judge_hold(device, at)];

  -- A halt that takes devices back beats everything below: what it runs is known to hurt.
  if current_release.id is not null and private.all_pass(said) then
    brake := private.taken_back_by(device.id, current_release.id);
    if brake.id is not null then
      back_to := private.release_before(device.id, current_release.id);
      said := said || private.judge_roll_back(current_release, brake, back_to);
      if back_to is not null then
        answer.action := 'rollback';
        answer.release_id := back_to;
        answer.gates := private.gates(said);
        return answer;
      end if;
    end if;
  end if;

  offer := private.offer_to(device, current_release, at);
  target := offer.release;
  answer.rollout_id := (offer.rollout).id;
  answer.stage := offer.stage;
  said := said || offer.said;
  opening := private.judge_window(device, coalesce((offer.claim).state = 'claimed', false), at);
  if target.id is distinct from current_release.id and target.id is not null then
    said := said || array[
      private.judge_release_halt(target, answer.rollout_id),
      private.judge_known_bad(device, target),
      private.judge_downgrade(device, current_release, target, (offer.rollout).allow_downgrade),
      opening];
    if answer.rollout_id is not null then
      slot := private.judge_slot(offer.rollout, offer.stage, offer.claim, at);
      answer.needs_slot := private.all_pass(said) and slot.verdict <> 'refuse' and (offer.claim).state is distinct from 'claimed';
      said := said || slot;
    end if;
    if private.all_pass(said) then
      answer.action := 'update';
      answer.release_id := target.id;
    elsif opening.blocks and opening.look_again is not null and private.may_prefetch(device)
      and not exists (select from unnest(said) j where j.blocks and j.gate <> 'window') then
      answer.prefetch_id := target.id;
    end if;
  end if;
  answer.gates := private.gates(said);
  answer.next_poll_s := private.poll_by(answer.next_poll_s, at,
    least(opening.look_again, (select min(j.look_again) from unnest(said) j)));
  return answer;
end
$$;

-- A device's question, in its parts.

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
  if device.state <> 'active' then
    perform private.refuse('device_' || device.state,
      format('%s is %s, so it is told nothing.', device.name, device.state),
      case device.state when 'pending' then 'An operator must accept it: set its state to active.'
        when 'suspended' then 'An operator can set its state back to active.'
        else 'Enroll the machine again with a new key.' end, 'PT403');
  end if;
  return device;
end
$$;
comment on function private.asking_device() is 'The device that calls; refused when it is not an active one.';

create function private.lock_for_claim(device_id uuid, rollout_id uuid) returns public.devices
language plpgsql volatile set search_path = ''
as $$
-- In the order that 20261123101110 gives. Each statement of the caller after this one sees what was committed before
-- it, so a halt, a pause or a taken slot that raced us is seen.
declare
  device public.devices;
begin
  perform private.lock_policy_shared();
  select d.* into device from public.devices d where d.id = lock_for_claim.device_id for no key update;
  if (select s.max_in_flight from public.fleet_settings s) is not null then
    perform pg_advisory_xact_lock(7305422303);
  end if;
  perform from private.rollout_counters c where c.rollout_id = lock_for_claim.rollout_id and c.position = 0 for update;
  return device;
end
$$;
comment on function private.lock_for_claim(uuid, uuid) is 'Takes every lock under which a slot may be given, and returns the device as it is then.';

create function private.decide_under_locks(device public.devices, locked_rollout uuid, at timestamptz) returns private.decision
language plpgsql volatile set search_path = ''
as $$
declare
  decided private.decision := private.decide(device, at);
begin
  if not decided.needs_slot or decided.action <> 'update' then
    return decided;
  end if;
  if decided.rollout_id = locked_rollout then
    perform private.claim_slot(device, decided, at);
    return decided;
  end if;
  -- Another rollout took over in between, and its counters are not locked: the device asks again.
  decided.action := 'run';
  decided.release_id := (private.release_on(device.id)).id;
  decided.next_poll_s := 1;
  decided.gates := decided.gates || private.gates(array[private.gate_wait('slot', 'A newer rollout has just begun: ask again.',
    'Nothing to do: the device asks again at once.')]);
  decided.needs_slot := false;
  return decided;
end
$$;
comment on function private.decide_under_locks(public.devices, uuid, timestamptz) is 'Decides once more, and claims the slot if it is still free.';

create or replace function public.desired_state() returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: a device reads no policy table itself. It can only ever ask about itself.
declare
  device public.devices := private.asking_device();
  at timestamptz := clock_timestamp();
  decided private.decision := private.decide(device, at);
begin
  if decided.needs_slot and decided.action = 'update' then
    -- A slot looks free: decide again under the locks.
    device := private.lock_for_claim(device.id, decided.rollout_id);
    decided := private.decide_under_locks(device, decided.rollout_id, at);
  end if;
  if decided.needs_slot and decided.action <> 'update' then
    -- It stands in line: the first in line are woken when a slot is free.
    insert into private.rollout_queue (rollout_id, device_id, asked_at) values (decided.rollout_id, device.id, at)
    on conflict do nothing;
  end if;
  return private.answer(device, decided, at);
end
$$;

drop function private.gate(text, text, text);

do $$
declare
  f regprocedure;
begin
  for f in select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'private'::regnamespace and (p.proname ~ '^(judge|offer)_' or p.proname in (
      'gate_pass', 'gate_wait', 'gate_refuse', 'gate_note', 'all_pass', 'gates', 'local_time', 'release_on', 'how_to_lift', 'taken_back_by', 'window_of', 'may_prefetch',
      'release_before', 'stage_for', 'proof_lacking', 'brake_on_stages', 'remark_shut_stage', 'asking_device', 'lock_for_claim', 'decide_under_locks'))
  loop
    execute format('revoke execute on function %s from public', f);
  end loop;
end
$$;
