-- When a rollout goes bad: the halt rule, evaluated as each failure arrives. And: where would a rule have stopped that
-- rollout?

-- The rule itself is a pure function that the live evaluation and replay_halt_rule() share, so that what you try out is
-- what will be applied.
create function private.broken_rule(rule public.rollouts, attempted int, failed int, in_a_row int) returns text
language sql immutable set search_path = ''
as $$
  select case
    when failed >= rule.halt_max_failures then 'failure_cap'
    when in_a_row >= rule.halt_consecutive_failures then 'consecutive_failures'
    when attempted >= rule.halt_min_attempted and failed > rule.halt_failure_ratio * attempted then 'failure_ratio'
  end
$$;
comment on function private.broken_rule(public.rollouts, int, int, int) is
  'The halt rule itself: which part of it these numbers break, or null. Pure.';
revoke execute on function private.broken_rule(public.rollouts, int, int, int) from public;

create function private.failed_in_a_row(wanted_id uuid, after bigint) returns int
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select count(*) from public.rollout_claims c
    where c.rollout_id = wanted_id and c.outcome_number > greatest(failed_in_a_row.after, (
      select g.outcome_number from public.rollout_claims g
      where g.rollout_id = wanted_id and g.outcome_number is not null and g.last_outcome = 'succeeded'
      order by g.outcome_number desc limit 1)));
end
$$;
comment on function private.failed_in_a_row(uuid, bigint) is
  'How many devices failed after the last one that succeeded, and after this number of outcomes.';
revoke execute on function private.failed_in_a_row(uuid, bigint) from public;

create function private.judge_rollout(wanted_id uuid, at timestamptz) returns text
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: opens halts by itself. Returns the cause, or null when the rule is met or a halt stands already. The rule
-- counts devices by their last outcome, and only what came after the last lifted halt: lifting one means a fresh start.
declare
  rollout public.rollouts;
  counters private.rollout_counters;
  attempted int;
  failed int;
  in_a_row int;
  cause text;
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  select c.* into counters from private.rollout_counters c where c.rollout_id = wanted_id and c.position = 0;
  if rollout.state = 'draft' then
    return null;
  end if;
  attempted := counters.succeeded + counters.failed - counters.base_attempted;
  failed := counters.failed - counters.base_failed;
  in_a_row := private.failed_in_a_row(wanted_id, counters.outcomes_at_lift);
  cause := private.broken_rule(rollout, attempted, failed, in_a_row);
  if cause is null or exists (
    select from public.halts h where h.lifted_at is null
      and ((h.scope = 'rollout' and h.target = wanted_id::text) or (h.scope = 'release' and h.target = rollout.release_id::text))) then
    return null;
  end if;
  insert into public.halts (scope, target, cause, reason, evidence, roll_back, opened_at)
  values (
    case when rollout.on_bad = 'halt_rollout' then 'rollout' else 'release' end::public.halt_scope,
    case when rollout.on_bad = 'halt_rollout' then wanted_id else rollout.release_id end::text,
    cause,
    case cause
      when 'failure_cap' then format('%s of %s failed; the limit is %s.', failed, private.counted(attempted, 'attempted device'), rollout.halt_max_failures - 1)
      when 'consecutive_failures' then format('%s failed in a row.', private.counted(in_a_row))
      else format('%s of %s failed (%s %%); the limit is %s %%.', failed, private.counted(attempted, 'attempted device'),
        round(100.0 * failed / attempted), round(100 * rollout.halt_failure_ratio))
    end,
    jsonb_build_object('rollout_id', wanted_id, 'attempted', attempted, 'failed', failed,
      'consecutive_failures', in_a_row,
      'error_kinds', coalesce((
        select jsonb_object_agg(kind, n) from (
          select coalesce(h.error_kind, c.last_outcome::text) as kind, count(*) as n
          from public.rollout_claims c
          left join public.update_history h on h.id = c.attempt_id and h.device_id = c.device_id
          where c.rollout_id = wanted_id and private.is_failure(c.last_outcome)
            and c.outcome_number > counters.outcomes_at_lift
          group by 1 order by 2 desc limit 10) kinds), '{}')),
    rollout.on_bad = 'roll_back', at);
  if rollout.remember_patterns then
    perform private.remember_patterns(rollout.release_id, look_now => true, at => at);
  end if;
  return cause;
end
$$;
comment on function private.judge_rollout(uuid, timestamptz) is 'The halt rule: opens a halt when a rollout goes bad. Called as each failure arrives.';
revoke execute on function private.judge_rollout(uuid, timestamptz) from public;

