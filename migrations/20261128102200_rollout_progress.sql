-- How a rollout advances: a stage opens by itself when the one before it is proved, and the devices that could get a
-- slot are woken.

create function private.note_proof(stage public.rollout_stages, at timestamptz) returns void
language plpgsql volatile set search_path = ''
as $$
declare
  proved boolean := private.proof_lacking(stage) is null;
begin
  if proved is distinct from (stage.proved_at is not null) then
    update public.rollout_stages s set proved_at = case when proved then at end
    where s.rollout_id = stage.rollout_id and s.position = stage.position;
  end if;
end
$$;
comment on function private.note_proof(public.rollout_stages, timestamptz) is
  'Records since when an open stage is proved, or that it no longer is.';
revoke execute on function private.note_proof(public.rollout_stages, timestamptz) from public;

create function private.open_stage(wanted_id uuid, wanted_position int, at timestamptz) returns void
language plpgsql volatile security definer set search_path = '' set jit = off set work_mem = '64MB' set plan_cache_mode = force_custom_plan
as $$
-- Definer: policy moves its own rows. The floor keeps a small percentage of a small fleet from being nobody.
declare
  rollout public.rollouts;
  stage public.rollout_stages;
  lowest int;
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  select s.* into stage from public.rollout_stages s where s.rollout_id = wanted_id and s.position = wanted_position;
  select min(private.bucket(rollout.release_id, p.device_id)) + 1 into lowest
  from private.rollout_devices(rollout) p where stage.segment is null or p.segment = stage.segment;
  update public.rollout_stages s
  set opened_at = coalesce(s.opened_at, at), floor_bucket = lowest,
      size_at_opening = coalesce((private.count_stage(wanted_id, wanted_position, at)).devices, 0)
  where s.rollout_id = wanted_id and s.position = wanted_position;
end
$$;
comment on function private.open_stage(uuid, int, timestamptz) is 'Opens a stage: fixes its minimum and records its size.';
revoke execute on function private.open_stage(uuid, int, timestamptz) from public;

create function private.advance_rollout(wanted_id uuid, at timestamptz) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy moves its own rows. Opens every stage that is due and completes the rollout after the last.
-- Returns how many stages it opened. The caller holds the policy lock.
declare
  rollout public.rollouts;
  stage public.rollout_stages;
  following int;
  opened int := 0;
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  -- What a person opened by hand has no size yet, whether its rollout runs or is over.
  for following in
    select s.position from public.rollout_stages s
    where s.rollout_id = wanted_id and s.opened_at is not null and s.size_at_opening is null
      and rollout.state in ('running', 'paused', 'completed') order by s.position
  loop
    perform private.open_stage(wanted_id, following, at);
    opened := opened + 1;
  end loop;
  while rollout.state = 'running' loop
    select s.* into stage from public.rollout_stages s
    where s.rollout_id = wanted_id and s.opened_at is not null order by s.position desc limit 1;
    if stage.position is not null then
      perform private.note_proof(stage, at);
    end if;
    exit when (private.shut_because(rollout, 'UTC', at)).gate is not null;
    select min(s.position) into following from public.rollout_stages s
    where s.rollout_id = wanted_id and s.opened_at is null;
    if following is null then
      -- The last stage is proved and soaked.
      update public.rollouts r set state = 'completed' where r.id = wanted_id and stage.position is not null;
      exit;
    end if;
    perform private.open_stage(wanted_id, following, at);
    opened := opened + 1;
  end loop;
  -- Once it is completed, its candidates have been woken by that.
  if opened > 0 and (rollout.state = 'completed'
      or not exists (select from public.rollouts r where r.id = wanted_id and r.state = 'completed')) then
    perform private.wake_candidates(wanted_id, 'stage_opened');
  end if;
  return opened;
end
$$;
comment on function private.advance_rollout(uuid, timestamptz) is 'Opens the stages that are due. Safe to call at any time.';
revoke execute on function private.advance_rollout(uuid, timestamptz) from public;

