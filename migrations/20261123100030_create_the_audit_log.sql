-- Who changed what, before and after. Written by trigger, so the table editor, the API and plain SQL all leave
-- the same trace. Nobody may change it through the API, the service key included.

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
  after jsonb
);
comment on table public.audit_log is 'Every change to a policy table. Append-only, written by triggers.';
comment on column public.audit_log.actor_id is 'The operator''s user id; empty for the service key and for SQL.';
comment on column public.audit_log.actor is 'E-mail address of the operator, or the database role that acted.';
comment on column public.audit_log.row_id is 'The primary key of the changed row, as text.';
comment on column public.audit_log.before is 'The changed columns as they were (all of them for a delete).';
comment on column public.audit_log.after is 'The changed columns as they are (all of them for an insert).';
create index audit_log_by_row on public.audit_log (table_name, row_id, at desc);
create index audit_log_by_time on public.audit_log (at desc);
alter table public.audit_log enable row level security;
grant select on public.audit_log to authenticated, service_role;
create policy "operators read the audit log" on public.audit_log for select to authenticated
  using ((select private.operator_is('viewer')));

create function private.audit_change() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Arguments: the key column, then columns that never enter the log (hashes). Definer: nobody may insert here.
declare
  old_row jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
  new_row jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
  secret text;
  changed text[];
begin
  for i in 1 .. tg_nargs - 1 loop
    secret := tg_argv[i];
    old_row := old_row - secret;
    new_row := new_row - secret;
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
  values (private.actor_id(), private.actor_name(), lower(tg_op), tg_table_name,
    case when tg_op = 'DELETE' then to_jsonb(old) else to_jsonb(new) end ->> tg_argv[0], old_row, new_row);
  return null;
end
$$;
comment on function private.audit_change() is 'Trigger: writes one audit_log row per changed row.';
revoke execute on function private.audit_change() from public;

create trigger audit after insert or update or delete on public.operators
  for each row execute function private.audit_change('user_id');
