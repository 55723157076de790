-- The staged delivery of a release: a rollout and its ordered stages. Edits are checked.

create table public.rollouts (
  id uuid primary key default gen_random_uuid(),
  name text not null default ''
    constraint "name must be at most 200 characters" check (length(name) <= 200),
  release_id uuid not null references public.releases,
  branch text references public.branches on update cascade,
  role text references public.device_roles on update cascade,
  selector jsonb not null default '{}'
    constraint "selector must be an object of at most 8 kB"
    check (jsonb_typeof(selector) = 'object' and octet_length(selector::text) <= 8192),
  state public.rollout_state not null default 'draft',
  max_in_flight int constraint "max_in_flight must be 1 or more, or empty" check (max_in_flight >= 1),
  max_per_minute int constraint "max_per_minute must be 1 or more, or empty" check (max_per_minute >= 1),
  lease_s int not null default 3600
    constraint "lease_s must be 60 to 604800 seconds" check (lease_s between 60 and 604800),
  max_attempts int not null default 3
    constraint "max_attempts must be 1 to 100" check (max_attempts between 1 and 100),
  halt_failure_ratio numeric default 0.1
    constraint "halt_failure_ratio must be 0 to 1, or empty" check (halt_failure_ratio between 0 and 1),
  halt_min_attempted int not null default 5
    constraint "halt_min_attempted must be 1 or more" check (halt_min_attempted >= 1),
  halt_max_failures int constraint "halt_max_failures must be 1 or more, or empty" check (halt_max_failures >= 1),
  halt_consecutive_failures int default 3
    constraint "halt_consecutive_failures must be 1 or more, or empty" check (halt_consecutive_failures >= 1),
  regression_s int not null default 3600
    constraint "regression_s must be 0 to 604800 seconds" check (regression_s between 0 and 604800),
  offline_patience_s int not null default 86400
    constraint "offline_patience_s must be 0 to 2592000 seconds" check (offline_patience_s between 0 and 2592000),
  on_bad public.rollout_reaction not null default 'halt_rollout',
  remember_patterns boolean not null default false,
  allow_downgrade boolean not null default false,
  allow_empty boolean not null default false,
  notes text not null default '',
  created_by uuid,
  created_at timestamptz not null default now(),
  started_by uuid,
  started_at timestamptz,
  ended_at timestamptz,
  constraint "times must be between 1970 and 2200"
    check (created_at between '1970-01-01Z' and '2200-01-01Z' and started_at between '1970-01-01Z' and '2200-01-01Z'
           and ended_at between '1970-01-01Z' and '2200-01-01Z'),
  constraint "notes must be at most 20000 characters"
    check (length(notes) <= 20000),
  constraint "name must be one line, without control characters" check (private.is_one_line(name)),
  constraint "notes must be plain text, without control characters" check (private.is_plain_text(notes))
);
comment on table public.rollouts is 'Staged deliveries. Insert a draft, add rows to rollout_stages, then set state to running.';
comment on column public.rollouts.branch is 'The branch whose devices it is for; the release''s branch, filled in by a trigger.';
comment on column public.rollouts.role is 'Only devices of this role; empty means all.';
comment on column public.rollouts.selector is
  'Only devices that have all of this, like {"labels": {"site": "rome"}}; {} means all. See docs/usage/selectors.md.';
comment on column public.rollouts.state is 'Set to running to start or resume, paused to hand out no new slots, cancelled to stop for good.';
comment on column public.rollouts.max_in_flight is 'At most this many devices update at once; empty means no limit.';
comment on column public.rollouts.max_per_minute is 'At most this many devices start within any sixty seconds; empty means no limit.';
comment on column public.rollouts.lease_s is 'A device that holds a slot and does not report for this long counts as failed.';
comment on column public.rollouts.max_attempts is 'How often a device may attempt it in total, if its attempts fail before the swap.';
comment on column public.rollouts.halt_failure_ratio is 'Halt when failed / attempted is above this, once halt_min_attempted devices were attempted.';
comment on column public.rollouts.halt_min_attempted is 'halt_failure_ratio counts once this many devices were attempted.';
comment on column public.rollouts.halt_max_failures is 'Halt at this many failed devices, whatever the ratio.';
comment on column public.rollouts.halt_consecutive_failures is 'Halt at this many failures in a row.';
comment on column public.rollouts.regression_s is 'A device that becomes unhealthy within this many seconds of its success counts as failed.';
comment on column public.rollouts.offline_patience_s is
  'A device that stays offline, or is kept from it (held, for example), for this long in an open stage does not hold up the next one.';
