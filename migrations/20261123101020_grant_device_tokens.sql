-- What the edge function device-token calls, in two steps: first the key to verify with, then, once the
-- signature is good, the use of the assertion. Between them nothing that a stranger sends counts against a device.

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
    (select jsonb_build_object('kind', 'found', 'public_key', d.public_key)
     from public.devices d where d.id = begin_device_token.device_id),
    jsonb_build_object('kind', 'unknown', 'public_key', null));
end
$$;
comment on function public.begin_device_token(uuid, text) is
  'For the edge function device-token: the key to verify the assertion with, if the address has allowance left.';

create function public.finish_device_token(device_id uuid, jti text, assertion_expires_at timestamptz) returns jsonb
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
comment on function public.finish_device_token(uuid, text, timestamptz) is
  'For the edge function device-token, after it verified the signature: use up the assertion; may the device have a token?';

revoke execute on function public.begin_device_token(uuid, text), public.finish_device_token(uuid, text, timestamptz)
  from public, anon, authenticated, fleet_device;
grant execute on function public.begin_device_token(uuid, text), public.finish_device_token(uuid, text, timestamptz)
  to service_role;
