-- The staged delivery of a release: a rollout, its ordered stages, and the slots that devices hold in it. Edits are
-- checked.

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
    check (length(notes) <= 20000)
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
  if new.approved_at is not null and old.approved_at is null then
    new.approved_at := now();
    new.approved_by := coalesce(private.actor_id(), new.approved_by);
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

-- The stages of a template. They come after devices, which use segments, too: if a segment is in use, the refusal to
-- remove it names the table whose foreign key was created first.
create table public.rollout_template_stages (
  template text not null references public.rollout_templates on update cascade on delete cascade,
  position int not null constraint "position must be 1 to 100" check (position between 1 and 100),
  segment text references public.segments on update cascade,
  percent numeric(6, 3) constraint "percent must be 0 to 100, or empty" check (percent between 0 and 100),
  max_in_flight int constraint "max_in_flight must be 1 or more, or empty" check (max_in_flight >= 1),
  soak_s int not null default 0 constraint "soak_s must be 0 to 2592000 seconds" check (soak_s between 0 and 2592000),
  min_attempted int not null default 1 constraint "min_attempted must be 1 or more" check (min_attempted >= 1),
  min_success_ratio numeric not null default 0.9
    constraint "min_success_ratio must be 0 to 1" check (min_success_ratio between 0 and 1),
  needs_approval boolean not null default false,
  primary key (template, position)
);
comment on table public.rollout_template_stages is 'The stages of a template; columns as in rollout_stages.';
comment on column public.rollout_template_stages.position is 'Stages open in this order; gaps are fine.';
comment on column public.rollout_template_stages.segment is 'Only devices of this segment; empty means all segments.';
comment on column public.rollout_template_stages.percent is 'This share of the matching devices, always the same ones; empty means all of them (none when device_ids is set).';
comment on column public.rollout_template_stages.max_in_flight is 'At most this many devices of the stage update at once; empty means only the rollout''s limit.';
comment on column public.rollout_template_stages.soak_s is 'Seconds to wait after the stage is proved, before the next one opens.';
comment on column public.rollout_template_stages.min_attempted is 'The stage is proved when this many of its devices (or all, if fewer) were attempted ...';
comment on column public.rollout_template_stages.min_success_ratio is '... and at least this share of them succeeded.';
comment on column public.rollout_template_stages.needs_approval is 'Opens only after approved_at is set.';

alter table public.rollout_template_stages enable row level security;
grant select, insert, update, delete on public.rollout_template_stages to authenticated, service_role;
create policy "operators read rollout_template_stages" on public.rollout_template_stages for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add rollout_template_stages" on public.rollout_template_stages for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change rollout_template_stages" on public.rollout_template_stages for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove rollout_template_stages" on public.rollout_template_stages for delete to authenticated
  using ((select private.operator_is('operator')));

insert into public.rollout_template_stages (template, position, segment, percent, soak_s) values
  ('staged', 1, 'canary', null, 3600),
  ('staged', 2, 'early', null, 3600),
  ('staged', 3, 'stable', 10, 3600),
  ('staged', 4, null, null, 0),
  ('at-once', 1, null, null, 0);

create trigger audit after insert or update or delete on public.rollout_template_stages
  for each row execute function private.audit_change('template,position');

create table public.rollout_claims (
  rollout_id uuid not null references public.rollouts,
  device_id uuid not null references public.devices on delete cascade,
  stage int not null,
  state public.claim_state not null default 'claimed',
  attempts int not null default 1,
  claimed_at timestamptz not null,
  lease_until timestamptz not null,
  ended_at timestamptz,
  last_outcome public.claim_state
    constraint "last_outcome must be an outcome" check (last_outcome not in ('claimed', 'released')),
  outcome_number bigint,
  attempt_id uuid,
  from_release uuid references public.releases,
  to_release uuid not null references public.releases,
  primary key (rollout_id, device_id)
) with (fillfactor = 80);
comment on table public.rollout_claims is 'Which device holds, or held, a slot in which rollout. Written by policy only.';
comment on column public.rollout_claims.stage is 'The position of the stage that gave the slot.';
comment on column public.rollout_claims.state is 'claimed while the update is in progress; then how it ended. expired: it went offline past its lease.';
comment on column public.rollout_claims.attempts is 'How often the device took a slot in this rollout. One that it gave back does not count.';
comment on column public.rollout_claims.lease_until is 'If it has not reported by then, it counts as failed.';
comment on column public.rollout_claims.last_outcome is
  'How its last attempt ended: by this the device is counted, also while it tries again. Empty until one has ended.';
comment on column public.rollout_claims.outcome_number is
  'The place of last_outcome among those of the rollout. An outcome that only repeats the one before keeps its place.';