comment on column public.rollouts.on_bad is 'What follows when the halt rule triggers.';
comment on column public.rollouts.remember_patterns is
  'On: when the halt rule triggers and nearly all failures have an attribute in common, the release becomes known bad for all devices with it (known_bad_patterns), even after the halt is lifted.';
comment on column public.rollouts.allow_empty is 'Lets it start though no active device matches it yet.';
comment on column public.rollouts.allow_downgrade is 'Allows devices that run a newer release to go to this one.';
create index rollouts_for_devices on public.rollouts (branch, started_at desc) where state <> 'draft';
create index rollouts_by_release on public.rollouts (release_id);

alter table public.rollouts enable row level security;
grant select, insert, update on public.rollouts to authenticated, service_role;
create policy "operators read rollouts" on public.rollouts for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator write rollouts" on public.rollouts for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator run rollouts" on public.rollouts for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update on public.rollouts
  for each statement execute function private.require_rank_to_write('operator');
create trigger a_keep_machine_columns before insert or update of created_at, created_by, started_at, started_by, ended_at on public.rollouts
  for each row execute function private.keep_machine_columns('{"created_at": "now", "created_by": null, "started_at": null, "started_by": null, "ended_at": null}');

create function private.keep_machine_states() returns trigger
language plpgsql set search_path = ''
as $$
-- Invoker: current_user tells people from policy.
begin
  if current_user in ('authenticated', 'service_role') then
    perform private.refuse('rollout_state', format('A rollout is %s by policy alone.', new.state), 'To end it: fleetctl rollout cancel.');
  end if;
  return new;
end
$$;
comment on function private.keep_machine_states() is 'Trigger: refuses a person who writes a state that only policy gives.';
revoke execute on function private.keep_machine_states() from public;
create trigger a_keep_machine_states before update of state on public.rollouts
  for each row when (new.state in ('completed', 'superseded') and new.state is distinct from old.state)
  execute function private.keep_machine_states();

create function private.check_rollout() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks at releases and stages, whatever the caller may read.
declare
  release public.releases;
