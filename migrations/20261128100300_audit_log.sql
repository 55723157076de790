-- Who changed what, with the values before and after. Triggers write it, so the table editor, the API and plain SQL all
-- leave the same trace. Nobody may change it through the API, not even with the service key.
--
-- Two triggers write it: audit_change() for each row, audit_rows() for a whole statement.

create table public.audit_log (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  actor_id uuid,
  actor text not null,
  action text not null constraint "action must be insert, update or delete"
    check (action in ('insert', 'update', 'delete')),
  table_name text not null,
  row_id text not null,
  before jsonb,
  after jsonb,
  action_id uuid not null default md5(pg_current_xact_id()::text || now()::text)::uuid
);
comment on table public.audit_log is 'Every change to a policy table. Append-only, written by triggers.';
comment on column public.audit_log.actor_id is 'The operator''s user id; empty for the service key and for SQL.';
comment on column public.audit_log.actor is 'E-mail address of the operator, or the database role that acted.';
comment on column public.audit_log.row_id is 'The primary key of the changed row, as text.';
comment on column public.audit_log.before is 'The changed columns as they were (all of them for a delete).';
comment on column public.audit_log.after is 'The changed columns as they are (all of them for an insert).';
comment on column public.audit_log.action_id is
  'The same for all changes of one request, or of one transaction in SQL: what was changed together, and can be undone together.';
create index audit_log_by_action on public.audit_log (action_id);
create index audit_log_by_row on public.audit_log (table_name, row_id, at desc);
create index audit_log_by_time on public.audit_log (at desc);

alter table public.audit_log enable row level security;
grant select on public.audit_log to authenticated, service_role;
create policy "operators read the audit log" on public.audit_log for select to authenticated
  using ((select private.operator_is('viewer')));

create trigger refuse_truncate before truncate on public.audit_log
  for each statement execute function private.refuse_truncate();

-- What happened stays, also for the owner of the database in the SQL editor. Whoever really has to rewrite it (a secret
-- got into an error text) says so for one transaction: set local fleet.rewrite_history = 'on'. That is audited.

create function private.may_rewrite(of_table text, of_action text) returns boolean
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: writes the audit log, one row a table, action and transaction. The service key is not the owner.
begin
  if coalesce(current_setting('fleet.rewrite_history', true), '') <> 'on'
     or not private.is_trusted() or private.caller_role() = 'service_role' then
    return false;
  end if;
  if not exists (select from public.audit_log a
    where a.table_name = of_table and a.row_id = '*' and a.at = now() and a.action = of_action) then
    insert into public.audit_log (actor_id, actor, action, table_name, row_id)
    values (private.actor_id(), private.actor_name(), of_action, of_table, '*');
  end if;
  return true;
end
$$;
comment on function private.may_rewrite(text, text) is
  'May this transaction change what happened? Only the owner may, with fleet.rewrite_history on; leaves an audit row of id *.';
revoke execute on function private.may_rewrite(text, text) from public;

create function private.keep_what_happened() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Arguments: the table, the column that says how old a row is, the setting that says how many months it is kept. What the
-- scheduler would remove anyway may go. Definer: reads the settings, writes the audit log.
declare
  months int;
  clock timestamptz;
begin
  if tg_op = 'DELETE' then
    execute format('select s.%I from public.fleet_settings s', tg_argv[2]) into months;
    select greatest(now(), max(t.last_run)) into clock from private.tick_state t where t.job = 'retention';
    if (to_jsonb(old) ->> tg_argv[1])::timestamptz < clock - make_interval(months => months) then
      return old;
    end if;
  end if;
  if not private.may_rewrite(tg_argv[0], lower(tg_op)) then
    perform private.refuse('append_only', format('%s keeps what happened: its rows cannot be changed or deleted.', tg_argv[0]),
      'If a row really must go, the owner of the database first runs, in the same transaction: set local fleet.rewrite_history = ''on''.');
  end if;
  return case when tg_op = 'DELETE' then old else new end;
end
$$;
comment on function private.keep_what_happened() is 'Trigger: refuses to change or delete what happened, unless its time is over.';
revoke execute on function private.keep_what_happened() from public;
create trigger keep_what_happened before update or delete on public.audit_log
  for each row execute function private.keep_what_happened('audit_log', 'at', 'audit_retention_months');

