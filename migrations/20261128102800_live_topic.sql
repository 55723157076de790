-- What the dashboard shows live: the private topic `fleet`. One message per changed row while they are few. A statement
-- that changes many rows sends one message with their count and a null id, which means: query again.

create function private.announce(table_name text, op text, changed jsonb) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: sends. `changed` is a list of {id, device_id, record}.
declare
  how_many int := jsonb_array_length(changed);
begin
  if how_many = 0 then
    return;
  elsif how_many > 20 then
    perform realtime.send(
      jsonb_build_object('v', 1, 'op', op, 'id', null, 'device_id', null, 'record', null, 'count', how_many),
      announce.table_name, 'fleet', true);
  else
    perform realtime.send(
      jsonb_build_object('v', 1, 'op', op, 'id', c -> 'id', 'device_id', c -> 'device_id', 'record', c -> 'record'),
      announce.table_name, 'fleet', true)
    from jsonb_array_elements(changed) c;
  end if;
end
$$;
comment on function private.announce(text, text, jsonb) is 'Tells operators on the topic fleet what changed; sends a summary if many rows did.';
revoke execute on function private.announce(text, text, jsonb) from public;

create function private.summary(table_name text, r jsonb) returns jsonb
language sql immutable set search_path = ''
as $$
  -- Small: Realtime fans this out to every open dashboard.
  select jsonb_build_object(
    -- realtime.send() sets payload.id only when it is missing, so ours stands.
    'id', coalesce(r -> 'id', r -> 'rollout_id', r -> 'device_id'),
    'device_id', case table_name when 'devices' then r -> 'id' else r -> 'device_id' end,
    'record', (
      select coalesce(jsonb_object_agg(k, r -> k), '{}') from unnest(case table_name
        when 'device_status' then array['state', 'phase', 'reason', 'current_release', 'target_release', 'agent_version', 'reported_at', 'error_kind']
        when 'devices' then array['name', 'role', 'segment', 'branch', 'state', 'pinned_release', 'hold', 'poll_interval_s', 'updated_at']
        when 'update_history' then array['release_id', 'rollout_id', 'outcome', 'failed_phase', 'error_kind', 'started_at', 'finished_at']
        when 'releases' then array['commit_sha', 'branch', 'version', 'state']
        when 'halts' then array['scope', 'target', 'cause', 'reason', 'opened_at', 'lifted_at', 'lift_reason']
        when 'device_commands' then array['kind', 'state', 'requested_at', 'answered_at']
        when 'rollouts' then array['name', 'release_id', 'state', 'branch', 'role', 'started_at', 'ended_at']
        when 'rollout_stages' then array['rollout_id', 'position', 'opened_at', 'proved_at', 'approved_at']
        when 'alerts' then array['kind', 'severity', 'summary', 'rollout_id', 'opened_at', 'acknowledged_at', 'resolved_at']
        else array['name', 'state']
      end) k))
$$;
revoke execute on function private.summary(text, jsonb) from public;

-- A statement that changes 100,000 rows must not build 100,000 summaries to say "many".
create function private.announce_rows() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- For statements; the transition tables are called new_rows and old_rows.
declare
  changed jsonb;
begin
  if tg_op = 'INSERT' then
    select coalesce(jsonb_agg(private.summary(tg_table_name, to_jsonb(n))), '[]') into changed
    from (select * from new_rows limit 5000) n;
  elsif tg_op = 'DELETE' then
    select coalesce(jsonb_agg(private.summary(tg_table_name, to_jsonb(o))), '[]') into changed
    from (select * from old_rows limit 5000) o;
  else
    -- Rows whose summary changed. Of a large edit only a part is looked at: the message says "many", not how many.
    select coalesce(jsonb_agg(s.summary), '[]') into changed from (
      select private.summary(tg_table_name, to_jsonb(n)) as summary from (select * from new_rows limit 5000) n
      except
      select private.summary(tg_table_name, to_jsonb(o)) from old_rows o
      where (select count(*) from (select from old_rows limit 5001) few) <= 5000
    ) s;
  end if;
  perform private.announce(tg_table_name, lower(tg_op), changed);
  return null;
