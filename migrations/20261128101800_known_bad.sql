-- Releases that some devices must not get: known bad for one device that rolled back, or by pattern for all devices that
-- are alike. One gate, known_bad, reads both.

-- A device that rolled back from a release is not offered it again unless an operator decides so: by deleting the row
-- here, or by pinning the device to the release afterwards.

create table public.known_bad_releases (
  device_id uuid not null references public.devices on delete cascade,
  release_id uuid not null references public.releases on delete cascade,
  at timestamptz not null default now(),
  history_id uuid,
  error_kind text,
  error text,
  primary key (device_id, release_id)
);
comment on table public.known_bad_releases is 'Releases that a device rolled back from. Delete a row to let the device try again.';
comment on column public.known_bad_releases.history_id is 'The attempt in update_history that showed it.';
comment on column public.known_bad_releases.error_kind is 'Why it rolled back, as in update_history.';
create index known_bad_releases_by_release on public.known_bad_releases (release_id);

alter table public.known_bad_releases enable row level security;
grant select, delete on public.known_bad_releases to authenticated, service_role;
create policy "operators read known bad releases" on public.known_bad_releases for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator let a device try again" on public.known_bad_releases for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before delete on public.known_bad_releases
  for each statement execute function private.require_rank_to_write('operator');

create function private.remember_outcome() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: devices may not write here.
declare
  tried uuid := coalesce(new.release_id, (
    select r.id from public.releases r join public.devices d on d.id = new.device_id and d.branch = r.branch
    where r.commit_sha = new.to_commit));
begin
  if tried is null then
    return null;
  end if;
  -- A Docker that was killed says nothing about the release: it may be tried again, as often as the rollout allows.
  if new.outcome = 'rolled_back' and new.evidence -> 'passing' is distinct from 'true' then
    insert into public.known_bad_releases (device_id, release_id, at, history_id, error_kind, error)
    values (new.device_id, tried, new.received_at, new.id, new.error_kind, new.error)
    on conflict (device_id, release_id) do update
      set at = excluded.at, history_id = excluded.history_id, error_kind = excluded.error_kind, error = excluded.error;
  elsif new.outcome = 'succeeded' then
    delete from public.known_bad_releases where device_id = new.device_id and release_id = tried;
  end if;
  return null;
end
$$;
revoke execute on function private.remember_outcome() from public;
create trigger remember_outcome after insert on public.update_history
  for each row execute function private.remember_outcome();

create function private.audit_forgiven() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Only what people do is news for the audit log; what devices cause is in update_history.
begin
  if private.device_id() is null then
    insert into public.audit_log (actor_id, actor, action, table_name, row_id, before)
    values (private.actor_id(), private.actor_name(), 'delete', 'known_bad_releases',
      old.device_id || ' ' || old.release_id, to_jsonb(old));
  end if;
  return null;
end
$$;
revoke execute on function private.audit_forgiven() from public;
create trigger audit_forgiven after delete on public.known_bad_releases
  for each row execute function private.audit_forgiven();

-- Known bad by pattern: one append-only row says that devices with certain attributes must not get a release (hardware
-- model, OS, agent version, role, segment, labels; a site is the label "site"). It holds back the devices that match and
-- have not started, and is the fleet's memory, as known_bad_releases is the memory of each device.
--
-- No claim commits after such a row: it takes the policy lock, as halts do.
--
-- A device that a release is known bad for is counted as such by preview_rollout() and rollout_progress(), is not woken
-- for a slot, and does not keep a stage from being proved.

