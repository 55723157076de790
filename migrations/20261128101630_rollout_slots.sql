-- The slots of a rollout: which device holds one, how each ended, how many are left, and who waits for one.

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
