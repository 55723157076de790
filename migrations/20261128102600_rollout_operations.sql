-- What operators do with rollouts and ask about them: for fleetctl, the dashboard and the SQL editor.

create function private.copy_template_stages(rollout_id uuid, template text) returns void
language sql volatile set search_path = ''
as $$
  insert into public.rollout_stages
    (rollout_id, position, segment, percent, max_in_flight, soak_s, min_attempted, min_success_ratio, needs_approval)
  select copy_template_stages.rollout_id,
    s.position, s.segment, s.percent, s.max_in_flight, s.soak_s, s.min_attempted, s.min_success_ratio, s.needs_approval
  from public.rollout_template_stages s where s.template = copy_template_stages.template
$$;
comment on function private.copy_template_stages(uuid, text) is 'Gives a new rollout the stages of a template, under the caller''s rights.';
revoke execute on function private.copy_template_stages(uuid, text) from public;
grant execute on function private.copy_template_stages(uuid, text) to authenticated, service_role;

create function public.create_rollout(
  release_id uuid, role text default null, template text default null, stages jsonb default null,
  options jsonb default '{}'
) returns public.rollouts
language plpgsql volatile set search_path = ''
as $$
-- Runs under the caller's row-level security. `stages`: a list of rows of rollout_stages without rollout_id, position
-- by order; `options`: columns of rollouts. Without stages the template's are taken, `staged` if none is named.
declare
  made public.rollouts;
  pattern public.rollouts;
  stage jsonb;
  number int := 0;
  unknown text;
begin
  perform private.require_rank('operator');
  select string_agg(k, ', ') into unknown from jsonb_object_keys(coalesce(options, '{}')) k
  where k not in ('name', 'selector', 'max_in_flight', 'max_per_minute', 'lease_s', 'max_attempts', 'halt_failure_ratio',
    'halt_min_attempted', 'halt_max_failures', 'halt_consecutive_failures', 'regression_s', 'offline_patience_s', 'on_bad', 'remember_patterns', 'allow_downgrade', 'allow_empty', 'notes');
  if unknown is not null then
    perform private.refuse('unknown_option', format('A rollout has no option %s.', unknown), 'See the columns of the table rollouts.', 'PT400');
  end if;
  if stages is not null and (jsonb_typeof(stages) <> 'array' or jsonb_array_length(stages) = 0) then
    perform private.refuse('bad_stages', 'stages must be a list of at least one stage.',
      'For example [{"segment": "canary", "soak_s": 600}, {"percent": 100}].', 'PT400');
  end if;
  -- A template's columns are called as those of a rollout, but for its own name and description.
  select p.* into pattern
  from public.rollout_templates t, jsonb_populate_record(null::public.rollouts, to_jsonb(t) - 'name' - 'description') p
  where t.name = coalesce(template, 'staged');
  if not found and (template is not null or stages is null) then
    perform private.refuse('unknown_template', format('There is no template "%s".', coalesce(template, 'staged')),
      'Pick one from the table rollout_templates, or give stages.', 'PT400');
  end if;
  pattern.release_id := create_rollout.release_id;
  pattern.role := coalesce(create_rollout.role, pattern.role);
  pattern := jsonb_populate_record(pattern, coalesce(options, '{}'));
  insert into public.rollouts (name, release_id, role, selector, max_in_flight, max_per_minute, lease_s, max_attempts,
    halt_failure_ratio, halt_min_attempted, halt_max_failures, halt_consecutive_failures, regression_s, offline_patience_s, on_bad, remember_patterns,
    allow_downgrade, allow_empty, notes)
  values (coalesce(pattern.name, ''), pattern.release_id, pattern.role, coalesce(pattern.selector, '{}'), pattern.max_in_flight,
    pattern.max_per_minute, coalesce(pattern.lease_s, 3600), coalesce(pattern.max_attempts, 3), pattern.halt_failure_ratio,
    coalesce(pattern.halt_min_attempted, 5), pattern.halt_max_failures, pattern.halt_consecutive_failures,
    coalesce(pattern.regression_s, 3600), coalesce(pattern.offline_patience_s, 86400), coalesce(pattern.on_bad, 'halt_rollout'), coalesce(pattern.remember_patterns, false),
    coalesce(pattern.allow_downgrade, false), coalesce(pattern.allow_empty, false),
    coalesce(pattern.notes, ''))
  returning * into made;
  if stages is null then
    perform private.copy_template_stages(made.id, coalesce(template, 'staged'));
  else
    for stage in select e from jsonb_array_elements(stages) e loop
      number := number + 1;
      select string_agg(k, ', ') into unknown from jsonb_object_keys(stage) k
      where k not in ('segment', 'percent', 'device_ids', 'max_in_flight', 'soak_s', 'min_attempted', 'min_success_ratio', 'needs_approval');
      if unknown is not null then
        perform private.refuse('unknown_option', format('A stage has no option %s.', unknown), 'See the columns of the table rollout_stages.', 'PT400');
      end if;
      insert into public.rollout_stages (rollout_id, position, segment, percent, device_ids, max_in_flight, soak_s, min_attempted, min_success_ratio, needs_approval)
      select made.id, number, s.segment, s.percent, s.device_ids, s.max_in_flight, coalesce(s.soak_s, 0), coalesce(s.min_attempted, 1),
        coalesce(s.min_success_ratio, 0.9), coalesce(s.needs_approval, false)
      from jsonb_populate_record(null::public.rollout_stages, stage) s;
    end loop;
  end if;
  return made;
