-- The policy, first form: device state, halts, hold, pin, the newest available release of the branch, and the
-- release's own brakes. decide() is the one place; desired_state() and explain_device() both ask it, so what
-- operators read is what the device was told.
--
-- Every gate is judged, also behind one that already said no: an explanation names everything in the way.

create type private.decision as (
  action text,
  release_id uuid,
  rollout_id uuid,
  gates jsonb,
  next_poll_s int
);
comment on type private.decision is 'What a device should do: release_id is what it should be on, null for nothing yet.';

create function private.gate(gate text, verdict text, detail text) returns jsonb
language sql immutable set search_path = ''
as $$ select jsonb_build_array(jsonb_build_object('gate', gate, 'verdict', verdict, 'detail', detail)) $$;
comment on function private.gate(text, text, text) is 'One gate''s verdict (pass, wait or refuse) and its sentence, as a list of one.';

create function private.release_name(release_id uuid) returns text
language sql stable security definer set search_path = ''
as $$
  -- Definer: for devices' answers.
  select coalesce((select r.version from public.releases r where r.id = release_id), 'nothing')
$$;
comment on function private.release_name(uuid) is 'A release''s version for sentences; "nothing" for null.';

create function private.decide(device public.devices, at timestamptz) returns private.decision
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
begin
  select s.current_release into current_id from public.device_status s where s.device_id = device.id;
  answer.next_poll_s := coalesce(device.poll_interval_s, (select s.default_poll_interval_s from public.fleet_settings s));

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

  -- the target: the pin, or the newest available release of the branch
  if device.pinned_release is not null then
    select r.* into target from public.releases r where r.id = device.pinned_release;
    if target.state = 'withdrawn' then
      blocked := true;
      gates := gates || private.gate('pin', 'refuse', format('Pinned to %s, which is withdrawn.', target.version));
    else
      gates := gates || private.gate('pin', 'pass', format('Pinned to %s.', target.version));
    end if;
  else
    gates := gates || private.gate('pin', 'pass', 'Not pinned.');
    select r.* into target from public.releases r
    where r.branch = device.branch and r.state = 'available'
    order by r.created_at desc, r.id limit 1;
    if target.id is null then
      blocked := true;
      gates := gates || private.gate('release', 'wait', format('Branch %s has no available release.', device.branch));
    elsif target.id = current_id then
      gates := gates || private.gate('release', 'pass', format('It runs %s, the newest of branch %s.', target.version, device.branch));
    else
      gates := gates || private.gate('release', 'pass', format('%s is the newest of branch %s.', target.version, device.branch));
    end if;
  end if;

  if target.id is not null and target.id is distinct from current_id then
    -- halts of the release
    select h.* into brake from public.halts h
    where h.lifted_at is null and h.scope = 'release' and h.target = target.id::text
    order by h.opened_at limit 1;
    if brake.id is null then
      gates := gates || private.gate('release_halt', 'pass', format('%s is not halted.', target.version));
    else
      blocked := true;
      gates := gates || private.gate('release_halt', 'wait', format('%s is halted: %s', target.version, brake.reason));
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
comment on function private.decide(public.devices, timestamptz) is 'The policy: every gate''s verdict and what follows for this device at this time.';

create function private.poll_by(next_poll_s int, at timestamptz, event timestamptz) returns int
language sql immutable set search_path = ''
as $$
  -- One second late rather than early: asking before the event would cost a poll and learn nothing.
  select greatest(1, least(next_poll_s, ceil(extract(epoch from event - at))::int + 1))
$$;
comment on function private.poll_by(int, timestamptz, timestamptz) is 'The poll interval in seconds, shortened so that a poll falls just after an event.';

create function private.answer(device public.devices, decided private.decision, at timestamptz) returns jsonb
language sql stable security definer set search_path = ''
as $$
  -- Definer: reads releases and commands for the device.
  select jsonb_build_object(
    'action', decided.action,
    'device', jsonb_build_object('id', device.id, 'name', device.name, 'role', device.role,
      'segment', device.segment, 'branch', device.branch),
    'release', (
      select jsonb_build_object('id', r.id, 'commit_sha', r.commit_sha, 'version', r.version, 'branch', r.branch)
      from public.releases r where r.id = decided.release_id),
    'rollout_id', decided.rollout_id,
    'gates', decided.gates,
    'commands', coalesce((
      select jsonb_agg(jsonb_build_object('id', c.id, 'kind', c.kind, 'args', c.args) order by c.requested_at, c.id)
      from public.device_commands c
      where c.device_id = device.id and c.state = 'queued' and at < c.expires_at), '[]'),
    'config', jsonb_build_object('poll_interval_s', device.poll_interval_s, 'labels', device.labels),
    'next_poll_s', decided.next_poll_s,
    'server_time', at)
$$;
comment on function private.answer(public.devices, private.decision, timestamptz) is 'The JSON that desired_state() and explain_device() share.';

create function public.desired_state() returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: a device reads no policy table itself. It can only ever ask about itself.
declare
  device public.devices;
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
  return private.answer(device, private.decide(device, at), at);
end
$$;
comment on function public.desired_state() is 'For devices: what the calling device should do now, why, and when to ask again.';

create function public.explain_device(device_id uuid, at timestamptz default now()) returns jsonb
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: policy functions are not granted to people. Any operator may ask.
declare
  device public.devices;
  decided private.decision;
begin
  perform private.require_rank('viewer');
  select d.* into device from public.devices d where d.id = explain_device.device_id;
  if device.id is null then
    perform private.refuse('device_unknown', 'There is no such device.', 'Look it up in the table devices.', 'PT404');
  end if;
  decided := private.decide(device, at);
  return private.answer(device, decided, at) || jsonb_build_object(
    'blocked_by', coalesce((
      select jsonb_agg(g ->> 'gate') from jsonb_array_elements(decided.gates) g where g ->> 'verdict' <> 'pass'), '[]'),
    'summary', coalesce((
      select string_agg(g ->> 'detail', ' ') from jsonb_array_elements(decided.gates) g where g ->> 'verdict' <> 'pass'),
      case decided.action when 'run' then format('It runs %s, as it should.', private.release_name(decided.release_id))
        else format('It may go to %s now.', private.release_name(decided.release_id)) end));
end
$$;
comment on function public.explain_device(uuid, timestamptz) is
  'For operators: every gate of one device with its verdict and sentence, judged by the code that answers the device.';

revoke execute on function private.gate(text, text, text), private.release_name(uuid),
  private.decide(public.devices, timestamptz), private.poll_by(int, timestamptz, timestamptz),
  private.answer(public.devices, private.decision, timestamptz), public.desired_state(),
  public.explain_device(uuid, timestamptz) from public;
grant execute on function public.desired_state() to fleet_device;
grant execute on function public.explain_device(uuid, timestamptz) to authenticated, service_role;
