-- How machines join. With a provisioning token a new machine can join without an operator. Only its hash is stored; the
-- token is shown once.

create table private.provisioning_tokens (
  id uuid primary key default gen_random_uuid(),
  note text not null default '',
  token_hash bytea not null unique constraint "token_hash must be a SHA-256" check (octet_length(token_hash) = 32),
  role text not null references public.device_roles on update cascade,
  segment text not null default 'stable' references public.segments on update cascade,
  branch text not null default 'main' references public.branches on update cascade,
  auto_accept boolean not null default true,
  labels jsonb not null default '{}'
    constraint "labels must be an object of texts, like {""site"": ""rome""}"
    check (jsonb_typeof(labels) = 'object' and not jsonb_path_exists(labels, '$.* ? (@.type() != "string")')
           and octet_length(labels::text) <= 4096),
  replaces uuid references public.devices on delete cascade,
  max_uses int not null default 1 constraint "max_uses must be 1 to 100000" check (max_uses between 1 and 100000),
  uses int not null default 0,
  expires_at timestamptz not null default now() + interval '7 days',
  created_by uuid,
  created_at timestamptz not null default now(),
  revoked_at timestamptz,
  constraint "uses cannot pass max_uses" check (uses between 0 and max_uses)
);
comment on table private.provisioning_tokens is 'Tokens with which machines enroll. Hashed; made by create_provisioning_token().';
comment on column private.provisioning_tokens.token_hash is 'SHA-256 of the token''s UTF-8 bytes.';
comment on column private.provisioning_tokens.labels is 'Labels that its devices begin with; those in a device''s device.json come on top.';
comment on column private.provisioning_tokens.replaces is 'The device whose place the new one takes: its row, under the new one''s key.';
create index provisioning_tokens_by_replaced on private.provisioning_tokens (replaces) where replaces is not null;
comment on column private.provisioning_tokens.auto_accept is 'false: the device still waits as pending until an operator accepts it.';

alter table private.provisioning_tokens enable row level security;
-- No policy: only definer functions and the service key have access. The service key counts uses and revokes.
grant select, update on private.provisioning_tokens to service_role;

create trigger audit after insert or update or delete on private.provisioning_tokens
  for each row execute function private.audit_change('id', 'token_hash', 'uses');

create function public.create_provisioning_token(
  role text, segment text default 'stable', branch text default 'main', note text default '',
  max_uses int default 1, valid_for_s int default 604800, auto_accept boolean default true, labels jsonb default '{}'
) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: nobody may write the table of tokens directly. Answers with the token, once.
declare
  token text;
  made private.provisioning_tokens;
begin
  perform private.require_rank('admin');
  perform private.require_role(role);
  perform private.require_segment(segment);
  perform private.require_branch(branch);
  if valid_for_s is null or valid_for_s not between 60 and 31536000 then
    perform private.refuse('bad_validity', 'A token is valid for 60 seconds to 365 days.',
      'Give valid_for_s in seconds.', 'PT400');
  elsif max_uses is null or max_uses not between 1 and 100000 then
    perform private.refuse('bad_max_uses', 'A token can be used 1 to 100000 times.', 'Give max_uses in that range.', 'PT400');
  end if;
  -- Two random UUIDs: 244 bits from the server's strong random source, without an extension.
  token := 'fpt_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  insert into private.provisioning_tokens
    (note, token_hash, role, segment, branch, auto_accept, labels, max_uses, expires_at, created_by)
  values (coalesce(create_provisioning_token.note, ''), sha256(convert_to(token, 'UTF8')), create_provisioning_token.role,
    create_provisioning_token.segment, create_provisioning_token.branch, coalesce(create_provisioning_token.auto_accept, true),
    coalesce(create_provisioning_token.labels, '{}'), create_provisioning_token.max_uses, now() + make_interval(secs => valid_for_s), private.actor_id())
  returning * into made;
  return jsonb_build_object('id', made.id, 'token', token, 'note', made.note, 'role', made.role,
    'segment', made.segment, 'branch', made.branch, 'auto_accept', made.auto_accept,
    'labels', made.labels, 'max_uses', made.max_uses, 'expires_at', made.expires_at);
end
$$;
comment on function public.create_provisioning_token(text, text, text, text, int, int, boolean, jsonb) is
  'For admins: makes a token with which machines enroll. The token is shown once; only its hash is kept.';
