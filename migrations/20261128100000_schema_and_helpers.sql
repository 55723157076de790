-- The foundation: the role that devices act under, a schema that the API does not expose, and the few helpers that read
-- who is calling and refuse requests.
--
-- Why our own helpers: on hosted Supabase a custom role may not call auth.uid() or auth.jwt() (42501, no usage on schema
-- auth), so the claims are read from the setting that PostgREST, Realtime and Lite all set.

do $$
begin
  -- No attributes but nologin: hosted refuses others to a role that is not a superuser.
  if not exists (select from pg_roles where rolname = 'fleet_device') then
    create role fleet_device nologin;
  end if;
end
$$;
comment on role fleet_device is 'The role of a device that has a JWT from device-token: the least privileges it needs.';
grant fleet_device to authenticator;
alter role fleet_device set statement_timeout = '5s';
grant usage on schema public to fleet_device;

create schema if not exists private;
comment on schema private is 'Metrica Fleet: helpers, policy and secrets. Never exposed by the API.';
revoke all on schema private from public;
grant usage on schema private to fleet_device, authenticated, service_role;

-- Until the first tagged release these files are edited in place, so a database may be older than they are.
create table private.baseline (
  id boolean primary key default true constraint "there is exactly one baseline" check (id),
  text_hash text not null,
  noted_at timestamptz not null default now()
);
comment on table private.baseline is
  'Which text of the migrations made this database. Written by fleetctl, which refuses to continue with another text.';
comment on column private.baseline.text_hash is 'SHA-256 of the applied files without comments and spaces.';
alter table private.baseline enable row level security;

-- Texts that are shown as one line. Whoever writes them must not be able to forge another line, or the order of letters,
-- where they are read: on a terminal, in a table, in a message. Bound when they are created, so that a check inlines them.
create function private.is_one_line(value text) returns boolean
language sql immutable parallel safe
return value !~ '[\u0001-\u001F\u007F-\u009F\u2028-\u202E\u2066-\u2069]';
comment on function private.is_one_line(text) is
  'Without line breaks, control characters, and those that change the direction of text. Null for null.';
revoke execute on function private.is_one_line(text) from public;
grant execute on function private.is_one_line(text) to fleet_device, authenticated, service_role;

create function private.is_plain_text(value text) returns boolean
language sql immutable parallel safe
return value !~ '[\u0001-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F\u202A-\u202E\u2066-\u2069]';
comment on function private.is_plain_text(text) is
  'As is_one_line(), for texts of several lines: line breaks and tabs are allowed.';
revoke execute on function private.is_plain_text(text) from public;
grant execute on function private.is_plain_text(text) to fleet_device, authenticated, service_role;

create function private.one_line(value text) returns text
language sql immutable parallel safe
return regexp_replace(value, '[\u0001-\u001F\u007F-\u009F\u2028-\u202E\u2066-\u2069]+', ' ', 'g');
comment on function private.one_line(text) is 'Makes one line of a text that policy puts together from what others wrote.';
revoke execute on function private.one_line(text) from public;

-- Who is calling.

-- These are called six times in a device's report and by every gate of its request. So their bodies are bound when they
-- are created: they need no search_path (switching it would cost a fifth of a millisecond per report), and PostgreSQL
-- inlines them into the policies that call them. They, operator_rank() and operator_is() are parallel safe: row-level
-- security calls them in every report, and unmarked they would keep reports over the whole fleet on one core. A parallel
-- worker receives the claims with all other settings.
create function private.claims() returns jsonb
language sql stable parallel safe
-- '' and not null after the setting's first use in a session, hence nullif.
return coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb;
comment on function private.claims() is 'The verified JWT claims of this request; {} outside of one.';
revoke execute on function private.claims() from public;
grant execute on function private.claims() to fleet_device, authenticated, service_role;

create function private.claimed_id(of_role text) returns uuid
language sql stable parallel safe
-- A sub that is no UUID is nobody, not an error: a policy that raises would break the whole channel.
return case
  when private.claims() ->> 'role' = of_role
   and private.claims() ->> 'sub' ~ '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$'
  then (private.claims() ->> 'sub')::uuid
