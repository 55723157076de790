-- How a rollout moves: checked edits of its row, stages that open by themselves when the one before is proved, and
-- wakes for those who could get a slot now.

create function private.check_rollout() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks at releases and stages, whatever the caller may read.
declare
  release public.releases;
begin
  select r.* into release from public.releases r where r.id = new.release_id;
  if release.id is null then
    perform private.refuse('release_unknown', 'There is no such release.', 'Pick one from the table releases.', 'PT400');
  end if;
  if tg_op = 'INSERT' then
    if new.state <> 'draft' then
      perform private.refuse('rollout_starts_as_draft', 'A new rollout has no stages yet, so it cannot run.',
        'Insert it as draft, add rows to rollout_stages, then set state to running.');
    end if;
    new.created_by := coalesce(private.actor_id(), new.created_by);
    new.branch := coalesce(new.branch, release.branch);
    new.started_at := null; new.started_by := null; new.ended_at := null;
  end if;
  if new.name = '' then
    new.name := release.version || coalesce(' on ' || new.role, '');
  end if;
  if new.branch is distinct from release.branch then
    perform private.refuse('branch_mismatch', format('%s is a release of branch %s, not of %s.', release.version, release.branch, new.branch),
      'Leave branch empty, or make a release of that branch.', 'PT400');
  end if;
  if tg_op = 'INSERT' then
    return new;
  end if;

  if (new.id, new.created_at) is distinct from (old.id, old.created_at)
     or (old.state <> 'draft' and (new.release_id, new.role, new.label_selector) is distinct from (old.release_id, old.role, old.label_selector)) then
    perform private.refuse('rollout_is_fixed', 'A rollout that has started keeps its release, role and label selector.',
      'Cancel it and start a new one.');
  end if;
  if new.state is distinct from old.state then
    if not (case old.state
      when 'draft' then new.state in ('running', 'cancelled')
      when 'running' then new.state in ('paused', 'completed', 'superseded', 'cancelled')
      when 'paused' then new.state in ('running', 'completed', 'superseded', 'cancelled')
      when 'completed' then new.state in ('superseded', 'cancelled')
      else false
    end) then
      perform private.refuse('rollout_state', format('A rollout that is %s cannot become %s.', old.state, new.state),
        case when old.state in ('superseded', 'cancelled') then 'Start a new rollout.'
             else 'draft becomes running; running and paused change into each other or become cancelled.' end);
    end if;
    if new.state = 'running' then
      if release.state <> 'available' then
        perform private.refuse('release_not_available', format('%s is withdrawn.', release.version),
          'Set the release back to available first, or roll out another one.');
      end if;
      if not exists (select from public.rollout_stages s where s.rollout_id = new.id) then
        perform private.refuse('no_stages', 'This rollout has no stages, so it would reach nobody.',
          'Add rows to rollout_stages first.');
      end if;
    end if;
    if old.state = 'draft' and new.state = 'running' then
      new.started_at := coalesce(new.started_at, now());
      new.started_by := coalesce(private.actor_id(), new.started_by);
    end if;
    new.ended_at := case when new.state in ('completed', 'superseded', 'cancelled') then coalesce(old.ended_at, now()) end;
  end if;
  return new;
end
$$;
create trigger check_rollout before insert or update on public.rollouts
  for each row execute function private.check_rollout();

create function private.check_stage() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks at the rollout, whatever the caller may read.
declare
  rollout_state public.rollout_state;
  wanted_id uuid := case when tg_op = 'DELETE' then old.rollout_id else new.rollout_id end;
begin
  select r.state into rollout_state from public.rollouts r where r.id = wanted_id;
  if rollout_state is null then
    return case when tg_op = 'DELETE' then old else new end;  -- the foreign key says it, or the rollout is being deleted
  end if;
  if tg_op = 'DELETE' then
    if rollout_state <> 'draft' and old.opened_at is not null then
      perform private.refuse('stage_is_open', format('Stage %s is open, so it stays.', old.position),
        'Pause or cancel the rollout instead.');
    end if;
    return old;
  end if;
  if rollout_state in ('superseded', 'cancelled') then
    perform private.refuse('rollout_has_ended', format('The rollout is %s.', rollout_state), 'Start a new rollout.');
  end if;
  if tg_op = 'INSERT' then
    new.opened_at := null; new.floor_bucket := null; new.size_at_opening := null; new.proved_at := null;
    if new.approved_at is not null then
      new.approved_by := private.actor_id();
    end if;
    if exists (select from public.rollout_stages s where s.rollout_id = new.rollout_id and s.position > new.position and s.opened_at is not null) then
      perform private.refuse('stage_order', 'A later stage is open already.', 'Give the new stage a higher position.');
    end if;
    return new;
  end if;
  if (new.rollout_id, new.position) is distinct from (old.rollout_id, old.position) then
    perform private.refuse('stage_is_fixed', 'A stage keeps its rollout and its position.', 'Add another stage instead.');
  end if;
  if old.opened_at is not null and new.opened_at is null then
    perform private.refuse('stage_is_open', format('Stage %s is open and cannot be closed.', old.position),
      'Pause the rollout, or lower percent: devices that hold a slot keep it.');
  end if;
  if new.approved_at is not null and old.approved_at is null then
    new.approved_at := now();
    new.approved_by := coalesce(private.actor_id(), new.approved_by);
  end if;
  return new;