revoke execute on function public.create_provisioning_token(text, text, text, text, int, int, boolean, jsonb) from public;
grant execute on function public.create_provisioning_token(text, text, text, text, int, int, boolean, jsonb)
  to authenticated, service_role;

create function public.replace_device(device_id uuid, valid_for_s int default 604800) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: nobody may write the table of tokens directly. Answers with the token, once.
declare
  device public.devices;
  made jsonb;
begin
  perform private.require_rank('admin');
  select d.* into device from public.devices d where d.id = replace_device.device_id;
  if device.id is null then
    perform private.refuse_unknown('device', 'device list');
  elsif device.state not in ('active', 'suspended') then
    perform private.refuse('device_state_is_final', format('%s is %s, so nothing takes its place.', device.name, device.state),
      'Enroll the new machine with a token of its own: fleetctl token create.');
  end if;
  made := public.create_provisioning_token(device.role, device.segment, device.branch,
    'Replaces ' || device.name, 1, valid_for_s);
  -- Of two tokens for one place the newer counts.
  update private.provisioning_tokens t set revoked_at = now()
  where t.replaces = device.id and t.revoked_at is null and t.uses < t.max_uses;
  update private.provisioning_tokens t set replaces = device.id where t.id = (made ->> 'id')::uuid;
  return made || jsonb_build_object('replaces', device.id, 'name', device.name);
end
$$;
comment on function public.replace_device(uuid, int) is
  'For admins: makes a token with which a new machine takes the place of a broken one, under a key of its own.';
revoke execute on function public.replace_device(uuid, int) from public;
grant execute on function public.replace_device(uuid, int) to authenticated, service_role;

create function public.provisioning_tokens() returns table (
  id uuid, note text, role text, segment text, branch text, auto_accept boolean, labels jsonb, replaces uuid, max_uses int, uses int,
  expires_at timestamptz, created_by uuid, created_at timestamptz, revoked_at timestamptz, devices text[])
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: the table is not exposed. Never the hash.
begin
  perform private.require_rank('admin');
  return query select t.id, t.note, t.role, t.segment, t.branch, t.auto_accept, t.labels, t.replaces, t.max_uses, t.uses,
    t.expires_at, t.created_by, t.created_at, t.revoked_at, array(
      select d.name from private.enrollments e join public.devices d on d.id = e.device_id
      where e.token_id = t.id order by d.name)
  from private.provisioning_tokens t order by t.created_at desc;
end
$$;
comment on function public.provisioning_tokens() is 'For admins: the provisioning tokens without their secret, and the names of the devices that came with each.';
revoke execute on function public.provisioning_tokens() from public;
grant execute on function public.provisioning_tokens() to authenticated, service_role;

create function public.revoke_provisioning_token(token_id uuid) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the table is not exposed.
begin
  perform private.require_rank('admin');
  update private.provisioning_tokens t set revoked_at = now() where t.id = token_id and t.revoked_at is null;
  if not found and not exists (select from private.provisioning_tokens t where t.id = token_id) then
    perform private.refuse('token_unknown', 'There is no such token.', 'Look it up: fleetctl token list.', 'PT404');
  end if;
end
$$;
comment on function public.revoke_provisioning_token(uuid) is 'For admins: no more devices can enroll with the token, for example because it leaked.';
revoke execute on function public.revoke_provisioning_token(uuid) from public;
grant execute on function public.revoke_provisioning_token(uuid) to authenticated, service_role;

-- Enrollment and token requests come from callers that are not known yet. Three things limit them: every assertion is
-- accepted once, requests are rate-limited per address and per key, and the number of pending devices is limited.
--
-- Refusals are return values and not exceptions: an exception would roll back the counter that it is about.

create table private.used_assertions (
  public_key text not null,
  jti text not null,
  forget_after timestamptz not null,
  primary key (public_key, jti)
);
comment on table private.used_assertions is 'Assertions that were accepted, kept until they would be refused as stale anyway.';
create index used_assertions_by_end on private.used_assertions (forget_after);

alter table private.used_assertions enable row level security;