end
$$;
revoke execute on function private.announce_rows() from public;

create trigger announce_insert after insert on public.devices referencing new table as new_rows
  for each statement execute function private.announce_rows();
create trigger announce_update after update on public.devices referencing old table as old_rows new table as new_rows
  for each statement execute function private.announce_rows();
create trigger announce_delete after delete on public.devices referencing old table as old_rows
  for each statement execute function private.announce_rows();

create trigger announce_insert after insert on public.releases referencing new table as new_rows
  for each statement execute function private.announce_rows();
create trigger announce_update after update on public.releases referencing old table as old_rows new table as new_rows
  for each statement execute function private.announce_rows();

create trigger announce_insert after insert on public.device_commands referencing new table as new_rows
  for each statement execute function private.announce_rows();
create trigger announce_update after update on public.device_commands referencing old table as old_rows new table as new_rows
  for each statement execute function private.announce_rows();

create trigger announce_insert after insert on public.update_history referencing new table as new_rows
  for each statement execute function private.announce_rows();

create trigger announce_insert after insert on public.halts referencing new table as new_rows
  for each statement execute function private.announce_rows();
create trigger announce_update after update on public.halts referencing old table as old_rows new table as new_rows
  for each statement execute function private.announce_rows();

create trigger announce_insert after insert on public.rollouts referencing new table as new_rows
  for each statement execute function private.announce_rows();
create trigger announce_update after update on public.rollouts referencing old table as old_rows new table as new_rows
  for each statement execute function private.announce_rows();

create trigger announce_insert after insert on public.rollout_stages referencing new table as new_rows
  for each statement execute function private.announce_rows();
create trigger announce_update after update on public.rollout_stages referencing old table as old_rows new table as new_rows
  for each statement execute function private.announce_rows();

create function private.announce_status() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  perform private.announce('device_status', lower(tg_op),
    jsonb_build_array(private.summary('device_status', to_jsonb(new))));
  return null;
end
$$;
revoke execute on function private.announce_status() from public;
-- A heartbeat that changes only numbers and times is not announced: dashboards poll for those.
create trigger announce_first_report after insert on public.device_status
  for each row execute function private.announce_status();
create trigger announce_report after update on public.device_status
  for each row when ((old.state, old.phase, old.reason, old.current_release, old.target_release, old.agent_version, old.error_kind)
    is distinct from (new.state, new.phase, new.reason, new.current_release, new.target_release, new.agent_version, new.error_kind))
  execute function private.announce_status();

-- Tables that people set up: few rows, of which a dashboard reads what it shows again. The message names the table only.
create function private.announce_table() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: sends.
begin
  perform realtime.send(
    jsonb_build_object('v', 1, 'op', lower(tg_op), 'id', null, 'device_id', null, 'record', null),
    tg_table_name, 'fleet', true);
  return null;
end
$$;
comment on function private.announce_table() is 'Trigger: tells operators on the topic fleet that a table changed, without its rows.';
revoke execute on function private.announce_table() from public;

create trigger announce_change after insert or update or delete on public.operators
  for each statement execute function private.announce_table();
create trigger announce_change after insert or update or delete on public.maintenance_windows
  for each statement execute function private.announce_table();
create trigger announce_change after insert or update or delete on public.device_roles
  for each statement execute function private.announce_table();
create trigger announce_change after insert or update or delete on public.segments
  for each statement execute function private.announce_table();
create trigger announce_change after insert or update or delete on public.branches
  for each statement execute function private.announce_table();
create trigger announce_change after insert or update or delete on public.fleet_settings
  for each statement execute function private.announce_table();
create trigger announce_change after insert or update or delete on public.rollout_templates
  for each statement execute function private.announce_table();
create trigger announce_change after insert or update or delete on public.rollout_template_stages
  for each statement execute function private.announce_table();
create trigger announce_change after insert or update or delete on private.provisioning_tokens
  for each statement execute function private.announce_table();
-- What devices report is heard with their history.
create trigger announce_delete after delete on public.known_bad_releases referencing old table as old_rows
  for each statement execute function private.announce_rows();
create trigger announce_change after insert or update or delete on public.known_bad_patterns
  for each statement execute function private.announce_table();
