-- Brakes. The emergency stop is one row: insert into halts (reason) values ('…'). A halt is lifted and never deleted, so
-- that what was stopped, by whom and why, stays on record.

create table public.halts (
  id uuid primary key default gen_random_uuid(),
  scope public.halt_scope not null default 'fleet',
  target text,
  cause text not null default 'operator' constraint "cause must be 1 to 100 characters" check (length(cause) between 1 and 100),
  reason text not null constraint "a halt needs a reason in words" check (btrim(reason) <> ''),
  evidence jsonb not null default '{}'
    constraint "evidence must be an object of at most 64 kB"
    check (jsonb_typeof(evidence) = 'object' and octet_length(evidence::text) <= 65536),
  roll_back boolean not null default false
    constraint "roll_back needs the scope release or rollout" check (not roll_back or scope in ('release', 'rollout')),
  all_at_once boolean not null default false
    constraint "all_at_once needs roll_back" check (not all_at_once or roll_back),
  opened_by uuid,
  opened_at timestamptz not null default now(),
  lifted_by uuid,
  lifted_at timestamptz,
  lift_reason text,
  constraint "target must be empty for the fleet and named for every other scope" check ((scope = 'fleet') = (target is null)),
  constraint "lifting needs lifted_at and lift_reason together" check ((lifted_at is null) = (lift_reason is null)),
  constraint "reasons must be at most 4000 characters"
    check (length(reason) <= 4000 and length(lift_reason) <= 4000 and length(target) <= 200),
  constraint "texts must be one line, without control characters"
    check (private.is_one_line(reason) and private.is_one_line(lift_reason) and private.is_one_line(target) and private.is_one_line(cause)),
  constraint "times must be between 1970 and 2200"
    check (opened_at between '1970-01-01Z' and '2200-01-01Z' and lifted_at between '1970-01-01Z' and '2200-01-01Z')
);
comment on table public.halts is 'Open brakes and their history. Insert a row to stop updates; set lift_reason to allow them again. Never deleted.';
comment on column public.halts.scope is 'fleet stops everything; segment, role, branch, release and rollout stop what target names.';
comment on column public.halts.target is 'The name of the segment, role or branch, or the id of the release or rollout; empty for the fleet.';
comment on column public.halts.cause is 'operator, or the rule that opened it automatically.';
comment on column public.halts.reason is 'The reason, for the person who decides to lift it.';
comment on column public.halts.evidence is 'What an automatic halt saw: counts, devices, error kinds.';
comment on column public.halts.roll_back is 'Devices that run the halted release go back to the one they had before.';
comment on column public.halts.all_at_once is 'With roll_back: they all go back at once, past the limits of slots.';
comment on column public.halts.lift_reason is 'Set it to the reason why updates are safe again: that lifts the halt.';
create index halts_open on public.halts (scope, target) where lifted_at is null;

alter table public.halts enable row level security;
grant select, insert, update on public.halts to authenticated, service_role;
create policy "operators read halts" on public.halts for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator open halts" on public.halts for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator lift halts" on public.halts for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update on public.halts
  for each statement execute function private.require_rank_to_write('operator');
-- Quietly: an emergency stop is not refused for what it says too much.
create trigger a_keep_machine_columns before insert on public.halts
  for each row execute function private.keep_machine_columns('{"cause": "operator", "evidence": {}, "opened_at": "now", "opened_by": null}', 'quietly');

create function private.check_halt() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks for the target, whatever the caller may read.
declare
  known boolean;