-- Unlogged: after a crash every caller starts with a full allowance, which is better than a WAL write per request.
create unlogged table private.allowances (
  kind text not null,
  subject text not null,
  spent_until timestamptz not null,
  primary key (kind, subject)
);
comment on table private.allowances is 'Token buckets. spent_until is when the bucket is full again; a row in the past means a full bucket.';
create index allowances_by_end on private.allowances (spent_until);

alter table private.allowances enable row level security;

create function private.spend(
  kind text, subject text, allowed int, per interval, at timestamptz, amount int default 1
) returns int
language plpgsql set search_path = ''
as $$
-- The generic cell rate algorithm: one row a bucket, no burst where two windows meet.
declare
  cost interval := per / allowed * amount;
  until timestamptz;
begin
  if cost > per then
    -- More than the bucket ever holds.
    return ceil(extract(epoch from per))::int;
  end if;
  insert into private.allowances as a (kind, subject, spent_until)
  values (spend.kind, spend.subject, at + cost)
  on conflict on constraint allowances_pkey do update
    set spent_until = greatest(a.spent_until, at) + cost
    -- The millisecond is for the rounding of per / allowed.
    where greatest(a.spent_until, at) + cost <= at + per + interval '1 millisecond';
  if found then
    return 0;
  end if;
  select a.spent_until into until from private.allowances a where a.kind = spend.kind and a.subject = spend.subject;
  return greatest(1, ceil(extract(epoch from coalesce(until, at) + cost - per - at)))::int;
end
$$;
comment on function private.spend(text, text, int, interval, timestamptz, int) is
  'Take "amount" from the bucket of this kind and subject, which holds "allowed" and refills in "per". 0, or the seconds to wait.';
revoke execute on function private.spend(text, text, int, interval, timestamptz, int) from public;

-- What one device may write. A stolen key must not fill the database: whatever a device writes is kept for months.

create function private.spend_ration(device_id uuid, rows int, bytes bigint) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the buckets are nobody's to read or write. A refusal undoes the write and what it took from the buckets.
declare
  at constant timestamptz := clock_timestamp();
  settings public.fleet_settings;
  wait int;
begin
  select s.* into settings from public.fleet_settings s;
  wait := greatest(
    private.spend('device rows', device_id::text, settings.device_rows_per_hour, '1 hour', at, rows),
    private.spend('device bytes', device_id::text, settings.device_bytes_per_hour, '1 hour', at, least(bytes, 2147483647)::int));
  if wait > 0 then
    perform private.refuse('rate_limited', 'This device has written as much as one device may in an hour.',
      format('Try again in %s s. An admin can change device_rows_per_hour and device_bytes_per_hour.', wait), 'PT429');
  end if;
end
$$;
comment on function private.spend_ration(uuid, int, bigint) is
  'Takes rows and bytes from what the device may write in an hour; refuses with 429 when too little is left.';
revoke execute on function private.spend_ration(uuid, int, bigint) from public;

create function private.ration_writes() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: spend_ration() is nobody's to call. What operators and policy write costs a device nothing.
declare
  writer constant uuid := private.device_id();
  written record;
begin
  if writer is not null then
    select count(*)::int as rows, sum(octet_length(n::text)) as bytes into written from new_rows n;
    if written.rows > 0 then
      perform private.spend_ration(writer, written.rows, written.bytes);
    end if;
  end if;
  return null;
end
$$;
comment on function private.ration_writes() is
  'Trigger for each table that devices write, after insert and after update, with new_rows. Last, so that its lock is the last one taken.';
revoke execute on function private.ration_writes() from public;

create function private.address_group(address text) returns text
language plpgsql immutable set search_path = ''
as $$
begin
  -- One IPv6 customer has a /64 or more, so single addresses would ration nobody.
  return case family(address::inet)
    when 6 then network(set_masklen(address::inet, 64))::text
    else host(address::inet)
  end;
exception when others then
  return 'unknown';
end
$$;
comment on function private.address_group(text) is 'The address, or the /64 network of an IPv6 address, that shares an allowance.';
revoke execute on function private.address_group(text) from public;

create function private.use_assertion(public_key text, jti text, forget_after timestamptz) returns boolean
language plpgsql set search_path = ''
as $$
begin
  insert into private.used_assertions (public_key, jti, forget_after)
  values (use_assertion.public_key, use_assertion.jti, use_assertion.forget_after)
  on conflict do nothing;
  return found;
