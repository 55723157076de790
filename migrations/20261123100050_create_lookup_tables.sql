-- Small tables behind the dropdowns of the table editor. Their keys are their names: a device row then reads
-- without a join, and renaming is refused by the foreign keys while something uses the name.

create table public.segments (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and -" check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  position int not null unique constraint "position must be 0 or more" check (position >= 0),
  description text not null default ''
);
comment on table public.segments is 'Deployment rings, first to last: a release reaches canary before early before stable.';
comment on column public.segments.position is 'Order of the rings, lowest first.';
insert into public.segments (name, position, description) values
  ('canary', 10, 'First to get a release: devices whose failure is cheap.'),
  ('early', 20, 'Second: a sample of real sites.'),
  ('stable', 30, 'Everybody else.');

create table public.device_roles (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and -" check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  description text not null default ''
);
comment on table public.device_roles is 'What a device can be for: the folder roles/<name>/ of the fleet repository.';
insert into public.device_roles (name, description) values
  ('beacon', 'The demo role: serves the version of its release over HTTP.');

create table public.branches (
  name text primary key
    constraint "name must look like a Git branch" check (name ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$' and name !~ '\.\.|//|/$|\.lock$'),
  description text not null default ''
);
comment on table public.branches is 'Git branches of the fleet repository that devices can track.';
insert into public.branches (name, description) values
  ('main', 'What the fleet runs.'),
  ('staging', 'What is tried first.');

create table public.maintenance_windows (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and -" check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  description text not null default ''
);
comment on table public.maintenance_windows is 'Named sets of times in which a device may be updated.';

do $$
declare
  t text;
begin
  foreach t in array array['segments', 'device_roles', 'branches', 'maintenance_windows'] loop
    execute format('alter table public.%I enable row level security', t);
    execute format('grant select, insert, update, delete on public.%I to authenticated, service_role', t);
    execute format('create policy %I on public.%I for select to authenticated
      using ((select private.operator_is(''viewer'')))', 'operators read ' || t, t);
    execute format('create policy %I on public.%I for insert to authenticated
      with check ((select private.operator_is(''operator'')))', 'operators of rank operator add ' || t, t);
    execute format('create policy %I on public.%I for update to authenticated
      using ((select private.operator_is(''operator''))) with check ((select private.operator_is(''operator'')))',
      'operators of rank operator change ' || t, t);
    execute format('create policy %I on public.%I for delete to authenticated
      using ((select private.operator_is(''operator'')))', 'operators of rank operator remove ' || t, t);
    execute format('create trigger audit after insert or update or delete on public.%I
      for each row execute function private.audit_change(''name'')', t);
  end loop;
end
$$;
