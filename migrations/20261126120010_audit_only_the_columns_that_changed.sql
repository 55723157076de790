-- An edit of 100,000 devices spent most of its time in the audit log: each row became jsonb twice, and each of its two
-- dozen columns was compared there. An edit changes the same few columns of all its rows: those are found first, in one
-- pass over the rows as they are, and only they are looked at and written. Same rows in audit_log.

create or replace function private.audit_rows() returns trigger
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
