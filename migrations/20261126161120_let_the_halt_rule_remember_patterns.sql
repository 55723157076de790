-- The halt rule remembers what failures had in common, where the rollout says so: it then marks the release known bad for
-- devices that match. Off unless asked for: a halt alone stops everybody, and a mark outlives it, so that what ends with
-- lifting the halt today still does.

alter table public.rollouts add column remember_patterns boolean not null default false;
comment on column public.rollouts.remember_patterns is
  'On: when the halt rule strikes and nearly all failures have an attribute in common, the release becomes known bad for all devices with it (known_bad_patterns), also after the halt is lifted.';
alter table public.rollout_templates add column remember_patterns boolean not null default false;
comment on column public.rollout_templates.remember_patterns is 'As in rollouts, for those made from this template.';

create function private.telling_patterns(wanted_id uuid, look_now boolean, min_failed int default 3, min_lift numeric default 1.5,
  min_share numeric default 0.9)
returns setof private.release_patterns
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: called for policy, on rows that devices cannot read. What tick() found last, or a look now (half a second after
-- 100,000 attempts). Three failures, half as often again as all that were attempted, and nine in ten of all failures:
-- less would hold devices back by chance.
begin
  if look_now then
    return query
    select wanted_id, p.* from private.failure_patterns(wanted_id, min_failed, min_lift) p
    where p.failed >= min_share * (p.failed + p.other_failed);
  else
    return query
    select p.* from private.release_patterns p
    where p.release_id = wanted_id and p.failed >= min_failed and p.lift >= min_lift
      and p.failed >= min_share * (p.failed + p.other_failed);
  end if;
end
$$;
comment on function private.telling_patterns(uuid, boolean, int, numeric, numeric) is 'The patterns of a release that explain its failures well enough to act on.';

create function private.remember_patterns(wanted_id uuid, look_now boolean, at timestamptz) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: marks by itself. Only while a halt of the rule of a rollout that wants it stands. What a person lifted is
-- not marked again: a person's word is newer. Returns how many it marked.
declare
  rollout_id uuid;
  found_pattern private.release_patterns;
  marked int := 0;
begin
  select r.id into rollout_id
  from public.rollouts r join public.halts h on h.lifted_at is null and h.evidence ->> 'rollout_id' = r.id::text
    and (h.scope, h.target) in (('rollout', r.id::text), ('release', r.release_id::text))
  where r.release_id = wanted_id and r.remember_patterns
  order by h.opened_at limit 1;
  if rollout_id is null then
    return 0;
  end if;
  for found_pattern in
    select p.* from private.telling_patterns(wanted_id, look_now) p
    where not exists (
      select from public.known_bad_patterns k
      where k.release_id = wanted_id and k.match = private.match_of(p.attribute, p.value))
    order by p.lift desc, p.failed desc, p.attribute, p.value
  loop
    insert into public.known_bad_patterns (release_id, match, cause, reason, evidence, opened_at)
    values (wanted_id, private.match_of(found_pattern.attribute, found_pattern.value), 'failure_pattern', found_pattern.sentence,
      jsonb_build_object('rollout_id', rollout_id, 'failed', found_pattern.failed, 'attempted', found_pattern.attempted,
        'other_failed', found_pattern.other_failed, 'other_attempted', found_pattern.other_attempted, 'lift', found_pattern.lift), at);
    marked := marked + 1;
  end loop;
  return marked;
end
$$;
comment on function private.remember_patterns(uuid, boolean, timestamptz) is 'Marks what telling_patterns() finds, for a release whose rollout was halted by its rule and wants it.';

create or replace function private.judge_rollout(wanted_id uuid, at timestamptz) returns text
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
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  select c.* into counters from private.rollout_counters c where c.rollout_id = wanted_id and c.position = 0;
  if rollout.state not in ('running', 'paused', 'completed') then
    return null;
  end if;
  attempted := counters.succeeded + counters.failed - counters.base_attempted;
  failed := counters.failed - counters.base_failed;
  cause := private.broken_rule(rollout, attempted, failed, counters.consecutive_failures);
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
      when 'failure_cap' then format('%s of %s devices failed; %s are allowed.', failed, attempted, rollout.halt_max_failures - 1)
      when 'consecutive_failures' then format('%s devices failed in a row.', counters.consecutive_failures)
      else format('%s of %s attempted devices failed (%s %%); %s %% are allowed.', failed, attempted,
        round(100.0 * failed / attempted), round(100 * rollout.halt_failure_ratio))
    end,
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
  if rollout.remember_patterns then
    perform private.remember_patterns(rollout.release_id, look_now => true, at => at);
  end if;
  return cause;