create table public.known_bad_patterns (
  id uuid primary key default gen_random_uuid(),
  release_id uuid not null references public.releases,
  selector jsonb not null
    constraint "selector must be an object of at most 8 kB"
    check (jsonb_typeof(selector) = 'object' and octet_length(selector::text) <= 8192),
  cause text not null default 'operator' constraint "cause must be 1 to 100 characters" check (length(cause) between 1 and 100),
  reason text not null constraint "a known-bad pattern needs a reason in words" check (btrim(reason) <> ''),
  evidence jsonb not null default '{}'
    constraint "evidence must be an object of at most 64 kB"
    check (jsonb_typeof(evidence) = 'object' and octet_length(evidence::text) <= 65536),
  allow_empty boolean not null default false,
  opened_by uuid,
  opened_at timestamptz not null default now(),
  lifted_by uuid,
  lifted_at timestamptz,
  lift_reason text,
  constraint "lifting needs lifted_at and lift_reason together" check ((lifted_at is null) = (lift_reason is null)),
  constraint "reasons must be at most 4000 characters"
    check (length(reason) <= 4000 and length(lift_reason) <= 4000),
  constraint "texts must be one line, without control characters"
    check (private.is_one_line(reason) and private.is_one_line(lift_reason) and private.is_one_line(cause)),
  constraint "times must be between 1970 and 2200"
    check (opened_at between '1970-01-01Z' and '2200-01-01Z' and lifted_at between '1970-01-01Z' and '2200-01-01Z')
);
comment on table public.known_bad_patterns is
  'Releases that are known bad for every device with these attributes, and their history. Insert a row to keep a release from them; set lift_reason to allow it again. Never deleted.';
comment on column public.known_bad_patterns.release_id is 'The release that is kept from them. Devices that already run it keep it.';
comment on column public.known_bad_patterns.selector is
  'Which devices: attributes, all of which a device has to have, like {"hardware_model": "Pi 3", "labels": {"site": "rome"}}. See docs/usage/selectors.md.';
comment on column public.known_bad_patterns.cause is 'operator, or failure_pattern: the halt rule of a rollout that has remember_patterns on.';
comment on column public.known_bad_patterns.reason is 'The reason, for the person who decides to lift it.';
comment on column public.known_bad_patterns.evidence is 'What the rule saw: rollout, counts, lift.';
comment on column public.known_bad_patterns.allow_empty is 'Lets the row in though no device matches it yet.';
comment on column public.known_bad_patterns.lift_reason is 'Set it to the reason why they may have it: that lifts the row.';
create unique index known_bad_patterns_open on public.known_bad_patterns (release_id, selector) where lifted_at is null;
create index known_bad_patterns_by_release on public.known_bad_patterns (release_id, opened_at);

alter table public.known_bad_patterns enable row level security;
grant select, insert, update on public.known_bad_patterns to authenticated, service_role;
create policy "operators read known-bad patterns" on public.known_bad_patterns for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator mark known-bad patterns" on public.known_bad_patterns for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator lift known-bad patterns" on public.known_bad_patterns for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update on public.known_bad_patterns
  for each statement execute function private.require_rank_to_write('operator');
create trigger a_keep_machine_columns before insert on public.known_bad_patterns
  for each row execute function private.keep_machine_columns('{"cause": "operator", "evidence": {}, "opened_at": "now", "opened_by": null}', 'quietly');

-- Matching.

create function private.known_bad_for(device public.devices, release_id uuid) returns public.known_bad_patterns
language plpgsql stable set search_path = ''
as $$
declare
  found_pattern public.known_bad_patterns;
begin
  select k.* into found_pattern from public.known_bad_patterns k
  where k.release_id = known_bad_for.release_id and k.lifted_at is null
    and (device.pinned_at is null or device.pinned_at <= k.opened_at)
    and private.device_matches(device, k.selector)
  order by k.opened_at, k.id limit 1;
  return found_pattern;
end
$$;
comment on function private.known_bad_for(public.devices, uuid) is
  'The open pattern that keeps this release from this device, or all null. A pin made after the pattern means: try it there.';
revoke execute on function private.known_bad_for(public.devices, uuid) from public;

