-- One-time instructions to a device. It reads them with desired_state() and answers by updating its own row.

create table public.device_commands (
  id uuid primary key default gen_random_uuid(),
  device_id uuid not null references public.devices on delete cascade,
  kind public.command_kind not null,
  args jsonb not null default '{}'
    constraint "args must be an object of at most 8 kB" check (jsonb_typeof(args) = 'object' and octet_length(args::text) <= 8192),
  state public.command_state not null default 'queued',
  requested_by uuid,
  requested_at timestamptz not null default now(),
  expires_at timestamptz not null default now() + interval '1 day',
  answered_at timestamptz,
  result jsonb constraint "result must be at most 256 kB" check (octet_length(result::text) <= 262144),
  constraint "expires_at must be after requested_at" check (expires_at > requested_at),
  constraint "times must be between 1970 and 2200"
    check (requested_at between '1970-01-01Z' and '2200-01-01Z' and answered_at between '1970-01-01Z' and '2200-01-01Z'
           and expires_at between '1970-01-01Z' and '2200-01-01Z')
);
comment on table public.device_commands is 'One-time commands to devices: insert a row, and the device answers in it.';
comment on column public.device_commands.kind is 'What the device is to do, once, at its next check-in.';
comment on column public.device_commands.args is 'Details of the command, like {"lines": 100} for tail_logs.';
comment on column public.device_commands.state is 'queued until the device answers, or until expires_at.';
comment on column public.device_commands.expires_at is 'A command that is not answered by then is dropped.';
comment on column public.device_commands.result is 'What the device answered.';
create index device_commands_queued on public.device_commands (device_id, requested_at) where state = 'queued';
create index device_commands_by_device on public.device_commands (device_id, requested_at desc);

alter table public.device_commands enable row level security;
grant select, update (state, result) on public.device_commands to fleet_device;
grant select, insert, update (state, expires_at) on public.device_commands to authenticated;
grant select, insert, update on public.device_commands to service_role;
create policy "operators read commands" on public.device_commands for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator give commands" on public.device_commands for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator take commands back" on public.device_commands for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')) and state in ('queued', 'expired'));
create policy "an active device reads its own commands" on public.device_commands for select to fleet_device
  using (device_id = (select private.device_id()) and (select private.device_is_active()));
create policy "an active device answers its own queued commands" on public.device_commands for update to fleet_device
  using (device_id = (select private.device_id()) and state = 'queued' and (select private.device_is_active()))
  with check (device_id = (select private.device_id()) and state in ('succeeded', 'failed'));
create trigger a_check_rank_first before insert or update on public.device_commands
  for each statement execute function private.require_rank_to_write('operator');
create trigger a_keep_machine_columns before insert on public.device_commands
  for each row execute function private.keep_machine_columns('{"requested_at": "now", "requested_by": null, "answered_at": null, "result": null}');

create function private.check_command() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks at the device, whatever the caller may read.
declare
  device_state public.device_state;
begin
  if tg_op = 'INSERT' then
    select d.state into device_state from public.devices d where d.id = new.device_id;
    if device_state is distinct from 'active' then
      perform private.refuse('device_not_active',
        format('That device is %s, so it would never read a command.', coalesce(device_state::text, 'unknown')),
        'Send commands to active devices only.');
    end if;
    if new.state <> 'queued' or new.answered_at is not null then
      perform private.refuse('command_starts_queued', 'A new command starts as queued and without an answer.',
        'Leave state, answered_at and result empty.', 'PT400');
    end if;
    new.requested_by := coalesce(private.actor_id(), new.requested_by);
    return new;
  end if;
  if (new.id, new.device_id, new.kind, new.args, new.requested_by, new.requested_at)
     is distinct from (old.id, old.device_id, old.kind, old.args, old.requested_by, old.requested_at) then
    perform private.refuse('command_is_fixed', 'A command cannot be changed after it was sent.',
      'Let it expire by setting expires_at, and send a new one.');
  end if;
  if old.state <> 'queued' and (new.state, new.result) is distinct from (old.state, old.result) then
    perform private.refuse('command_is_answered', 'This command is answered or expired already.',
      'Send a new command.');
  end if;
  if old.state = 'queued' and new.state <> 'queued' then
    new.answered_at := now();
  end if;
  return new;
end
$$;
revoke execute on function private.check_command() from public;
create trigger check_command before insert or update on public.device_commands
  for each row execute function private.check_command();
create trigger audit after insert on public.device_commands
  for each row execute function private.audit_change('id');

create function private.expire_commands(at timestamptz) returns int
language sql volatile security definer set search_path = ''
as $$
  -- Definer: the scheduler holds no rights of its own on the tables. A part of them at a time: a command may have been sent
  -- to all of a large fleet.
  with expired as (
    update public.device_commands c set state = 'expired'
    where c.id in (select o.id from public.device_commands o where o.state = 'queued' and o.expires_at <= at limit 10000)
    returning 1)
  select count(*)::int from expired
$$;
comment on function private.expire_commands(timestamptz) is 'Ends commands that no device answered in time.';
revoke execute on function private.expire_commands(timestamptz) from public;

create trigger zz_ration_update after update on public.device_commands referencing new table as new_rows
  for each statement execute function private.ration_writes();
