-- Taking back what the audit log recorded. It is a new edit by whoever asks for it: row-level security, grants, triggers
-- and the audit log treat it as any other.

create function private.writable_columns(of_table regclass, names text[], privilege text) returns text[]
language sql stable set search_path = ''
as $$
  select array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a
  where a.attrelid = of_table and a.attnum > 0 and not a.attisdropped and a.attname = any (names) and a.attgenerated = ''
    and has_column_privilege(of_table, a.attnum, privilege)
$$;
comment on function private.writable_columns(regclass, text[], text) is 'Those of the named columns that the caller may write.';
revoke execute on function private.writable_columns(regclass, text[], text) from public;
grant execute on function private.writable_columns(regclass, text[], text) to authenticated, service_role;

create function private.still_has(current_row jsonb, fields jsonb) returns boolean
language sql immutable set search_path = ''
as $$
  select coalesce(bool_and(current_row -> f.key = f.value), true) from jsonb_each(fields) f where f.key <> 'updated_at'
$$;
comment on function private.still_has(jsonb, jsonb) is 'Whether a row has exactly these values; other columns, and a machine''s touch of updated_at, do not count.';
revoke execute on function private.still_has(jsonb, jsonb) from public;
grant execute on function private.still_has(jsonb, jsonb) to authenticated, service_role;

create function private.undo_statement(of_table regclass, key text, change text, names text[]) returns text
language plpgsql stable set search_path = ''
as $$
-- key: how a row of t is named in the log. $1 of the statement: the ids of the entries.
declare
  columns text[];
  privilege text := case change when 'update' then 'UPDATE' when 'delete' then 'INSERT' end;
begin
  if change = 'insert' then
    if not has_table_privilege(of_table, 'DELETE') then
      return null;
    end if;
    -- What came later to the row is more than this entry: only the row as it was made is taken away again.
    return format('with gone as (delete from %1$s t using public.audit_log e where e.id = any ($1) and %2$s = e.row_id'
      ' and private.still_has(to_jsonb(t), e.after) returning e.id) select array_agg(id) from gone', of_table, key);
  end if;
  columns := private.writable_columns(of_table, names, privilege);
  if change = 'update' then
    if columns is null or not columns @> names then
      return null;
    end if;
    return format('with back as (update %1$s t set %3$s from public.audit_log e, jsonb_populate_record(null::%1$s, e.before) b'
      ' where e.id = any ($1) and %2$s = e.row_id and private.still_has(to_jsonb(t), e.after) returning e.id) select array_agg(id) from back',
      of_table, key, (select string_agg(format('%1$I = b.%1$I', c), ', ') from unnest(columns) c));
  end if;
  if columns is null then
    return null;
  end if;
  return format('with back as (insert into %1$s (%3$s) select %4$s from public.audit_log e, jsonb_populate_record(null::%1$s, e.before) b'
    ' where e.id = any ($1) and not exists (select from %1$s t where %2$s = e.row_id) returning %5$s as key)'
    ' select array_agg(e.id) from back join public.audit_log e on e.id = any ($1) and e.row_id = back.key',
    of_table, key, (select string_agg(format('%I', c), ', ') from unnest(columns) c),
    (select string_agg(format('b.%I', c), ', ') from unnest(columns) c), replace(key, 't.', split_part(of_table::text, '.', -1) || '.'));
end
$$;
comment on function private.undo_statement(regclass, text, text, text[]) is
  'The statement that takes back entries of one table and kind, as far as their rows are as the entries left them; null if the caller may not write them.';
revoke execute on function private.undo_statement(regclass, text, text, text[]) from public;
grant execute on function private.undo_statement(regclass, text, text, text[]) to authenticated, service_role;

create function public.undo_changes(entries bigint[] default null, action uuid default null)
returns table (entry_id bigint, table_name text, row_id text, outcome text, message text)
language plpgsql set search_path = ''
as $$
declare
  part record;
  of_table regclass;
  key text;
  statement text;
  done bigint[];
  refusal text;
begin
  perform private.require_rank('operator');
  if num_nonnulls(undo_changes.entries, undo_changes.action) <> 1 then
    perform private.refuse('argument_missing', 'Nothing to undo was named.', 'Give entries of the audit log or the id of one action, not both.', 'PT400');
  end if;
  if not exists (select from public.audit_log a where a.id = any (undo_changes.entries) or a.action_id = undo_changes.action) then
    perform private.refuse_unknown('change', 'audit');
  end if;
  -- The newest change of a row is taken back first, and what was made last goes first.
  for part in
    select l.layer, l.table_name, l.change, l.names, array_agg(l.id) as ids
    from (
      select a.id, a.table_name, a.action as change,
        case when a.action <> 'insert' then (select array_agg(k order by k) from jsonb_object_keys(a.before) k) end as names,
        row_number() over (partition by a.table_name, a.row_id order by a.id desc) as layer
      from public.audit_log a where a.id = any (undo_changes.entries) or a.action_id = undo_changes.action
    ) l
    group by l.layer, l.table_name, l.change, l.names order by l.layer, max(l.id) desc
  loop
    of_table := to_regclass(format('public.%I', part.table_name));
    select string_agg(format('t.%I::text', a.attname), ' || '' '' || ' order by k.n) into key
    from pg_catalog.pg_index i, unnest(i.indkey::smallint[]) with ordinality as k (attnum, n), pg_catalog.pg_attribute a
    where i.indrelid = of_table and i.indisprimary and a.attrelid = of_table and a.attnum = k.attnum;
    statement := case when of_table is not null and key is not null
      then private.undo_statement(of_table, key, part.change, part.names) end;
    refusal := null;
    done := null;
    if statement is null then
      refusal := format('A change of this kind to %s cannot be taken back.', part.table_name);
    else
      begin
        execute statement using part.ids into done;
      exception when others then
        -- Who may not edit at all is told so; what one row is refused for leaves the rest to be taken back.
        if sqlstate in ('PT401', 'PT403') then
          raise;
        end if;
        refusal := case when sqlstate like 'PT%' then sqlerrm else 'The table refuses it: ' || sqlerrm || '.' end;
      end;
    end if;
    return query
      select a.id, a.table_name, a.row_id,
        case when a.id = any (done) then 'undone' when refusal is not null then 'refused' else 'moved_on' end,
        case when a.id = any (done) then null when refusal is not null then refusal
          else 'It was changed again since, or is gone. Undo the later change first.' end
      from public.audit_log a where a.id = any (part.ids) order by a.id;
  end loop;
end
$$;
comment on function public.undo_changes(bigint[], uuid) is
  'Takes back entries of the audit log, or all of one action, as one new edit by the caller; one row per entry: undone, moved_on (the row was changed since) or refused.';
revoke execute on function public.undo_changes(bigint[], uuid) from public;
grant execute on function public.undo_changes(bigint[], uuid) to authenticated, service_role;