create function private.start_afresh() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.lifted_at is not null and old.lifted_at is null and new.scope in ('rollout', 'release') then
    update private.rollout_counters c
    set outcomes_at_lift = c.outcomes, base_attempted = c.succeeded + c.failed, base_failed = c.failed
    where c.position = 0 and c.rollout_id in (
      select r.id from public.rollouts r
      where (new.scope = 'rollout' and r.id::text = new.target) or (new.scope = 'release' and r.release_id::text = new.target));
  end if;
  return null;
end
$$;
revoke execute on function private.start_afresh() from public;
create trigger start_afresh after update on public.halts
  for each row execute function private.start_afresh();

create function public.replay_halt_rule(rollout_id uuid, rule jsonb default '{}') returns jsonb
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: reads claims and history as policy does. Any operator may ask; nothing changes. Outcomes count in the order
-- in which they arrived, each device by its latest one, and lifted halts are ignored: the rule looks at it all. `latest`
-- has the number of each device's outcome, below zero if it is a failure.
declare
  tried public.rollouts;
  unknown text;
  outcome record;
  latest jsonb := '{}';
  was int;
  succeeded int := 0;
  failed int := 0;
  in_a_row int := 0;
  seen int := 0;
  cause text;
  stopped jsonb;
begin
  perform private.require_rank('viewer');
  select r.* into tried from public.rollouts r where r.id = replay_halt_rule.rollout_id;
  if tried.id is null then
    perform private.refuse_unknown('rollout', 'rollout list');
  end if;
  select string_agg(k, ', ') into unknown from jsonb_object_keys(coalesce(rule, '{}')) k
  where k not in ('halt_failure_ratio', 'halt_min_attempted', 'halt_max_failures', 'halt_consecutive_failures');
  if unknown is not null then
    perform private.refuse('unknown_option', format('A halt rule has no %s.', unknown),
      'Use halt_failure_ratio, halt_min_attempted, halt_max_failures, halt_consecutive_failures.', 'PT400');
  end if;
  tried := jsonb_populate_record(tried, coalesce(rule, '{}'));
  for outcome in
    select h.device_id, h.outcome <> 'succeeded' as bad, h.received_at as at
    from public.update_history h join public.releases r on r.commit_sha = h.to_commit and r.id = tried.release_id
    where h.rollout_id = tried.id and h.outcome <> 'skipped' and not private.is_passing(h.outcome, h.failed_phase, h.evidence)
    union all
    -- Going offline and losing health leave no row in the history.
    select c.device_id, true, coalesce(c.ended_at, c.claimed_at) from public.rollout_claims c
    where c.rollout_id = tried.id and c.last_outcome in ('expired', 'regressed')
    order by at
  loop
    seen := seen + 1;
    was := (latest ->> outcome.device_id::text)::int;
    continue when (was < 0) is not distinct from outcome.bad;
    succeeded := succeeded - (was > 0 is true)::int + (not outcome.bad)::int;
    failed := failed - (was < 0 is true)::int + outcome.bad::int;
    latest := latest || jsonb_build_object(outcome.device_id, case when outcome.bad then -seen else seen end);
    if stopped is null and outcome.bad then
      in_a_row := (
        select count(*) from jsonb_each_text(latest) l
        where l.value::int < (select least(0, -max(g.value::int)) from jsonb_each_text(latest) g));
      cause := private.broken_rule(tried, succeeded + failed, failed, in_a_row);
      if cause is not null then
        stopped := jsonb_build_object('cause', cause, 'at', outcome.at, 'after_outcomes', seen,
          'attempted', succeeded + failed, 'failed', failed);
      end if;
    end if;
  end loop;
  return jsonb_build_object(
    'rollout_id', tried.id, 'outcomes', seen, 'attempted', succeeded + failed, 'failed', failed,
    'would_halt', stopped is not null, 'halt', stopped,
    'spared', case when stopped is not null then seen - (stopped ->> 'after_outcomes')::int end,
    'summary', case when stopped is null then format('This rule would not have stopped it: %s of %s failed.', failed, private.counted(succeeded + failed))
      else format('This rule would have stopped it (%s) after %s of %s, with %s of %s failed.', stopped ->> 'cause',
        stopped ->> 'after_outcomes', private.counted(seen, 'outcome'), stopped ->> 'failed', private.counted((stopped ->> 'attempted')::int)) end);
end
$$;
comment on function public.replay_halt_rule(uuid, jsonb) is
  'When a halt rule would have stopped a past rollout: the rollout''s own rule, with the given parts replaced.';
revoke execute on function public.replay_halt_rule(uuid, jsonb) from public;
grant execute on function public.replay_halt_rule(uuid, jsonb) to authenticated, service_role;