-- A key of several columns is passed as their names with commas between them.
create function private.audit_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Arguments: the key columns, then columns that never enter the log (hashes, what policy itself keeps).
-- Definer: nobody may insert here.
declare
  old_row jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
  new_row jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
  key text;
  changed text[];
begin
  select string_agg(coalesce(new_row, old_row) ->> k, ' ' order by n) into key
  from unnest(string_to_array(tg_argv[0], ',')) with ordinality as keys (k, n);
  for i in 1 .. tg_nargs - 1 loop
    old_row := old_row - tg_argv[i];
    new_row := new_row - tg_argv[i];
  end loop;
  if tg_op = 'UPDATE' then
    select array_agg(n.key) into changed from jsonb_each(new_row) n
    where n.value is distinct from old_row -> n.key and n.key <> 'updated_at';
    if changed is null then
      return null;
    end if;
    select jsonb_object_agg(k, old_row -> k), jsonb_object_agg(k, new_row -> k)
      into old_row, new_row from unnest(changed) k;
  end if;
  insert into public.audit_log (actor_id, actor, action, table_name, row_id, before, after)
  values (private.actor_id(), private.actor_name(), lower(tg_op), tg_table_name, key, old_row, new_row);
  return null;
end
$$;
comment on function private.audit_change() is 'Trigger: writes one audit_log row per changed row.';
revoke execute on function private.audit_change() from public;
create trigger audit after insert or update or delete on public.operators
  for each row execute function private.audit_change('user_id');

-- Devices are edited by the thousand, and a row trigger that looked up the actor for each row took two thirds of the
-- time. So their changes are written per statement: same rows, same columns, one lookup of the actor. An edit changes
-- the same few columns in all its rows: these are found first, in one pass over the rows, and only they are compared and
-- written. Converting each row to jsonb twice and comparing its two dozen columns took most of the time of an edit of
-- 100,000 devices.
create function private.audit_rows() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Argument: the key column. Transition tables: new_rows, old_rows. Definer: nobody may insert here.
-- Not cut into functions: transition tables are seen in the trigger function alone.
declare
  who uuid := private.actor_id();
  who_name text := private.actor_name();
  key text := tg_argv[0];
  changed text[];
begin
  if tg_op = 'INSERT' then
    insert into public.audit_log (actor_id, actor, action, table_name, row_id, after)
    select who, who_name, 'insert', tg_table_name, n.doc ->> key, n.doc
    from (select to_jsonb(r) as doc from new_rows r) n;
    return null;
  elsif tg_op = 'DELETE' then
    insert into public.audit_log (actor_id, actor, action, table_name, row_id, before)
    select who, who_name, 'delete', tg_table_name, o.doc ->> key, o.doc
    from (select to_jsonb(r) as doc from old_rows r) o;
    return null;
  end if;
  -- The columns that changed in any row.
  execute (
    select format('select array_remove(array[%s], null) from new_rows n join old_rows o using (%I)',
      string_agg(format('case when bool_or(n.%1$I is distinct from o.%1$I) then %1$L end', a.attname), ', '), key)
    from pg_catalog.pg_attribute a
    where a.attrelid = tg_relid and a.attnum > 0 and not a.attisdropped and a.attname not in (key, 'updated_at')) into changed;
  if cardinality(changed) = 0 then
    return null;
  end if;
  -- Of each row, those of them that changed in it.
  execute (
    select format(
      'insert into public.audit_log (actor_id, actor, action, table_name, row_id, before, after) '
      'select $1, $2, ''update'', $3, n.%1$I::text, %2$s, %3$s from new_rows n join old_rows o using (%1$I) where %4$s',
      key,
      string_agg(format('case when n.%1$I is distinct from o.%1$I then jsonb_build_object(%1$L, o.%1$I) else ''{}'' end', c), ' || '),
      string_agg(format('case when n.%1$I is distinct from o.%1$I then jsonb_build_object(%1$L, n.%1$I) else ''{}'' end', c), ' || '),
      string_agg(format('n.%1$I is distinct from o.%1$I', c), ' or '))
    from unnest(changed) c) using who, who_name, tg_table_name;
  return null;
end
$$;
comment on function private.audit_rows() is 'Statement trigger: writes one audit_log row per changed row.';
revoke execute on function private.audit_rows() from public;