end
$$;

create or replace function private.look_for_patterns(at timestamptz, at_most int default 3) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the findings are policy's own rows. Looks again at releases with another count of failures, or a tenth more
-- attempts, than at the last look; a few at a time, the newest failures first. Returns how many it looked at.
declare
  due record;
  looked uuid[] := '{}';
begin
  for due in
    select r.id, c.failures, c.attempts
    from (
      select counted.release_id, sum(counted.failures)::bigint as failures, sum(counted.attempts)::bigint as attempts, max(counted.day) as day
      from (
        select u.release_id, u.attempts as attempts,
          case when u.outcome in ('failed', 'rolled_back') then u.attempts else 0 end as failures,
          case when u.outcome in ('failed', 'rolled_back') then u.day end as day
        from private.update_days_now u where u.day > (at at time zone 'UTC')::date - 30
        union all
        select o.release_id, 0, n.failed, null
        from public.rollouts o join private.rollout_counters n on n.rollout_id = o.id and n.position = 0
      ) counted
      group by counted.release_id
    ) c
    join public.releases r on r.id = c.release_id
    left join private.pattern_looks l on l.release_id = r.id
    where case when l.release_id is null then c.failures > 0
      else c.failures <> l.failures or c.attempts > 1.1 * l.attempts end
    order by l.looked_at nulls first, c.day desc nulls last, r.id
    limit at_most
  loop
    delete from private.release_patterns p where p.release_id = due.id;
    insert into private.release_patterns
    select due.id, p.* from private.failure_patterns(due.id) p;
    insert into private.pattern_looks as l (release_id, looked_at, failures, attempts)
    values (due.id, at, due.failures, due.attempts)
    on conflict (release_id) do update
      set looked_at = excluded.looked_at, failures = excluded.failures, attempts = excluded.attempts;
    looked := looked || due.id;
  end loop;
  -- The failures that came after the halt say more than those that caused it. Last, for marking takes the policy lock.
  perform private.remember_patterns(l, look_now => false, at => at) from unnest(looked) l;
  return cardinality(looked);
end
$$;

create or replace function private.rollout_from_template(wanted_release uuid, template_name text) returns uuid
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: used by a trigger for whoever adds the release. Makes a draft.
declare
  made uuid;
begin
  insert into public.rollouts (release_id, role, label_selector, max_in_flight, max_per_minute, lease_s, max_attempts,
    halt_failure_ratio, halt_min_attempted, halt_max_failures, halt_consecutive_failures, regression_s, on_bad,
    remember_patterns, notes)
  select wanted_release, t.role, t.label_selector, t.max_in_flight, t.max_per_minute, t.lease_s, t.max_attempts,
    t.halt_failure_ratio, t.halt_min_attempted, t.halt_max_failures, t.halt_consecutive_failures, t.regression_s, t.on_bad,
    t.remember_patterns,
    'Made from template ' || t.name || '.'
  from public.rollout_templates t where t.name = template_name
  returning id into made;
  insert into public.rollout_stages (rollout_id, position, segment, percent, max_in_flight, soak_s, min_attempted, min_success_ratio, needs_approval)
  select made, s.position, s.segment, s.percent, s.max_in_flight, s.soak_s, s.min_attempted, s.min_success_ratio, s.needs_approval
  from public.rollout_template_stages s where s.template = template_name and made is not null;
  return made;
end
$$;