end
$$;
comment on function public.create_rollout(uuid, text, text, jsonb, jsonb) is
  'Makes a draft of a rollout from stages, or from a template. Look at preview_rollout(), then start_rollout().';
revoke execute on function public.create_rollout(uuid, text, text, jsonb, jsonb) from public;
grant execute on function public.create_rollout(uuid, text, text, jsonb, jsonb) to authenticated, service_role;

create function private.set_rollout_state(rollout_id uuid, wanted public.rollout_state) returns public.rollouts
language plpgsql volatile set search_path = ''
as $$
declare
  changed public.rollouts;
begin
  perform private.require_rank('operator');
  update public.rollouts r set state = wanted where r.id = set_rollout_state.rollout_id returning * into changed;
  if changed.id is null then
    perform private.refuse_unknown('rollout', 'rollout list');
  end if;
  return changed;
end
$$;
comment on function private.set_rollout_state(uuid, public.rollout_state) is 'Changes a rollout''s state under the caller''s rights.';
revoke execute on function private.set_rollout_state(uuid, public.rollout_state) from public;
grant execute on function private.set_rollout_state(uuid, public.rollout_state) to authenticated, service_role;

create function public.start_rollout(rollout_id uuid) returns public.rollouts
language plpgsql volatile set search_path = ''
as $$
begin
  perform private.require_rank('operator');
  if (select r.state from public.rollouts r where r.id = start_rollout.rollout_id) = 'paused' then
    perform private.refuse('rollout_paused', 'This rollout is paused.', 'If the reason is gone, resume it: fleetctl rollout resume.');
  end if;
  return private.set_rollout_state(rollout_id, 'running');
end
$$;
comment on function public.start_rollout(uuid) is 'Starts a draft: opens its first stage. Takes over from a running rollout for the same devices.';
revoke execute on function public.start_rollout(uuid) from public;
grant execute on function public.start_rollout(uuid) to authenticated, service_role;

create function public.pause_rollout(rollout_id uuid) returns public.rollouts
language sql volatile set search_path = ''
as $$ select * from private.set_rollout_state(rollout_id, 'paused') $$;
comment on function public.pause_rollout(uuid) is 'Hands out no new slots; devices that hold one finish.';
revoke execute on function public.pause_rollout(uuid) from public;
grant execute on function public.pause_rollout(uuid) to authenticated, service_role;

create function public.resume_rollout(rollout_id uuid) returns public.rollouts
language plpgsql volatile set search_path = ''
as $$
begin
  perform private.require_rank('operator');
  if (select r.state from public.rollouts r where r.id = resume_rollout.rollout_id) = 'draft' then
    perform private.refuse('rollout_state', 'This rollout has not been started.', 'Start it: fleetctl rollout start.');
  end if;
  return private.set_rollout_state(rollout_id, 'running');
