-- What a hosted Supabase project has and a plain PostgreSQL (15 to 18) lacks, as far as our migrations,
-- Realtime endpoint and @supabase/lite rely on it. Definitions follow the ones of supabase/postgres and
-- supabase/realtime; differences are said where they are made.
--
-- Run as the superuser `supabase_admin` (the cluster's initdb user), in the project's database, before the
-- migrations and again at every start: every statement is idempotent and nothing here drops data.

-- 1. Roles. `postgres` is the role that migrations run under: not a superuser, exactly as on hosted.
do $$
declare
  wanted record;
begin
  if not (select rolsuper from pg_roles where rolname = current_user) then
    raise exception 'bootstrap.sql must run as the superuser supabase_admin, not as %', current_user;
  end if;
  if exists (select from pg_roles where rolname = 'postgres' and oid = 10) then
    raise exception 'this cluster was made with the superuser postgres; hosted Supabase has none'
      using hint = 'Make the cluster with: initdb --username=supabase_admin';
  end if;
  for wanted in
    select * from (values
      ('supabase_admin',          'superuser createdb createrole replication bypassrls login'),
      ('postgres',                'nosuperuser createdb createrole replication bypassrls login'),
      ('anon',                    'nologin noinherit'),
      ('authenticated',           'nologin noinherit'),
      ('service_role',            'nologin noinherit bypassrls'),
      ('authenticator',           'login noinherit'),
      ('supabase_auth_admin',     'login noinherit createrole'),
      ('supabase_realtime_admin', 'nologin noinherit'),
      ('supabase_storage_admin',  'login noinherit createrole'),
      ('dashboard_user',          'nologin createdb createrole replication')
    ) as roles (name, attributes)
  loop
    if not exists (select from pg_roles where rolname = wanted.name) then
      execute format('create role %I %s', wanted.name, wanted.attributes);
    end if;
  end loop;
end
$$;

grant anon, authenticated, service_role to authenticator;
-- Hosted: postgres may become the API roles and hand them out.
grant anon, authenticated, service_role, authenticator to postgres with admin option;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

-- 2. The database. UTC because realtime.messages partitions by a timestamp without time zone.
do $$
begin
  if (select pg_get_userbyid(datdba) from pg_database where datname = current_database()) <> 'postgres' then
    execute format('alter database %I owner to postgres', current_database());
  end if;
  execute format('alter database %I set timezone to %L', current_database(), 'UTC');
end
$$;
set timezone to 'UTC';

-- 3. Schemas. No grants on new public tables: hosted gives none since 2026-10-30, and neither does PostgreSQL.
grant usage on schema public to postgres, anon, authenticated, service_role;
grant create on schema public to postgres;

create schema if not exists extensions authorization postgres;
grant usage on schema extensions to postgres, anon, authenticated, service_role, dashboard_user;

create schema if not exists auth authorization supabase_admin;
-- No grant option: `grant usage on schema auth to fleet_device` is a no-op here as it is on hosted.
grant usage on schema auth to anon, authenticated, service_role, postgres, dashboard_user;
grant all on schema auth to supabase_auth_admin;

-- 4. auth.uid(), auth.role(), auth.jwt(). Lite replaces them with its own at every start; same names and types.
create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$$;

create or replace function auth.role() returns text language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
  )::text
$$;

create or replace function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;

-- 5. Realtime: the message table, partitioned by day.
create schema if not exists realtime authorization supabase_admin;
grant usage on schema realtime to postgres, anon, authenticated, service_role;
-- With grant option, as on hosted: a migration lets the device role in.
grant usage on schema realtime to postgres with grant option;
grant usage on schema realtime to supabase_realtime_admin;

create table if not exists realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp without time zone not null default now(),
  inserted_at timestamp without time zone not null default now(),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);

alter table realtime.messages owner to supabase_realtime_admin;
alter table realtime.messages enable row level security;
create index if not exists messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
  where extension = 'broadcast' and private is true;

grant all on realtime.messages to postgres with grant option;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;
grant all on realtime.messages to dashboard_user;

-- Hosted creates it empty: what it contains is sent to `postgres_changes`, which this endpoint does not offer.
do $$
begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    -- It says that wal_level is too low to publish, and nothing is published.
    set local client_min_messages = error;
    create publication supabase_realtime;
    alter publication supabase_realtime owner to postgres;
  end if;
end
$$;

create or replace function realtime.topic() returns text language sql stable as $$
  select nullif(current_setting('realtime.topic', true), '')::text
$$;

create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void language plpgsql as $$
declare
  generated_id uuid;
  final_payload jsonb;
begin
  begin
    generated_id := gen_random_uuid();
    if payload ? 'id' then
      final_payload := payload;
    else
      final_payload := jsonb_set(payload, '{id}', to_jsonb(generated_id));
    end if;
    execute format('set local realtime.topic to %L', topic);
    insert into realtime.messages (id, payload, event, topic, private, extension)
    values (generated_id, final_payload, event, topic, private, 'broadcast');
  exception
    when others then
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end
$$;

create or replace function realtime.send_binary(
  payload bytea, event text, topic text, private boolean default true
) returns void language plpgsql as $$
begin
  begin
    execute format('set local realtime.topic to %L', topic);
    insert into realtime.messages (binary_payload, event, topic, private, extension)
    values (payload, event, topic, private, 'broadcast');
  exception
    when others then
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end
$$;

