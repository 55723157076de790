-- What needs someone's attention: opened and resolved as rows, one row however often the cause is seen. Sending them out
-- is done elsewhere.

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
  resolved_at timestamptz,
  constraint "times must be between 1970 and 2200"
    check (opened_at between '1970-01-01Z' and '2200-01-01Z'
           and acknowledged_at between '1970-01-01Z' and '2200-01-01Z' and resolved_at between '1970-01-01Z' and '2200-01-01Z'),
  constraint "texts must be at most 4000 characters"
    check (length(subject) <= 4000 and length(summary) <= 4000),
  constraint "evidence must be an object of at most 64 kB"
    check (jsonb_typeof(evidence) = 'object' and octet_length(evidence::text) <= 65536)
);
comment on table public.alerts is 'What needs attention. Opened and resolved by policy; acknowledged by people.';
comment on column public.alerts.kind is 'device_offline, rollout_halted, stage_unprovable, fleet_halted, ...';
comment on column public.alerts.severity is 'critical: policy stopped something, or many devices are offline. warning: look when you can.';
comment on column public.alerts.subject is 'What it is about, if that is neither a device nor a rollout: keeps one open alert for each.';
comment on column public.alerts.evidence is 'The numbers and ids behind the summary.';
comment on column public.alerts.acknowledged_at is 'Set it to acknowledge the alert; the time and the person are recorded by a trigger.';
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
create trigger a_check_rank_first before update on public.alerts
  for each statement execute function private.require_rank_to_write('operator');

create function private.check_alert() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.acknowledged_at is not null then
    new.acknowledged_at := coalesce(old.acknowledged_at, now());
    new.acknowledged_by := case when old.acknowledged_at is null then coalesce(private.actor_id(), new.acknowledged_by) else old.acknowledged_by end;
  end if;
  return new;
end
$$;
revoke execute on function private.check_alert() from public;
create trigger check_alert before update on public.alerts for each row execute function private.check_alert();
create trigger announce_insert after insert on public.alerts referencing new table as new_rows
  for each statement execute function private.announce_rows();
create trigger announce_update after update on public.alerts referencing old table as old_rows new table as new_rows
  for each statement execute function private.announce_rows();

create function private.open_alert(
  kind text, severity public.alert_severity, summary text, at timestamptz,
  device_id uuid default null, rollout_id uuid default null, subject text default '', evidence jsonb default '{}'
) returns void
language sql volatile security definer set search_path = ''
as $$
  -- Definer: alerts are policy's own rows. What is too long for one is cut: nothing that opens an alert may fail by it.
  insert into public.alerts (kind, severity, summary, opened_at, device_id, rollout_id, subject, evidence)
  values (open_alert.kind, open_alert.severity, left(open_alert.summary, 4000), at, open_alert.device_id, open_alert.rollout_id,
    left(open_alert.subject, 4000), case when octet_length(open_alert.evidence::text) <= 65536 then open_alert.evidence
      else jsonb_build_object('left_out', octet_length(open_alert.evidence::text) || ' bytes') end)
  on conflict do nothing
$$;
comment on function private.open_alert(text, public.alert_severity, text, timestamptz, uuid, uuid, text, jsonb) is 'Opens an alert unless the same one is open.';
revoke execute on function private.open_alert(text, public.alert_severity, text, timestamptz, uuid, uuid, text, jsonb)
  from public;

create function private.alert_about_halt() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if tg_op = 'INSERT' then
    perform private.open_alert(case when new.scope = 'rollout' or new.evidence ? 'rollout_id' then 'rollout_halted' else new.scope || '_halted' end,
      case when new.cause = 'operator' then 'warning' else 'critical' end::public.alert_severity,
      private.upper_first(format('%s is halted: %s', private.what_is_halted(new), new.reason)), new.opened_at,
      rollout_id => case when new.scope = 'rollout' then new.target::uuid else (new.evidence ->> 'rollout_id')::uuid end,
      subject => new.id::text, evidence => new.evidence || jsonb_build_object('halt_id', new.id, 'cause', new.cause));
  elsif new.lifted_at is not null and old.lifted_at is null then
    update public.alerts a set resolved_at = new.lifted_at where a.resolved_at is null and a.subject = new.id::text;
  end if;
  return null;
end
$$;
revoke execute on function private.alert_about_halt() from public;
create trigger zz_alert after insert or update on public.halts
  for each row execute function private.alert_about_halt();

create function private.watch_offline(at timestamptz, at_most int default 10000) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: alerts are policy's own rows. Offline is derived from the last report; only the alert is stored. In parts: after
-- an outage of the network all of the fleet is late, or back, at once.
declare
  opened int;
  resolved int;
