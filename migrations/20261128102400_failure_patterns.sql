-- What failures have in common. Lift: how much more often devices with an attribute fail than all devices that attempted
-- it.
--
-- Analyzing a release with 100,000 attempts takes about half a second, so the view shows what tick() found last, seconds
-- ago; private.failure_patterns() analyzes it now.

create function private.failure_patterns(wanted_id uuid, min_failed int default 2, min_lift numeric default 1.2)
returns table (attribute text, value text, failed bigint, attempted bigint, other_failed bigint, other_attempted bigint,
  lift numeric, sentence text)
language plpgsql stable set search_path = '' set work_mem = '64MB' set plan_cache_mode = force_custom_plan
as $$
-- Runs under the caller's row-level security. A device failed if any attempt at this release failed or was rolled back,
-- or if its claim last expired or regressed; agent_version is that of the attempt. A plan of its own for each release: the
-- sizes differ by a factor of a thousand.
#variable_conflict use_column
begin
  if not exists (
       select from public.update_history h where h.release_id = wanted_id and h.outcome in ('failed', 'rolled_back'))
     and not exists (
       select from public.rollouts r join public.rollout_claims c on c.rollout_id = r.id
       where r.release_id = wanted_id and c.last_outcome in ('expired', 'regressed')) then
    return;
  end if;
  return query
  with known as materialized (
    -- Joined before they are grouped: PostgreSQL cannot tell how many devices a group by leaves, and would look each of
    -- 100,000 up on its own.
    select bool_or(tries.failed) as failed, max(tries.agent_version) as agent_version,
      d.hardware_model, d.os, d.role, d.segment, d.labels
    from (
      select h.device_id, h.outcome in ('failed', 'rolled_back') as failed, h.agent_version
      from public.update_history h
      where h.release_id = wanted_id and h.outcome <> 'skipped' and not private.is_passing(h.outcome, h.failed_phase, h.evidence)
      union all
      select c.device_id, true, null
      from public.rollouts r join public.rollout_claims c on c.rollout_id = r.id
      where r.release_id = wanted_id and c.to_release = wanted_id and c.last_outcome in ('expired', 'regressed')
    ) tries
    join public.devices d on d.id = tries.device_id
    group by d.id
  ),
  total as (
    select count(*) filter (where k.failed) as failed, count(*) as attempted from known k
  ),
  counted as (
    select case
        when grouping(k.hardware_model) = 0 then 'hardware_model' when grouping(k.os) = 0 then 'os'
        when grouping(k.agent_version) = 0 then 'agent_version' when grouping(k.role) = 0 then 'role' else 'segment' end as attribute,
      coalesce(k.hardware_model, k.os, k.agent_version, k.role, k.segment) as value,
      count(*) filter (where k.failed) as failed, count(*) as attempted
    from known k
    group by grouping sets ((k.hardware_model), (k.os), (k.agent_version), (k.role), (k.segment))
    union all
    select 'label ' || l.key, l.value, count(*) filter (where k.failed), count(*)
    from known k cross join lateral jsonb_each_text(k.labels) l
    group by l.key, l.value
  )
  select c.attribute, c.value, c.failed, c.attempted, t.failed - c.failed, t.attempted - c.attempted, l.lift,
    format('%s of %s with %s %s failed (%s %%), of the other %s it is %s (%s %%).',
      c.failed, private.counted(c.attempted, 'attempted device'), c.attribute, c.value, round(100.0 * c.failed / c.attempted),
      t.attempted - c.attempted, t.failed - c.failed, round(100.0 * (t.failed - c.failed) / (t.attempted - c.attempted)))
  from counted c cross join total t
  cross join lateral (
    select round((c.failed::numeric / c.attempted) / (t.failed::numeric / t.attempted), 2) as lift) l
  -- An attribute that everybody has explains nothing.
  where c.value is not null and c.failed >= min_failed and c.attempted < t.attempted and l.lift >= min_lift
  order by l.lift desc, c.failed desc, c.attribute, c.value;
end
$$;
comment on function private.failure_patterns(uuid, int, numeric) is
  'Attributes that failed devices of this release have in common, the most telling first.';
revoke execute on function private.failure_patterns(uuid, int, numeric) from public;
grant execute on function private.failure_patterns(uuid, int, numeric) to authenticated, service_role;

create table private.pattern_looks (
  release_id uuid primary key references public.releases on delete cascade,
  looked_at timestamptz not null,
  failures bigint not null,
  attempts bigint not null
);
comment on table private.pattern_looks is 'When the patterns of a release were last looked for, and in how many attempts.';

