-- Months are made ahead and dropped when they are past the retention: both from private.tick().

create function private.make_history_partitions(at timestamptz, months_ahead int default 3) returns int
language plpgsql security definer set search_path = ''
as $$
-- Definer: creates tables. Returns how many months were made. Safe to run twice, or late: rows that were
-- caught by the default partition meanwhile are moved to their month.
declare
  first_month date := date_trunc('month', at at time zone 'UTC')::date;
  month date;
  partition_name text;
  made int := 0;
begin
  perform pg_advisory_xact_lock(hashtext('private.make_history_partitions'));
  for month in
    select generate_series(first_month - interval '1 month', first_month + make_interval(months => months_ahead),
                           interval '1 month')::date
  loop
    partition_name := 'update_history_' || to_char(month, 'YYYY_MM');
    if to_regclass(format('private.%I', partition_name)) is not null then
      continue;
    end if;
    execute format('create table private.%I (like public.update_history including all)', partition_name);
    execute format('alter table private.%I enable row level security', partition_name);
    execute format('comment on table private.%I is %L', partition_name,
      'Attempts that started in ' || to_char(month, 'YYYY-MM') || ' (UTC). Part of public.update_history.');
    execute format(
      'with moved as (delete from private.update_history_default where started_at >= %L and started_at < %L returning *)
       insert into private.%I select * from moved',
      month::text || ' 00:00+00', (month + interval '1 month')::date::text || ' 00:00+00', partition_name);
    execute format('alter table public.update_history attach partition private.%I for values from (%L) to (%L)',
      partition_name, month::text || ' 00:00+00', (month + interval '1 month')::date::text || ' 00:00+00');
    made := made + 1;
  end loop;
  return made;
end
$$;
comment on function private.make_history_partitions(timestamptz, int) is 'Makes the months of update_history from the last one to months_ahead.';

create function private.drop_old_history(at timestamptz) returns int
language plpgsql security definer set search_path = ''
as $$
-- Definer: drops tables. Returns how many months were dropped.
declare
  keep_from date := (date_trunc('month', at at time zone 'UTC')
    - make_interval(months => (select s.history_retention_months from public.fleet_settings s)))::date;
  old_partition text;
  dropped int := 0;
begin
  for old_partition in
    select c.relname from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'public.update_history'::regclass
      and c.relname ~ '^update_history_\d{4}_\d{2}$'
      and c.relname < 'update_history_' || to_char(keep_from, 'YYYY_MM')
  loop
    execute format('drop table private.%I', old_partition);
    dropped := dropped + 1;
  end loop;
  -- A wild clock says nothing about age: what is in the default partition ages by its arrival.
  delete from private.update_history_default where received_at < keep_from;
  return dropped;
end
$$;
comment on function private.drop_old_history(timestamptz) is 'Drops months of update_history past fleet_settings.history_retention_months.';

revoke execute on function private.make_history_partitions(timestamptz, int), private.drop_old_history(timestamptz) from public;
grant execute on function private.make_history_partitions(timestamptz, int), private.drop_old_history(timestamptz) to service_role;
select private.make_history_partitions(now());
