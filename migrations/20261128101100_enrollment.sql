-- How machines join, and how devices get the tokens of their requests.
--
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
  perform from public.devices d where d.id = take_place.device_id and d.state in ('active', 'suspended') for update;
  if not found then
    return null;
  end if;
  -- It may have asked to join before it was given the token.
  delete from public.devices d where d.public_key = take_place.public_key;
  -- All that operators decided about it stays. Tokens of the old key say an older number, and are refused from now on.
  update public.devices d set public_key = take_place.public_key, key_number = d.key_number + 1, state = 'active',
    hardware_model = take_place.hardware_model, os = take_place.os
  where d.id = take_place.device_id returning d.* into device;
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