create function private.known_bad_devices(wanted_id uuid) returns table (device_id uuid)
language plpgsql stable set search_path = ''
as $$
-- The whole fleet at once, pins aside. Without an open pattern the fleet is not read.
#variable_conflict use_column
begin
  if exists (select from public.known_bad_patterns k where k.release_id = wanted_id and k.lifted_at is null) then
    return query
    select k.device_id from public.known_bad_releases k where k.release_id = wanted_id
    union
    select d.device_id
    from public.known_bad_patterns k cross join lateral private.devices_of(k.selector) d
    where k.release_id = wanted_id and k.lifted_at is null;
  else
    return query
    select k.device_id from public.known_bad_releases k where k.release_id = wanted_id;
  end if;
end
$$;
comment on function private.known_bad_devices(uuid) is 'Every device that this release is known bad for, by its own row or by a pattern.';
revoke execute on function private.known_bad_devices(uuid) from public;

-- Rows by hand: checked, audited, append-only.

create function private.check_known_bad_pattern() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks for the release, whatever the caller may read.
begin
  if tg_op = 'DELETE' then
    perform private.refuse('known_bad_stays', 'A known-bad pattern is never deleted, so that its history stays readable.',
      'Write a lift_reason to lift it.');
  end if;
  if tg_op = 'INSERT' then
    -- A device whose outcome made policy remember did not open the row.
    new.opened_by := coalesce(private.claimed_id('authenticated'), case when private.device_id() is null then new.opened_by end);
    if btrim(coalesce(new.reason, '')) = '' then
      perform private.refuse('reason_missing', 'A known-bad pattern needs a reason.',
        'Say what was seen, for the person who decides to lift it.', 'PT400');
    end if;
    if new.lifted_at is not null or new.lift_reason is not null or new.lifted_by is not null then
      perform private.refuse('known_bad_starts_open', 'A new known-bad pattern is open.', 'Leave the lifted columns empty.', 'PT400');
    end if;
    if not exists (select from public.releases r where r.id = new.release_id) then
      perform private.refuse('release_unknown', 'There is no such release.', 'Pick one: fleetctl release list.', 'PT400');
    end if;
    new.selector := private.checked_selector(new.selector, 'known-bad pattern');
    if new.selector = '{}' then
      perform private.refuse('selector_empty', 'A known-bad pattern needs at least one attribute.',
        'For example {"hardware_model": "Pi 3"}. To keep a release from all devices, halt it.', 'PT400');
    end if;
    if not new.allow_empty and not exists (
      -- The same row twice is what the index says.
      select from public.known_bad_patterns k where k.lifted_at is null and k.release_id = new.release_id and k.selector = new.selector
    ) and not exists (
      select from private.devices_of(new.selector) m join public.devices d on d.id = m.device_id where d.state <> 'retired') then
      perform private.refuse('pattern_concerns_nobody', format('No device has %s.', private.describe_selector(new.selector)),
        'Look at matching_devices(). For devices that come later, set allow_empty.');
    end if;
    return new;
  end if;
  if pg_trigger_depth() > 1 then
    old.selector := new.selector;  -- by follow_rename()
  end if;
  if (new.id, new.release_id, new.selector, new.cause, new.reason, new.evidence, new.opened_by, new.opened_at)
     is distinct from (old.id, old.release_id, old.selector, old.cause, old.reason, old.evidence, old.opened_by, old.opened_at) then
    perform private.refuse('known_bad_is_fixed', 'A known-bad pattern can only be lifted, not rewritten.',
      'Write a lift_reason to lift it, and insert another row.');
  end if;
  if old.lifted_at is not null then
    if (new.lifted_at, new.lifted_by, new.lift_reason) is distinct from (old.lifted_at, old.lifted_by, old.lift_reason) then
      perform private.refuse('known_bad_is_lifted', 'This known-bad pattern is lifted already.', 'Insert another row.');
    end if;
    return new;
  end if;
  if new.lifted_at is not null or new.lift_reason is not null or new.lifted_by is not null then
    if btrim(coalesce(new.lift_reason, '')) = '' then
      perform private.refuse('reason_missing', 'Lifting a known-bad pattern needs a reason.',
        'Write lift_reason: why these devices may have the release.', 'PT400');
    end if;
    new.lifted_at := now();
    new.lifted_by := coalesce(private.actor_id(), new.lifted_by);
  end if;
  return new;
