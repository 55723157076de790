-- The staged delivery of a release: a rollout, its ordered stages, and the slots that devices hold in it.

create type public.rollout_state as enum ('draft', 'running', 'paused', 'completed', 'superseded', 'cancelled');
comment on type public.rollout_state is
  'draft: being written. running: gives slots. paused: gives no new ones. completed: proved, late devices still get it. superseded: a newer one took over. cancelled: given up.';
create type public.claim_state as enum (
  'claimed', 'succeeded', 'failed', 'rolled_back', 'expired', 'regressed', 'released');
comment on type public.claim_state is
  'claimed: in flight. expired: went dark past its lease. regressed: lost its health after a success. released: gave the slot back, which is no failure.';
create type public.rollout_reaction as enum ('halt_rollout', 'halt_release', 'roll_back');
comment on type public.rollout_reaction is
  'What follows when the halt rule strikes: the rollout stops; the release stops everywhere; or it stops and who runs it goes back.';

create table public.rollouts (
  id uuid primary key default gen_random_uuid(),
  name text not null default ''
    constraint "name must be at most 200 characters" check (length(name) <= 200),
  release_id uuid not null references public.releases,
  branch text references public.branches on update cascade,
  role text references public.device_roles on update cascade,
  label_selector jsonb not null default '{}'
    constraint "label_selector must be an object of texts, like {""site"": ""rome""}"
    check (jsonb_typeof(label_selector) = 'object' and not jsonb_path_exists(label_selector, '$.* ? (@.type() != "string")')),
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
  on_bad public.rollout_reaction not null default 'halt_rollout',
  allow_downgrade boolean not null default false,
  notes text not null default '',
  created_by uuid,
  created_at timestamptz not null default now(),
  started_by uuid,
  started_at timestamptz,
  ended_at timestamptz
);
comment on table public.rollouts is 'Staged deliveries. Insert a draft, add rows to rollout_stages, then set state to running.';
comment on column public.rollouts.branch is 'The branch whose devices it concerns; that of the release, filled in by a trigger.';
comment on column public.rollouts.role is 'Only devices of this role; empty means all.';
comment on column public.rollouts.label_selector is 'Only devices that carry all these labels; {} means all.';
comment on column public.rollouts.state is 'Set to running to start or resume, paused to give no new slots, cancelled to give up.';
comment on column public.rollouts.max_in_flight is 'At most so many devices update at once; empty means no limit.';
comment on column public.rollouts.max_per_minute is 'At most so many devices start within a minute; empty means no limit.';
comment on column public.rollouts.lease_s is 'A device that holds a slot and is not heard of for so long counts as failed.';
comment on column public.rollouts.max_attempts is 'A device whose attempt failed before the swap may try again, so many times in all.';
comment on column public.rollouts.halt_failure_ratio is 'Halt when failed / attempted is above this, once halt_min_attempted devices were attempted.';
comment on column public.rollouts.halt_max_failures is 'Halt at this many failed devices, whatever the ratio.';
comment on column public.rollouts.halt_consecutive_failures is 'Halt at this many failures in a row.';
comment on column public.rollouts.regression_s is 'A device that loses its health within so many seconds of its success counts as failed.';
comment on column public.rollouts.on_bad is 'What follows when the halt rule strikes.';
comment on column public.rollouts.allow_downgrade is 'Lets devices go to this release though they run a newer one.';
create index rollouts_for_devices on public.rollouts (branch, started_at desc) where state in ('running', 'paused', 'completed');
create index rollouts_by_release on public.rollouts (release_id);

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
  primary key (rollout_id, position)
);
comment on table public.rollout_stages is 'The steps of a rollout, opened in order of position. A device is served when any open stage holds it.';
comment on column public.rollout_stages.segment is 'Only devices of this segment; empty means all segments.';
comment on column public.rollout_stages.percent is 'This share of the matching devices, always the same ones; empty means all of them (none when device_ids is set).';
comment on column public.rollout_stages.device_ids is 'These devices belong to the stage whatever their segment.';
comment on column public.rollout_stages.soak_s is 'Seconds to wait after the stage is proved, before the next one opens.';
comment on column public.rollout_stages.min_attempted is 'The stage is proved when so many of its devices (or all, if fewer) were attempted ...';
comment on column public.rollout_stages.min_success_ratio is '... and at least this share of them succeeded.';
comment on column public.rollout_stages.needs_approval is 'Opens only once somebody set approved_at.';
comment on column public.rollout_stages.approved_at is 'Set it to approve; who and when is stamped.';
comment on column public.rollout_stages.opened_at is 'When policy opened the stage. Set it by hand to skip the wait.';
comment on column public.rollout_stages.floor_bucket is 'Kept by policy: a percentage above 0 holds at least one device that was there when the stage opened.';
comment on column public.rollout_stages.size_at_opening is 'Kept by policy: devices that this stage added.';
comment on column public.rollout_stages.proved_at is 'Kept by policy: since when the stage meets its success ratio.';