comment on column public.rollout_claims.attempt_id is 'The row of update_history that brought last_outcome.';
comment on column public.rollout_claims.from_release is 'What the device ran before: a rollback returns to it.';
comment on column public.rollout_claims.to_release is 'The release that it was given.';
create index rollout_claims_by_device on public.rollout_claims (device_id, claimed_at desc);
create index rollout_claims_held on public.rollout_claims (device_id) where state = 'claimed';
create index rollout_claims_by_outcome on public.rollout_claims (rollout_id, outcome_number) where outcome_number is not null;
create index rollout_claims_by_start on public.rollout_claims (rollout_id, claimed_at);
create index rollout_claims_in_flight on public.rollout_claims (lease_until) where state = 'claimed';

alter table public.rollout_claims enable row level security;
grant select on public.rollout_claims to authenticated, service_role;
create policy "operators read claims" on public.rollout_claims for select to authenticated
  using ((select private.operator_is('viewer')));

create function private.has_begun(claim public.rollout_claims, said public.device_status) returns boolean
language sql immutable
-- Prefetching is not begun: such a device reports its own state, not that it is updating.
return coalesce(claim.state = 'claimed' and said.reported_at >= claim.claimed_at
  and (said.current_release = claim.to_release or said.state = 'updating' and said.target_release = claim.to_release), false);
comment on function private.has_begun(public.rollout_claims, public.device_status) is
  'Did the device, since it took the slot, report that it is on its way, or that it runs the release?';
revoke execute on function private.has_begun(public.rollout_claims, public.device_status) from public;

create table private.rollout_counters (
  rollout_id uuid not null references public.rollouts on delete cascade,
  position int not null,
  in_flight int not null default 0 check (in_flight >= 0),
  succeeded int not null default 0 check (succeeded >= 0),
  failed int not null default 0 check (failed >= 0),
  outcomes bigint not null default 0,
  outcomes_at_lift bigint not null default 0,
  base_attempted int not null default 0 check (base_attempted >= 0),
  base_failed int not null default 0 check (base_failed >= 0),
  audience int not null default 0,
  devices int not null default 0,
  proved_otherwise int not null default 0,
  failed_and_gone int not null default 0,
  kept int not null default 0,
  unprovable boolean not null default false,
  primary key (rollout_id, position)
) with (fillfactor = 50);
comment on table private.rollout_counters is
  'How many devices hold a slot of a rollout, and how many succeeded or failed by their last outcome: position 0 for all of it, otherwise a stage. Kept by the trigger count_claim.';
comment on column private.rollout_counters.outcomes is 'The highest outcome_number so far. Kept at position 0.';
comment on column private.rollout_counters.outcomes_at_lift is
  'The highest outcome_number when a halt was last lifted: the halt rule counts what came later. Kept at position 0.';
comment on column private.rollout_counters.base_attempted is 'Devices whose last outcome is from before that lift.';
comment on column private.rollout_counters.audience is 'How many devices the rollout was for, in all stages, when this one was counted last (count_stage).';
comment on column private.rollout_counters.devices is 'Of the stage: how many devices there are that have tried the release, run it, or still could. Kept by count_stage, as the columns below.';
comment on column private.rollout_counters.proved_otherwise is 'Of the stage: devices that run the release and are healthy, though they took no slot of it.';
comment on column private.rollout_counters.failed_and_gone is 'Of the stage: devices that failed and are not there any more.';
comment on column private.rollout_counters.kept is 'Of the stage: devices that are waited for, though policy keeps them where they are (held, no opening of their window, something newer).';
comment on column private.rollout_counters.unprovable is 'Of the stage: not even a success of all that are left would prove it.';
comment on column private.rollout_counters.base_failed is 'Devices that failed before that lift, and have had no other outcome since.';

alter table private.rollout_counters enable row level security;

create function private.give_counters() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- With the row, so that there are counters however a stage comes to be open.
begin
  if tg_table_name = 'rollouts' then
    insert into private.rollout_counters (rollout_id, position) values (new.id, 0) on conflict do nothing;
  else
    insert into private.rollout_counters (rollout_id, position) values (new.rollout_id, new.position) on conflict do nothing;
  end if;
  return null;
end
$$;
revoke execute on function private.give_counters() from public;
create trigger give_counters after insert on public.rollouts
  for each row execute function private.give_counters();
create trigger give_counters after insert on public.rollout_stages
  for each row execute function private.give_counters();

-- Bound when created, so that PostgreSQL inlines it into the queries that count.
create function private.is_failure(state public.claim_state) returns boolean
language sql immutable
return state in ('failed', 'rolled_back', 'expired', 'regressed');
comment on function private.is_failure(public.claim_state) is 'Does a claim that ended like this count as a failure of its rollout?';
revoke execute on function private.is_failure(public.claim_state) from public;

create function private.note_outcome() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- What one device says moves each counter at most once: an outcome that only repeats its last one is not another. A
-- failure after a halt was lifted is a new one, whatever was before.
declare
  outcome public.claim_state := new.state;