end
$$;
comment on function public.resume_rollout(uuid) is 'Resumes a paused rollout.';
revoke execute on function public.resume_rollout(uuid) from public;
grant execute on function public.resume_rollout(uuid) to authenticated, service_role;

create function public.cancel_rollout(rollout_id uuid) returns public.rollouts
language sql volatile set search_path = ''
as $$ select * from private.set_rollout_state(rollout_id, 'cancelled') $$;
comment on function public.cancel_rollout(uuid) is 'Cancels a rollout; devices keep what they run.';
revoke execute on function public.cancel_rollout(uuid) from public;
grant execute on function public.cancel_rollout(uuid) to authenticated, service_role;

-- The argument is called `stage`, as in preview_rollout() and fleetctl, and not `position`. That is a keyword of SQL's
-- grammar (pg_get_keywords() category C), and Lite, which does not quote the names of arguments, could not call the
-- function. tests/sql/test_catalog.py keeps such names out of every exposed function.
create function public.approve_stage(rollout_id uuid, stage int) returns public.rollout_stages
language plpgsql volatile set search_path = ''
as $$
-- Runs under the caller's row-level security.
declare
  approved public.rollout_stages;
begin
  perform private.require_rank('operator');
  update public.rollout_stages s set approved_at = now()
  where s.rollout_id = approve_stage.rollout_id and s.position = approve_stage.stage and s.approved_at is null;
  select s.* into approved from public.rollout_stages s
  where s.rollout_id = approve_stage.rollout_id and s.position = approve_stage.stage;
  if approved.rollout_id is null then
    perform private.refuse_unknown('stage', 'rollout progress');
  end if;
  return approved;
end
$$;
comment on function public.approve_stage(uuid, int) is
  'Lets a stage that waits for approval open when it is due. stage: its position.';
revoke execute on function public.approve_stage(uuid, int) from public;
grant execute on function public.approve_stage(uuid, int) to authenticated, service_role;

-- Questions about rollouts.

create function public.preview_rollout(rollout_id uuid, at timestamptz default now()) returns table (
  stage int, device_id uuid, name text, segment text, already_there boolean, known_bad boolean, held boolean, earliest timestamptz)
language plpgsql stable security definer set search_path = '' set jit = off set work_mem = '64MB' set plan_cache_mode = force_custom_plan
as $$
-- Definer: policy's own view of the fleet. Any operator may ask; nothing is started. `earliest` adds up the soak times
-- before the stage and the device's window; caps and failures can only make it later. Approvals count as given.
declare
  asked_for public.rollouts;
begin
  perform private.require_rank('viewer');
  select r.* into asked_for from public.rollouts r where r.id = preview_rollout.rollout_id;
  if asked_for.id is null then
    perform private.refuse_unknown('rollout', 'rollout list');
  end if;
  return query
  with stages as materialized (
    select s.position, coalesce(s.opened_at, preview_rollout.at + make_interval(secs => coalesce((
      select sum(b.soak_s) from public.rollout_stages b
      where b.rollout_id = s.rollout_id and b.position < s.position
        and b.position >= coalesce((select max(o.position) from public.rollout_stages o
          where o.rollout_id = s.rollout_id and o.opened_at is not null), 0)), 0))) as opens
    from public.rollout_stages s where s.rollout_id = preview_rollout.rollout_id
  ),
  devices as materialized (
    select p.stage, p.device_id, p.name, p.segment, private.bucket(asked_for.release_id, p.device_id) as bucket,
      p.current_release is not distinct from asked_for.release_id as is_there,
      p.device_id in (select k.device_id from private.known_bad_devices(asked_for.release_id) k) as is_bad,
      d.hold, d.hold_until, d.ignore_window_until, d.timezone,
      coalesce(d.maintenance_window, ring.maintenance_window) as window_name,
      greatest(s.opens, preview_rollout.at, case when d.hold then d.hold_until end) as ready
    from private.rollout_devices(asked_for) p
    -- Left, for the planner to expect as many rows as there are devices.
    left join stages s on s.position = p.stage
    join public.devices d on d.id = p.device_id
    join public.segments ring on ring.name = d.segment
    where p.stage is not null
  ),
  -- Devices share their windows, their time zones, and mostly the moment, too.
  asked as materialized (
    select d.window_name, d.timezone, d.ready, (private.window_at(d.window_name, d.timezone, d.ready)).*
    from (select distinct d.window_name, d.timezone, d.ready from devices d
      where d.window_name is not null and not d.is_there and not d.is_bad) d
  )
  select d.stage, d.device_id, d.name, d.segment, d.is_there, d.is_bad,
    d.hold and (d.hold_until is null or d.hold_until > preview_rollout.at),
    case
      when d.is_there or d.is_bad then null
      when d.hold and d.hold_until is null then null
      when d.window_name is null or d.ready < d.ignore_window_until then d.ready
      when w.open_until is not null then d.ready
      else w.opens_at
    end
  from devices d
  left join asked w on w.window_name = d.window_name and w.timezone = d.timezone and w.ready = d.ready
  order by d.stage, d.bucket;
