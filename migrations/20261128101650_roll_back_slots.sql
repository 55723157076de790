-- Going back is an update, too: a device that is taken back holds a slot of the rollout that brought it what it leaves.

create table public.roll_back_slots (
  device_id uuid not null references public.devices on delete cascade,
  from_release uuid not null references public.releases,
  to_release uuid references public.releases,
  rollout_id uuid references public.rollouts,
  stage int,
  state public.claim_state not null default 'claimed',
  attempts int not null default 1,
  taken_at timestamptz not null,
  lease_until timestamptz not null,
  ended_at timestamptz,
  error text constraint "error must be at most 4000 characters" check (length(error) <= 4000),
  primary key (device_id, from_release)
) with (fillfactor = 80);
comment on table public.roll_back_slots is
  'Which device holds, or held, a slot to go back: by a halt with roll_back, a withdrawal, or a command. Written by policy only.';
comment on column public.roll_back_slots.from_release is 'The release that it leaves.';
comment on column public.roll_back_slots.to_release is 'Where it goes back to; empty for a command, where the device knows.';
comment on column public.roll_back_slots.rollout_id is 'The rollout that brought it from_release, under whose limits it goes back; empty if none did.';
comment on column public.roll_back_slots.stage is 'The position of the stage that brought it.';
comment on column public.roll_back_slots.state is 'claimed while it goes back; then how that ended. expired: it went offline past its lease.';
comment on column public.roll_back_slots.attempts is 'How often it took a slot to go back from this release. One that it gave back does not count.';
comment on column public.roll_back_slots.taken_at is 'When it took the slot.';
comment on column public.roll_back_slots.lease_until is 'If it has not reported by then, going back counts as failed.';
comment on column public.roll_back_slots.error is 'Why going back failed.';
create index roll_back_slots_in_flight on public.roll_back_slots (lease_until) where state = 'claimed';
create index roll_back_slots_by_start on public.roll_back_slots (rollout_id, taken_at);

alter table public.roll_back_slots enable row level security;
grant select on public.roll_back_slots to authenticated, service_role;
create policy "operators read roll_back_slots" on public.roll_back_slots for select to authenticated
  using ((select private.operator_is('viewer')));

create function private.count_roll_back_slot() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- A device that goes back is in flight like one that moves ahead: both take from the same slots.
begin
  if tg_op <> 'INSERT' then
    update private.rollout_counters c set in_flight = c.in_flight - 1
    where old.state = 'claimed' and c.rollout_id = old.rollout_id and c.position in (0, old.stage);
  end if;
  if tg_op <> 'DELETE' then
    update private.rollout_counters c set in_flight = c.in_flight + 1
    where new.state = 'claimed' and c.rollout_id = new.rollout_id and c.position in (0, new.stage);
  end if;
  return null;
end
$$;
revoke execute on function private.count_roll_back_slot() from public;
create trigger count_slot after insert or update or delete on public.roll_back_slots
  for each row execute function private.count_roll_back_slot();