begin
  if tg_op = 'DELETE' then
    perform private.refuse('rollout_stays', 'A rollout is never deleted, so that its story stays readable.',
      'Set its state to cancelled.');
  end if;
  select r.* into release from public.releases r where r.id = new.release_id;
  if release.id is null then
    perform private.refuse('release_unknown', 'There is no such release.', 'Pick one: fleetctl release list.', 'PT400');
  end if;
  if tg_op = 'INSERT' then
    if new.state <> 'draft' then
      perform private.refuse('rollout_starts_as_draft', 'A new rollout has no stages yet, so it cannot run.',
        'Insert it as draft, add rows to rollout_stages, then set state to running.');
    end if;
    perform private.refuse_future('created_at', new.created_at);
    new.created_by := coalesce(private.actor_id(), new.created_by);
    new.branch := coalesce(new.branch, release.branch);
    new.started_at := null; new.started_by := null; new.ended_at := null;
  end if;
  if new.name = '' then
    new.name := release.version || coalesce(' on ' || new.role, '');
  end if;
  if tg_op = 'INSERT' or new.selector is distinct from old.selector then
    new.selector := private.checked_selector(new.selector, 'rollout');
  end if;
  if tg_op = 'UPDATE' and private.is_rename('role', old.role, new.role) then
    old.role := new.role;
  end if;
  if tg_op = 'UPDATE' and pg_trigger_depth() > 1 then
    old.selector := new.selector;  -- by follow_rename()
  end if;
  -- The release may follow a rename of their branch after the rollout.
  if new.branch is distinct from release.branch
     and not (tg_op = 'UPDATE' and private.is_rename('branch', old.branch, new.branch)) then
    perform private.refuse('branch_mismatch', format('%s is a release of branch %s, not of %s.', release.version, release.branch, new.branch),
      'Leave branch empty, or make a release of that branch.', 'PT400');
  end if;
  if tg_op = 'INSERT' then
    return new;
  end if;

  if (new.id, new.created_at) is distinct from (old.id, old.created_at)
     or (old.state <> 'draft' and (new.release_id, new.role, new.selector, new.started_at)
          is distinct from (old.release_id, old.role, old.selector, old.started_at)) then
    perform private.refuse('rollout_is_fixed', 'A rollout that has started keeps its release, role, selector and start.',
      'Cancel it and start a new one.');
  end if;
  if new.state is distinct from old.state then
    if not (case old.state
      when 'draft' then new.state in ('running', 'cancelled')
      when 'running' then new.state in ('paused', 'completed', 'superseded', 'cancelled')
      when 'paused' then new.state in ('running', 'completed', 'superseded', 'cancelled')
      when 'completed' then new.state in ('superseded', 'cancelled')
        or (new.state = 'running' and exists (select from public.rollout_stages s where s.rollout_id = new.id and s.opened_at is null))
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
        perform private.refuse('no_stages', 'This rollout has no stages, so it would not reach any device.',
          'Add rows to rollout_stages first.');
      end if;
    end if;
    if old.state = 'draft' and new.state = 'running' and not new.allow_empty and not exists (
      select from public.devices d join public.rollout_stages s on s.rollout_id = new.id
      where d.state = 'active' and d.pinned_release is null and d.branch = new.branch
        and (new.role is null or d.role = new.role) and private.device_matches(d, new.selector)
        and (d.id = any (s.device_ids) or ((s.segment is null or s.segment = d.segment)
          and coalesce(s.percent, case when s.device_ids is null then 100 else 0 end) > 0))) then
      perform private.refuse('rollout_concerns_nobody', 'This rollout would reach nobody: no active device matches it.',
        'Check its branch, role, selector and stages. To start it for devices that come later, set allow_empty.');
    end if;
    if old.state = 'draft' and new.state = 'running' then
      -- The clock and not the transaction: of two that one statement or transaction starts, one came last.
      new.started_at := clock_timestamp();
      new.started_by := coalesce(private.actor_id(), new.started_by);
    end if;
    new.ended_at := case when new.state in ('completed', 'superseded', 'cancelled') then coalesce(old.ended_at, now()) end;
  end if;
  return new;
end
$$;
revoke execute on function private.check_rollout() from public;
create trigger check_rollout before insert or update or delete on public.rollouts
  for each row execute function private.check_rollout();

create function private.keep_to_rollouts() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: marks the release, whoever makes the rollout. The mark stays when the rollout is given another release.
begin
  update public.releases r set by_rollout_only = true where r.id = new.release_id and not r.by_rollout_only;
  return null;
end
$$;
comment on function private.keep_to_rollouts() is 'Once a release has a rollout, even a draft, it goes to nobody outside of one.';
revoke execute on function private.keep_to_rollouts() from public;
create trigger keep_to_rollouts after insert or update of release_id on public.rollouts
  for each row execute function private.keep_to_rollouts();

create trigger a_lock_policy_first before update on public.rollouts
  for each statement execute function private.lock_policy_first();
create trigger audit after insert or update or delete on public.rollouts
  for each row execute function private.audit_change('id', 'ended_at');

create table public.rollout_stages (
  rollout_id uuid not null references public.rollouts on delete cascade,
  position int not null constraint "position must be 1 to 100" check (position between 1 and 100),
  segment text references public.segments on update cascade,
  percent numeric(6, 3) constraint "percent must be 0 to 100, or empty" check (percent between 0 and 100),
  device_ids uuid[] constraint "device_ids must hold at most 1000 devices" check (cardinality(device_ids) <= 1000),
  max_in_flight int constraint "max_in_flight must be 1 or more, or empty" check (max_in_flight >= 1),
  soak_s int not null default 0 constraint "soak_s must be 0 to 2592000 seconds" check (soak_s between 0 and 2592000),
  min_attempted int not null default 1 constraint "min_attempted must be 1 or more" check (min_attempted >= 1),
  min_success_ratio numeric not null default 0.9
    constraint "min_success_ratio must be 0 to 1" check (min_success_ratio between 0 and 1),
  needs_approval boolean not null default false,
  approved_by uuid,
  approved_at timestamptz,
  opened_at timestamptz,
  floor_bucket int,
  size_at_opening int,
  proved_at timestamptz,
  primary key (rollout_id, position),
  constraint "times must be between 1970 and 2200"
    check (opened_at between '1970-01-01Z' and '2200-01-01Z' and approved_at between '1970-01-01Z' and '2200-01-01Z'
           and proved_at between '1970-01-01Z' and '2200-01-01Z')
);
comment on table public.rollout_stages is 'The steps of a rollout, opened in order of position. A device is served if any open stage includes it.';
comment on column public.rollout_stages.position is 'Stages open in this order; gaps are fine.';
comment on column public.rollout_stages.segment is 'Only devices of this segment; empty means all segments.';
comment on column public.rollout_stages.percent is 'This share of the matching devices, always the same ones; empty means all of them (none when device_ids is set).';
comment on column public.rollout_stages.device_ids is 'These devices belong to the stage whatever their segment.';
comment on column public.rollout_stages.max_in_flight is 'At most this many devices of the stage update at once; empty means only the rollout''s limit.';
comment on column public.rollout_stages.soak_s is 'Seconds to wait after the stage is proved, before the next one opens.';
comment on column public.rollout_stages.min_attempted is 'The stage is proved when this many of its devices (or all that are there, if fewer) were attempted or run it ...';
comment on column public.rollout_stages.min_success_ratio is '... and at least this share of them succeeded.';
comment on column public.rollout_stages.needs_approval is 'Opens only after approved_at is set.';
comment on column public.rollout_stages.approved_at is 'Set it to approve; the time and the person are recorded by a trigger.';
comment on column public.rollout_stages.opened_at is 'When policy opened the stage. Set it by hand to skip the wait.';
comment on column public.rollout_stages.floor_bucket is 'Kept by policy: a percentage above 0 includes at least one device that existed when the stage opened.';
comment on column public.rollout_stages.size_at_opening is
  'Kept by policy: devices that this stage added when it opened and that could try the release.';
comment on column public.rollout_stages.proved_at is 'Kept by policy: since when the stage meets its success ratio.';

alter table public.rollout_stages enable row level security;
grant select, insert, update, delete on public.rollout_stages to authenticated, service_role;
create policy "operators read stages" on public.rollout_stages for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add stages" on public.rollout_stages for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change stages" on public.rollout_stages for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove stages" on public.rollout_stages for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update or delete on public.rollout_stages
  for each statement execute function private.require_rank_to_write('operator');
create trigger a_keep_machine_columns before insert on public.rollout_stages
  for each row execute function private.keep_machine_columns(
    '{"opened_at": null, "approved_by": null, "floor_bucket": null, "size_at_opening": null, "proved_at": null}');
create trigger a_keep_machine_columns_on_update before update of approved_by, floor_bucket, size_at_opening, proved_at on public.rollout_stages
  for each row execute function private.keep_machine_columns(
    '{"approved_by": null, "floor_bucket": null, "size_at_opening": null, "proved_at": null}');

create function private.stamp_opening() returns trigger
language plpgsql set search_path = ''
as $$
-- Invoker: current_user tells people from policy, which opens a stage by the clock that it is given.
begin
  if current_user in ('authenticated', 'service_role') then
    if old.opened_at is not null and new.opened_at is not null then
      perform private.refuse('stage_is_open', format('Stage %s is open since %s.', old.position, old.opened_at), 'Leave opened_at as it is.');
    end if;
    -- A date to come is refused after this; one that has passed would shorten what is counted from it.
    if new.opened_at < now() then
      new.opened_at := now();
    end if;
  end if;
  return new;
end
$$;
comment on function private.stamp_opening() is 'Trigger: a stage that a person opens is open from now on, and once.';
revoke execute on function private.stamp_opening() from public;
create trigger a_stamp_opening before update of opened_at on public.rollout_stages
  for each row when (new.opened_at is distinct from old.opened_at) execute function private.stamp_opening();

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
  if tg_op = 'UPDATE' and private.is_rename('segment', old.segment, new.segment) then
    return new;
  end if;
  if rollout_state in ('superseded', 'cancelled') then
    perform private.refuse('rollout_has_ended', format('The rollout is %s.', rollout_state), 'Start a new rollout.');
  end if;
  perform private.refuse_future('approved_at', new.approved_at);
  if tg_op = 'INSERT' and rollout_state = 'completed' and exists (
    select from public.rollouts o join public.rollouts r on r.id = new.rollout_id
    where o.started_at > r.started_at and o.state in ('running', 'paused', 'completed')
      and o.branch = r.branch and o.role is not distinct from r.role and o.selector = r.selector) then
    perform private.refuse('newer_rollout', 'The rollout is completed, and a newer one took over.', 'Add the stage there, or start a new rollout.');
  end if;
  if tg_op = 'INSERT' then
    new.opened_at := null; new.floor_bucket := null; new.size_at_opening := null; new.proved_at := null;
    if new.approved_at is not null then
      new.approved_at := now();
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
  if old.opened_at is null and new.size_at_opening is null then
    -- By hand. Policy opens a stage when its time has come, by the clock that it is given.
    perform private.refuse_future('opened_at', new.opened_at);
  end if;
  if old.opened_at is not null and new.opened_at is null then
    perform private.refuse('stage_is_open', format('Stage %s is open and cannot be closed.', old.position),
      'Pause the rollout, or lower percent: devices that hold a slot keep it.');
  end if;
  if new.approved_at is not null then
    new.approved_at := coalesce(old.approved_at, now());
    new.approved_by := case when old.approved_at is null then coalesce(private.actor_id(), new.approved_by) else old.approved_by end;
  end if;
  return new;
end
$$;
revoke execute on function private.check_stage() from public;
create trigger check_stage before insert or update or delete on public.rollout_stages
  for each row execute function private.check_stage();

create function private.reopen_rollout() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: moves the rollout, whoever adds the stage.
begin
  update public.rollouts r set state = 'running' where r.id = new.rollout_id and r.state = 'completed';
  return null;
end
$$;
comment on function private.reopen_rollout() is 'A stage that is added to a completed rollout reopens it.';
revoke execute on function private.reopen_rollout() from public;
create trigger reopen_rollout after insert on public.rollout_stages
  for each row execute function private.reopen_rollout();
create trigger a_lock_policy_first before insert or update or delete on public.rollout_stages
  for each statement execute function private.lock_policy_first();
create trigger audit after insert or update or delete on public.rollout_stages
  for each row execute function private.audit_change(
    'rollout_id,position', 'floor_bucket', 'size_at_opening', 'proved_at');

create function private.halts_on(rollout public.rollouts) returns setof public.halts
language sql stable set search_path = ''
as $$
  select h.* from public.halts h
  where h.lifted_at is null
    and (h.scope = 'fleet' or (h.scope = 'rollout' and h.target = rollout.id::text)
      or (h.scope = 'release' and h.target = rollout.release_id::text)
      or (h.scope = 'branch' and h.target = rollout.branch) or (h.scope = 'role' and h.target = rollout.role))
$$;
comment on function private.halts_on(public.rollouts) is 'The open halts that keep the next stage of this rollout shut.';
revoke execute on function private.halts_on(public.rollouts) from public;