create function private.look_at_proof(wanted_id uuid, at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: alerts are policy's own rows. Counts the devices of the stage that is to be proved, as it is by now; as seldom
-- as there are many, because that reads all of them. The caller holds the policy lock.
declare
  rollout public.rollouts;
  stage public.rollout_stages;
  counters private.rollout_counters;
  lacking text;
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id and r.state = 'running';
  select s.* into stage from public.rollout_stages s
  where s.rollout_id = rollout.id and s.opened_at is not null order by s.position desc limit 1;
  lacking := private.proof_lacking(stage);
  if lacking is not null then
    select c.* into counters from private.rollout_counters c where c.rollout_id = wanted_id and c.position = stage.position;
    if not private.is_due('proof ' || wanted_id, make_interval(secs => counters.audience / 2000), at) then
      return;
    end if;
    counters := private.count_stage(wanted_id, stage.position, at);
    lacking := private.proof_lacking(stage);
  end if;
  if lacking is not null and counters.unprovable then
    perform private.open_alert('stage_unprovable', 'warning',
      format('Stage %s of the rollout of %s cannot be proved: %s. %s', stage.position, private.release_name(rollout.release_id),
        lacking, private.how_to_go_on(rollout, stage.position)), at,
      rollout_id => wanted_id, subject => 'stage ' || stage.position, evidence => jsonb_build_object('stage', stage.position));
  end if;
  update public.alerts a set resolved_at = at
  where a.kind = 'stage_unprovable' and a.rollout_id = wanted_id and a.resolved_at is null
    and (lacking is null or not counters.unprovable or a.subject <> 'stage ' || stage.position);
end
$$;
comment on function private.look_at_proof(uuid, timestamptz) is
  'Counts the stage of a running rollout that is to be proved, and opens an alert if it cannot be any more.';
revoke execute on function private.look_at_proof(uuid, timestamptz) from public;

create function private.follow_rollout() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.state in ('completed', 'superseded', 'cancelled') and old.state in ('running', 'paused') then
    update public.alerts a set resolved_at = now()
    where a.kind = 'stage_unprovable' and a.rollout_id = new.id and a.resolved_at is null;
  end if;
  if new.state = 'completed' and old.state in ('running', 'paused') then
    -- From now on it is for devices that no stage holds, too.
    perform private.wake_candidates(new.id, 'rollout_completed', outside_stages => true);
  end if;
  if new.state = 'running' and old.state = 'draft' then
    -- Of two that one statement starts, the last one runs: the other is superseded when its turn comes.
    if exists (select from public.rollouts r where r.id <> new.id and r.state = 'running' and r.started_at > new.started_at
        and r.branch = new.branch and r.role is not distinct from new.role and r.selector = new.selector) then
      return null;
    end if;
    -- A newer rollout for the same devices takes over. What the old one said stands where no open stage of the newer
    -- one holds the device: no further stage of it opens.
    update public.rollouts r set state = 'superseded'
    where r.id <> new.id and r.state in ('running', 'paused')
      and r.branch = new.branch and r.role is not distinct from new.role and r.selector = new.selector;
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
revoke execute on function private.follow_rollout() from public;
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
revoke execute on function private.follow_stage() from public;
create trigger follow after update on public.rollout_stages
  for each row execute function private.follow_stage();

-- What happens when an outcome arrives: it ends the device's claim, counts for the halt rule, opens the next stage if it
-- is due, and wakes the devices in the queue. And what happens if none arrives: the lease expires.

create function private.end_claim(claim public.rollout_claims, ended_as public.claim_state, attempt uuid, at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy writes claims. The caller holds the policy lock.
begin
  update public.rollout_claims c
  set state = ended_as, ended_at = at, attempt_id = coalesce(attempt, c.attempt_id)
  where c.rollout_id = claim.rollout_id and c.device_id = claim.device_id;
  if private.is_failure(ended_as) then
    perform private.judge_rollout(claim.rollout_id, at);
  end if;
  perform private.advance_rollout(claim.rollout_id, at);
  perform private.wake_waiting(claim.rollout_id);
end
$$;
comment on function private.end_claim(public.rollout_claims, public.claim_state, uuid, timestamptz) is 'Ends a claim and does what follows: the halt rule, the next stage, the next device in the queue.';
revoke execute on function private.end_claim(public.rollout_claims, public.claim_state, uuid, timestamptz) from public;

create function private.is_late(claim public.rollout_claims, attempt public.update_history) returns boolean
language plpgsql stable set search_path = ''
as $$
-- By the clock of the device, as far as it was off at its last report. Leaning to no: the slot then goes to another.
declare
  said public.device_status;
  finished timestamptz;
begin
  select s.* into said from public.device_status s where s.device_id = claim.device_id;
  finished := attempt.finished_at - coalesce(said.device_time - said.reported_at, '0')
    + make_interval(secs => (select f.clock_drift_s from public.fleet_settings f));
  return claim.state = 'claimed'
    and (finished < claim.claimed_at or coalesce(private.has_begun(claim, said) and finished < said.reported_at, false));
end
$$;
comment on function private.is_late(public.rollout_claims, public.update_history) is
  'Is this the outcome of an earlier attempt, and the device is on its way again with its slot?';
revoke execute on function private.is_late(public.rollout_claims, public.update_history) from public;

create function private.note_late_outcome(claim public.rollout_claims, outcome public.claim_state, attempt uuid, at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy writes claims. The caller holds the policy lock.
begin
  update public.rollout_claims c set last_outcome = note_late_outcome.outcome, attempt_id = attempt
  where c.rollout_id = claim.rollout_id and c.device_id = claim.device_id;
  if private.is_failure(outcome) then
    perform private.judge_rollout(claim.rollout_id, at);
  end if;
  perform private.advance_rollout(claim.rollout_id, at);
end
$$;
comment on function private.note_late_outcome(public.rollout_claims, public.claim_state, uuid, timestamptz) is
  'Counts an outcome of a device that keeps its slot.';
revoke execute on function private.note_late_outcome(public.rollout_claims, public.claim_state, uuid, timestamptz) from public;

create function private.settle_claim() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  claim public.rollout_claims;
  -- Without blame: the device gives its slot back, and may take one again.
  is_blameless boolean := new.outcome = 'skipped' or private.is_passing(new.outcome, new.failed_phase, new.evidence);
begin
  select c.* into claim from public.rollout_claims c
  where c.device_id = new.device_id
    and case when new.rollout_id is not null then c.rollout_id = new.rollout_id
             else c.state = 'claimed' and c.to_release = new.release_id end
  limit 1;
  if claim.rollout_id is null
     or not exists (select from public.releases r where r.id = claim.to_release and r.commit_sha = new.to_commit) then
    return null;
  end if;
  perform private.lock_policy();
  select c.* into claim from public.rollout_claims c where c.rollout_id = claim.rollout_id and c.device_id = claim.device_id;
  if is_blameless and (claim.state <> 'claimed' or private.is_late(claim, new)) then
    return null;
  end if;
  if private.is_late(claim, new) then
    perform private.note_late_outcome(claim, new.outcome::text::public.claim_state, new.id, now());
    return null;
  end if;
  perform private.end_claim(claim,
    case when is_blameless then 'released' else new.outcome::text end::public.claim_state, new.id, now());
  return null;
end
$$;
revoke execute on function private.settle_claim() from public;
create trigger settle_claim after insert on public.update_history
  for each row execute function private.settle_claim();

create function private.notice_health() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- A report of health on the release is proof, whatever became of the row of history, and also where the device lost its
-- health for a while.
declare
  claim public.rollout_claims;
begin
  select c.* into claim from public.rollout_claims c
  where c.device_id = new.device_id and c.to_release = new.current_release order by c.claimed_at desc limit 1;
  if claim.rollout_id is null or claim.state = 'succeeded' then
    return null;
  end if;
  perform private.lock_policy();
  select c.* into claim from public.rollout_claims c
  where c.rollout_id = claim.rollout_id and c.device_id = claim.device_id and c.state <> 'succeeded';
  if claim.rollout_id is not null then
    perform private.end_claim(claim, 'succeeded', null, now());
  end if;
  return null;
end
$$;
revoke execute on function private.notice_health() from public;
create trigger notice_health_insert after insert on public.device_status
  for each row when (new.state = 'healthy' and new.current_release is not null)
  execute function private.notice_health();
create trigger notice_health_update after update on public.device_status
  for each row when (new.state = 'healthy' and new.current_release is not null
    and (new.state, new.current_release) is distinct from (old.state, old.current_release))
  execute function private.notice_health();

create function private.notice_regression() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  claim public.rollout_claims;
begin
  select c.* into claim from public.rollout_claims c join public.rollouts r on r.id = c.rollout_id
  where c.device_id = new.device_id and c.state = 'succeeded' and c.to_release = new.current_release
    and now() < c.ended_at + make_interval(secs => r.regression_s)
  order by c.ended_at desc limit 1;
  if claim.rollout_id is null then
    return null;
  end if;
  perform private.lock_policy();
  select c.* into claim from public.rollout_claims c
  where c.rollout_id = claim.rollout_id and c.device_id = claim.device_id and c.state = 'succeeded';
  if claim.rollout_id is not null then
    perform private.end_claim(claim, 'regressed', null, now());
  end if;
  return null;
end
$$;
revoke execute on function private.notice_regression() from public;
create trigger notice_regression after update on public.device_status
  for each row when (new.state in ('degraded', 'safe_mode') and old.state not in ('degraded', 'safe_mode'))
  execute function private.notice_regression();

create function private.end_of_lease(claim public.rollout_claims, at timestamptz) returns public.claim_state
language plpgsql stable set search_path = ''
as $$
declare
  device public.devices;
  said public.device_status;
  lease interval := (select make_interval(secs => r.lease_s) from public.rollouts r where r.id = claim.rollout_id);
begin
  select d.* into device from public.devices d where d.id = claim.device_id;
  select s.* into said from public.device_status s where s.device_id = claim.device_id;
  return case
    when said.state = 'healthy' and said.current_release = claim.to_release then 'succeeded'
    when device.state <> 'active' then 'released'
    when not private.has_begun(claim, said) and private.leads_away(claim, private.decide(device, at)) then 'released'
    when said.reported_at + lease > at and at < claim.claimed_at + 10 * lease then 'claimed'
    else 'expired'
  end;
end
$$;
comment on function private.end_of_lease(public.rollout_claims, timestamptz) is
  'What becomes of a slot whose lease is over: only a device that was on its way and went offline has failed.';
revoke execute on function private.end_of_lease(public.rollout_claims, timestamptz) from public;

create function private.expire_leases(at timestamptz, for_at_most interval default '3 seconds') returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy writes claims. A device that still reports keeps its slot, up to ten leases; one that is no longer
-- served gives it back without waiting for its lease. Not for long: devices wait for the policy lock meanwhile, and the next
-- tick goes on.
declare
  began timestamptz := clock_timestamp();
  claim public.rollout_claims;
  ended_as public.claim_state;
  expired int := 0;
begin
  if not exists (select from public.rollout_claims c where c.state = 'claimed' and (
      c.lease_until <= at or c.device_id in (select d.id from public.devices d where d.state <> 'active'))) then
    return 0;
  end if;
  perform private.lock_policy();
  for claim in
    select c.* from public.rollout_claims c where c.state = 'claimed' and (
      c.lease_until <= at or c.device_id in (select d.id from public.devices d where d.state <> 'active'))
    order by c.rollout_id, c.device_id
  loop
    -- The one before may have brought a halt, and with it an end to this one.
    continue when not exists (
      select from public.rollout_claims c
      where c.rollout_id = claim.rollout_id and c.device_id = claim.device_id and c.state = 'claimed');
    ended_as := private.end_of_lease(claim, at);
    if ended_as = 'claimed' then
      update public.rollout_claims c
      set lease_until = (select s.reported_at from public.device_status s where s.device_id = c.device_id)
        + make_interval(secs => (select r.lease_s from public.rollouts r where r.id = c.rollout_id))
      where c.rollout_id = claim.rollout_id and c.device_id = claim.device_id;
    else
      perform private.end_claim(claim, ended_as, null, at);
      expired := expired + (ended_as = 'expired')::int;
    end if;
    exit when clock_timestamp() > began + for_at_most;
  end loop;
  return expired;
end
$$;
comment on function private.expire_leases(timestamptz, interval) is 'Ends claims of devices that went offline past their lease.';
revoke execute on function private.expire_leases(timestamptz, interval) from public;