end;
comment on function private.claimed_id(text) is 'The caller''s id if its token is of this role, otherwise null.';
revoke execute on function private.claimed_id(text) from public;
grant execute on function private.claimed_id(text) to fleet_device, authenticated, service_role;

create function private.device_id() returns uuid
language sql stable parallel safe
return private.claimed_id('fleet_device');
comment on function private.device_id() is 'The id of the calling device; null for any other caller.';
revoke execute on function private.device_id() from public;
grant execute on function private.device_id() to fleet_device, authenticated, service_role;

create function private.caller_role() returns text
language sql stable set search_path = ''
as $$
  -- Inside a definer function current_user is the owner; the role setting still names the caller.
  select coalesce(nullif(current_setting('role', true), 'none'), session_user::text)
$$;
comment on function private.caller_role() is 'The database role that this request acts under, also inside definer functions.';
revoke execute on function private.caller_role() from public;
grant execute on function private.caller_role() to fleet_device, authenticated, service_role;

create function private.is_trusted() returns boolean
language sql stable set search_path = ''
as $$
  -- The service key, the SQL editor and migrations. Everybody else needs a row in operators.
  select private.caller_role() in ('service_role', 'postgres', 'supabase_admin', 'dashboard_user')
$$;
comment on function private.is_trusted() is 'Does the caller act with the service key or as the database''s owner?';
revoke execute on function private.is_trusted() from public;
grant execute on function private.is_trusted() to authenticated, service_role;

-- Helpers for tables and messages.

create function private.refuse(kind text, message text, hint text, code text default 'PT409') returns void
language plpgsql set search_path = ''
as $$
begin
  raise exception using errcode = code, message = message, detail = kind, hint = hint;
end
$$;
comment on function private.refuse(text, text, text, text) is
  'How everything here refuses: message = a sentence, detail = a stable kind, hint = what to try. PTnnn becomes HTTP nnn.';
revoke execute on function private.refuse(text, text, text, text) from public;
grant execute on function private.refuse(text, text, text, text) to authenticated, service_role;

create function private.refuse_unknown(what text, look_up text) returns void
language plpgsql set search_path = ''
as $$
begin
  perform private.refuse(what || '_unknown', format('There is no such %s.', what), format('Look it up: fleetctl %s.', look_up), 'PT404');
end
$$;
comment on function private.refuse_unknown(text, text) is 'Refuses an id that no row has (PT404). look_up: the command of fleetctl that lists the ids.';
revoke execute on function private.refuse_unknown(text, text) from public;
grant execute on function private.refuse_unknown(text, text) to authenticated, service_role;

create function private.refuse_future(what text, date timestamptz) returns void
language plpgsql set search_path = ''
as $$
begin
  -- A minute is for clocks that differ.
  if date > clock_timestamp() + interval '1 minute' then
    perform private.refuse('date_in_the_future', format('%s is in the future: %s.', what, date),
      'Leave it empty, or give a time that has passed. What is planned is done when its time has come.', 'PT400');
  end if;
end
$$;
comment on function private.refuse_future(text, timestamptz) is 'Refuses a date of something that happened if it has not come yet (PT400).';
revoke execute on function private.refuse_future(text, timestamptz) from public;

create function private.refuse_past(what text, date timestamptz) returns void
language plpgsql set search_path = ''
as $$
begin
  perform private.refuse('date_in_the_past', format('%s has passed already: %s.', what, date),
    'Give a time to come, or leave it empty.', 'PT400');
end
$$;
comment on function private.refuse_past(text, timestamptz) is 'Refuses a date of something that is to end if it has passed (PT400).';
revoke execute on function private.refuse_past(text, timestamptz) from public;

create function private.refuse_in_use() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: counts rows that the caller may not read. Argument: the column that people know the row by. The foreign keys
-- would refuse, too, but not say by how many rows.
declare
  used_by record;
  n bigint;
  uses text[] := '{}';