end
$$;
comment on function private.use_assertion(text, text, timestamptz) is 'Use up an assertion; false if it was used before.';
revoke execute on function private.use_assertion(text, text, timestamptz) from public;

create function private.forget_strangers(at timestamptz, at_most int default 1000) returns int
language plpgsql set search_path = ''
as $$
declare
  assertions int;
  buckets int;
begin
  -- skip locked: two requests that tidy at once must not wait for each other.
  delete from private.used_assertions where (public_key, jti) in (
    select u.public_key, u.jti from private.used_assertions u
    where u.forget_after < at order by u.forget_after limit at_most for update skip locked);
  get diagnostics assertions = row_count;
  delete from private.allowances where (kind, subject) in (
    select a.kind, a.subject from private.allowances a
    where a.spent_until < at order by a.spent_until limit at_most for update skip locked);
  get diagnostics buckets = row_count;
  return assertions + buckets;
end
$$;
comment on function private.forget_strangers(timestamptz, int) is
  'Delete spent assertions and full buckets, some at a time; every enrollment and token request does a little of it.';
revoke execute on function private.forget_strangers(timestamptz, int) from public;

-- What the edge function enroll calls after it has verified that the caller holds the key: one transaction that applies
-- the rate limits, uses up the proof, counts the provisioning token and creates the device.

create table private.enrollments (
  device_id uuid primary key references public.devices on delete cascade,
  token_id uuid references private.provisioning_tokens,
  client_address text not null,
  enrolled_at timestamptz not null default now()
);
comment on table private.enrollments is 'How each device came in: with which provisioning token and from which address.';
create index enrollments_by_token on private.enrollments (token_id);

alter table private.enrollments enable row level security;

create function private.device_name(wish text) returns text
language sql immutable set search_path = ''
as $$
  select coalesce(nullif(left(btrim(regexp_replace(wish, '[^A-Za-z0-9._-]+', '-', 'g'), '._-'), 63), ''), 'device')
$$;
comment on function private.device_name(text) is 'The name nearest to the requested one that the table devices allows.';
revoke execute on function private.device_name(text) from public;

create function private.count_token(token_hash text, at timestamptz, out problem text, out token private.provisioning_tokens)
language plpgsql set search_path = ''
as $$
declare
  hash bytea := decode(token_hash, 'hex');
begin
  -- Checking and counting are one statement: of two devices that race for the last use, one gets it.
  update private.provisioning_tokens t set uses = t.uses + 1
  where t.token_hash = hash and t.revoked_at is null and at < t.expires_at and t.uses < t.max_uses
  returning t.* into token;
  if found then
    return;
  end if;
  select case
      when t.revoked_at is not null then 'token_invalid'
      when t.expires_at <= at then 'token_expired'
      else 'token_used_up'
    end into problem
  from private.provisioning_tokens t where t.token_hash = hash;
  problem := coalesce(problem, 'token_invalid');
end
$$;
comment on function private.count_token(text, timestamptz) is
  'Use a provisioning token once: its row, or the problem token_invalid, token_expired or token_used_up.';
revoke execute on function private.count_token(text, timestamptz) from public;

create function private.add_device(
  wish text, public_key text, token private.provisioning_tokens, hardware_model text, os text, labels jsonb
) returns public.devices
language plpgsql set search_path = ''
as $$
declare
  device public.devices;
  candidate text := private.device_name(wish);
  digits int := 0;
begin
  loop
    insert into public.devices (name, role, segment, branch, state, public_key, hardware_model, os, labels)
    values (
      candidate,
      coalesce(token.role, (select s.pending_role from public.fleet_settings s)),
      coalesce(token.segment, 'stable'),
      coalesce(token.branch, 'main'),
      case when token.auto_accept then 'active' else 'pending' end::public.device_state,
      add_device.public_key, add_device.hardware_model, add_device.os, coalesce(token.labels, '{}') || add_device.labels)
    on conflict (lower(name)) where state <> 'retired' do nothing
    returning * into device;
    exit when found;
    -- Cards written from one image all bring the same host name. The suffix comes from the key, so it says
    -- which machine it is and not which came first.
    digits := digits + 6;
    candidate := left(private.device_name(wish), 62 - digits) || '-' || left(md5(add_device.public_key), digits);
  end loop;
  return device;
