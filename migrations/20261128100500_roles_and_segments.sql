-- Small tables behind the dropdowns of the table editor. Their keys are their names: a device row can be read without a
-- join, and foreign keys refuse to remove a name that is in use.

create table public.device_roles (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and -" check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  description text not null default '',
  constraint "description must be at most 4000 characters"
    check (length(description) <= 4000),
  constraint "description must be plain text, without control characters" check (private.is_plain_text(description))
);
comment on table public.device_roles is 'What a device can be for: the folder roles/<name>/ of the fleet repository.';

alter table public.device_roles enable row level security;
grant select, insert, update, delete on public.device_roles to authenticated, service_role;
create policy "operators read device_roles" on public.device_roles for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add device_roles" on public.device_roles for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change device_roles" on public.device_roles for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove device_roles" on public.device_roles for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update or delete on public.device_roles
  for each statement execute function private.require_rank_to_write('operator');

insert into public.device_roles (name, description) values
  ('beacon', 'The demo role: serves the version of its release over HTTP.');

create trigger refuse_in_use before delete on public.device_roles
  for each row execute function private.refuse_in_use('name');
create trigger audit after insert or update or delete on public.device_roles
  for each row execute function private.audit_change('name');

create function private.next_segment_position() returns int
language plpgsql volatile set search_path = ''
as $$
-- The rows of one statement do not see each other, so the last position given is kept for the transaction.
declare
  given int := greatest((select max(s.position) from public.segments s),
    nullif(current_setting('fleet.last_segment_position', true), '')::int, 0) / 10 * 10 + 10;
begin
  perform set_config('fleet.last_segment_position', given::text, true);
  return given;
end
$$;
comment on function private.next_segment_position() is 'The position of a new segment: after the last one.';
revoke execute on function private.next_segment_position() from public;
grant execute on function private.next_segment_position() to authenticated, service_role;

create table public.segments (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and -" check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  position int not null default private.next_segment_position() unique constraint "position must be 0 or more" check (position >= 0),
  maintenance_window text references public.maintenance_windows on update cascade,
  description text not null default '',
  constraint "description must be at most 4000 characters"
    check (length(description) <= 4000),
  constraint "description must be plain text, without control characters" check (private.is_plain_text(description))
);
comment on table public.segments is 'Deployment rings, first to last: a release reaches canary before early before stable.';
comment on column public.segments.position is 'Order of the rings, lowest first; at the end when left empty.';
comment on column public.segments.maintenance_window is 'The window of its devices that have none of their own; empty means at any time.';

alter table public.segments enable row level security;
grant select, insert, update, delete on public.segments to authenticated, service_role;
create policy "operators read segments" on public.segments for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add segments" on public.segments for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change segments" on public.segments for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove segments" on public.segments for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update or delete on public.segments
  for each statement execute function private.require_rank_to_write('operator');

insert into public.segments (name, position, description) values
  ('canary', 10, 'The first to get a release: devices whose failure does little harm.'),
  ('early', 20, 'Second: a sample of real sites.'),
  ('stable', 30, 'Everybody else.');

create trigger refuse_in_use before delete on public.segments
  for each row execute function private.refuse_in_use('name');
create trigger audit after insert or update or delete on public.segments
  for each row execute function private.audit_change('name');

create function private.require_role(wanted text) returns void
language plpgsql stable set search_path = ''
as $$
begin
  if not exists (select from public.device_roles r where r.name = wanted) then
    perform private.refuse('unknown_role', format('There is no device role "%s".', wanted),
      'Add it to the table device_roles first, or use an existing one.', 'PT400');
  end if;
end
$$;
comment on function private.require_role(text) is 'Refuses a name that no role has, in words (PT400). For definer functions.';
revoke execute on function private.require_role(text) from public;

create function private.require_segment(wanted text) returns void
language plpgsql stable set search_path = ''
as $$
begin
  if not exists (select from public.segments s where s.name = wanted) then
    perform private.refuse('unknown_segment', format('There is no segment "%s".', wanted),
      'Add it to the table segments first, or use an existing one.', 'PT400');
  end if;
end
$$;
comment on function private.require_segment(text) is 'Refuses a name that no segment has, in words (PT400). For definer functions.';
revoke execute on function private.require_segment(text) from public;

-- The checks of tables that hold a name take a rename for what it is, and not for an edit by hand.
create function private.is_rename(of_what text, old_name text, new_name text) returns boolean
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: looks into the tables, whatever the caller may read. With foreign keys in place, a name can only be gone
-- because it was renamed.
begin
  if old_name is null or new_name is null or old_name = new_name then
    return false;
  end if;
  return case of_what
    when 'segment' then not exists (select from public.segments s where s.name = old_name)
      and exists (select from public.segments s where s.name = new_name)
    when 'role' then not exists (select from public.device_roles r where r.name = old_name)
      and exists (select from public.device_roles r where r.name = new_name)
    when 'branch' then not exists (select from public.branches b where b.name = old_name)
      and exists (select from public.branches b where b.name = new_name)
    else false
  end;
end
$$;
comment on function private.is_rename(text, text, text) is
  'Was the segment, role or branch of the old name renamed to the new one, so that this edit only follows?';
revoke execute on function private.is_rename(text, text, text) from public;
