-- The fleet. A row is what operators decide about a device; what a device reports about itself is in device_status.
--
-- ignore_window_until means "update this one now, in spite of its window", for someone who is at the device or whose
-- customer is waiting. Without it they would have to remove the window and remember to restore it; this exception ends
-- by itself.

create table public.devices (
  id uuid primary key default gen_random_uuid(),
  name text not null
    constraint "name must be 1 to 63 letters, digits, dots, _ or -" check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
  role text not null references public.device_roles on update cascade,
  segment text not null default 'stable' references public.segments on update cascade,
  branch text not null default 'main' references public.branches on update cascade,
  state public.device_state not null default 'pending',
  pinned_release uuid references public.releases,
  pinned_at timestamptz,
  hold boolean not null default false,
  hold_reason text,
  hold_until timestamptz,
  maintenance_window text references public.maintenance_windows on update cascade,
  ignore_window_until timestamptz,
  poll_interval_s int
    constraint "poll_interval_s must be 30 to 604800 seconds, or empty" check (poll_interval_s between 30 and 604800),
  timezone text not null default 'UTC',
  labels jsonb not null default '{}'
    constraint "labels must be an object of texts, like {""site"": ""rome""}"
    check (jsonb_typeof(labels) = 'object' and not jsonb_path_exists(labels, '$.* ? (@.type() != "string")')
           and octet_length(labels::text) <= 8192),
  public_key text unique
    constraint "public_key must be a base64url Ed25519 key of 43 characters" check (public_key ~ '^[A-Za-z0-9_-]{43}$'),
  key_number int not null default 1 constraint "key_number must be 1 or more" check (key_number >= 1),
  hardware_model text,
  os text,
  enrolled_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- With these anybody signs anything: the five y of the eight points of small order, and what is p or more; the last
  -- bit is the sign of x.
  constraint "public_key must not be of small order" check (
    case when public_key ~ '^[A-Za-z0-9_-]{43}$' then set_byte(decode(translate(public_key, '-_', '+/') || '=', 'base64'), 31, get_byte(decode(translate(public_key, '-_', '+/') || '=', 'base64'), 31) & 127) not in (
      '\x0000000000000000000000000000000000000000000000000000000000000000',
      '\x0100000000000000000000000000000000000000000000000000000000000000',
      '\x26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
      '\xc7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
      '\xecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f')
      and not (set_byte(decode(translate(public_key, '-_', '+/') || '=', 'base64'), 31, get_byte(decode(translate(public_key, '-_', '+/') || '=', 'base64'), 31) & 127) >= '\xed'
        and substr(set_byte(decode(translate(public_key, '-_', '+/') || '=', 'base64'), 31, get_byte(decode(translate(public_key, '-_', '+/') || '=', 'base64'), 31) & 127), 2) = decode(repeat('ff', 30) || '7f', 'hex')) end),
  constraint "hold_until and hold_reason need hold switched on" check (hold or (hold_until is null and hold_reason is null)),
  constraint "an active device needs a public_key" check (state <> 'active' or public_key is not null),
  constraint "times must be between 1970 and 2200"
    check (created_at between '1970-01-01Z' and '2200-01-01Z' and enrolled_at between '1970-01-01Z' and '2200-01-01Z'
           and updated_at between '1970-01-01Z' and '2200-01-01Z' and pinned_at between '1970-01-01Z' and '2200-01-01Z'
           and hold_until between '1970-01-01Z' and '2200-01-01Z'
           and ignore_window_until between '1970-01-01Z' and '2200-01-01Z'),
  constraint "texts must be at most 1000 characters"
    check (length(hold_reason) <= 1000 and length(hardware_model) <= 1000 and length(os) <= 1000 and length(timezone) <= 1000),
  constraint "texts must be one line, without control characters"
    check (private.is_one_line(hold_reason) and private.is_one_line(hardware_model) and private.is_one_line(os))
);
comment on table public.devices is 'The fleet: one row a machine, what it is for and what operators decided about it.';
comment on column public.devices.name is
  'Name, also used as a host name: letters, digits, dots, _ and -. Unique without regard to case among the devices that are not retired.';