end
$$;
comment on function private.add_device(text, text, private.provisioning_tokens, text, text, jsonb) is
  'Make the device row, with the token''s role, segment and branch or, without a token, as pending; a taken name gets a suffix.';
revoke execute on function private.add_device(text, text, private.provisioning_tokens, text, text, jsonb) from public;

create function private.take_place(device_id uuid, public_key text, hardware_model text, os text) returns public.devices
language plpgsql set search_path = ''
as $$
declare
  device public.devices;
begin
  -- All that operators decided about it stays. Tokens of the old key say an older number, and are refused from now on.
  update public.devices d set public_key = take_place.public_key, key_number = d.key_number + 1, state = 'active',
    hardware_model = take_place.hardware_model, os = take_place.os
  where d.id = take_place.device_id and d.state in ('active', 'suspended') returning d.* into device;
  return device;
end
$$;
comment on function private.take_place(uuid, text, text, text) is
  'Give the device''s row to a new key; null if the device was retired in the meantime.';
revoke execute on function private.take_place(uuid, text, text, text) from public;

create function public.enroll_device(
  public_key text,
  name text,
  jti text,
  assertion_expires_at timestamptz,
  client_address text,
  token_hash text default null,
  hardware_model text default null,
  os text default null,
  labels jsonb default '{}'
) returns jsonb
language plpgsql security definer set search_path = ''
as $$
-- Definer: writes private tables that the service key is kept out of.
declare
  at constant timestamptz := clock_timestamp();
  address constant text := private.address_group(client_address);
  settings public.fleet_settings;
  device public.devices;
  counted record;
  wait int;
  created boolean := false;
begin
  perform private.forget_strangers(at, 20);
  select s.* into settings from public.fleet_settings s;
  wait := private.spend('enroll from address', address, settings.enroll_per_minute_per_address, '1 minute', at);
  if wait = 0 then
    wait := private.spend('enroll by key', enroll_device.public_key, settings.requests_per_hour_per_device, '1 hour', at);
  end if;
  if wait > 0 then
    return jsonb_build_object('kind', 'rate_limited', 'retry_after_s', wait);
  end if;
  if not private.use_assertion(enroll_device.public_key, jti, assertion_expires_at) then
    return jsonb_build_object('kind', 'assertion_replayed');
  end if;

  -- Two requests with one key take turns, so that a retry cannot make a second device or count a token twice.
  perform pg_advisory_xact_lock(hashtextextended('enroll ' || enroll_device.public_key, 0));
  select d.* into device from public.devices d where d.public_key = enroll_device.public_key;
  if device.state in ('suspended', 'retired') then
    return jsonb_build_object('kind', 'device_' || device.state);
  end if;

  if token_hash is not null and (device.id is null or device.state = 'pending') and not exists (
    -- The same token again is the same request again (its answer was lost): not counted twice.
    select from private.enrollments e join private.provisioning_tokens t on t.id = e.token_id
    where e.device_id = device.id and t.token_hash = decode(enroll_device.token_hash, 'hex')
  ) then
    select c.problem, c.token into counted from private.count_token(token_hash, at) c;
    if counted.problem is not null then
      return jsonb_build_object('kind', counted.problem);
    end if;
    if (counted.token).replaces is not null then
      if device.id is not null then
        -- It asked to join before it was given the token.
        delete from public.devices d where d.id = device.id;
      end if;
      device := private.take_place((counted.token).replaces, enroll_device.public_key, hardware_model, os);
      if device.id is null then
        return jsonb_build_object('kind', 'token_invalid');
      end if;
    elsif device.id is not null then
      update public.devices d set
        role = (counted.token).role, segment = (counted.token).segment, branch = (counted.token).branch,
        labels = (counted.token).labels || d.labels,
        state = case when (counted.token).auto_accept then 'active' else d.state end
      where d.id = device.id returning d.* into device;
    else
      device := private.add_device(name, enroll_device.public_key, counted.token, hardware_model, os, labels);
      created := true;
    end if;
    insert into private.enrollments (device_id, token_id, client_address)
    values (device.id, (counted.token).id, address)
    on conflict (device_id) do update
      set token_id = excluded.token_id, client_address = excluded.client_address, enrolled_at = excluded.enrolled_at;
  elsif device.id is null then
    if (select count(*) from public.devices d where d.state = 'pending') >= settings.max_pending_devices then
      return jsonb_build_object('kind', 'pending_full', 'retry_after_s', 3600);
    end if;
    device := private.add_device(name, enroll_device.public_key, null, hardware_model, os, labels);
    created := true;
    insert into private.enrollments (device_id, client_address) values (device.id, address);
  end if;

  return jsonb_build_object(
    'kind', case device.state when 'pending' then 'pending' else 'enrolled' end,
    'created', created, 'name_taken', created and lower(device.name) <> lower(private.device_name(enroll_device.name)),
    'device_id', device.id, 'name', device.name, 'role', device.role,
    'segment', device.segment, 'branch', device.branch, 'state', device.state);