end
$$;
revoke execute on function private.check_known_bad_pattern() from public;
create trigger check_known_bad_pattern before insert or update or delete on public.known_bad_patterns
  for each row execute function private.check_known_bad_pattern();

create trigger a_lock_policy_first before insert or update on public.known_bad_patterns
  for each statement execute function private.lock_policy_first();
create trigger refuse_truncate before truncate on public.known_bad_patterns
  for each statement execute function private.refuse_truncate();
create trigger audit after insert or update on public.known_bad_patterns
  for each row execute function private.audit_change('id');

-- What follows: devices that are moving to the release stop, and devices that waited for it are told.

create function private.devices_concerned(pattern public.known_bad_patterns) returns uuid[]
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: reads devices, reports and claims. Those that match and are moving to the release, are pinned to it, or get it
-- without a rollout.
begin
  return array(
    select d.id
    from private.devices_of(pattern.selector) m join public.devices d on d.id = m.device_id
    where d.state = 'active'
      and (d.pinned_release = pattern.release_id
        or exists (select from public.rollout_claims c
          where c.device_id = d.id and c.to_release = pattern.release_id and c.state = 'claimed')
        or d.branch = (select r.branch from public.releases r where r.id = pattern.release_id and private.is_given_at_once(r))));
end
$$;
comment on function private.devices_concerned(public.known_bad_patterns) is 'The devices that get a different answer because of a pattern.';
revoke execute on function private.devices_concerned(public.known_bad_patterns) from public;

create function private.follow_known_bad_pattern() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: queues, wakes and alerts are policy's own.
declare
  rollout_id uuid;
begin
  if tg_op = 'INSERT' then
    -- A wake for who cannot have it would be one less for who can.
    delete from private.rollout_queue q using public.rollouts r
    where q.rollout_id = r.id and r.release_id = new.release_id
      and q.device_id in (select k.device_id from private.known_bad_devices(new.release_id) k);
    perform private.wake_devices(private.devices_concerned(new), 'known_bad_marked');
    perform private.open_alert('known_bad_pattern', case when new.cause = 'operator' then 'info' else 'warning' end::public.alert_severity,
      format('%s is known bad for devices with %s: %s', private.release_name(new.release_id), private.describe_selector(new.selector), new.reason),
      new.opened_at, rollout_id => (new.evidence ->> 'rollout_id')::uuid, subject => new.id::text,
      evidence => new.evidence || jsonb_build_object('pattern_id', new.id, 'selector', new.selector, 'cause', new.cause));
  elsif new.lifted_at is not null and old.lifted_at is null then
    update public.alerts a set resolved_at = new.lifted_at where a.resolved_at is null and a.subject = new.id::text;
    perform private.wake_devices(private.devices_concerned(new), 'known_bad_lifted');
    for rollout_id in
      select r.id from public.rollouts r where r.release_id = new.release_id and r.state in ('running', 'completed', 'superseded') order by r.id
    loop
      perform private.wake_candidates(rollout_id, 'known_bad_lifted');
    end loop;
  end if;
  return null;
end
$$;
revoke execute on function private.follow_known_bad_pattern() from public;
create trigger follow after insert or update on public.known_bad_patterns
  for each row execute function private.follow_known_bad_pattern();

