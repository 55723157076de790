-- Two agents with one identity: a card or a disk was copied, or the key is in other hands.
--
-- Both are the same device to everything here, and neither is refused: nobody can say which of them is meant. They are
-- noticed because they report in turn. A machine that is started again gets a new boot id and never has the old one
-- again, and an agent that began another attempt never works on the one before again. So what tells is an id that
-- *returns* after another. A report can be late on its way, though, and arrive after the first one of the next start:
-- one return is therefore no proof, unless it comes minutes after the other id was first seen, or for the third time.

create table private.reporter_ids (
  device_id uuid not null references public.devices on delete cascade,
  kind text not null constraint "kind must be boot or attempt" check (kind in ('boot', 'attempt')),
  id uuid not null,
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  returned int not null default 0,
  primary key (device_id, kind, id),
  constraint "times must be between 1970 and 2200"
    check (first_seen_at between '1970-01-01Z' and '2200-01-01Z' and last_seen_at between '1970-01-01Z' and '2200-01-01Z')
);
comment on table private.reporter_ids is 'The last boot ids and attempts that reports of a device named, a few of each.';
comment on column private.reporter_ids.last_seen_at is 'When a report named it that came after one that named another.';
comment on column private.reporter_ids.returned is 'How often it came back after another.';

alter table private.reporter_ids enable row level security;

create function private.note_reporter(
  device_id uuid, kind text, id uuid, at timestamptz,
  on_its_way_at_most interval default '5 minutes', returns_by_chance int default 2, kept int default 8
) returns boolean
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the table is nobody's. Called only when the id differs from the one in the report before.
declare
  before private.reporter_ids;
  others int;
  since timestamptz;
begin
  select r.* into before from private.reporter_ids r
  where r.device_id = note_reporter.device_id and r.kind = note_reporter.kind and r.id = note_reporter.id
  for update;
  if before.id is null then
    insert into private.reporter_ids (device_id, kind, id, first_seen_at, last_seen_at)
    values (note_reporter.device_id, note_reporter.kind, note_reporter.id, at, at)
    on conflict do nothing;
    delete from private.reporter_ids r
    where r.device_id = note_reporter.device_id and r.kind = note_reporter.kind and r.id in (
      select o.id from private.reporter_ids o
      where o.device_id = note_reporter.device_id and o.kind = note_reporter.kind
      order by o.last_seen_at desc, o.id offset kept);
    return false;
  end if;
  select count(*), min(r.first_seen_at) filter (where r.first_seen_at > before.first_seen_at) into others, since
  from private.reporter_ids r
  where r.device_id = note_reporter.device_id and r.kind = note_reporter.kind and r.id <> note_reporter.id
    and r.last_seen_at > before.last_seen_at;
  if others = 0 then
    -- An attempt that was interrupted and continues.
    return false;
  end if;
  update private.reporter_ids r set last_seen_at = at, returned = r.returned + 1
  where r.device_id = note_reporter.device_id and r.kind = note_reporter.kind and r.id = note_reporter.id;
  return before.returned >= returns_by_chance or coalesce(at - since > on_its_way_at_most, false);
end
$$;
comment on function private.note_reporter(uuid, text, uuid, timestamptz, interval, int, int) is
  'Notes which boot or attempt a report named. True if it came back after another, which one agent alone cannot do.';
revoke execute on function private.note_reporter(uuid, text, uuid, timestamptz, interval, int, int) from public;

create function private.watch_identity() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: alerts are policy's own rows.
declare
  at constant timestamptz := clock_timestamp();
  boots boolean := false;
  attempts boolean := false;
begin
  if new.boot_id is not null and (tg_op = 'INSERT' or old.boot_id is distinct from new.boot_id) then
    boots := private.note_reporter(new.device_id, 'boot', new.boot_id, at);
  end if;
  if new.attempt_id is not null and (tg_op = 'INSERT' or old.attempt_id is distinct from new.attempt_id) then
    attempts := private.note_reporter(new.device_id, 'attempt', new.attempt_id, at);
  end if;
  if boots or attempts then
    perform private.open_alert('identity_shared', 'warning',
      format('Two machines report as %s: %s. Its card was copied, or its key is in other hands. Both keep working. Enroll '
        'the copy as a device of its own, or end this key: fleetctl device replace %s.',
        d.name, case when boots then 'their reports alternate' else 'two attempts are running at the same time' end, d.name),
      at, new.device_id, evidence => jsonb_build_object('boot_id', new.boot_id, 'attempt_id', new.attempt_id))
    from public.devices d where d.id = new.device_id;
  end if;
  return null;
end
$$;
comment on function private.watch_identity() is 'Opens an alert when two agents report as one device.';
revoke execute on function private.watch_identity() from public;
create trigger zz_identity_insert after insert on public.device_status
  for each row execute function private.watch_identity();
create trigger zz_identity_update after update on public.device_status
  for each row when (old.boot_id is distinct from new.boot_id or old.attempt_id is distinct from new.attempt_id)
  execute function private.watch_identity();

create function private.watch_shared_identities(at timestamptz) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: alerts are policy's own rows. A copy that is switched off reports no more; a day without one is enough, for
-- devices that report more often than that.
declare
  resolved int;
begin
  update public.alerts a set resolved_at = at
  from public.devices d cross join public.fleet_settings f
  where a.kind = 'identity_shared' and a.resolved_at is null and d.id = a.device_id and not exists (
    select from private.reporter_ids r
    where r.device_id = d.id and r.returned > 0 and r.last_seen_at > at - greatest(interval '1 day',
      4 * make_interval(secs => coalesce((select s.pinned_poll_interval_s from public.device_status s where s.device_id = d.id),
        d.poll_interval_s, f.default_poll_interval_s))));
  get diagnostics resolved = row_count;
  return jsonb_build_object('shared_identities_resolved', resolved);
end
$$;
comment on function private.watch_shared_identities(timestamptz) is
  'Resolves the alerts about devices of which only one has reported for a day.';
revoke execute on function private.watch_shared_identities(timestamptz) from public;
