-- A device that rolled back from a release is not offered it again, unless an operator says so: by deleting the
-- row here, or by pinning the device to the release afterwards.

create table public.known_bad_releases (
  device_id uuid not null references public.devices on delete cascade,
  release_id uuid not null references public.releases on delete cascade,
  at timestamptz not null default now(),
  history_id uuid,
  error_kind text,
  error text,
  primary key (device_id, release_id)
);
comment on table public.known_bad_releases is 'Releases that a device rolled back from. Delete a row to let the device try again.';
comment on column public.known_bad_releases.history_id is 'The attempt in update_history that showed it.';
create index known_bad_releases_by_release on public.known_bad_releases (release_id);

create function private.remember_outcome() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: devices may not write here.
declare
  tried uuid := coalesce(new.release_id, (
    select r.id from public.releases r join public.devices d on d.id = new.device_id and d.branch = r.branch
    where r.commit_sha = new.to_commit));
begin
  if tried is null then
    return null;
  end if;
  if new.outcome = 'rolled_back' then
    insert into public.known_bad_releases (device_id, release_id, at, history_id, error_kind, error)
    values (new.device_id, tried, new.received_at, new.id, new.error_kind, new.error)
    on conflict (device_id, release_id) do update
      set at = excluded.at, history_id = excluded.history_id, error_kind = excluded.error_kind, error = excluded.error;
  elsif new.outcome = 'succeeded' then
    delete from public.known_bad_releases where device_id = new.device_id and release_id = tried;
  end if;
  return null;
end
$$;
revoke execute on function private.remember_outcome() from public;
create trigger remember_outcome after insert on public.update_history
  for each row execute function private.remember_outcome();

create function private.audit_forgiven() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Only what people do is news for the audit log; what devices cause is in update_history.
begin
  if private.device_id() is null then
    insert into public.audit_log (actor_id, actor, action, table_name, row_id, before)
    values (private.actor_id(), private.actor_name(), 'delete', 'known_bad_releases',
      old.device_id || ' ' || old.release_id, to_jsonb(old));
  end if;
  return null;
end
$$;
revoke execute on function private.audit_forgiven() from public;
create trigger audit_forgiven after delete on public.known_bad_releases
  for each row execute function private.audit_forgiven();

alter table public.known_bad_releases enable row level security;
grant select, delete on public.known_bad_releases to authenticated, service_role;
create policy "operators read known bad releases" on public.known_bad_releases for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator let a device try again" on public.known_bad_releases for delete to authenticated
  using ((select private.operator_is('operator')));