create function private.count_stage(wanted_id uuid, wanted_position int, at timestamptz) returns private.rollout_counters
language plpgsql volatile security definer set search_path = '' set jit = off set work_mem = '64MB' set plan_cache_mode = force_custom_plan
as $$
-- Definer: policy's own view of the fleet. Counted are the devices that are there: what was retired, moved or pinned is
-- asked no more, what the release is known bad for cannot try it, and what is offline holds up nobody for long. Who
-- succeeded has proved it wherever it is by now.
declare
  rollout public.rollouts;
  stage public.rollout_stages;
  counters private.rollout_counters;
  n record;
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  select s.* into stage from public.rollout_stages s where s.rollout_id = wanted_id and s.position = wanted_position;
  with facts as (
    select p.stage = wanted_position as is_there,
      coalesce(c.stage = wanted_position and c.last_outcome = 'succeeded', false) as succeeded,
      coalesce(c.stage = wanted_position and private.is_failure(c.last_outcome), false) as failed,
      coalesce(p.current_release = rollout.release_id and p.report_state = 'healthy', false) as runs_it,
      coalesce(c.state = 'claimed', false) as in_flight,
      p.device_id in (select k.device_id from private.known_bad_devices(rollout.release_id) k) as known_bad,
      coalesce(c.state in ('failed', 'rolled_back', 'expired', 'released') and c.attempts < rollout.max_attempts, false) as may_retry,
      (p.reported_at is null or private.is_offline(p.reported_at, p.poll_interval_s,
          f.default_poll_interval_s, f.offline_after_intervals, count_stage.at))
        and greatest(p.reported_at, coalesce(stage.opened_at, count_stage.at)) + make_interval(secs => rollout.offline_patience_s) <= count_stage.at as away,
      -- Policy keeps it where it is: on hold, in a window that never opens, or because it runs something newer.
      d.hold and (d.hold_until is null or d.hold_until > count_stage.at)
        or not exists (select from public.maintenance_openings o where o.maintenance_window = coalesce(d.maintenance_window, g.maintenance_window))
          and coalesce(d.maintenance_window, g.maintenance_window) is not null and (d.ignore_window_until > count_stage.at) is not true
        or not rollout.allow_downgrade and coalesce(runs.state = 'available' and runs.branch = rollout.branch
          and runs.created_at > target.created_at, false) as is_kept,
      coalesce(stage.opened_at, count_stage.at) + make_interval(secs => rollout.offline_patience_s) <= count_stage.at as is_late
    from private.rollout_devices(rollout) p
    cross join public.fleet_settings f
    join public.devices d on d.id = p.device_id
    join public.segments g on g.name = d.segment
    join public.releases target on target.id = rollout.release_id
    left join public.releases runs on runs.id = p.current_release
    left join public.rollout_claims c on c.rollout_id = wanted_id and c.device_id = p.device_id
  )
  select count(*) as audience,
    count(*) filter (where e.is_there and e.failed) as failed,
    count(*) filter (where e.is_there and e.failed and (e.in_flight or e.may_retry and not e.known_bad)) as may_retry,
    count(*) filter (where e.is_there and not e.succeeded and not e.failed and e.runs_it) as proved_otherwise,
    count(*) filter (where e.is_there and not e.succeeded and not e.failed and not e.runs_it
      and (e.in_flight or not e.known_bad and not e.away and not (e.is_kept and e.is_late))) as untried,
    count(*) filter (where e.is_there and not e.succeeded and not e.failed and not e.runs_it and not e.in_flight
      and not e.known_bad and not e.away and e.is_kept and not e.is_late) as kept
  into n from facts e;
  update private.rollout_counters c
  set audience = n.audience,
      devices = c.succeeded + n.proved_otherwise + n.failed + n.untried,
      proved_otherwise = n.proved_otherwise,
      failed_and_gone = c.failed - n.failed,
      kept = n.kept,
      unprovable = c.succeeded + n.proved_otherwise + n.untried + n.may_retry
        < stage.min_success_ratio * (c.succeeded + n.proved_otherwise + n.failed + n.untried)
  where c.rollout_id = wanted_id and c.position = wanted_position
  returning c.* into counters;
  return counters;
end
$$;
comment on function private.count_stage(uuid, int, timestamptz) is
  'Counts the devices of a stage that prove it or still could. Reads every device that the rollout is for.';
revoke execute on function private.count_stage(uuid, int, timestamptz) from public;

