-- "A device with a window always polls inside it" did not hold for one that polls less often than its window opens and asked
-- while the window was open, or did not count: it slept through the next opening. The next opening counts whatever the verdict.
-- Whether devices may download ahead is news to those that have the window, as a new opening is.

create or replace function private.judge_window(device public.devices, begun boolean, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  judged private.gate_result;
  window_name text := private.window_of(device);
  open_until timestamptz;
  opens_at timestamptz;
begin
  if window_name is null then
    return private.gate_pass('window', 'It has no maintenance window: any time will do.');
  end if;
  select w.open_until, w.opens_at into open_until, opens_at from private.window_at(window_name, device.timezone, at) w;
  judged := case
    when open_until is not null then private.gate_pass('window',
      format('Window %s is open until %s.', window_name, private.local_time(open_until, device.timezone)))
    when at < device.ignore_window_until then private.gate_pass('window',
      format('Window %s does not count until %s.', window_name, private.local_time(device.ignore_window_until, device.timezone)))
    when begun then private.gate_pass('window', format('Window %s has closed, but the update has begun.', window_name))
    when opens_at is null then private.gate_wait('window',
      format('Window %s never opens: it has no row in maintenance_openings.', window_name),
      'Add an opening to maintenance_openings, or give the device another window.')
    else private.gate_wait('window', format('Window %s opens %s.', window_name, private.local_time(opens_at, device.timezone)),
      'Nothing to do: the window opens by itself. Set ignore_window_until of the device to go on sooner.')
  end;
  -- Up to two minutes in, different for each device, so that a window does not open with a stampede.
  judged.look_again := opens_at + make_interval(secs => private.bucket(device.id, device.id) * 120 / 100000);
  return judged;
end
$$;

create function private.wake_after_prefetch_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: reads the fleet.
begin
  perform private.wake_devices(array(
    select d.id from public.devices d join public.segments s on s.name = d.segment
    where d.state = 'active' and coalesce(d.maintenance_window, s.maintenance_window) = new.name), 'window_changed');
  return null;
end
$$;
comment on function private.wake_after_prefetch_change() is 'Wakes the devices of a window that may, or may no longer, download ahead.';
revoke execute on function private.wake_after_prefetch_change() from public;
create trigger wake after update on public.maintenance_windows
  for each row when (new.prefetch is distinct from old.prefetch)
  execute function private.wake_after_prefetch_change();