begin
  with late as (
    select d.id, d.name, s.reported_at
    from public.devices d join public.device_status s on s.device_id = d.id cross join public.fleet_settings f
    where d.state = 'active'
      and private.is_offline(s.reported_at, coalesce(s.pinned_poll_interval_s, d.poll_interval_s), f.default_poll_interval_s,
        f.offline_after_intervals, at)
  ),
  made as (
    insert into public.alerts (kind, severity, device_id, summary, opened_at)
    select 'device_offline', 'warning', l.id, format('%s last reported at %s.', l.name,
      private.local_time(l.reported_at, 'UTC')), at
    from late l where not exists (
      select from public.alerts a where a.kind = 'device_offline' and a.device_id = l.id and a.resolved_at is null)
    order by l.reported_at, l.id limit at_most
    on conflict do nothing returning 1
  ),
  gone as (
    update public.alerts a set resolved_at = at
    where a.id in (
      select o.id from public.alerts o
      where o.kind = 'device_offline' and o.resolved_at is null and not exists (select from late l where l.id = o.device_id)
      limit at_most)
    returning 1
  )
  select (select count(*) from made), (select count(*) from gone) into opened, resolved;
  if opened = at_most or resolved = at_most then
    perform private.do_again('offline');
  end if;
  return jsonb_build_object('offline_opened', opened, 'offline_resolved', resolved);
end
$$;
comment on function private.watch_offline(timestamptz, int) is 'Opens an alert for each device that missed its polls, and resolves those that are back.';
revoke execute on function private.watch_offline(timestamptz, int) from public;

create function private.watch_rations(at timestamptz, at_most int default 10000) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: alerts are policy's own rows. A refused write leaves no trace of its own, so what tells is a bucket of which more
-- than three quarters are gone: an honest device stays below two thirds in its worst hour.
declare
  opened int;
  resolved int;
begin
  insert into public.alerts (kind, severity, device_id, summary, opened_at)
  select 'device_writes_too_much', 'warning', d.id,
    format('%s has written more than three quarters of what one device may write in an hour; more than all is refused. Its key may be in other hands.', d.name), at
  from (select distinct a.subject::uuid as device_id from private.allowances a
    where a.kind in ('device rows', 'device bytes') and a.spent_until > at + interval '45 minutes') w
  join public.devices d on d.id = w.device_id
  where not exists (
    select from public.alerts o where o.kind = 'device_writes_too_much' and o.device_id = d.id and o.resolved_at is null)
  limit at_most
  on conflict do nothing;
  get diagnostics opened = row_count;
  update public.alerts a set resolved_at = at
  where a.id in (
    select o.id from public.alerts o
    where o.kind = 'device_writes_too_much' and o.resolved_at is null and not exists (
      select from private.allowances b where b.kind in ('device rows', 'device bytes') and b.subject = o.device_id::text
        and b.spent_until > at + interval '10 minutes')
    limit at_most);
  get diagnostics resolved = row_count;
  if opened = at_most or resolved = at_most then
    perform private.do_again('rations');
  end if;
  return jsonb_build_object('rations_opened', opened, 'rations_resolved', resolved);
end
$$;
comment on function private.watch_rations(timestamptz, int) is
  'Opens an alert for each device that has used more than three quarters of what it may write, and resolves those that stopped.';
revoke execute on function private.watch_rations(timestamptz, int) from public;

-- A device without a clock of its own may start days behind, so this resolves with the first report that is right.
create function private.watch_clock() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: alerts are policy's own rows.
begin
  if abs(extract(epoch from new.device_time - new.reported_at)) >= 86400 then
    insert into public.alerts (kind, severity, device_id, summary, opened_at)
    select 'clock_off', 'warning', d.id,
      format('The clock of %s is %s. Certificates and signatures can look expired or not yet valid there: set it, or check its time synchronization.',
        d.name, private.clock_offset(new.device_time, new.reported_at)), new.reported_at
    from public.devices d where d.id = new.device_id
    on conflict do nothing;
  else
    update public.alerts a set resolved_at = new.reported_at
    where a.kind = 'clock_off' and a.device_id = new.device_id and a.resolved_at is null;
  end if;
  return null;
end
$$;
comment on function private.watch_clock() is 'Opens an alert when a report shows a clock that is off by a day or more, and resolves it when one does not.';
revoke execute on function private.watch_clock() from public;
create trigger zz_clock_insert after insert on public.device_status
  for each row when (abs(extract(epoch from new.device_time - new.reported_at)) >= 86400)
  execute function private.watch_clock();
create trigger zz_clock_update after update on public.device_status
  for each row when (abs(extract(epoch from new.device_time - new.reported_at)) >= 86400
    or abs(extract(epoch from old.device_time - old.reported_at)) >= 86400)
  execute function private.watch_clock();

create function private.resolve_alerts_about() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: alerts are policy's own rows.
begin
  update public.alerts a set resolved_at = now() where a.device_id = new.id and a.resolved_at is null;
  return null;
end
$$;
comment on function private.resolve_alerts_about() is 'A device that is retired needs no attention any more.';
revoke execute on function private.resolve_alerts_about() from public;
create trigger zz_resolve_alerts after update on public.devices
  for each row when (new.state = 'retired' and old.state <> 'retired') execute function private.resolve_alerts_about();
