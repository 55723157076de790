-- The ground that everything else stands on: the role devices act under, a schema that the API does not
-- expose, and the few helpers that read who is calling.
--
-- Why own helpers: on hosted Supabase a custom role may not call auth.uid() or auth.jwt() (42501, no usage on
-- schema auth), so the claims are read from the setting that PostgREST, Realtime and Lite all fill.

do $$
begin
  -- No attributes but nologin: hosted refuses others to a role that is not a superuser.
  if not exists (select from pg_roles where rolname = 'fleet_device') then
    create role fleet_device nologin;
  end if;
end
$$;
comment on role fleet_device is 'What a device is, once device-token gave it a JWT: the least it needs.';
grant fleet_device to authenticator;
alter role fleet_device set statement_timeout = '5s';

create schema if not exists private;
comment on schema private is 'Metrica Fleet: helpers, policy and secrets. Never exposed by the API.';
revoke all on schema private from public;
grant usage on schema private to fleet_device, authenticated, service_role;
grant usage on schema public to fleet_device;

create function private.claims() returns jsonb
language sql stable set search_path = ''
as $$
  -- '' and not null after the setting's first use in a session, hence nullif.
  select coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb
$$;
comment on function private.claims() is 'The verified JWT claims of this request; {} outside of one.';

create function private.claimed_id(of_role text) returns uuid
language sql stable set search_path = ''
as $$
  -- A sub that is no UUID is nobody, not an error: a policy that raises would break the whole channel.
  select case
    when c ->> 'role' = of_role
     and c ->> 'sub' ~ '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$'
    then (c ->> 'sub')::uuid
  end
  from private.claims() as c
$$;
comment on function private.claimed_id(text) is 'The caller''s id if its token is of this role, otherwise null.';

create function private.device_id() returns uuid
language sql stable set search_path = ''
as $$ select private.claimed_id('fleet_device') $$;
comment on function private.device_id() is 'The id of the calling device; null for everybody else.';

create function private.caller_role() returns text
language sql stable set search_path = ''
as $$
  -- Inside a definer function current_user is the owner; the role setting still names the caller.
  select coalesce(nullif(current_setting('role', true), 'none'), session_user::text)
$$;
comment on function private.caller_role() is 'The database role that this request acts under, also inside definer functions.';

create function private.refuse(kind text, message text, hint text, code text default 'PT409') returns void
language plpgsql set search_path = ''
as $$
begin
  raise exception using errcode = code, message = message, detail = kind, hint = hint;
end
$$;
comment on function private.refuse(text, text, text, text) is
  'The one way we say no: message = a sentence, detail = a stable kind, hint = what to try. PTnnn becomes HTTP nnn.';

revoke execute on function private.claims(), private.claimed_id(text), private.device_id(),
  private.caller_role(), private.refuse(text, text, text, text) from public;
grant execute on function private.claims(), private.claimed_id(text), private.device_id(),
  private.caller_role() to fleet_device, authenticated, service_role;
grant execute on function private.refuse(text, text, text, text) to authenticated, service_role;