comment on column public.devices.role is 'What the device is for: a folder roles/<role>/ of the fleet repository.';
comment on column public.devices.segment is 'The deployment ring: decides how early it gets a release.';
comment on column public.devices.branch is 'The Git branch it tracks.';
comment on column public.devices.state is 'Set to active to accept a pending device, to suspended to lock it out at once, to retired for good.';
comment on column public.devices.pinned_release is 'The device goes to this release and stays on it until this is emptied.';
comment on column public.devices.pinned_at is 'When pinned_release was set; kept by a trigger.';
comment on column public.devices.hold is 'Keeps what it runs: no updates while this is on.';
comment on column public.devices.hold_reason is 'Why it is not updated, for other operators.';
comment on column public.devices.hold_until is 'The hold ends automatically at this time; empty means when an operator ends it.';
comment on column public.devices.maintenance_window is 'Updates only start inside this window; empty means that of the segment.';
comment on column public.devices.ignore_window_until is
  'Until this time its maintenance window is ignored, and it may update at once; empty means that the window applies.';
comment on column public.devices.poll_interval_s is 'Seconds between two polls; empty means fleet_settings.default_poll_interval_s.';
comment on column public.devices.timezone is 'Name of the time zone in which its maintenance window is read, like Europe/Rome.';
comment on column public.devices.labels is 'Free attributes that rollouts can select by: an object of texts.';
comment on column public.devices.public_key is 'The device''s Ed25519 public key, base64url. Set at enrollment.';
comment on column public.devices.key_number is 'Counts the keys that this row has had; requests with a token of an older key are refused.';
comment on column public.devices.enrolled_at is 'When the device became active for the first time; kept by a trigger.';
-- What is retired frees its name; Kitchen and kitchen are one name, as they are one host name.
create unique index devices_name_is_unique on public.devices (lower(name)) where state <> 'retired';
create index devices_by_name on public.devices (name);
create index devices_by_segment on public.devices (segment) where state = 'active';
create index devices_by_role_and_branch on public.devices (role, branch) where state = 'active';
create index devices_by_branch on public.devices (branch);
create index devices_pinned on public.devices (pinned_release) where pinned_release is not null;
-- Nearly every device is active, not held, not pinned and polls at the fleet's interval. This small index contains the
-- others, so that fleet_overview reads only those. The price: an edit of `hold`, `hold_until` or `poll_interval_s`
-- writes to the device's indexes, as an edit of `state` or `pinned_release` does.
create index devices_out_of_the_ordinary on public.devices (id)
  include (state, poll_interval_s, hold, hold_until, pinned_release)
  where state <> 'active' or poll_interval_s is not null or hold or pinned_release is not null;
comment on index public.devices_out_of_the_ordinary is 'What fleet_overview has to check one by one.';

alter table public.devices enable row level security;
grant select, insert, update, delete on public.devices to authenticated, service_role;
create policy "operators read devices" on public.devices for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add devices" on public.devices for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change devices" on public.devices for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove pending devices" on public.devices for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update or delete on public.devices
  for each statement execute function private.require_rank_to_write('operator');
create trigger a_keep_machine_columns before insert or update of created_at, updated_at, enrolled_at, pinned_at on public.devices
  for each row execute function private.keep_machine_columns('{"created_at": "now", "updated_at": "now", "enrolled_at": null, "pinned_at": null, "key_number": 1}');

-- The names that count. pg_timezone_names reads every file of the time zone database each time it is asked, which an edit
-- of a thousand devices cannot afford; so what was found there once is kept.
create table private.timezones (
  name text primary key
);
comment on table private.timezones is 'Names of time zones that pg_timezone_names was found to list.';

alter table private.timezones enable row level security;
insert into private.timezones (name) values ('UTC');

create function private.is_timezone(wanted text) returns boolean
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy's own table. PostgreSQL takes far more than names: abbreviations without summer time, and POSIX strings
-- whose offsets count westward ("Rome-2").
begin
  if exists (select from private.timezones z where z.name = wanted) then
    return true;
  end if;
  insert into private.timezones (name) select z.name from pg_catalog.pg_timezone_names z where z.name = wanted
  on conflict do nothing;
  return found;
end
$$;
comment on function private.is_timezone(text) is 'Is this a name of the time zone database, like Europe/Rome?';
revoke execute on function private.is_timezone(text) from public;