alter table private.pattern_looks enable row level security;
grant select on private.pattern_looks to authenticated, service_role;
create policy "operators read when patterns were looked for" on private.pattern_looks for select to authenticated
  using ((select private.operator_is('viewer')));

create table private.release_patterns (
  release_id uuid not null references public.releases on delete cascade,
  attribute text not null,
  value text not null,
  failed bigint not null,
  attempted bigint not null,
  other_failed bigint not null,
  other_attempted bigint not null,
  lift numeric not null,
  sentence text not null,
  primary key (release_id, attribute, value)
);
comment on table private.release_patterns is 'What private.failure_patterns() found last.';

alter table private.release_patterns enable row level security;
grant select on private.release_patterns to authenticated, service_role;
create policy "operators read patterns" on private.release_patterns for select to authenticated
  using ((select private.operator_is('viewer')));

create function private.look_for_patterns(at timestamptz, at_most int default 3) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the findings are policy's own rows. Looks again at releases with another count of failures, or a tenth more
-- attempts, than at the last look; a few at a time and not for long, the newest failures first. Returns how many it looked
-- at.
declare
  began timestamptz := clock_timestamp();
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
    exit when clock_timestamp() > began + interval '0.3 seconds';
  end loop;
  -- The failures that came after the halt say more than those that caused it. Last, for marking takes the policy lock.
  perform private.remember_patterns(l, look_now => false, at => at) from unnest(looked) l;
  return cardinality(looked);
end
$$;
comment on function private.look_for_patterns(timestamptz, int) is 'Finds the patterns of releases whose failures changed.';
revoke execute on function private.look_for_patterns(timestamptz, int) from public;

create view public.failure_patterns with (security_invoker = true) as
select r.id as release_id, r.version, p.attribute, p.value, p.failed, p.attempted, p.other_failed, p.other_attempted, p.lift,
  p.sentence, l.looked_at, private.selector_of(p.attribute, p.value) as selector, k.id as known_bad_pattern
from private.release_patterns p
join public.releases r on r.id = p.release_id
join private.pattern_looks l on l.release_id = p.release_id
left join public.known_bad_patterns k
  on k.release_id = p.release_id and k.lifted_at is null and k.selector = private.selector_of(p.attribute, p.value);
comment on view public.failure_patterns is
  'What failed devices have in common, by release: hardware_model, os, agent_version, role, segment, labels (a site is the label "site"). Looked for by tick() when failures arrive. To hold matching devices back: mark_known_bad(release_id, selector, reason).';
comment on column public.failure_patterns.lift is 'How many times the failure rate of all attempted devices; 1.2 or more is listed.';
comment on column public.failure_patterns.other_failed is 'Failed devices without this attribute: a pattern explains much when they are few.';
comment on column public.failure_patterns.selector is 'The same as mark_known_bad() and known_bad_patterns take it.';
comment on column public.failure_patterns.known_bad_pattern is 'The open row of known_bad_patterns that keeps the release from these devices; null for none.';
revoke all on public.failure_patterns from public;
grant select on public.failure_patterns to authenticated, service_role;

-- If the rollout has remember_patterns on, the halt rule remembers what failures had in common: it marks the release as
-- known bad for devices that match. Off by default: a halt alone stops everyone, and a mark outlives it, so without the
-- setting lifting the halt is enough.

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
revoke execute on function private.telling_patterns(uuid, boolean, int, numeric, numeric) from public;

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
      where k.release_id = wanted_id and k.selector = private.selector_of(p.attribute, p.value))
    order by p.lift desc, p.failed desc, p.attribute, p.value
  loop
    insert into public.known_bad_patterns (release_id, selector, cause, reason, evidence, opened_at)
    values (wanted_id, private.selector_of(found_pattern.attribute, found_pattern.value), 'failure_pattern', private.one_line(found_pattern.sentence),
      jsonb_build_object('rollout_id', rollout_id, 'failed', found_pattern.failed, 'attempted', found_pattern.attempted,
        'other_failed', found_pattern.other_failed, 'other_attempted', found_pattern.other_attempted, 'lift', found_pattern.lift), at);
    marked := marked + 1;
  end loop;
  return marked;
end
$$;
comment on function private.remember_patterns(uuid, boolean, timestamptz) is 'Marks what telling_patterns() finds, for a release whose rollout was halted by its rule and wants it.';
revoke execute on function private.remember_patterns(uuid, boolean, timestamptz) from public;