end
$$;
comment on function public.enroll_device(text, text, text, timestamptz, text, text, text, text, jsonb) is
  'For the edge function enroll, which has verified the proof. Idempotent by public key. token_hash: SHA-256, hex.';
revoke execute on function public.enroll_device(text, text, text, timestamptz, text, text, text, text, jsonb)
  from public, anon, authenticated, fleet_device;
grant execute on function public.enroll_device(text, text, text, timestamptz, text, text, text, text, jsonb) to service_role;

-- What the edge function device-token calls, in two steps: first to get the key to verify with, then, once the signature
-- is verified, to use up the assertion. Until then nothing that a stranger sends counts against a device.

create function public.begin_device_token(device_id uuid, client_address text) returns jsonb
language plpgsql security definer set search_path = ''
as $$
-- Definer: writes private tables that the service key is kept out of.
declare
  at constant timestamptz := clock_timestamp();
  wait int;
begin
  perform private.forget_strangers(at, 20);
  wait := private.spend('token from address', private.address_group(client_address),
    (select s.token_per_minute_per_address from public.fleet_settings s), '1 minute', at);
  if wait > 0 then
    return jsonb_build_object('kind', 'rate_limited', 'retry_after_s', wait);
  end if;
  return coalesce(
    (select jsonb_build_object('kind', 'found', 'public_key', d.public_key, 'key_number', d.key_number)
     from public.devices d where d.id = begin_device_token.device_id),
    jsonb_build_object('kind', 'unknown', 'public_key', null));
end
$$;
comment on function public.begin_device_token(uuid, text) is
  'For the edge function device-token: the key to verify the assertion with, if the address has allowance left.';
revoke execute on function public.begin_device_token(uuid, text) from public, anon, authenticated, fleet_device;
grant execute on function public.begin_device_token(uuid, text) to service_role;

create function public.finish_device_token(
  device_id uuid, jti text, assertion_expires_at timestamptz, key_number int default 1
) returns jsonb
language plpgsql security definer set search_path = ''
as $$
-- Definer: writes private tables that the service key is kept out of.
declare
  at constant timestamptz := clock_timestamp();
  settings public.fleet_settings;
  device public.devices;
  wait int;
begin
  select s.* into settings from public.fleet_settings s;
  select d.* into strict device from public.devices d where d.id = finish_device_token.device_id;
  if device.key_number <> finish_device_token.key_number then
    -- Replaced since the signature was checked.
    return jsonb_build_object('kind', 'device_replaced');
  end if;
  wait := private.spend('token by key', device.public_key, settings.requests_per_hour_per_device, '1 hour', at);
  if wait > 0 then
    return jsonb_build_object('kind', 'rate_limited', 'retry_after_s', wait);
  end if;
  if not private.use_assertion(device.public_key, jti, assertion_expires_at) then
    return jsonb_build_object('kind', 'assertion_replayed');
  end if;
  if device.state <> 'active' then
    return jsonb_build_object('kind', 'device_' || device.state);
  end if;
  return jsonb_build_object('kind', 'granted', 'ttl_s', settings.device_token_ttl_s);
end
$$;
comment on function public.finish_device_token(uuid, text, timestamptz, int) is
  'For the edge function device-token, after it verified the signature: use up the assertion; may the device have a token?';
revoke execute on function public.finish_device_token(uuid, text, timestamptz, int)
  from public, anon, authenticated, fleet_device;
grant execute on function public.finish_device_token(uuid, text, timestamptz, int) to service_role;