end
$$;
create trigger check_stage before insert or update or delete on public.rollout_stages
  for each row execute function private.check_stage();

create function private.wake_candidates(wanted_id uuid, reason text) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: reads the fleet. Wakes whom the rollout could give a slot now: the free slots' worth of devices, in the
-- order of their buckets, those heard of last before the offline ones; everybody where there is no limit.
declare
  rollout public.rollouts;
  free int;
  chosen uuid[];
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  if rollout.state is distinct from 'running' and rollout.state is distinct from 'completed' then
    return;
  end if;
  free := least(
    rollout.max_in_flight - (select c.in_flight from private.rollout_counters c where c.rollout_id = wanted_id and c.position = 0),
    rollout.max_per_minute);
  chosen := array(
    select p.device_id from private.rollout_devices(wanted_id) p
    join public.rollout_stages s on s.rollout_id = wanted_id and s.position = p.stage and s.opened_at is not null
    left join public.rollout_claims c on c.rollout_id = wanted_id and c.device_id = p.device_id
    where p.current_release is distinct from rollout.release_id and c.device_id is null
    order by p.reported_at is null, p.bucket
    -- greatest() would turn "no limit" into none at all.
    limit case when free is not null then greatest(free, 0) end);
  if cardinality(chosen) > 0 then
    perform private.wake_devices(chosen, reason);
  end if;
end
$$;
comment on function private.wake_candidates(uuid, text) is 'Wakes the devices that could get a slot in this rollout now.';

create function private.wake_waiting(wanted_id uuid) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the queue is policy's own. Wakes as many of those who stand in line as there are free slots.
declare
  free int;
  chosen uuid[];
begin
  select least(r.max_in_flight - c.in_flight,
      r.max_per_minute - case when now() < c.minute_start + interval '1 minute' then c.minute_count else 0 end)
    into free
  from public.rollouts r join private.rollout_counters c on c.rollout_id = r.id and c.position = 0
  where r.id = wanted_id and r.state in ('running', 'completed');
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
comment on function private.wake_waiting(uuid) is 'Wakes the first in line when slots are free.';