begin
  if outcome in ('claimed', 'released') then
    -- The slot is not ended by this; a late outcome may have come all the same.
    if new.last_outcome is not distinct from old.last_outcome then
      return new;
    end if;
    outcome := new.last_outcome;
  end if;
  if old.last_outcome is null or private.is_failure(old.last_outcome) <> private.is_failure(outcome)
     or private.is_failure(outcome) and old.outcome_number <= (
       select c.outcomes_at_lift from private.rollout_counters c where c.rollout_id = new.rollout_id and c.position = 0) then
    update private.rollout_counters c set outcomes = c.outcomes + 1
    where c.rollout_id = new.rollout_id and c.position = 0 returning c.outcomes into new.outcome_number;
  end if;
  new.last_outcome := outcome;
  return new;
end
$$;
revoke execute on function private.note_outcome() from public;
create trigger note_outcome before insert or update of state, last_outcome on public.rollout_claims
  for each row execute function private.note_outcome();

create function private.add_claim(claim public.rollout_claims, times int) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: counters are policy's own. Slots are (rollout, 0) and (rollout, stage).
declare
  held int := (claim.state = 'claimed')::int;
  good int := coalesce(claim.last_outcome = 'succeeded', false)::int;
  bad int := coalesce(private.is_failure(claim.last_outcome), false)::int;
begin
  update private.rollout_counters c
  set in_flight = c.in_flight + times * held,
      succeeded = c.succeeded + times * good,
      failed = c.failed + times * bad,
      base_attempted = c.base_attempted + case when claim.outcome_number <= c.outcomes_at_lift then times else 0 end,
      base_failed = c.base_failed + case when claim.outcome_number <= c.outcomes_at_lift then times * bad else 0 end
  where c.rollout_id = claim.rollout_id and c.position in (0, claim.stage);
end
$$;
comment on function private.add_claim(public.rollout_claims, int) is 'Counts a claim in (times: 1) or out (-1).';
revoke execute on function private.add_claim(public.rollout_claims, int) from public;

create function private.count_claim() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Counters follow the claims, whatever changes them.
begin
  if tg_op = 'UPDATE' and (old.state, old.stage, old.last_outcome, old.outcome_number)
       is not distinct from (new.state, new.stage, new.last_outcome, new.outcome_number) then
    return null;
  end if;
  if tg_op <> 'INSERT' then
    perform private.add_claim(old, -1);
  end if;
  if tg_op <> 'DELETE' then
    perform private.add_claim(new, 1);
  end if;
  return null;
end
$$;
revoke execute on function private.count_claim() from public;
create trigger count_claim after insert or update or delete on public.rollout_claims
  for each row execute function private.count_claim();

-- A claim keeps one start only: judge_slot() lets no device start twice within a minute where starts are limited.

create function private.starts_left(rollout public.rollouts, at timestamptz) returns int
language plpgsql stable set search_path = ''
as $$
begin
  if rollout.max_per_minute is null then
    return null;
  end if;
  return greatest(0, rollout.max_per_minute - (
    select count(*) from public.rollout_claims c
    where c.rollout_id = rollout.id and c.claimed_at >= at - interval '1 minute') - (
    select count(*) from public.roll_back_slots b
    where b.rollout_id = rollout.id and b.taken_at >= at - interval '1 minute'));
end
$$;
comment on function private.starts_left(public.rollouts, timestamptz) is
  'How many devices may start now under max_per_minute, which holds in any sixty seconds; null for no limit.';
revoke execute on function private.starts_left(public.rollouts, timestamptz) from public;

create function private.next_start(rollout public.rollouts, at timestamptz) returns timestamptz
language plpgsql stable set search_path = ''
as $$
begin
  return (
    select s.started + interval '1 minute' from (
      select c.claimed_at as started from public.rollout_claims c where c.rollout_id = rollout.id and c.claimed_at >= at - interval '1 minute'
      union all
      select b.taken_at from public.roll_back_slots b where b.rollout_id = rollout.id and b.taken_at >= at - interval '1 minute') s
    order by s.started desc offset rollout.max_per_minute - 1 limit 1);
end
$$;
comment on function private.next_start(public.rollouts, timestamptz) is 'When max_per_minute lets the next device start, if it does not now.';
revoke execute on function private.next_start(public.rollouts, timestamptz) from public;

create table private.rollout_queue (
  rollout_id uuid not null references public.rollouts on delete cascade,
  device_id uuid not null references public.devices on delete cascade,
  asked_at timestamptz not null,
  primary key (rollout_id, device_id)
);
comment on table private.rollout_queue is 'Devices that asked while every slot was taken, in the order in which they are woken when one is free.';
create index rollout_queue_in_order on private.rollout_queue (rollout_id, asked_at);

alter table private.rollout_queue enable row level security;

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
