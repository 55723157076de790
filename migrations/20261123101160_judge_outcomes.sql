-- What an outcome does, at the moment it arrives: it ends the device's claim, feeds the halt rule, opens the next
-- stage, and wakes who stands in line. And what silence does: a lease that runs out.

create or replace function private.check_halt() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks for the target, whatever the caller may read.
declare
  known boolean;
begin
  if tg_op = 'DELETE' then
    perform private.refuse('halts_stay', 'A halt is never deleted, so that its story stays readable.',
      'Write a lift_reason to lift it.');
  end if;
  if tg_op = 'INSERT' then
    new.target := nullif(btrim(new.target), '');
    -- A device whose outcome made policy stop did not open the halt.
    new.opened_by := coalesce(private.claimed_id('authenticated'), case when private.device_id() is null then new.opened_by end);
    if btrim(coalesce(new.reason, '')) = '' then
      perform private.refuse('reason_missing', 'A halt needs a reason in words.',
        'Say what was seen, for whoever decides to lift it.', 'PT400');
    end if;
    if new.scope = 'fleet' and new.target is not null then
      perform private.refuse('target_not_empty', 'A halt of the fleet has no target.',
        'Empty target, or pick the scope that the target belongs to.', 'PT400');
    end if;
    if new.roll_back and new.scope not in ('release', 'rollout') then
      perform private.refuse('roll_back_scope', 'Only a halt of a release or a rollout can take devices back.',
        'Pick that scope, or switch roll_back off.', 'PT400');
    end if;
    if new.lifted_at is not null or new.lift_reason is not null or new.lifted_by is not null then
      perform private.refuse('halt_starts_open', 'A new halt is open.', 'Leave the lifted columns empty.', 'PT400');
    end if;
    known := case new.scope
      when 'fleet' then true
      when 'segment' then exists (select from public.segments s where s.name = new.target)
      when 'role' then exists (select from public.device_roles r where r.name = new.target)
      when 'branch' then exists (select from public.branches b where b.name = new.target)
      when 'release' then exists (select from public.releases r where r.id::text = new.target)
      else exists (select from public.rollouts r where r.id::text = new.target)
    end;
    if not known then
      perform private.refuse('unknown_target', format('There is no %s "%s" to halt.', new.scope, coalesce(new.target, '')),
        case when new.scope in ('release', 'rollout') then format('Put the id of the %s into target.', new.scope)
             else format('Put the name of the %s into target.', new.scope) end, 'PT400');
    end if;
    return new;
  end if;
  if (new.id, new.scope, new.target, new.cause, new.reason, new.evidence, new.opened_by, new.opened_at, new.roll_back)
     is distinct from (old.id, old.scope, old.target, old.cause, old.reason, old.evidence, old.opened_by, old.opened_at, old.roll_back) then
    perform private.refuse('halt_is_fixed', 'A halt can only be lifted, not rewritten.',
      'Write a lift_reason to lift it, and open a new halt for something else.');
  end if;
  if old.lifted_at is not null then
    if (new.lifted_at, new.lifted_by, new.lift_reason) is distinct from (old.lifted_at, old.lifted_by, old.lift_reason) then
      perform private.refuse('halt_is_lifted', 'This halt is lifted already.', 'Open a new halt.');
    end if;
    return new;
  end if;
  if new.lifted_at is not null or new.lift_reason is not null then
    if btrim(coalesce(new.lift_reason, '')) = '' then
      perform private.refuse('reason_missing', 'Lifting a halt needs a reason in words.',
        'Write lift_reason: why it is safe to go on.', 'PT400');
    end if;
    new.lifted_at := now();
    new.lifted_by := coalesce(private.actor_id(), new.lifted_by);
  end if;
  return new;
end
$$;

create function private.judge_rollout(wanted_id uuid, at timestamptz) returns text
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: opens halts by itself. Returns the cause, or null when the rule is met or a halt stands already. The
-- rule counts from the last lifted halt on, so that lifting one means a fresh start.
declare
  rollout public.rollouts;
  counters private.rollout_counters;
  attempted int;
  failed int;
  cause text;
  sentence text;
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  select c.* into counters from private.rollout_counters c where c.rollout_id = wanted_id and c.position = 0;
  if rollout.state not in ('running', 'paused', 'completed') then
    return null;
  end if;
  attempted := counters.succeeded + counters.failed - counters.base_attempted;
  failed := counters.failed - counters.base_failed;
  if failed >= rollout.halt_max_failures then
    cause := 'failure_cap';
    sentence := format('%s of %s devices failed; %s are allowed.', failed, attempted, rollout.halt_max_failures - 1);
  elsif counters.consecutive_failures >= rollout.halt_consecutive_failures then
    cause := 'consecutive_failures';
    sentence := format('%s devices failed in a row.', counters.consecutive_failures);
  elsif attempted >= rollout.halt_min_attempted and failed > rollout.halt_failure_ratio * attempted then
    cause := 'failure_ratio';
    sentence := format('%s of %s attempted devices failed (%s %%); %s %% are allowed.', failed, attempted,
      round(100.0 * failed / attempted), round(100 * rollout.halt_failure_ratio));
  end if;
  if cause is null or exists (
    select from public.halts h where h.lifted_at is null
      and ((h.scope = 'rollout' and h.target = wanted_id::text) or (h.scope = 'release' and h.target = rollout.release_id::text))) then
    return null;
  end if;
  insert into public.halts (scope, target, cause, reason, evidence, roll_back, opened_at)
  values (
    case when rollout.on_bad = 'halt_rollout' then 'rollout' else 'release' end::public.halt_scope,
    case when rollout.on_bad = 'halt_rollout' then wanted_id else rollout.release_id end::text,
    cause, sentence,
    jsonb_build_object('rollout_id', wanted_id, 'attempted', attempted, 'failed', failed,
      'consecutive_failures', counters.consecutive_failures,
      'error_kinds', coalesce((
        select jsonb_object_agg(kind, n) from (
          select coalesce(h.error_kind, c.state::text) as kind, count(*) as n
          from public.rollout_claims c
          left join public.update_history h on h.id = c.attempt_id and h.device_id = c.device_id
          where c.rollout_id = wanted_id and c.state in ('failed', 'rolled_back', 'expired', 'regressed')
          group by 1 order by 2 desc limit 10) kinds), '{}')),
    rollout.on_bad = 'roll_back', at);
  return cause;