create or replace function realtime.broadcast_changes(
  topic_name text, event_name text, operation text, table_name text, table_schema text,
  new record, old record, level text default 'ROW'
) returns void language plpgsql as $$
declare
  row_data jsonb := '{}'::jsonb;
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  if operation not in ('INSERT', 'UPDATE', 'DELETE') then
    raise exception 'Unexpected operation type: %', operation;
  end if;
  row_data := jsonb_build_object(
    'old_record', old, 'record', new, 'operation', operation, 'table', table_name, 'schema', table_schema);
  perform realtime.send(row_data, event_name, topic_name);
exception
  when others then
    raise exception 'Failed to process the row: %', sqlerrm;
end
$$;

-- 6. Partitions. Hosted: Realtime makes yesterday to +3 days when it connects and every few hours, and drops
-- what is older than 72 hours. Here: bootstrap calls this at every start, and our endpoint a few times a day.
create schema if not exists _realtime authorization supabase_admin;

create or replace function _realtime.maintain_message_partitions(at timestamptz default now())
returns int language plpgsql set search_path = '' as $$
declare
  today date := (at at time zone 'UTC')::date;
  day date;
  old_partition text;
  made int := 0;
begin
  -- One caller at a time: two starts at once would both try to create the same table.
  perform pg_advisory_xact_lock(hashtext('_realtime.maintain_message_partitions'));
  for day in select generate_series(today - 1, today + 3, interval '1 day')::date loop
    if to_regclass(format('realtime.%I', 'messages_' || to_char(day, 'YYYY_MM_DD'))) is null then
      execute format(
        'create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
        'messages_' || to_char(day, 'YYYY_MM_DD'), day, day + 1);
      execute format('alter table realtime.%I owner to supabase_realtime_admin',
        'messages_' || to_char(day, 'YYYY_MM_DD'));
      made := made + 1;
    end if;
  end loop;
  for old_partition in
    select c.relname from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'realtime.messages'::regclass
      and c.relname < 'messages_' || to_char(today - 3, 'YYYY_MM_DD')
  loop
    execute format('drop table realtime.%I', old_partition);
  end loop;
  return made;
end
$$;
revoke execute on function _realtime.maintain_message_partitions(timestamptz) from public;
select _realtime.maintain_message_partitions();

-- 7. How our endpoint learns of messages. Hosted decodes the write-ahead log; PostgreSQL's NOTIFY gives the
-- same two promises (only after commit, in commit order) without a replication slot. The notice carries the
-- row's key, because a notice is limited to 8000 bytes: the endpoint reads the payload back. A rolled back
-- probe row notifies nobody.
create or replace function _realtime.announce_message() returns trigger language plpgsql set search_path = ''
as $$
begin
  perform pg_catalog.pg_notify('realtime_messages', pg_catalog.json_build_object(
    'id', new.id, 'topic', new.topic, 'inserted_at', new.inserted_at)::text);
  return null;
end
$$;
revoke execute on function _realtime.announce_message() from public;
do $$
begin
  if not exists (select from pg_trigger
                 where tgrelid = 'realtime.messages'::regclass and tgname = 'announce_message') then
    create trigger announce_message after insert on realtime.messages
      for each row execute function _realtime.announce_message();
  end if;
end
$$;

-- 8. What `postgres` may do there. Hosted lets it create, alter and drop policies on realtime.messages through
-- supautils.policy_grants, and nothing else: `alter table` fails with 42501. Plain PostgreSQL asks for
-- ownership to create a policy, so `postgres` inherits from the owner, and two event triggers take back
-- everything that ownership gives beyond policies and grants.
grant supabase_realtime_admin to postgres;

create or replace function _realtime.refuse_foreign_ddl() returns event_trigger language plpgsql
set search_path = '' as $$
declare
  made record;
begin
  if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
    return;
  end if;
  for made in select * from pg_catalog.pg_event_trigger_ddl_commands() loop
    if (made.schema_name in ('realtime', '_realtime')
        or (made.object_type = 'policy' and made.object_identity like '%realtime.messages'))
       and made.command_tag not in ('CREATE POLICY', 'ALTER POLICY', 'GRANT', 'REVOKE') then
      raise exception 'must be owner of %', made.object_identity
        using errcode = '42501',
              hint = 'As on hosted Supabase, only policies may be changed in the schema realtime.';
    end if;
  end loop;
end
$$;

create or replace function _realtime.refuse_foreign_drop() returns event_trigger language plpgsql
set search_path = '' as $$
declare
  dropped record;
begin
  if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
    return;
  end if;
  for dropped in select * from pg_catalog.pg_event_trigger_dropped_objects() loop
    if dropped.schema_name in ('realtime', '_realtime') and dropped.object_type <> 'policy' then
      raise exception 'must be owner of %', dropped.object_identity using errcode = '42501';
    end if;
  end loop;
end
$$;

do $$
begin
  if not exists (select from pg_event_trigger where evtname = 'refuse_foreign_ddl') then
    create event trigger refuse_foreign_ddl on ddl_command_end
      execute function _realtime.refuse_foreign_ddl();
  end if;
  if not exists (select from pg_event_trigger where evtname = 'refuse_foreign_drop') then
    create event trigger refuse_foreign_drop on sql_drop
      execute function _realtime.refuse_foreign_drop();
  end if;
end
$$;

-- 9. The migration history of the Supabase CLI, so that `fleetctl up` and `supabase db push` share it.
create schema if not exists supabase_migrations authorization postgres;
create table if not exists supabase_migrations.schema_migrations (
  version text not null primary key,
  statements text[],
  name text
);
alter table supabase_migrations.schema_migrations owner to postgres;
