-- Who runs the fleet. A row makes a Supabase Auth user an operator. There is no foreign key to auth.users, because that
-- table belongs to another owner and Lite keeps its own.

create table public.operators (
  user_id uuid primary key,
  email text,
  rank public.operator_rank not null default 'viewer',
  created_at timestamptz not null default now(),
  constraint "times must be between 1970 and 2200"
    check (created_at between '1970-01-01Z' and '2200-01-01Z'),
  constraint "email must be at most 320 characters"
    check (length(email) <= 320),
  constraint "email must be one line, without control characters" check (private.is_one_line(email))
);
comment on table public.operators is 'The people who may see and run this fleet. Managed by admins.';
comment on column public.operators.user_id is 'The id of the user in Supabase Auth (auth.users.id).';
comment on column public.operators.rank is 'viewer reads, operator runs the fleet, admin manages people, tokens and settings.';

create function private.operator_rank() returns public.operator_rank
language sql stable parallel safe security definer set search_path = ''
as $$
  -- Definer: reads operators, whose own policies ask this function.
  select o.rank from public.operators o where o.user_id = private.claimed_id('authenticated')
$$;
comment on function private.operator_rank() is 'The calling operator''s rank; null for a caller who is not an operator.';
revoke execute on function private.operator_rank() from public;
-- fleet_device, too: policies that apply to both operators and devices are checked for both.
grant execute on function private.operator_rank() to authenticated, service_role, fleet_device;

create function private.operator_is(at_least public.operator_rank) returns boolean
language sql stable parallel safe set search_path = ''
as $$ select coalesce(private.operator_rank() >= at_least, false) $$;
comment on function private.operator_is(public.operator_rank) is 'Is the caller an operator of at least this rank? For policies.';
revoke execute on function private.operator_is(public.operator_rank) from public;
grant execute on function private.operator_is(public.operator_rank) to authenticated, service_role, fleet_device;

create function private.require_rank(at_least public.operator_rank) returns void
language plpgsql stable set search_path = ''
as $$
declare
  held public.operator_rank;
begin
  if private.is_trusted() then
    return;
  end if;
  held := private.operator_rank();
  if held is null then
    perform private.refuse('not_an_operator', 'You are signed in, but not an operator of this fleet.',
      'Ask an admin to add you: fleetctl operator add.', 'PT403');
  elsif held < at_least then
    perform private.refuse('rank_too_low', format('This requires the rank %s; yours is %s.', at_least, held),
      'Ask an admin to do it, or to raise your rank: fleetctl operator rank.', 'PT403');
  end if;
end
$$;
comment on function private.require_rank(public.operator_rank) is 'Refuses a caller of a lower rank, in words (PT403). For functions.';
revoke execute on function private.require_rank(public.operator_rank) from public;
grant execute on function private.require_rank(public.operator_rank) to authenticated, service_role;

-- Row-level security hides rows from whoever may not change them, and a change of no row looks like success. So every
-- table that people write has this trigger, which says it, whatever they use. Its name comes before those of all others:
-- someone without the rank takes no lock.
create function private.require_rank_to_write() returns trigger
language plpgsql set search_path = ''
as $$
-- Argument: the least rank. Invoker, so that current_user tells what a person writes from what a function writes for them:
-- that function has checked the rank itself.
begin
  if current_user = 'authenticated' then
    perform private.require_rank(tg_argv[0]::public.operator_rank);
  end if;
  return null;
end
$$;
comment on function private.require_rank_to_write() is
  'Statement trigger: refuses a person of a lower rank in words, before row-level security hides the rows.';
revoke execute on function private.require_rank_to_write() from public;

-- Who is acting, for the audit log and for columns like created_by.

create function private.actor_id() returns uuid
language sql stable set search_path = ''
as $$ select coalesce(private.claimed_id('authenticated'), private.device_id()) $$;
comment on function private.actor_id() is 'The person or device that acts; null for the service key and SQL.';
revoke execute on function private.actor_id() from public;
grant execute on function private.actor_id() to authenticated, service_role;

create function private.actor_name() returns text
language sql stable security definer set search_path = ''
as $$
  -- Definer: reads operators for callers who may not.
  select coalesce(
    (select o.email from public.operators o where o.user_id = private.claimed_id('authenticated')),
    private.claims() ->> 'email',
    case when private.device_id() is not null then 'device ' || private.device_id() end,
    private.caller_role())
$$;
comment on function private.actor_name() is 'A name for the audit log: an e-mail address, a device or a database role.';
revoke execute on function private.actor_name() from public;
grant execute on function private.actor_name() to authenticated, service_role;

alter table public.operators enable row level security;
grant select, insert, update, delete on public.operators to authenticated, service_role;
create policy "operators read who runs the fleet" on public.operators for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "admins add operators" on public.operators for insert to authenticated
  with check ((select private.operator_is('admin')));
create policy "admins change operators" on public.operators for update to authenticated
  using ((select private.operator_is('admin'))) with check ((select private.operator_is('admin')));
create policy "admins remove operators" on public.operators for delete to authenticated
  using ((select private.operator_is('admin')));
create trigger a_check_rank_first before insert or update or delete on public.operators
  for each statement execute function private.require_rank_to_write('admin');
create trigger a_keep_machine_columns before insert or update of created_at on public.operators
  for each row execute function private.keep_machine_columns('{"created_at": "now"}');

create function private.keep_an_admin() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  -- Definer: must count the admins that row-level security might hide.
  if exists (select from old_rows o where o.rank = 'admin')
     and not exists (select from public.operators where rank = 'admin')
     and not private.may_rewrite('operators', lower(tg_op)) then
    perform private.refuse('last_admin', 'The last admin cannot be removed or lowered.',
      'Make someone else an admin first.');
  end if;
  return null;
end
$$;
revoke execute on function private.keep_an_admin() from public;
create trigger keep_an_admin_on_update after update on public.operators referencing old table as old_rows
  for each statement execute function private.keep_an_admin();
create trigger keep_an_admin_on_delete after delete on public.operators referencing old table as old_rows
  for each statement execute function private.keep_an_admin();
create trigger refuse_truncate before truncate on public.operators
  for each statement execute function private.refuse_truncate();
