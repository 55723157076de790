-- One change of many devices: as many as were shown to the person who asks, or none.

create function private.note_bulk_change(selector jsonb, change jsonb, reason text, counted jsonb) returns void
language sql volatile security definer set search_path = ''
as $$
-- Definer: nobody may insert there. The rows of the devices are audited one by one; this one says what was asked.
insert into public.audit_log (actor_id, actor, action, table_name, row_id, after)
values (private.actor_id(), private.actor_name(), 'update', 'devices', '*',
  jsonb_build_object('selector', selector, 'change', change, 'reason', reason) || counted)
$$;
comment on function private.note_bulk_change(jsonb, jsonb, text, jsonb) is 'Records a bulk change with its selector, its reason and its counts, under the id *.';
revoke execute on function private.note_bulk_change(jsonb, jsonb, text, jsonb) from public;
grant execute on function private.note_bulk_change(jsonb, jsonb, text, jsonb) to authenticated, service_role;

create function private.checked_change(change jsonb, reason text) returns void
language plpgsql stable set search_path = ''
as $$
declare
  known constant text[] := array['branch', 'command', 'hold', 'hold_until', 'ignore_window_until', 'labels', 'maintenance_window',
    'pinned_release', 'poll_interval_s', 'role', 'segment', 'state', 'timezone'];
  wrong text;
begin
  if jsonb_typeof(change) is distinct from 'object' or change = '{}' then
    perform private.refuse('change_malformed', 'A change is an object of columns and their new values.', 'For example {"segment": "early"}.', 'PT400');
  end if;
  select string_agg(left(k, 100), ', ' order by k) into wrong from jsonb_object_keys(change) k where k <> all (known);
  if wrong is not null then
    perform private.refuse('change_unknown', format('Devices cannot be changed by %s.', wrong),
      format('Use %s.', array_to_string(known, ', ')), 'PT400');
  end if;
  if change ? 'command' and change - 'command' <> '{}' then
    perform private.refuse('change_malformed', 'A command is sent without other changes.', 'Ask twice.', 'PT400');
  end if;
  if change -> 'hold' = 'true' and btrim(coalesce(reason, '')) = '' then
    perform private.refuse('reason_missing', 'A hold needs a reason.', 'Say why these devices must not update, for other operators.', 'PT400');
  end if;
  if change ->> 'maintenance_window' is not null
      and not exists (select from public.maintenance_windows w where w.name = change ->> 'maintenance_window') then
    perform private.refuse('unknown_window', format('There is no maintenance window "%s".', left(change ->> 'maintenance_window', 100)),
      (select format('The windows are: %s.', coalesce(string_agg(w.name, ', ' order by w.name), 'none yet')) from public.maintenance_windows w), 'PT400');
  end if;
  if change ? 'labels' and (jsonb_typeof(change -> 'labels') <> 'object'
      or exists (select from jsonb_each(change -> 'labels') l where jsonb_typeof(l.value) not in ('string', 'null'))) then
    perform private.refuse('change_malformed', 'labels must be an object of texts; null removes a label.', 'For example {"labels": {"site": "rome"}}.', 'PT400');
  end if;
end
$$;
comment on function private.checked_change(jsonb, text) is 'Refuses what is not a change of devices.';
revoke execute on function private.checked_change(jsonb, text) from public;
grant execute on function private.checked_change(jsonb, text) to authenticated, service_role;

create function private.changed_device(device public.devices, change jsonb, reason text) returns public.devices
language sql stable set search_path = ''
as $$
-- A hold that is switched off takes its reason and its end along; so does one that replaces another.
select jsonb_populate_record(device,
  case when change ? 'hold' then jsonb_build_object('hold_reason', case when change -> 'hold' = 'true' then btrim(reason) end, 'hold_until', null)
    else '{}' end
  || (change - 'labels' - 'command')
  || case when change ? 'labels' then jsonb_build_object('labels', jsonb_strip_nulls(device.labels || (change -> 'labels'))) else '{}' end)
$$;
comment on function private.changed_device(public.devices, jsonb, text) is 'The row of a device as a change makes it.';
revoke execute on function private.changed_device(public.devices, jsonb, text) from public;
grant execute on function private.changed_device(public.devices, jsonb, text) to authenticated, service_role;