begin
  for used_by in
    select c.conrelid::regclass as using_table, (c.conrelid::regclass)::text as name, a.attname as using_column, k.attname as key
    from pg_catalog.pg_constraint c
    join pg_catalog.pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
    join pg_catalog.pg_attribute k on k.attrelid = c.confrelid and k.attnum = c.confkey[1]
    where c.contype = 'f' and c.confrelid = tg_relid and c.confdeltype in ('a', 'r') and c.conparentid = 0
    order by 2, 3
  loop
    execute format('select count(*) from %s x where x.%I = ($1).%I', used_by.using_table, used_by.using_column, used_by.key)
      into n using old;
    if n > 0 then
      uses := uses || format('%s of %s', case when uses = '{}' then private.counted(n, 'row') else n::text end, split_part(used_by.name, '.', 2));
    end if;
  end loop;
  if uses <> '{}' then
    perform private.refuse('still_in_use', format('%s cannot be deleted: it is used by %s.', to_jsonb(old) ->> tg_argv[0],
      array_to_string(uses, ', ')), 'Change those rows first.', '23503');
  end if;
  return old;
end
$$;
comment on function private.refuse_in_use() is 'Trigger: refuses to delete what other rows refer to, and says which.';
revoke execute on function private.refuse_in_use() from public;

create function private.refuse_truncate() returns trigger
language plpgsql set search_path = ''
as $$
begin
  perform private.refuse('append_only', format('%s is append-only.', tg_table_name), 'Leave its rows alone.');
  return null;
end
$$;
revoke execute on function private.refuse_truncate() from public;

-- What the control plane keeps in tables that people write: times, who did it, what policy saw. Privileges of columns do
-- not say it: the service key, Lite and the table editor have them all.
create function private.keep_machine_columns() returns trigger
language plpgsql set search_path = ''
as $$
-- Arguments: the columns with what they hold in a new row, as an object; `quietly` to put that in instead of refusing. In
-- a row that exists, they stay as they are. Invoker, so that current_user tells people from policy's definer functions.
-- Its triggers come first, by their name: what other triggers put in is no person's.
declare
  kept jsonb := tg_argv[0];
  right_row record;
  wrong text;
begin
  if current_user not in ('authenticated', 'service_role') then
    return new;
  end if;
  if tg_op = 'UPDATE' then
    select jsonb_object_agg(k, to_jsonb(old) -> k) into kept from jsonb_object_keys(kept) k;
  end if;
  right_row := jsonb_populate_record(new, kept);
  if tg_argv[1] = 'quietly' then
    return right_row;
  end if;
  if new is distinct from right_row then
    select k into wrong from jsonb_object_keys(kept) k
    where to_jsonb(new) -> k is distinct from to_jsonb(right_row) -> k order by k limit 1;
    perform private.refuse('column_is_kept', format('%s of %s is kept by the control plane: nobody writes it.', wrong, tg_table_name),
      'Leave it out.', 'PT400');
  end if;
  return new;
end
$$;
comment on function private.keep_machine_columns() is 'Trigger: columns that the control plane keeps are not a person''s to write.';
revoke execute on function private.keep_machine_columns() from public;

create function private.touch_updated_at() returns trigger
language plpgsql set search_path = ''
as $$
begin
  new.updated_at := now();
  return new;
end
$$;
revoke execute on function private.touch_updated_at() from public;

create function private.upper_first(sentence text) returns text
language sql immutable
return upper(left(sentence, 1)) || substr(sentence, 2);
comment on function private.upper_first(text) is 'Half a sentence as a sentence.';
revoke execute on function private.upper_first(text) from public;

create function private.counted(number bigint, noun text default 'device') returns text
language sql immutable
return number || ' ' || noun || case when number = 1 then '' else 's' end;
comment on function private.counted(bigint, text) is 'For sentences: "1 device", "3 devices".';
revoke execute on function private.counted(bigint, text) from public;
grant execute on function private.counted(bigint, text) to authenticated, service_role;

create function private.local_time(at timestamptz, timezone text) returns text
language sql stable
return to_char(at at time zone timezone, 'YYYY-MM-DD HH24:MI') || ' ' || timezone;
comment on function private.local_time(timestamptz, text) is 'A time for sentences, on the clock of a time zone, which it names.';
revoke execute on function private.local_time(timestamptz, text) from public;