create or replace function public.create_rollout(
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
  where k not in ('name', 'label_selector', 'max_in_flight', 'max_per_minute', 'lease_s', 'max_attempts', 'halt_failure_ratio',
    'halt_min_attempted', 'halt_max_failures', 'halt_consecutive_failures', 'regression_s', 'on_bad', 'remember_patterns', 'allow_downgrade', 'notes');
  if unknown is not null then
    perform private.refuse('unknown_option', format('A rollout has no option %s.', unknown), 'See the columns of the table rollouts.', 'PT400');
  end if;
  if stages is not null and (jsonb_typeof(stages) <> 'array' or jsonb_array_length(stages) = 0) then
    perform private.refuse('bad_stages', 'stages must be a list of at least one stage.',
      'For example [{"segment": "canary", "soak_s": 600}, {"percent": 100}].', 'PT400');
  end if;
  select t.role, t.label_selector, t.max_in_flight, t.max_per_minute, t.lease_s, t.max_attempts, t.halt_failure_ratio,
      t.halt_min_attempted, t.halt_max_failures, t.halt_consecutive_failures, t.regression_s, t.on_bad,
      t.remember_patterns
    into pattern.role, pattern.label_selector, pattern.max_in_flight, pattern.max_per_minute, pattern.lease_s, pattern.max_attempts,
      pattern.halt_failure_ratio, pattern.halt_min_attempted, pattern.halt_max_failures, pattern.halt_consecutive_failures,
      pattern.regression_s, pattern.on_bad, pattern.remember_patterns
    from public.rollout_templates t where t.name = coalesce(template, 'staged');
  if not found and (template is not null or stages is null) then
    perform private.refuse('unknown_template', format('There is no template "%s".', coalesce(template, 'staged')),
      'Pick one from the table rollout_templates, or give stages.', 'PT400');
  end if;
  pattern.release_id := create_rollout.release_id;
  pattern.role := coalesce(create_rollout.role, pattern.role);
  pattern := jsonb_populate_record(pattern, coalesce(options, '{}'));
  insert into public.rollouts (name, release_id, role, label_selector, max_in_flight, max_per_minute, lease_s, max_attempts,
    halt_failure_ratio, halt_min_attempted, halt_max_failures, halt_consecutive_failures, regression_s, on_bad, remember_patterns,
    allow_downgrade, notes)
  values (coalesce(pattern.name, ''), pattern.release_id, pattern.role, coalesce(pattern.label_selector, '{}'), pattern.max_in_flight,
    pattern.max_per_minute, coalesce(pattern.lease_s, 3600), coalesce(pattern.max_attempts, 3), pattern.halt_failure_ratio,
    coalesce(pattern.halt_min_attempted, 5), pattern.halt_max_failures, pattern.halt_consecutive_failures,
    coalesce(pattern.regression_s, 3600), coalesce(pattern.on_bad, 'halt_rollout'), coalesce(pattern.remember_patterns, false),
    coalesce(pattern.allow_downgrade, false),
    coalesce(pattern.notes, ''))
  returning * into made;
  if stages is null then
    insert into public.rollout_stages (rollout_id, position, segment, percent, max_in_flight, soak_s, min_attempted, min_success_ratio, needs_approval)
    select made.id, s.position, s.segment, s.percent, s.max_in_flight, s.soak_s, s.min_attempted, s.min_success_ratio, s.needs_approval
    from public.rollout_template_stages s where s.template = coalesce(create_rollout.template, 'staged');
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

create or replace view public.failure_patterns with (security_invoker = true) as
select r.id as release_id, r.version, p.attribute, p.value, p.failed, p.attempted, p.other_failed, p.other_attempted, p.lift,
  p.sentence, l.looked_at, private.match_of(p.attribute, p.value) as match, k.id as known_bad_pattern
from private.release_patterns p
join public.releases r on r.id = p.release_id
join private.pattern_looks l on l.release_id = p.release_id
left join public.known_bad_patterns k
  on k.release_id = p.release_id and k.lifted_at is null and k.match = private.match_of(p.attribute, p.value);
comment on view public.failure_patterns is
  'What failed devices have in common, by release: hardware_model, os, agent_version, role, segment, labels (a site is the label "site"). Looked for by tick() when failures arrive. To hold matching devices back: mark_known_bad(release_id, match, reason).';
comment on column public.failure_patterns.match is 'The same as mark_known_bad() and known_bad_patterns take it.';
comment on column public.failure_patterns.known_bad_pattern is 'The open row of known_bad_patterns that keeps the release from these devices; null for none.';

revoke execute on function private.telling_patterns(uuid, boolean, int, numeric, numeric),
  private.remember_patterns(uuid, boolean, timestamptz) from public;