create function private.put_change(device_ids uuid[], change jsonb, reason text) returns setof uuid
language plpgsql volatile set search_path = ''
as $$
-- Runs under the caller's row-level security. Answers the devices that are different now.
begin
  if change ? 'command' then
    return query
    insert into public.device_commands (device_id, kind, args)
    select d.id, (change -> 'command' ->> 'kind')::public.command_kind, coalesce(change -> 'command' -> 'args', '{}')
    from public.devices d where d.id = any (put_change.device_ids)
    returning device_commands.device_id;
    return;
  end if;
  return query
  update public.devices d
  set (segment, role, branch, maintenance_window, ignore_window_until, labels, hold, hold_reason, hold_until, pinned_release, state,
      poll_interval_s, timezone)
    = (n.segment, n.role, n.branch, n.maintenance_window, n.ignore_window_until, n.labels, n.hold, n.hold_reason, n.hold_until,
      n.pinned_release, n.state, n.poll_interval_s, n.timezone)
  from (select (private.changed_device(o, change, reason)).* from public.devices o where o.id = any (put_change.device_ids)) n
  where d.id = n.id
    and (d.segment, d.role, d.branch, d.maintenance_window, d.ignore_window_until, d.labels, d.hold, d.hold_reason, d.hold_until,
        d.pinned_release, d.state, d.poll_interval_s, d.timezone)
      is distinct from (n.segment, n.role, n.branch, n.maintenance_window, n.ignore_window_until, n.labels, n.hold, n.hold_reason,
        n.hold_until, n.pinned_release, n.state, n.poll_interval_s, n.timezone)
  returning d.id;
end
$$;
comment on function private.put_change(uuid[], jsonb, text) is 'Changes these devices at once; the first one that refuses ends it.';
revoke execute on function private.put_change(uuid[], jsonb, text) from public;
grant execute on function private.put_change(uuid[], jsonb, text) to authenticated, service_role;

create function public.change_devices(
  selector jsonb, change jsonb, expected bigint, reason text default null, device_ids uuid[] default null
) returns jsonb
language plpgsql volatile set search_path = ''
as $$
-- Runs under the caller's row-level security, in one transaction. `device_ids` narrows what the selector takes to rows
-- that were chosen one by one. A device that refuses (its trigger says why) does not keep the others.
declare
  meant uuid[];
  done uuid[];
  refused jsonb := '{}';
  one uuid;
  message text;
  hint text;
  code text;
  rule text;
  answer jsonb;
begin
  perform private.require_rank('operator');
  perform private.checked_change(change, reason);
  select coalesce(array_agg(m.device_id), '{}') into meant from private.meant_by(selector) m
  where change_devices.device_ids is null or m.device_id = any (change_devices.device_ids);
  if cardinality(meant) is distinct from expected then
    perform private.refuse('count_changed', format('This is about %s now, not %s: nothing was changed.',
        case cardinality(meant) when 1 then '1 device' else cardinality(meant) || ' devices' end, coalesce(expected::text, 'an unknown number')),
      'Look at the list again, then repeat the change.');
  end if;
  begin
    done := array(select private.put_change(meant, change, reason));
  exception when integrity_constraint_violation or data_exception or sqlstate 'PT400' or sqlstate 'PT403' or sqlstate 'PT409' then
    -- One of them refuses: each on its own, to say which.
    done := '{}';
    foreach one in array meant loop
      begin
        done := done || array(select private.put_change(array[one], change, reason));
      exception when integrity_constraint_violation or data_exception or sqlstate 'PT400' or sqlstate 'PT403' or sqlstate 'PT409' then
        -- The name of a check is its sentence.
        get stacked diagnostics message = message_text, hint = pg_exception_hint, code = returned_sqlstate, rule = constraint_name;
        refused := refused || jsonb_build_object(one::text, jsonb_build_object(
          'message', case code when '23514' then upper(left(rule, 1)) || substr(rule, 2) || '.' else message end, 'hint', hint));
      end;
    end loop;
  end;
  select jsonb_build_object('devices', cardinality(meant), 'changed', cardinality(done),
      'unchanged', cardinality(meant) - cardinality(done) - (select count(*) from jsonb_object_keys(refused)),
      'refused', (select count(*) from jsonb_object_keys(refused))) into answer;
  perform private.note_bulk_change(private.checked_selector(selector, null), change, nullif(btrim(reason), ''), answer);
  return answer || jsonb_build_object('answers', coalesce((
    select jsonb_agg(jsonb_build_object('device_id', d.id, 'name', d.name,
        'outcome', case when refused ? d.id::text then 'refused' when d.id = any (done) then 'changed' else 'unchanged' end)
      || coalesce(refused -> d.id::text, '{}') order by private.natural_order(d.name), d.id)
    from public.devices d where d.id = any (meant)), '[]'));
end
$$;
comment on function public.change_devices(jsonb, jsonb, bigint, text, uuid[]) is
  'Changes every device that a selector takes, or sends each a command, if it still takes as many as expected; answers for each device: changed, unchanged or refused.';
revoke execute on function public.change_devices(jsonb, jsonb, bigint, text, uuid[]) from public;
grant execute on function public.change_devices(jsonb, jsonb, bigint, text, uuid[]) to authenticated, service_role;
