-- Devices are edited by the thousand, and a row trigger that asks who acts for each row took two thirds of the time.
-- Their changes are now written by statement: same rows, same columns, who acts asked once.

create function private.audit_rows() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Argument: the key column. Transition tables: new_rows, old_rows. Definer: nobody may insert here.
declare
  who uuid := private.actor_id();
  who_name text := private.actor_name();
  key text := tg_argv[0];
begin
  if tg_op = 'INSERT' then
    insert into public.audit_log (actor_id, actor, action, table_name, row_id, after)
    select who, who_name, 'insert', tg_table_name, n.doc ->> key, n.doc
    from (select to_jsonb(r) as doc from new_rows r) n;
  elsif tg_op = 'DELETE' then
    insert into public.audit_log (actor_id, actor, action, table_name, row_id, before)
    select who, who_name, 'delete', tg_table_name, o.doc ->> key, o.doc
    from (select to_jsonb(r) as doc from old_rows r) o;
  else
    -- Materialized: otherwise a row is turned into jsonb once for each of its columns.
    with n as materialized (select r.id_text, r.doc from (select to_jsonb(x) ->> key as id_text, to_jsonb(x) as doc from new_rows x) r),
      o as materialized (select r.id_text, r.doc from (select to_jsonb(x) ->> key as id_text, to_jsonb(x) as doc from old_rows x) r)
    insert into public.audit_log (actor_id, actor, action, table_name, row_id, before, after)
    select who, who_name, 'update', tg_table_name, n.id_text, changed.before, changed.after
    from n join o using (id_text)
    cross join lateral (
      select jsonb_object_agg(e.key, o.doc -> e.key) as before, jsonb_object_agg(e.key, e.value) as after
      from jsonb_each(n.doc) e
      where e.value is distinct from o.doc -> e.key and e.key <> 'updated_at') changed
    where changed.after is not null;
  end if;
  return null;
end
$$;
comment on function private.audit_rows() is 'Statement trigger: writes one audit_log row per changed row.';
revoke execute on function private.audit_rows() from public;

drop trigger audit on public.devices;
create trigger audit_insert after insert on public.devices referencing new table as new_rows
  for each statement execute function private.audit_rows('id');
create trigger audit_update after update on public.devices referencing old table as old_rows new table as new_rows
  for each statement execute function private.audit_rows('id');
create trigger audit_delete after delete on public.devices referencing old table as old_rows
  for each statement execute function private.audit_rows('id');