create function private.check_device() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks into lookup tables for the sentence, whatever the caller may read.
begin
  new.name := btrim(new.name);
  if tg_op = 'INSERT' or new.role is distinct from old.role then
    perform private.require_role(new.role);
  end if;
  if tg_op = 'INSERT' or new.segment is distinct from old.segment then
    perform private.require_segment(new.segment);
  end if;
  if tg_op = 'INSERT' or new.branch is distinct from old.branch then
    perform private.require_branch(new.branch);
  end if;
  if tg_op = 'INSERT' or new.timezone is distinct from old.timezone then
    if not private.is_timezone(new.timezone) then
      perform private.refuse('unknown_timezone', format('There is no time zone "%s".', left(new.timezone, 100)),
        'Use a name like Europe/Rome or UTC; the view pg_timezone_names lists them.', 'PT400');
    end if;
  end if;
  if new.pinned_release is not null and (tg_op = 'INSERT' or new.pinned_release is distinct from old.pinned_release) then
    if not exists (select from public.releases r where r.id = new.pinned_release and r.state = 'available') then
      perform private.refuse('release_not_available',
        format('%s cannot be pinned to that release: it is withdrawn or does not exist.', new.name),
        'Pick an available release: fleetctl release list.');
    end if;
    new.pinned_at := now();
  elsif new.pinned_release is null then
    new.pinned_at := null;
  end if;
  -- People only: the scheduler and what is restored have a clock of their own.
  if private.caller_role() in ('authenticated', 'service_role') then
    if new.hold_until <= now() and (tg_op = 'INSERT' or new.hold_until is distinct from old.hold_until) then
      perform private.refuse_past('hold_until', new.hold_until);
    end if;
    if new.ignore_window_until <= now() and (tg_op = 'INSERT' or new.ignore_window_until is distinct from old.ignore_window_until) then
      perform private.refuse_past('ignore_window_until', new.ignore_window_until);
    end if;
  end if;
  if not new.hold then
    -- Switching a hold off in the table editor is one click: what described it goes with it.
    if tg_op = 'UPDATE' and old.hold then
      new.hold_reason := null;
      new.hold_until := null;
    end if;
  end if;
  if new.state = 'active' and new.enrolled_at is null then
    new.enrolled_at := now();
  end if;
  if tg_op = 'UPDATE' then
    if new.id is distinct from old.id then
      perform private.refuse('device_id_is_fixed', 'The id of a device cannot be changed.',
        'Change its name instead; retire it and enroll again for a new identity.');
    end if;
    if new.state is distinct from old.state and (new.state = 'pending' or old.state = 'retired') then
      perform private.refuse('device_state_is_final',
        format('%s is %s and cannot become %s.', new.name, old.state, new.state),
        case when old.state = 'retired' then 'Enroll the machine again with a new key.'
             else 'Use suspended to lock a device out for a while.' end);
    end if;
    if (new.public_key is distinct from old.public_key or new.key_number is distinct from old.key_number) and not private.is_trusted() then
      perform private.refuse('public_key_is_fixed', format('The key of %s is set by its enrollment only.', new.name),
        'Retire this device and enroll the machine again.', 'PT403');
    end if;
    new.updated_at := now();
  end if;
  return new;
end
$$;
revoke execute on function private.check_device() from public;
create trigger check_device before insert or update on public.devices
  for each row execute function private.check_device();
-- Selectors follow a rename.
create trigger a_lock_policy_first before update of name on public.devices
  for each statement execute function private.lock_policy_first();

create function private.keep_known_devices() returns trigger
language plpgsql set search_path = ''
as $$
begin
  if old.state <> 'pending' then
    perform private.refuse('device_is_known', format('%s has been part of the fleet, so its row stays.', old.name),
      'Set its state to retired: its history stays readable and its key stops working.');
  end if;
  return old;
end
$$;
revoke execute on function private.keep_known_devices() from public;
create trigger keep_known_devices before delete on public.devices
  for each row execute function private.keep_known_devices();

create trigger audit_insert after insert on public.devices referencing new table as new_rows
  for each statement execute function private.audit_rows('id');
create trigger audit_update after update on public.devices referencing old table as old_rows new table as new_rows
  for each statement execute function private.audit_rows('id');
create trigger audit_delete after delete on public.devices referencing old table as old_rows
  for each statement execute function private.audit_rows('id');

-- What policies ask about the calling device.

create function private.key_number() returns int
language sql stable set search_path = ''
as $$
  -- Tokens are the control plane's own, so a number is a number. The first key needs none.
  select coalesce((private.claims() ->> 'key_number')::int, 1)
$$;
comment on function private.key_number() is 'Which of its place''s keys the calling device has, by its token.';
revoke execute on function private.key_number() from public;
grant execute on function private.key_number() to fleet_device, authenticated, service_role;