end
$$;
comment on function private.judge_rollout(uuid, timestamptz) is 'The halt rule: opens a halt when a rollout goes bad. Called as each failure arrives.';

create function private.end_claim(claim public.rollout_claims, ended_as public.claim_state, attempt uuid, at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy writes claims. The caller holds the policy lock.
declare
  bad boolean := ended_as in ('failed', 'rolled_back', 'expired', 'regressed');
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
comment on function private.end_claim(public.rollout_claims, public.claim_state, uuid, timestamptz) is 'Ends a claim and does what follows: the halt rule, the next stage, the next in line.';

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
create trigger notice_regression after update on public.device_status
  for each row when (new.state in ('degraded', 'safe_mode') and old.state not in ('degraded', 'safe_mode'))
  execute function private.notice_regression();

create function private.start_afresh() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.lifted_at is not null and old.lifted_at is null and new.scope in ('rollout', 'release') then
    update private.rollout_counters c
    set base_attempted = c.succeeded + c.failed, base_failed = c.failed, consecutive_failures = 0
    where c.position = 0 and c.rollout_id in (
      select r.id from public.rollouts r
      where (new.scope = 'rollout' and r.id::text = new.target) or (new.scope = 'release' and r.release_id::text = new.target));
  end if;
  return null;
end
$$;
create trigger start_afresh after update on public.halts
  for each row execute function private.start_afresh();

create function private.expire_leases(at timestamptz) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy writes claims. Silence is a failure only here: the device took its slot and went dark. One that
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
comment on function private.expire_leases(timestamptz) is 'Ends claims of devices that went dark past their lease.';

create or replace function private.wake_scope(scope public.halt_scope, target text, reason text) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: reads devices, reports and claims. Wakes whom a halt of this scope concerns.
declare
  concerned uuid[];
begin
  if scope = 'fleet' then
    perform private.wake_segments(array(select s.name from public.segments s), reason);
  elsif scope = 'segment' then
    perform private.wake_segments(array[target], reason);
  elsif scope in ('role', 'branch') then
    perform private.wake_devices(array(
      select d.id from public.devices d
      where d.state = 'active' and case wake_scope.scope when 'role' then d.role = target else d.branch = target end), reason);
  else
    -- Who is moving to it, who runs it (it may be taken back), who is pinned to it; when it is lifted, who could
    -- have it now.
    perform private.wake_devices(array(
      select c.device_id from public.rollout_claims c
      where c.state in ('claimed', 'succeeded', 'regressed')
        and ((wake_scope.scope = 'rollout' and c.rollout_id::text = target) or (wake_scope.scope = 'release' and c.to_release::text = target))
      union
      select d.id from public.devices d where wake_scope.scope = 'release' and d.state = 'active' and d.pinned_release::text = target
      union
      select d.id from public.devices d join public.releases r on r.branch = d.branch
      where wake_scope.scope = 'release' and d.state = 'active' and r.id::text = target
        and not exists (select from public.rollouts o where o.release_id = r.id)), reason);
    if reason = 'halt_lifted' then
      perform private.wake_candidates(r.id, reason) from public.rollouts r
      where r.state in ('running', 'completed')
        and ((wake_scope.scope = 'rollout' and r.id::text = target) or (wake_scope.scope = 'release' and r.release_id::text = target));
    end if;
  end if;
end
$$;

create or replace function private.wake_after_release_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  concerned uuid[];
begin
  if tg_op = 'UPDATE' and new.state = old.state then
    return null;
  end if;
  -- A release that only a rollout can give is no news until that starts.
  if tg_op = 'INSERT' and (select b.requires_rollout or b.rollout_template is not null from public.branches b where b.name = new.branch) then
    return null;
  end if;
  concerned := array(
    select d.id from public.devices d
    where d.state = 'active' and (d.branch = new.branch or d.pinned_release = new.id));
  if cardinality(concerned) > 0 then
    perform private.wake_devices(concerned,
      case when tg_op = 'INSERT' then 'release_added' else 'release_' || new.state end);
  end if;
  return null;
end
$$;

revoke execute on function private.judge_rollout(uuid, timestamptz),
  private.end_claim(public.rollout_claims, public.claim_state, uuid, timestamptz), private.settle_claim(),
  private.notice_regression(), private.start_afresh(), private.expire_leases(timestamptz) from public;