begin
  if tg_op = 'DELETE' then
    perform private.refuse('halts_stay', 'A halt is never deleted, so that its history stays readable.',
      'Write a lift_reason to lift it.');
  end if;
  if tg_op = 'INSERT' then
    new.target := nullif(btrim(new.target), '');
    -- A device whose outcome made policy stop did not open the halt.
    new.opened_by := coalesce(private.claimed_id('authenticated'), case when private.device_id() is null then new.opened_by end);
    if btrim(coalesce(new.reason, '')) = '' then
      perform private.refuse('reason_missing', 'A halt needs a reason.',
        'Say what was seen, for the person who decides to lift it.', 'PT400');
    end if;
    if new.scope = 'fleet' and new.target is not null then
      perform private.refuse('target_not_empty', 'A halt of the fleet has no target.',
        'Empty target, or pick the scope that the target belongs to.', 'PT400');
    end if;
    if new.roll_back and new.scope not in ('release', 'rollout') then
      perform private.refuse('roll_back_scope', 'Only a halt of a release or a rollout can take devices back.',
        'Pick one of those scopes, or turn off roll_back.', 'PT400');
    end if;
    if new.all_at_once and not new.roll_back then
      perform private.refuse('roll_back_scope', 'all_at_once is for a halt that takes devices back.',
        'Set roll_back, too, or turn off all_at_once.', 'PT400');
    end if;
    if new.lifted_at is not null or new.lift_reason is not null or new.lifted_by is not null then
      perform private.refuse('halt_starts_open', 'A new halt is open.', 'Leave the lifted columns empty.', 'PT400');
    end if;
    known := case new.scope
      when 'fleet' then true
      when 'segment' then exists (select from public.segments s where s.name = new.target)
      when 'role' then exists (select from public.device_roles r where r.name = new.target)
      when 'branch' then exists (select from public.branches b where b.name = new.target)
      when 'release' then exists (select from public.releases r where r.id::text = new.target)
      else exists (select from public.rollouts r where r.id::text = new.target)
    end;
    if not known then
      perform private.refuse('unknown_target', format('There is no %s "%s" to halt.', new.scope, coalesce(new.target, '')),
        case when new.scope in ('release', 'rollout') then format('Put the id of the %s into target.', new.scope)
             else format('Put the name of the %s into target.', new.scope) end, 'PT400');
    end if;
    return new;
  end if;
  if private.is_rename(new.scope::text, old.target, new.target) then
    old.target := new.target;
  end if;
  if (new.id, new.scope, new.target, new.cause, new.reason, new.evidence, new.opened_by, new.opened_at, new.roll_back, new.all_at_once)
     is distinct from (old.id, old.scope, old.target, old.cause, old.reason, old.evidence, old.opened_by, old.opened_at, old.roll_back, old.all_at_once) then
    perform private.refuse('halt_is_fixed', 'A halt can only be lifted, not rewritten.',
      'Write a lift_reason to lift it, and open a new halt for something else.');
  end if;
  if old.lifted_at is not null then
    if (new.lifted_at, new.lifted_by, new.lift_reason) is distinct from (old.lifted_at, old.lifted_by, old.lift_reason) then
      perform private.refuse('halt_is_lifted', 'This halt is lifted already.', 'Open a new halt.');
    end if;
    return new;
  end if;
  if new.lifted_at is not null or new.lift_reason is not null or new.lifted_by is not null then
    if btrim(coalesce(new.lift_reason, '')) = '' then
      perform private.refuse('reason_missing', 'Lifting a halt needs a reason.',
        'Set lift_reason: why updates are safe again.', 'PT400');
    end if;
    new.lifted_at := now();
    new.lifted_by := coalesce(private.actor_id(), new.lifted_by);
  end if;
  return new;
end
$$;
revoke execute on function private.check_halt() from public;
create trigger check_halt before insert or update or delete on public.halts
  for each row execute function private.check_halt();

create trigger a_lock_policy_first before insert or update on public.halts
  for each statement execute function private.lock_policy_first();
create trigger refuse_truncate before truncate on public.halts
  for each statement execute function private.refuse_truncate();
create trigger audit after insert or update on public.halts
  for each row execute function private.audit_change('id');

create function public.halt_fleet(reason text) returns public.halts
language plpgsql volatile set search_path = ''
as $$
declare
  opened public.halts;
begin
  perform private.require_rank('operator');
  insert into public.halts (scope, reason) values ('fleet', halt_fleet.reason) returning * into opened;
  return opened;
end
$$;
comment on function public.halt_fleet(text) is 'The emergency stop: no device starts an update until it is lifted.';
revoke execute on function public.halt_fleet(text) from public;
grant execute on function public.halt_fleet(text) to authenticated, service_role;

create function public.lift_halt(halt_id uuid, reason text) returns public.halts
language plpgsql volatile set search_path = ''
as $$
declare
  lifted public.halts;
begin
  perform private.require_rank('operator');
  if btrim(coalesce(lift_halt.reason, '')) = '' then
    perform private.refuse('reason_missing', 'Lifting a halt needs a reason.',
      'Give the reason why updates are safe again.', 'PT400');
  end if;
  update public.halts h set lift_reason = lift_halt.reason
  where h.id = lift_halt.halt_id and h.lifted_at is null returning * into lifted;
  if lifted.id is null then
    if exists (select from public.halts h where h.id = lift_halt.halt_id) then
      perform private.refuse('halt_is_lifted', 'This halt is lifted already.', 'No action needed.');
    end if;
    perform private.refuse_unknown('halt', 'halt list');
  end if;
  return lifted;
end
$$;
comment on function public.lift_halt(uuid, text) is 'Lifts an open halt and records the reason.';
revoke execute on function public.lift_halt(uuid, text) from public;
grant execute on function public.lift_halt(uuid, text) to authenticated, service_role;

create function private.what_is_halted(brake public.halts) returns text
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: for devices' answers.
begin
  return case brake.scope
    when 'fleet' then 'the fleet'
    when 'release' then 'release ' || private.release_name(brake.target::uuid)
    when 'rollout' then 'the rollout of ' || private.release_name((select r.release_id from public.rollouts r where r.id = brake.target::uuid))
    else brake.scope || ' ' || brake.target end;
end
$$;
comment on function private.what_is_halted(public.halts) is
  'What a halt stops, within a sentence: "the fleet", "segment stable", "release v2", "the rollout of v2".';
revoke execute on function private.what_is_halted(public.halts) from public;

create function private.how_to_lift(brake public.halts) returns text
language sql immutable
return format('Lift the halt: fleetctl halt lift %s "why".', brake.id);
comment on function private.how_to_lift(public.halts) is 'The hint of every gate that a halt closes.';
revoke execute on function private.how_to_lift(public.halts) from public;
