-- What somebody should look at: opened and resolved as rows, once each however often it is seen. Sending them out is
-- another part's work. And the clock's part of rollouts.

create type public.alert_severity as enum ('info', 'warning', 'critical');
comment on type public.alert_severity is 'critical: look now. warning: look today. info: worth knowing.';

create table public.alerts (
  id uuid primary key default gen_random_uuid(),
  kind text not null constraint "kind must be 1 to 63 of a-z, 0-9 and _" check (kind ~ '^[a-z0-9_]{1,63}$'),
  severity public.alert_severity not null default 'warning',
  device_id uuid references public.devices on delete cascade,
  rollout_id uuid references public.rollouts on delete cascade,
  subject text not null default '',
  summary text not null,
  evidence jsonb not null default '{}',
  opened_at timestamptz not null default now(),
  acknowledged_by uuid,
  acknowledged_at timestamptz,
  resolved_at timestamptz
);
comment on table public.alerts is 'What somebody should look at. Opened and resolved by policy; people acknowledge.';
comment on column public.alerts.kind is 'device_offline, rollout_halted, fleet_halted, lease_expired, ...';
comment on column public.alerts.subject is 'What it is about, when that is neither a device nor a rollout: keeps one open alert for each.';
comment on column public.alerts.acknowledged_at is 'Set it to say that somebody looks; who and when is stamped.';
create unique index alerts_open_once on public.alerts
  (kind, coalesce(device_id, '00000000-0000-0000-0000-000000000000'), coalesce(rollout_id, '00000000-0000-0000-0000-000000000000'), subject)
  where resolved_at is null;
create index alerts_by_time on public.alerts (opened_at desc);
create index alerts_by_device on public.alerts (device_id) where device_id is not null;
alter table public.alerts enable row level security;
grant select, update (acknowledged_at) on public.alerts to authenticated;
grant select, insert, update on public.alerts to service_role;
create policy "operators read alerts" on public.alerts for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator acknowledge alerts" on public.alerts for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));

create function private.check_alert() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.acknowledged_at is not null and old.acknowledged_at is null then
    new.acknowledged_at := now();
    new.acknowledged_by := coalesce(private.actor_id(), new.acknowledged_by);
  end if;
  return new;
end
$$;
create trigger check_alert before update on public.alerts for each row execute function private.check_alert();

create function private.open_alert(
  kind text, severity public.alert_severity, summary text, at timestamptz,
  device_id uuid default null, rollout_id uuid default null, subject text default '', evidence jsonb default '{}'
) returns void
language sql volatile security definer set search_path = ''
as $$
  -- Definer: alerts are policy's own rows.
  insert into public.alerts (kind, severity, summary, opened_at, device_id, rollout_id, subject, evidence)
  values (open_alert.kind, open_alert.severity, open_alert.summary, at, open_alert.device_id, open_alert.rollout_id, open_alert.subject, open_alert.evidence)
  on conflict do nothing
$$;
comment on function private.open_alert(text, public.alert_severity, text, timestamptz, uuid, uuid, text, jsonb) is 'Opens an alert unless the same one is open.';

create function private.alert_about_halt() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if tg_op = 'INSERT' then
    perform private.open_alert(case when new.scope = 'rollout' or new.evidence ? 'rollout_id' then 'rollout_halted' else new.scope || '_halted' end,
      case when new.cause = 'operator' then 'warning' else 'critical' end::public.alert_severity,
      new.reason, new.opened_at,
      rollout_id => case when new.scope = 'rollout' then new.target::uuid else (new.evidence ->> 'rollout_id')::uuid end,
      subject => new.id::text, evidence => new.evidence || jsonb_build_object('halt_id', new.id, 'cause', new.cause));
  elsif new.lifted_at is not null and old.lifted_at is null then
    update public.alerts a set resolved_at = new.lifted_at where a.resolved_at is null and a.subject = new.id::text;
  end if;
  return null;
end
$$;
create trigger zz_alert after insert or update on public.halts
  for each row execute function private.alert_about_halt();

create table private.tick_state (
  job text primary key,
  last_run timestamptz not null
);
comment on table private.tick_state is 'When the slower jobs of tick() ran last.';
alter table private.tick_state enable row level security;

create function private.is_due(job text, every interval, at timestamptz) returns boolean
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy's own table. True at most once in `every`; time that stands still or goes back is not due.
begin
  insert into private.tick_state as t (job, last_run) values (is_due.job, at)
  on conflict on constraint tick_state_pkey do update set last_run = excluded.last_run where t.last_run + every <= excluded.last_run;
  return found;
