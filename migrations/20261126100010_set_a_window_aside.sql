-- "Update this one now, its window notwithstanding": who stands before a device, or whose customer waits, should not have to
-- take its window away and remember to give it back. The exception is a time, so it ends by itself.

alter table public.devices add column ignore_window_until timestamptz;
comment on column public.devices.ignore_window_until is
  'Until this time its maintenance window does not count, and it may update at once; empty means that the window counts.';

create or replace function private.wake_after_device_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  concerned uuid[];
begin
  select array_agg(n.id) into concerned
  from new_rows n join old_rows o using (id)
  where (n.state = 'active' or o.state = 'active')
    and (n.role, n.segment, n.branch, n.state, n.pinned_release, n.hold, n.hold_until, n.maintenance_window,
         n.ignore_window_until, n.poll_interval_s, n.timezone, n.labels)
        is distinct from
        (o.role, o.segment, o.branch, o.state, o.pinned_release, o.hold, o.hold_until, o.maintenance_window,
         o.ignore_window_until, o.poll_interval_s, o.timezone, o.labels);
  if concerned is not null then
    perform private.wake_devices(concerned, 'device_changed');
  end if;
  return null;
end
$$;
