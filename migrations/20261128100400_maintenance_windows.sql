-- When a device may start an update. A window is a named set of openings, read in the device's own time zone. A device
-- has its own window or that of its segment.
--
-- Rules for the two odd days a year: an opening starts at its local wall-clock time. If that time is skipped (spring),
-- it starts an hour later by the wall clock, which is the instant that the skipped time would have been. If it occurs
-- twice (autumn), it starts at the second one, when standard time is back. Its length is elapsed time.
--
-- "Download now, apply in the window" (prefetch): if only the window is still closed, desired_state() also names a
-- release to prefetch. The device then fetches, checks and pulls it; what it runs does not change, and it takes no slot.

create table public.maintenance_windows (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and -" check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  prefetch boolean not null default false,
  description text not null default '',
  constraint "description must be at most 4000 characters"
    check (length(description) <= 4000),
  constraint "description must be plain text, without control characters" check (private.is_plain_text(description))
);
comment on table public.maintenance_windows is 'Named sets of times in which a device may be updated.';
comment on column public.maintenance_windows.prefetch is
  'Devices fetch, check and pull a release before the window opens, so that only the change itself is inside it. Off: they do not download outside the window.';

alter table public.maintenance_windows enable row level security;
grant select, insert, update, delete on public.maintenance_windows to authenticated, service_role;
create policy "operators read maintenance_windows" on public.maintenance_windows for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add maintenance_windows" on public.maintenance_windows for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change maintenance_windows" on public.maintenance_windows for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove maintenance_windows" on public.maintenance_windows for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update or delete on public.maintenance_windows
  for each statement execute function private.require_rank_to_write('operator');

create trigger refuse_in_use before delete on public.maintenance_windows
  for each row execute function private.refuse_in_use('name');
create trigger audit after insert or update or delete on public.maintenance_windows
  for each row execute function private.audit_change('name');

create table public.maintenance_openings (
  id uuid primary key default gen_random_uuid(),
  maintenance_window text not null references public.maintenance_windows on update cascade on delete cascade,
  days public.opening_days not null default 'daily',
  starts_at time not null,
  minutes int not null default 120 constraint "minutes must be 5 to 10080" check (minutes between 5 and 10080)
);
comment on table public.maintenance_openings is 'When a maintenance window opens, and for how long.';
comment on column public.maintenance_openings.days is 'The days on which it starts, on the device''s own calendar.';
comment on column public.maintenance_openings.starts_at is 'Local time of the device.';
comment on column public.maintenance_openings.minutes is 'How long it stays open; it may extend into the following days.';
create index maintenance_openings_by_window on public.maintenance_openings (maintenance_window);

alter table public.maintenance_openings enable row level security;
grant select, insert, update, delete on public.maintenance_openings to authenticated, service_role;
create policy "operators read openings" on public.maintenance_openings for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add openings" on public.maintenance_openings for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change openings" on public.maintenance_openings for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove openings" on public.maintenance_openings for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update or delete on public.maintenance_openings
  for each statement execute function private.require_rank_to_write('operator');

create trigger audit after insert or update or delete on public.maintenance_openings
  for each row execute function private.audit_change('id');

create function private.window_at(window_name text, timezone text, at timestamptz, out open_until timestamptz, out opens_at timestamptz)
language sql stable security definer set search_path = ''
as $$
  -- Definer: asked for devices. Looks from ten days back (the longest opening is seven) to eight ahead.
  with openings as (
    select (day + o.starts_at) at time zone timezone as starts,
           ((day + o.starts_at) at time zone timezone) + make_interval(mins => o.minutes) as ends
    from public.maintenance_openings o
    cross join lateral (
      select (at at time zone timezone)::date + n as day from generate_series(-10, 8) n) days
    where o.maintenance_window = window_name
      and case o.days
        when 'daily' then true
        when 'weekdays' then extract(isodow from day) < 6
        when 'weekends' then extract(isodow from day) >= 6
        else btrim(to_char(day, 'day')) = o.days::text
      end)
  select max(ends) filter (where starts <= at and at < ends), min(starts) filter (where at < starts) from openings
$$;
comment on function private.window_at(text, text, timestamptz) is
  'Of one window: until when it is open at this time (null: closed), and when it opens next (null: never).';
revoke execute on function private.window_at(text, text, timestamptz) from public;