create function private.count_stages_again() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: policy moves its own rows. A stage whose last open slots are all known bad would never be proved.
declare
  open_stage record;
begin
  if tg_op = 'UPDATE' and (new.lifted_at is null or old.lifted_at is not null) then
    return null;
  end if;
  for open_stage in
    select s.rollout_id, max(s.position) as position
    from public.rollout_stages s join public.rollouts r on r.id = s.rollout_id
    where r.release_id = new.release_id and r.state in ('running', 'paused') and s.size_at_opening is not null
    group by s.rollout_id order by s.rollout_id
  loop
    perform private.count_stage(open_stage.rollout_id, open_stage.position, now());
    perform private.advance_rollout(open_stage.rollout_id, now());
  end loop;
  return null;
end
$$;
revoke execute on function private.count_stages_again() from public;
create trigger count_stages_again after insert or update on public.known_bad_patterns
  for each row execute function private.count_stages_again();

-- What operators call.

create function public.mark_known_bad(
  release_id uuid, selector jsonb, reason text, allow_empty boolean default false, dry_run boolean default false
) returns public.known_bad_patterns
language plpgsql volatile set search_path = ''
as $$
declare
  marked public.known_bad_patterns;
  normal jsonb;
begin
  perform private.require_rank('operator');
  normal := private.checked_selector(mark_known_bad.selector, 'known-bad pattern');
  -- By hand the unique index says so; a trigger would tell it also to those who may not insert.
  if exists (select from public.known_bad_patterns k where k.lifted_at is null
    and k.release_id = mark_known_bad.release_id and k.selector = normal) then
    perform private.refuse('known_bad_already', format('%s is already known bad for devices with %s.',
      (select r.version from public.releases r where r.id = mark_known_bad.release_id),
      private.describe_selector(normal)), 'No action needed.');
  end if;
  begin
    insert into public.known_bad_patterns (release_id, selector, reason, allow_empty)
    values (mark_known_bad.release_id, normal, mark_known_bad.reason, mark_known_bad.allow_empty) returning * into marked;
    if dry_run then
      raise exception using errcode = 'FD001';
    end if;
  exception when sqlstate 'FD001' then
    null;
  end;
  return marked;
end
$$;
comment on function public.mark_known_bad(uuid, jsonb, text, boolean, boolean) is
  'Keeps a release from every device with these attributes, until it is lifted. See matching_devices() first. dry_run refuses what would be refused, and marks nothing.';
revoke execute on function public.mark_known_bad(uuid, jsonb, text, boolean, boolean) from public;
grant execute on function public.mark_known_bad(uuid, jsonb, text, boolean, boolean) to authenticated, service_role;

create function public.lift_known_bad(pattern_id uuid, reason text) returns public.known_bad_patterns
language plpgsql volatile set search_path = ''
as $$
declare
  lifted public.known_bad_patterns;
begin
  perform private.require_rank('operator');
  if btrim(coalesce(lift_known_bad.reason, '')) = '' then
    perform private.refuse('reason_missing', 'Lifting a known-bad pattern needs a reason.',
      'Say why these devices may have the release.', 'PT400');
  end if;
  update public.known_bad_patterns k set lift_reason = lift_known_bad.reason
  where k.id = lift_known_bad.pattern_id and k.lifted_at is null returning * into lifted;
  if lifted.id is null then
    if exists (select from public.known_bad_patterns k where k.id = lift_known_bad.pattern_id) then
      perform private.refuse('known_bad_is_lifted', 'This known-bad pattern is lifted already.', 'No action needed.');
    end if;
    perform private.refuse('known_bad_unknown', 'There is no such known-bad pattern.', 'Look it up: fleetctl known-bad list.', 'PT404');
  end if;
  return lifted;
end
$$;
comment on function public.lift_known_bad(uuid, text) is 'Allows the release for matching devices again and records the reason.';
revoke execute on function public.lift_known_bad(uuid, text) from public;
grant execute on function public.lift_known_bad(uuid, text) to authenticated, service_role;