create table public.rollout_claims (
  rollout_id uuid not null references public.rollouts,
  device_id uuid not null references public.devices on delete cascade,
  stage int not null,
  state public.claim_state not null default 'claimed',
  attempts int not null default 1,
  claimed_at timestamptz not null,
  lease_until timestamptz not null,
  ended_at timestamptz,
  attempt_id uuid,
  from_release uuid references public.releases,
  to_release uuid not null references public.releases,
  primary key (rollout_id, device_id)
) with (fillfactor = 80);
comment on table public.rollout_claims is 'Which device holds, or held, a slot in which rollout. Written by policy only.';
comment on column public.rollout_claims.lease_until is 'Not heard of until then: counts as failed.';
comment on column public.rollout_claims.from_release is 'What the device ran before: where a roll back takes it.';
comment on column public.rollout_claims.attempt_id is 'The row of update_history that ended it.';
create index rollout_claims_by_device on public.rollout_claims (device_id, claimed_at desc);
create index rollout_claims_in_flight on public.rollout_claims (lease_until) where state = 'claimed';

create table private.rollout_counters (
  rollout_id uuid not null references public.rollouts on delete cascade,
  position int not null,
  in_flight int not null default 0 check (in_flight >= 0),
  succeeded int not null default 0 check (succeeded >= 0),
  failed int not null default 0 check (failed >= 0),
  consecutive_failures int not null default 0,
  base_attempted int not null default 0,
  base_failed int not null default 0,
  minute_start timestamptz not null default '-infinity',
  minute_count int not null default 0,
  primary key (rollout_id, position)
) with (fillfactor = 50);
comment on table private.rollout_counters is 'How many claims of a rollout are in which state: position 0 for all of it, otherwise a stage. Kept by the trigger count_claim.';
comment on column private.rollout_counters.base_failed is 'Failures before the last halt was lifted: the halt rule counts from there.';

create table private.rollout_queue (
  rollout_id uuid not null references public.rollouts on delete cascade,
  device_id uuid not null references public.devices on delete cascade,
  asked_at timestamptz not null,
  primary key (rollout_id, device_id)
);
comment on table private.rollout_queue is 'Devices that asked while every slot was taken: the first to be woken when one is free.';
create index rollout_queue_in_order on private.rollout_queue (rollout_id, asked_at);

alter table public.branches add column requires_rollout boolean not null default false;
comment on column public.branches.requires_rollout is
  'On: a release of this branch reaches nobody without a rollout. Off: releases that never had one go to every device at once.';
alter table public.fleet_settings add column max_in_flight int
  constraint "max_in_flight must be 1 or more, or empty" check (max_in_flight >= 1);
comment on column public.fleet_settings.max_in_flight is 'At most so many devices update at once over all rollouts; empty means no limit.';
alter table public.halts add column roll_back boolean not null default false
  constraint "roll_back needs the scope release or rollout" check (not roll_back or scope in ('release', 'rollout'));
comment on column public.halts.roll_back is 'Devices that run the halted release go back to the one they had before.';

alter table public.rollouts enable row level security;
alter table public.rollout_stages enable row level security;
alter table public.rollout_claims enable row level security;
alter table private.rollout_counters enable row level security;
alter table private.rollout_queue enable row level security;
grant select, insert, update on public.rollouts to authenticated, service_role;
grant select, insert, update, delete on public.rollout_stages to authenticated, service_role;
grant select on public.rollout_claims to authenticated, service_role;
create policy "operators read rollouts" on public.rollouts for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator write rollouts" on public.rollouts for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator run rollouts" on public.rollouts for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators read stages" on public.rollout_stages for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add stages" on public.rollout_stages for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change stages" on public.rollout_stages for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove stages" on public.rollout_stages for delete to authenticated
  using ((select private.operator_is('operator')));
create policy "operators read claims" on public.rollout_claims for select to authenticated
  using ((select private.operator_is('viewer')));

-- As before, and with keys of several columns: their names with commas between.
create or replace function private.audit_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Arguments: the key columns, then columns that never enter the log (hashes, what policy itself keeps).
-- Definer: nobody may insert here.
declare
  old_row jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
  new_row jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
  key text;
  changed text[];
begin
  select string_agg(coalesce(new_row, old_row) ->> k, ' ' order by n) into key
  from unnest(string_to_array(tg_argv[0], ',')) with ordinality as keys (k, n);
  for i in 1 .. tg_nargs - 1 loop
    old_row := old_row - tg_argv[i];
    new_row := new_row - tg_argv[i];
  end loop;
  if tg_op = 'UPDATE' then
    select array_agg(n.key) into changed from jsonb_each(new_row) n
    where n.value is distinct from old_row -> n.key and n.key <> 'updated_at';
    if changed is null then
      return null;
    end if;
    select jsonb_object_agg(k, old_row -> k), jsonb_object_agg(k, new_row -> k)
      into old_row, new_row from unnest(changed) k;
  end if;
  insert into public.audit_log (actor_id, actor, action, table_name, row_id, before, after)
  values (private.actor_id(), private.actor_name(), lower(tg_op), tg_table_name, key, old_row, new_row);
  return null;
end
$$;

create trigger audit after insert or update or delete on public.rollouts
  for each row execute function private.audit_change('id', 'ended_at');
create trigger audit after insert or update or delete on public.rollout_stages
  for each row execute function private.audit_change(
    'rollout_id,position', 'floor_bucket', 'size_at_opening', 'proved_at');