end
$$;
comment on function public.preview_rollout(uuid, timestamptz) is
  'Which devices would get the release, in which stage, and when at the earliest (null: not as things are). Does not start anything.';
revoke execute on function public.preview_rollout(uuid, timestamptz) from public;
grant execute on function public.preview_rollout(uuid, timestamptz) to authenticated, service_role;

create function public.rollout_progress(rollout_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set work_mem = '64MB' set plan_cache_mode = force_custom_plan
as $$
-- Definer: reads policy's counters. Any operator may ask. Counts devices as they are now; one frozen now().
declare
  rollout public.rollouts;
  answer jsonb;
begin
  perform private.require_rank('viewer');
  select r.* into rollout from public.rollouts r where r.id = rollout_progress.rollout_id;
  if rollout.id is null then
    perform private.refuse_unknown('rollout', 'rollout list');
  end if;
  with concerned as (
    select p.stage, coalesce(p.current_release = rollout.release_id, false) as done,
      -- Without a slot, and without an outcome.
      p.current_release is distinct from rollout.release_id and coalesce(c.state, 'released') = 'released' as to_come,
      p.reported_at is null or private.is_offline(p.reported_at, p.poll_interval_s,
        f.default_poll_interval_s, f.offline_after_intervals, now()) as offline,
      p.device_id in (select k.device_id from private.known_bad_devices(rollout.release_id) k) as known_bad
    from private.rollout_devices(rollout) p
    cross join public.fleet_settings f
    left join public.rollout_claims c on c.rollout_id = rollout.id and c.device_id = p.device_id
    where p.stage is not null
  ),
  counted as materialized (
    select p.stage, count(*) as devices, count(*) filter (where p.done) as on_release,
      count(*) filter (where p.to_come and p.known_bad) as known_bad,
      count(*) filter (where p.to_come and not p.known_bad and not p.offline) as waiting,
      count(*) filter (where p.to_come and not p.known_bad and p.offline) as offline
    from concerned p group by p.stage
  ),
  stages as (
    select s.position, jsonb_build_object(
      'position', s.position, 'segment', s.segment, 'percent', s.percent, 'opened_at', s.opened_at, 'proved_at', s.proved_at,
      'soaked_at', s.proved_at + make_interval(secs => s.soak_s),
      'needs_approval', s.needs_approval, 'approved_at', s.approved_at,
      'devices', coalesce(n.devices, 0), 'on_release', coalesce(n.on_release, 0),
      'in_flight', coalesce(c.in_flight, 0), 'succeeded', coalesce(c.succeeded, 0), 'failed', coalesce(c.failed, 0),
      'known_bad', coalesce(n.known_bad, 0), 'waiting', coalesce(n.waiting, 0), 'offline', coalesce(n.offline, 0)
    ) as stage
    from public.rollout_stages s
    left join counted n on n.stage = s.position
    left join private.rollout_counters c on c.rollout_id = s.rollout_id and c.position = s.position
    where s.rollout_id = rollout.id
  )
  select jsonb_build_object(
    'rollout_id', rollout.id, 'name', rollout.name, 'state', rollout.state, 'release_id', rollout.release_id,
    'version', private.release_name(rollout.release_id), 'started_at', rollout.started_at, 'ended_at', rollout.ended_at,
    'devices', (select coalesce(sum(n.devices), 0) from counted n),
    'on_release', (select coalesce(sum(n.on_release), 0) from counted n),
    'in_flight', coalesce(t.in_flight, 0), 'succeeded', coalesce(t.succeeded, 0), 'failed', coalesce(t.failed, 0),
    'known_bad', (select coalesce(sum(n.known_bad), 0) from counted n),
    'going_back', (select jsonb_build_object('in_flight', count(*) filter (where b.state = 'claimed'),
        'succeeded', count(*) filter (where b.state = 'succeeded'), 'failed', count(*) filter (where private.is_failure(b.state)))
      from public.roll_back_slots b where b.rollout_id = rollout.id),
    'in_line', (select count(*) from private.rollout_queue q where q.rollout_id = rollout.id),
    'halts', coalesce((
      select jsonb_agg(jsonb_build_object('id', h.id, 'scope', h.scope, 'cause', h.cause, 'reason', h.reason, 'opened_at', h.opened_at) order by h.opened_at)
      from private.halts_on(rollout) h), '[]'),
    'known_bad_patterns', coalesce((
      select jsonb_agg(jsonb_build_object('id', k.id, 'selector', k.selector, 'cause', k.cause, 'reason', k.reason, 'opened_at', k.opened_at) order by k.opened_at)
      from public.known_bad_patterns k where k.lifted_at is null and k.release_id = rollout.release_id), '[]'),
    'stages', coalesce((select jsonb_agg(s.stage order by s.position) from stages s), '[]'))
  into answer
  from (select 1) one left join private.rollout_counters t on t.rollout_id = rollout.id and t.position = 0;
  return answer || jsonb_build_object('summary', case
    when jsonb_array_length(answer -> 'halts') > 0 then 'Halted: ' || (answer -> 'halts' -> 0 ->> 'reason')
    else format('%s: %s of %s on %s; %s in flight, %s failed%s.', initcap(rollout.state::text), answer ->> 'on_release',
      private.counted((answer ->> 'devices')::bigint), answer ->> 'version', answer ->> 'in_flight', answer ->> 'failed',
      case when (answer ->> 'known_bad')::int > 0 then format(', known bad for %s', answer ->> 'known_bad') else '' end) end);
end
$$;
comment on function public.rollout_progress(uuid) is
  'The progress of a rollout, stage by stage, and what blocks it. offline: not offered, because it does not report. known_bad: not offered, by device or by pattern.';
revoke execute on function public.rollout_progress(uuid) from public;
grant execute on function public.rollout_progress(uuid) to authenticated, service_role;

create function private.limits_of(max_in_flight int, max_per_minute int default null) returns text
language sql immutable
return coalesce(nullif(concat_ws(', ', max_in_flight || ' at once', max_per_minute || ' a minute'), ''), 'no limit');
comment on function private.limits_of(int, int) is 'Limits of slots in a sentence.';
revoke execute on function private.limits_of(int, int) from public;

create function public.preview_going_back(
  release_id uuid, by_halt boolean default false, rollout_id uuid default null, all_at_once boolean default false
) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off
as $$
-- Definer: policy's own view of the fleet. Any operator may ask; nothing is taken back. For a halt with roll_back, of the
-- release or of one of its rollouts, or otherwise for a withdrawal, which leaves pinned devices alone. Which rollout's limits
-- count is what way_back() says, written out for all devices at once.
declare
  version text := (select r.version from public.releases r where r.id = preview_going_back.release_id);
  devices bigint;
  kept jsonb;
  limits jsonb;
  kept_because text;
  fleet_limit int := (select f.max_in_flight from public.fleet_settings f);
begin
  perform private.require_rank('viewer');
  if version is null then
    perform private.refuse_unknown('release', 'release list');
  end if;
  with brought as (
    select distinct on (c.device_id) c.device_id, c.rollout_id, c.stage
    from public.rollout_claims c where c.to_release = preview_going_back.release_id order by c.device_id, c.claimed_at desc
  ),
  running as (
    select coalesce(b.rollout_id, c.rollout_id, (
        select r.id from public.rollouts r
        where r.release_id = preview_going_back.release_id and r.state <> 'draft' and r.started_at is not null order by r.started_at desc, r.id limit 1
      )) as rollout_id,
      case when b.device_id is not null then b.stage else c.stage end as stage,
      case
        when d.pinned_release is not null and not by_halt then 'pinned'
        when d.hold and (d.hold_until is null or d.hold_until > now()) or (private.judge_halt(d)).blocks then 'held'
        when by_halt and private.release_before(d.id, preview_going_back.release_id) is null then 'nowhere'
      end as kept
    from public.device_status s join public.devices d on d.id = s.device_id
    left join brought c on c.device_id = d.id
    left join public.roll_back_slots b on b.device_id = d.id and b.from_release = preview_going_back.release_id and b.state = 'claimed'
    where s.current_release = preview_going_back.release_id and d.state = 'active'
      -- A halt of a rollout takes back what that rollout gave.
      and (preview_going_back.rollout_id is null or exists (
        select from public.rollout_claims o
        where o.rollout_id = preview_going_back.rollout_id and o.device_id = d.id and o.to_release = preview_going_back.release_id))
  ),
  by_rollout as (
    select w.rollout_id, count(*) as devices from running w where w.kept is null group by w.rollout_id
  ),
  by_stage as (
    select w.rollout_id, jsonb_agg(jsonb_build_object('stage', w.stage, 'devices', w.devices, 'max_in_flight', s.max_in_flight) order by w.stage) as stages
    from (select n.rollout_id, n.stage, count(*) as devices from running n where n.kept is null group by n.rollout_id, n.stage) w
    join public.rollout_stages s on s.rollout_id = w.rollout_id and s.position = w.stage and s.max_in_flight is not null
    group by w.rollout_id
  )
  select coalesce(sum(c.devices), 0), coalesce(jsonb_agg(jsonb_build_object('rollout_id', c.rollout_id, 'rollout', r.name,
      'devices', c.devices, 'max_in_flight', r.max_in_flight, 'max_per_minute', r.max_per_minute, 'stages', coalesce(s.stages, '[]'))
      order by c.devices desc, r.name), '[]'),
    (select jsonb_build_object('pinned', count(*) filter (where k.kept = 'pinned'), 'held', count(*) filter (where k.kept = 'held'),
      'nowhere', count(*) filter (where k.kept = 'nowhere')) from running k)
  into devices, limits, kept
  from by_rollout c left join public.rollouts r on r.id = c.rollout_id left join by_stage s on s.rollout_id = c.rollout_id;
  select string_agg(private.counted(k.value::bigint) || case k.key when 'pinned' then ' pinned' when 'held' then ' held or halted'
      else ' without a known release to go back to' end, ', ' order by k.key)
  into kept_because from jsonb_each_text(kept) k where k.value <> '0';
  return jsonb_build_object('release_id', release_id, 'version', version, 'devices', devices, 'limits', limits, 'kept', kept,
    'fleet_max_in_flight', fleet_limit,
    'summary', concat_ws(' ', case
      when devices = 0 then format('No device goes back from %s.', version)
      when all_at_once then format('%s back from %s, all at once.', private.counted(devices) || case when devices = 1 then ' goes' else ' go' end, version)
      else format('%s back from %s, under these limits: %s.', private.counted(devices) || case when devices = 1 then ' goes' else ' go' end,
        version, concat_ws('; ',
        (select string_agg(format('rollout %s (%s): %s', l ->> 'rollout', private.counted((l ->> 'devices')::bigint),
            private.limits_of((l ->> 'max_in_flight')::int, (l ->> 'max_per_minute')::int))
          || coalesce((select string_agg(format(', its stage %s (%s): %s', g ->> 'stage', private.counted((g ->> 'devices')::bigint),
            private.limits_of((g ->> 'max_in_flight')::int)), '' order by (g ->> 'stage')::int) from jsonb_array_elements(l -> 'stages') g), ''), '; ')
          from jsonb_array_elements(limits) l where l ->> 'rollout_id' is not null),
        (select format('no rollout (%s): that of the fleet only', private.counted((l ->> 'devices')::bigint))
          from jsonb_array_elements(limits) l where l ->> 'rollout_id' is null),
        'the whole fleet: ' || private.limits_of(fleet_limit))) end,
      case when kept_because <> '' then format('Kept on it: %s.', kept_because) end));
end
$$;
comment on function public.preview_going_back(uuid, boolean, uuid, boolean) is
  'How many devices would go back from a release that is withdrawn, or (by_halt) halted with roll_back, under which limits, and how many would stay on it.';
revoke execute on function public.preview_going_back(uuid, boolean, uuid, boolean) from public;
grant execute on function public.preview_going_back(uuid, boolean, uuid, boolean) to authenticated, service_role;

-- A push to a branch can start the usual rollout automatically: the branch names a template, and each new release of the
-- branch gets a running rollout made from it.

create function private.rollout_from_template(wanted_release uuid, template_name text) returns uuid
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: used by a trigger for whoever adds the release. Makes a draft.
declare
  made uuid;
begin
  insert into public.rollouts (release_id, role, selector, max_in_flight, max_per_minute, lease_s, max_attempts,
    halt_failure_ratio, halt_min_attempted, halt_max_failures, halt_consecutive_failures, regression_s, offline_patience_s, on_bad,
    remember_patterns, allow_empty, notes)
  select wanted_release, t.role, t.selector, t.max_in_flight, t.max_per_minute, t.lease_s, t.max_attempts,
    t.halt_failure_ratio, t.halt_min_attempted, t.halt_max_failures, t.halt_consecutive_failures, t.regression_s, t.offline_patience_s, t.on_bad,
    t.remember_patterns, true,
    'Made from template ' || t.name || '.'
  from public.rollout_templates t where t.name = template_name
  returning id into made;
  if made is not null then
    perform private.copy_template_stages(made, template_name);
  end if;
  return made;
end
$$;
comment on function private.rollout_from_template(uuid, text) is 'Makes a draft of a rollout from a template; null if there is no such template.';
revoke execute on function private.rollout_from_template(uuid, text) from public;

create function private.follow_template() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  wanted text := (select b.rollout_template from public.branches b where b.name = new.branch);
  made uuid;
begin
  if wanted is not null and new.state = 'available' and coalesce(current_setting('fleet.stages_are_given', true), '') <> 'on' then
    perform private.lock_policy();
    made := private.rollout_from_template(new.id, wanted);
    -- A template without stages stays a draft: refusing it here would refuse the push.
    update public.rollouts r set state = 'running'
    where r.id = made and exists (select from public.rollout_stages s where s.rollout_id = made);
  end if;
  return null;
end
$$;
revoke execute on function private.follow_template() from public;
create trigger follow_template after insert on public.releases
  for each row execute function private.follow_template();

-- A release and who gets it, in one transaction.

create function private.outlook(release_id uuid, rollout_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off set work_mem = '64MB' set plan_cache_mode = force_custom_plan
as $$
-- Definer: policy's own view of the fleet. The caller's rank was checked.
declare
  release public.releases;
  rollout public.rollouts;
  stages jsonb := '[]';
  devices bigint := 0;
  in_no_stage bigint := 0;
  at_once boolean;
begin
  select r.* into release from public.releases r where r.id = outlook.release_id;
  select r.* into rollout from public.rollouts r where r.id = outlook.rollout_id;
  at_once := private.is_given_at_once(release);
  if rollout_id is not null then
    select coalesce(jsonb_agg(to_jsonb(told) order by told.stage), '[]'), coalesce(sum(told.devices), 0) into stages, devices
    from (
      select s.position as stage, s.segment, s.percent, s.soak_s, s.needs_approval,
        count(p.device_id) filter (where not p.already_there) as devices, min(p.earliest) as earliest
      from public.rollout_stages s
      left join public.preview_rollout(outlook.rollout_id) p on p.stage = s.position
      where s.rollout_id = outlook.rollout_id group by s.rollout_id, s.position) told;
    select count(*) into in_no_stage from private.rollout_devices(rollout) p
    where p.stage is null and p.current_release is distinct from release.id;
  elsif at_once then
    select count(*) into devices
    from public.devices d left join public.device_status s on s.device_id = d.id
    where d.branch = release.branch and d.state = 'active' and d.pinned_release is null
      and s.current_release is distinct from release.id;
  end if;
  return jsonb_build_object('delivery', case when rollout_id is not null then 'rollout' when at_once then 'immediate' else 'nobody' end,
    'devices', devices, 'stages', stages, 'in_no_stage', in_no_stage,
    'summary', case
      when rollout_id is not null then format('%s is for %s in %s.', release.version, private.counted(devices), private.counted(jsonb_array_length(stages), 'stage'))
        || case when in_no_stage > 0 then format(' When all stages are completed, it is for %s outside of them.', private.counted(in_no_stage, 'more device')) else '' end
      when at_once then format('%s goes to %s at once: branch %s is immediate.', release.version, private.counted(devices), release.branch)
      else format('%s goes to nobody yet: branch %s gives by rollout only.', release.version, release.branch) end);
end
$$;
comment on function private.outlook(uuid, uuid) is 'How many devices a new release is for, and when at the earliest: by its rollout, by its immediate branch, or nobody.';
revoke execute on function private.outlook(uuid, uuid) from public;
grant execute on function private.outlook(uuid, uuid) to authenticated, service_role;

create function public.add_release(
  commit_sha text, branch text default 'main', version text default '', notes text default '',
  stages jsonb default null, template text default null, role text default null, options jsonb default '{}',
  dry_run boolean default false, access jsonb default '{}'
) returns jsonb
language plpgsql volatile set search_path = ''
as $$
-- Runs under the caller's row-level security.
declare
  added public.releases;
  rollout_id uuid;
  answer jsonb;
begin
  perform private.require_rank('operator');
  begin
    -- A template of the branch stands back where the caller says who gets the release.
    perform set_config('fleet.stages_are_given', case when stages is not null or template is not null then 'on' else '' end, true);
    insert into public.releases (commit_sha, branch, version, notes, access, by_rollout_only)
    values (add_release.commit_sha, add_release.branch, coalesce(add_release.version, ''), coalesce(add_release.notes, ''),
      coalesce(add_release.access, '{}'), stages is not null or template is not null)
    returning * into added;
    if stages is not null or template is not null then
      rollout_id := (public.create_rollout(added.id, add_release.role, add_release.template, add_release.stages, add_release.options)).id;
      perform public.start_rollout(rollout_id);
    else
      select r.id into rollout_id from public.rollouts r where r.release_id = added.id;
    end if;
    answer := private.outlook(added.id, rollout_id);
    perform set_config('fleet.stages_are_given', '', true);
    if dry_run then
      raise exception using errcode = 'FD001';
    end if;
  exception when sqlstate 'FD001' then
    rollout_id := null;
  end;
  return answer || jsonb_build_object('dry_run', dry_run, 'release', to_jsonb(added), 'rollout_id', rollout_id);
end
$$;
comment on function public.add_release(text, text, text, text, jsonb, text, text, jsonb, boolean, jsonb) is
  'Adds a release and, with stages or a template, starts its rollout in the same transaction. Says how many devices it is for; dry_run only says it.';
revoke execute on function public.add_release(text, text, text, text, jsonb, text, text, jsonb, boolean, jsonb) from public;
grant execute on function public.add_release(text, text, text, text, jsonb, text, text, jsonb, boolean, jsonb) to authenticated, service_role;
