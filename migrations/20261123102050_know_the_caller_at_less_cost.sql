-- Who is calling is asked six times in a device's report and in every gate of its question: a fifth of a millisecond
-- each report, most of it the switching of search_path. The same functions with bodies that are bound when they are
-- created: they need no search_path, and PostgreSQL puts them straight into the policies that ask them.

create or replace function private.claims() returns jsonb
language sql stable parallel safe
-- '' and not null after the setting's first use in a session, hence nullif.
return coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb;

create or replace function private.claimed_id(of_role text) returns uuid
language sql stable parallel safe
-- A sub that is no UUID is nobody, not an error: a policy that raises would break the whole channel.
return case
  when private.claims() ->> 'role' = of_role
   and private.claims() ->> 'sub' ~ '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$'
  then (private.claims() ->> 'sub')::uuid
end;

create or replace function private.device_id() returns uuid
language sql stable parallel safe
return private.claimed_id('fleet_device');