end
$$;
comment on function private.is_due(text, interval, timestamptz) is 'Claims a run of a slower job; false if it ran within the interval.';

create function private.watch_offline(at timestamptz) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: alerts are policy's own rows. Offline is derived from the last report; only the alert is stored.
declare
  opened int;
  resolved int;
begin
  with late as (
    select d.id, d.name, s.reported_at
    from public.devices d join public.device_status s on s.device_id = d.id cross join public.fleet_settings f
    where d.state = 'active'
      and s.reported_at < at - make_interval(secs => coalesce(d.poll_interval_s, f.default_poll_interval_s) * f.offline_after_intervals)
  ),
  made as (
    insert into public.alerts (kind, severity, device_id, summary, opened_at)
    select 'device_offline', 'warning', l.id, format('%s was last heard of at %s.', l.name,
      to_char(l.reported_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI UTC')), at
    from late l where not exists (
      select from public.alerts a where a.kind = 'device_offline' and a.device_id = l.id and a.resolved_at is null)
    on conflict do nothing returning 1
  ),
  gone as (
    update public.alerts a set resolved_at = at
    where a.kind = 'device_offline' and a.resolved_at is null and not exists (select from late l where l.id = a.device_id)
    returning 1
  )
  select (select count(*) from made), (select count(*) from gone) into opened, resolved;
  return jsonb_build_object('offline_opened', opened, 'offline_resolved', resolved);
end
$$;
comment on function private.watch_offline(timestamptz) is 'Opens an alert for each device that missed its polls, and resolves those that are back.';

create or replace function private.tick(at timestamptz default now()) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the scheduler holds no rights of its own on the tables.
declare
  done jsonb := '{}';
  rollout record;
  opened int := 0;
begin
  -- Somebody else is at it: their work is as good as ours.
  if not pg_try_advisory_xact_lock(hashtext('private.tick')) then
    return jsonb_build_object('skipped', true);
  end if;
  done := done || jsonb_build_object('commands_expired', private.expire_commands(at));
  -- The month after next is missing only around the turn of a month.
  if to_regclass(format('private.%I', 'update_history_' || to_char(at at time zone 'UTC' + interval '2 months', 'YYYY_MM'))) is null then
    done := done || jsonb_build_object('months_made', private.make_history_partitions(at));
  end if;
  if private.is_due('retention', interval '1 hour', at) then
    done := done || jsonb_build_object('months_dropped', private.drop_old_history(at));
    delete from public.audit_log a where a.at < tick.at - make_interval(months => (select s.audit_retention_months from public.fleet_settings s));
  end if;
  done := done || jsonb_build_object('leases_expired', private.expire_leases(at));
  for rollout in select r.id, r.state, r.max_per_minute from public.rollouts r where r.state in ('running', 'completed') order by r.id loop
    if rollout.state = 'running' then
      perform private.lock_policy();
      opened := opened + private.advance_rollout(rollout.id, at);
    end if;
    -- A rate lets the next ones in with the clock, not with an outcome.
    if exists (select from private.rollout_queue q where q.rollout_id = rollout.id) then
      perform private.wake_waiting(rollout.id);
    end if;
  end loop;
  done := done || jsonb_build_object('stages_opened', opened);
  if private.is_due('silence', interval '1 minute', at) then
    done := done || private.watch_offline(at);
  end if;
  return done;
end
$$;

-- The dashboard's live topic: rollouts, stages and alerts too.
create or replace function private.summary(table_name text, r jsonb) returns jsonb
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
        when 'devices' then array['name', 'role', 'segment', 'branch', 'state', 'pinned_release', 'hold', 'poll_interval_s']
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
do $$
declare
  t text;
begin
  foreach t in array array['rollouts', 'rollout_stages', 'alerts'] loop
    execute format('create trigger announce_insert after insert on public.%I referencing new table as new_rows
      for each statement execute function private.announce_rows()', t);
    execute format('create trigger announce_update after update on public.%I
      referencing old table as old_rows new table as new_rows
      for each statement execute function private.announce_rows()', t);
  end loop;
end
$$;

revoke execute on function private.check_alert(),
  private.open_alert(text, public.alert_severity, text, timestamptz, uuid, uuid, text, jsonb), private.alert_about_halt(),
  private.is_due(text, interval, timestamptz), private.watch_offline(timestamptz) from public;