create function private.device_is_active() returns boolean
language sql stable security definer set search_path = ''
as $$
  -- Definer: devices cannot read the table. Asked on every request, so suspending works at once.
  select exists (select from public.devices d
    where d.id = private.device_id() and d.state = 'active' and d.key_number = private.key_number())
$$;
comment on function private.device_is_active() is 'Is the caller a device that is active now?';
revoke execute on function private.device_is_active() from public;
grant execute on function private.device_is_active() to fleet_device, authenticated, service_role;

create function private.device_segment() returns text
language sql stable security definer set search_path = ''
as $$
  -- Definer: devices cannot read the table.
  select d.segment from public.devices d
  where d.id = private.device_id() and d.state = 'active' and d.key_number = private.key_number()
$$;
comment on function private.device_segment() is 'The segment of the calling device; null unless it is active.';
revoke execute on function private.device_segment() from public;
grant execute on function private.device_segment() to fleet_device, authenticated, service_role;

-- The device's maintenance window.

create function private.window_of(device public.devices) returns text
language plpgsql stable set search_path = ''
as $$
begin
  return coalesce(device.maintenance_window, (select s.maintenance_window from public.segments s where s.name = device.segment));
end
$$;
comment on function private.window_of(public.devices) is 'The maintenance window of the device, its own or that of its segment; null for any time.';
revoke execute on function private.window_of(public.devices) from public;

create function private.may_prefetch(device public.devices) returns boolean
language plpgsql stable set search_path = ''
as $$
begin
  return coalesce((select w.prefetch from public.maintenance_windows w where w.name = private.window_of(device)), false);
end
$$;
comment on function private.may_prefetch(public.devices) is 'May the device fetch a release before its window opens?';
revoke execute on function private.may_prefetch(public.devices) from public;

-- What operators do most, as functions: for fleetctl, the dashboard and the SQL editor. None does more than an edit of a
-- row could, and each runs under the caller's own row-level security.

create function public.accept_device(device_id uuid) returns public.devices
language plpgsql volatile set search_path = ''
as $$
declare
  accepted public.devices;
begin
  perform private.require_rank('operator');
  update public.devices d set state = 'active'
  where d.id = accept_device.device_id and d.state in ('pending', 'active') returning * into accepted;
  if accepted.id is null then
    if exists (select from public.devices d where d.id = accept_device.device_id) then
      perform private.refuse('device_not_pending', 'This device is not waiting to be accepted.',
        'To end a suspension: fleetctl device activate. A retired device must enroll again.');
    end if;
    perform private.refuse_unknown('device', 'device list');
  end if;
  return accepted;
end
$$;
comment on function public.accept_device(uuid) is 'Lets a pending device into the fleet.';
revoke execute on function public.accept_device(uuid) from public;
grant execute on function public.accept_device(uuid) to authenticated, service_role;

create function public.pin_device(device_id uuid, release_id uuid) returns public.devices
language plpgsql volatile set search_path = ''
as $$
declare
  pinned public.devices;
begin
  perform private.require_rank('operator');
  if not exists (select from public.releases r where r.id = pin_device.release_id) then
    perform private.refuse_unknown('release', 'release list');
  end if;
  -- Pinning again to the same release says "try again", so the time must move: empty it first.
  update public.devices d set pinned_release = null where d.id = pin_device.device_id and d.pinned_release = pin_device.release_id;
  update public.devices d set pinned_release = pin_device.release_id
  where d.id = pin_device.device_id returning * into pinned;
  if pinned.id is null then
    perform private.refuse_unknown('device', 'device list');
  end if;
  return pinned;
end
$$;
comment on function public.pin_device(uuid, uuid) is 'Sends a device to one release and keeps it there.';
revoke execute on function public.pin_device(uuid, uuid) from public;
grant execute on function public.pin_device(uuid, uuid) to authenticated, service_role;

create function public.unpin_device(device_id uuid) returns public.devices
language plpgsql volatile set search_path = ''
as $$
declare
  freed public.devices;
begin
  perform private.require_rank('operator');
  update public.devices d set pinned_release = null where d.id = unpin_device.device_id returning * into freed;
  if freed.id is null then
    perform private.refuse_unknown('device', 'device list');
  end if;
  return freed;
end
$$;
comment on function public.unpin_device(uuid) is 'Lets a device follow its branch again.';
revoke execute on function public.unpin_device(uuid) from public;
grant execute on function public.unpin_device(uuid) to authenticated, service_role;
