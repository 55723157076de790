-- Everything that the tables know about one device, in one list.

create function public.device_timeline(device_id uuid, until timestamptz default 'infinity', at_most int default 50) returns jsonb
language plpgsql stable set search_path = ''
as $$
-- Runs under the caller's row-level security. The latest first; the next page ends before the last `at`. Times of
-- arrival where there are two: a device's clock may be days off.
declare
  device public.devices;
  taken int := least(greatest(coalesce(at_most, 50), 1), 500);
  answer jsonb;
begin
  perform private.require_rank('viewer');
  select d.* into device from public.devices d where d.id = device_timeline.device_id;
  if device.id is null then
    perform private.refuse_unknown('device', 'device list');
  end if;
  with attempts as (
    select h.received_at as at, 'attempt' as what, h.id::text as id, jsonb_build_object('outcome', h.outcome, 'release_id', h.release_id,
      'to', coalesce(r.version, left(h.to_commit, 12)), 'from', coalesce(f.version, left(h.from_commit, 12)), 'failed_phase', h.failed_phase,
      'error_kind', h.error_kind, 'error', h.error, 'seconds', extract(epoch from h.finished_at - h.started_at)) as facts
    from public.update_history h
    left join public.releases r on r.id = h.release_id
    left join lateral (select n.version from public.releases n where n.commit_sha = h.from_commit order by n.created_at limit 1) f on true
    where h.device_id = device.id and h.received_at < until order by h.received_at desc limit taken
  ),
  commands as (
    select c.requested_at as at, 'command' as what, c.id::text as id, jsonb_build_object('kind', c.kind, 'state', c.state, 'args', c.args,
      'by', (select o.email from public.operators o where o.user_id = c.requested_by), 'answered_at', c.answered_at,
      'expires_at', c.expires_at, 'result', left(c.result::text, 2000)) as facts
    from public.device_commands c where c.device_id = device.id and c.requested_at < until order by c.requested_at desc limit taken
  ),
  edits as (
    select l.at, 'edit' as what, l.id::text as id,
      jsonb_build_object('action', l.action, 'by', l.actor, 'before', l.before - 'public_key', 'after', l.after - 'public_key') as facts
    from public.audit_log l where l.table_name = 'devices' and l.row_id = device.id::text and l.at < until order by l.at desc limit taken
  ),
  forgiven as (
    select l.at, 'retry' as what, l.id::text as id, jsonb_build_object('by', l.actor, 'version', (
      select r.version from public.releases r where r.id = private.to_uuid(split_part(l.row_id, ' ', 2)))) as facts
    from public.audit_log l
    where l.table_name = 'known_bad_releases' and l.row_id like device.id || ' %' and l.at < until order by l.at desc limit taken
  ),
  alerts as (
    select a.opened_at as at, 'alert' as what, a.id::text as id, jsonb_build_object('kind', a.kind, 'severity', a.severity,
      'summary', a.summary, 'acknowledged_at', a.acknowledged_at, 'resolved_at', a.resolved_at) as facts
    from public.alerts a where a.device_id = device.id and a.opened_at < until order by a.opened_at desc limit taken
  ),
  -- Those that are about what the device is today.
  halts as (
    select h.opened_at as at, 'halt' as what, h.id::text as id, jsonb_build_object('scope', h.scope, 'target', h.target, 'cause', h.cause,
      'reason', h.reason, 'lifted_at', h.lifted_at, 'lift_reason', h.lift_reason) as facts
    from public.halts h
    where h.opened_at < until and (h.scope = 'fleet' or (h.scope, h.target) in
      (('segment', device.segment), ('role', device.role), ('branch', device.branch)))
    order by h.opened_at desc limit taken
  ),
  everything as (
    select * from attempts union all select * from commands union all select * from edits union all select * from forgiven
    union all select * from alerts union all select * from halts
  )
  select jsonb_agg(jsonb_build_object('at', e.at, 'what', e.what, 'id', e.id, 'facts', e.facts) order by e.at desc, e.what, e.id) into answer
  from (select * from everything e order by e.at desc, e.what, e.id limit taken) e;
  return coalesce(answer, '[]');
end
$$;
comment on function public.device_timeline(uuid, timestamptz, int) is
  'Attempts, commands, edits by people, alerts and halts of one device, the latest first. For the next page, until is the time of the last entry.';
revoke execute on function public.device_timeline(uuid, timestamptz, int) from public;
grant execute on function public.device_timeline(uuid, timestamptz, int) to authenticated, service_role;