create function private.open_stage(wanted_id uuid, wanted_position int, at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy moves its own rows. The floor keeps a small percentage of a small fleet from being nobody.
declare
  stage public.rollout_stages;
  lowest int;
  size int;
begin
  select s.* into stage from public.rollout_stages s where s.rollout_id = wanted_id and s.position = wanted_position;
  select min(p.bucket) filter (where stage.segment is null or p.segment = stage.segment) + 1,
         count(*) filter (where p.stage = wanted_position)
    into lowest, size from private.rollout_devices(wanted_id) p;
  insert into private.rollout_counters (rollout_id, position) values (wanted_id, wanted_position) on conflict do nothing;
  update public.rollout_stages s
  set opened_at = coalesce(s.opened_at, at), floor_bucket = lowest, size_at_opening = size
  where s.rollout_id = wanted_id and s.position = wanted_position;
end
$$;
comment on function private.open_stage(uuid, int, timestamptz) is 'Opens a stage: fixes its floor and notes its size.';

create function private.advance_rollout(wanted_id uuid, at timestamptz) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy moves its own rows. Opens every stage that is due and completes the rollout after the last.
-- Returns how many stages it opened. The caller holds the policy lock.
declare
  rollout public.rollouts;
  stage public.rollout_stages;
  following public.rollout_stages;
  counters private.rollout_counters;
  proved boolean;
  opened int := 0;
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  if rollout.state is distinct from 'running' then
    return 0;
  end if;
  loop
    select s.* into stage from public.rollout_stages s
    where s.rollout_id = wanted_id and s.opened_at is not null order by s.position desc limit 1;
    if stage.position is not null then
      -- A stage that a person opened by hand has no counters yet.
      if stage.size_at_opening is null then
        perform private.open_stage(wanted_id, stage.position, at);
        select s.* into stage from public.rollout_stages s where s.rollout_id = wanted_id and s.position = stage.position;
        opened := opened + 1;
      end if;
      select c.* into counters from private.rollout_counters c where c.rollout_id = wanted_id and c.position = stage.position;
      proved := counters.succeeded + counters.failed >= least(stage.min_attempted, stage.size_at_opening)
        and counters.succeeded >= stage.min_success_ratio * (counters.succeeded + counters.failed);
      if proved is distinct from (stage.proved_at is not null) then
        update public.rollout_stages s set proved_at = case when proved then at end
        where s.rollout_id = wanted_id and s.position = stage.position returning s.* into stage;
      end if;
      exit when not proved or at < stage.proved_at + make_interval(secs => stage.soak_s);
      exit when exists (
        select from public.halts h where h.lifted_at is null
          and (h.scope = 'fleet' or (h.scope = 'rollout' and h.target = wanted_id::text)
               or (h.scope = 'release' and h.target = rollout.release_id::text)
               or (h.scope = 'branch' and h.target = rollout.branch) or (h.scope = 'role' and h.target = rollout.role)));
    end if;
    select s.* into following from public.rollout_stages s
    where s.rollout_id = wanted_id and s.opened_at is null order by s.position limit 1;
    if following.position is null then
      -- The last stage is proved and soaked.
      update public.rollouts r set state = 'completed' where r.id = wanted_id and stage.position is not null;
      exit;
    end if;
    exit when following.needs_approval and following.approved_at is null;
    perform private.open_stage(wanted_id, following.position, at);
    opened := opened + 1;
  end loop;
  if opened > 0 then
    perform private.wake_candidates(wanted_id, 'stage_opened');
  end if;
  return opened;
end
$$;
comment on function private.advance_rollout(uuid, timestamptz) is 'Opens the stages that are due. Safe to call at any time.';

create function private.follow_rollout() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.state = 'running' and old.state = 'draft' then
    insert into private.rollout_counters (rollout_id, position) values (new.id, 0) on conflict do nothing;
    -- A newer rollout for the same devices takes over: the old one gives no new slots, and who holds one finishes.
    update public.rollouts r set state = 'superseded'
    where r.id <> new.id and r.state in ('running', 'paused')
      and r.branch = new.branch and r.role is not distinct from new.role and r.label_selector = new.label_selector;
    perform private.advance_rollout(new.id, now());
  elsif new.state = 'running' and old.state = 'paused' then
    perform private.advance_rollout(new.id, now());
    perform private.wake_candidates(new.id, 'rollout_resumed');
  elsif new.state = 'running'
    and (coalesce(new.max_in_flight, 2147483647) > coalesce(old.max_in_flight, 2147483647)
      or coalesce(new.max_per_minute, 2147483647) > coalesce(old.max_per_minute, 2147483647)
      or new.allow_downgrade and not old.allow_downgrade or new.max_attempts > old.max_attempts) then
    perform private.wake_candidates(new.id, 'limits_raised');
  end if;
  return null;
end
$$;
create trigger follow after update on public.rollouts
  for each row execute function private.follow_rollout();

create function private.follow_stage() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  -- What a person changed: an approval, a hand-opened stage, a larger share. What policy keeps is not news here.
  if (new.approved_at, new.soak_s, new.min_attempted, new.min_success_ratio, new.needs_approval)
       is distinct from (old.approved_at, old.soak_s, old.min_attempted, old.min_success_ratio, old.needs_approval)
     or (new.opened_at is not null and new.size_at_opening is null) then
    perform private.advance_rollout(new.rollout_id, now());
  end if;
  if new.opened_at is not null and old.opened_at is not null
     and (new.percent, new.segment, new.device_ids, new.max_in_flight)
         is distinct from (old.percent, old.segment, old.device_ids, old.max_in_flight) then
    perform private.wake_candidates(new.rollout_id, 'stage_changed');
  end if;
  return null;
end
$$;
create trigger follow after update on public.rollout_stages
  for each row execute function private.follow_stage();

revoke execute on function private.check_rollout(), private.check_stage(), private.wake_candidates(uuid, text),
  private.wake_waiting(uuid), private.open_stage(uuid, int, timestamptz), private.advance_rollout(uuid, timestamptz),
  private.follow_rollout(), private.follow_stage() from public;
