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
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy moves its own rows. The floor keeps a small percentage of a small fleet from being nobody.
declare
  stage public.rollout_stages;
  lowest int;
begin
  select s.* into stage from public.rollout_stages s where s.rollout_id = wanted_id and s.position = wanted_position;
  select min(p.bucket) filter (where stage.segment is null or p.segment = stage.segment) + 1
    into lowest from private.rollout_devices(wanted_id) p;
  insert into private.rollout_counters (rollout_id, position) values (wanted_id, wanted_position) on conflict do nothing;
  update public.rollout_stages s
  set opened_at = coalesce(s.opened_at, at), floor_bucket = lowest, size_at_opening = private.stage_size(wanted_id, wanted_position)
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
  if rollout.state is distinct from 'running' then
    return 0;
  end if;
  loop
    select s.* into stage from public.rollout_stages s
    where s.rollout_id = wanted_id and s.opened_at is not null order by s.position desc limit 1;
    -- A stage that a person opened by hand has neither size nor counters yet.
    if stage.position is not null and stage.size_at_opening is null then
      perform private.open_stage(wanted_id, stage.position, at);
      opened := opened + 1;
      continue;
    elsif stage.position is not null then
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
  if opened > 0 then
    perform private.wake_candidates(wanted_id, 'stage_opened');
  end if;
  return opened;
end
$$;
comment on function private.advance_rollout(uuid, timestamptz) is 'Opens the stages that are due. Safe to call at any time.';
revoke execute on function private.advance_rollout(uuid, timestamptz) from public;

create function private.follow_rollout() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.state = 'running' and old.state = 'draft' then
    -- Of two that one statement starts, the last one runs: the other is superseded when its turn comes.
    if exists (select from public.rollouts r where r.id <> new.id and r.state = 'running' and r.started_at > new.started_at
        and r.branch = new.branch and r.role is not distinct from new.role and r.label_selector = new.label_selector) then
      return null;
    end if;
    insert into private.rollout_counters (rollout_id, position) values (new.id, 0) on conflict do nothing;
    -- A newer rollout for the same devices takes over. What the old one said stands where no open stage of the newer
    -- one holds the device: no further stage of it opens.
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
declare
  bad boolean := private.is_failure(ended_as);
begin
  update public.rollout_claims c
  set state = ended_as, ended_at = at, attempt_id = coalesce(attempt, c.attempt_id)
  where c.rollout_id = claim.rollout_id and c.device_id = claim.device_id;
  if ended_as <> 'released' then
    update private.rollout_counters c
    set consecutive_failures = case when bad then c.consecutive_failures + 1 else 0 end
    where c.rollout_id = claim.rollout_id and c.position = 0;
  end if;
  if bad then
    perform private.judge_rollout(claim.rollout_id, at);
  end if;
  perform private.advance_rollout(claim.rollout_id, at);
  perform private.wake_waiting(claim.rollout_id);
end
$$;
comment on function private.end_claim(public.rollout_claims, public.claim_state, uuid, timestamptz) is 'Ends a claim and does what follows: the halt rule, the next stage, the next device in the queue.';
revoke execute on function private.end_claim(public.rollout_claims, public.claim_state, uuid, timestamptz) from public;

create function private.settle_claim() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  claim public.rollout_claims;
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
  if claim.state = 'released' or (new.outcome = 'skipped' and claim.state <> 'claimed') then
    return null;
  end if;
  perform private.end_claim(claim,
    case new.outcome when 'skipped' then 'released' else new.outcome::text end::public.claim_state, new.id, now());
  return null;
end
$$;
revoke execute on function private.settle_claim() from public;
create trigger settle_claim after insert on public.update_history
  for each row execute function private.settle_claim();

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

create function private.expire_leases(at timestamptz) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy writes claims. To be offline is a failure only here: the device took a slot first. One that
-- still reports keeps its slot, up to ten leases; one that is no longer served gives it back.
declare
  claim public.rollout_claims;
  device_state public.device_state;
  heard timestamptz;
  lease interval;
  expired int := 0;
begin
  if not exists (select from public.rollout_claims c where c.state = 'claimed' and c.lease_until <= at) then
    return 0;
  end if;
  perform private.lock_policy();
  for claim in
    select c.* from public.rollout_claims c where c.state = 'claimed' and c.lease_until <= at order by c.rollout_id, c.device_id
  loop
    select d.state, s.reported_at, make_interval(secs => r.lease_s) into device_state, heard, lease
    from public.rollouts r join public.devices d on d.id = claim.device_id
    left join public.device_status s on s.device_id = d.id
    where r.id = claim.rollout_id;
    if device_state <> 'active' then
      perform private.end_claim(claim, 'released', null, at);
    elsif heard + lease > at and at < claim.claimed_at + 10 * lease then
      update public.rollout_claims c set lease_until = heard + lease
      where c.rollout_id = claim.rollout_id and c.device_id = claim.device_id;
    else
      perform private.end_claim(claim, 'expired', null, at);
      expired := expired + 1;
    end if;
  end loop;
  return expired;
end
$$;
comment on function private.expire_leases(timestamptz) is 'Ends claims of devices that went offline past their lease.';
revoke execute on function private.expire_leases(timestamptz) from public;
