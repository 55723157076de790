-- One lock keeps two promises under any interleaving: no claim commits after a halt (or a pause, a withdrawal, a smaller
-- stage) has committed, and limits hold. A claim takes it shared and reads everything afterwards. Anything that
-- restricts policy or ends claims takes it exclusively, before it locks any row.
--
-- Lock order, everywhere: policy lock, device row, fleet limit lock, counters, claims. So there are no deadlocks.
--
-- A person may keep a transaction open that holds the lock (`begin; insert into halts …`, then lunch). Only what restricts
-- policy waits for it. A device does not: each request that waits keeps a connection, PostgREST has ten, and with all of
-- them waiting nobody could read or lift a halt. So a device waits a quarter of a second, then is told to ask again.

create function private.lock_policy_shared() returns void
language sql volatile set search_path = ''
as $$ select pg_catalog.pg_advisory_xact_lock_shared(7305422302) $$;
comment on function private.lock_policy_shared() is 'Taken by whoever claims a slot; held to the end of the transaction.';
revoke execute on function private.lock_policy_shared() from public;

create function private.lock_patience() returns text
language sql stable set search_path = ''
as $$ select coalesce(nullif(current_setting('fleet.lock_patience', true), ''), '250ms') $$;
comment on function private.lock_patience() is
  'How long a device waits for a lock of policy. The setting fleet.lock_patience overrides it, for tests on slow machines.';
revoke execute on function private.lock_patience() from public;

create function private.lock_policy() returns void
language plpgsql volatile set search_path = ''
as $$
declare
  before text := current_setting('lock_timeout');
begin
  if private.device_id() is null then
    perform pg_catalog.pg_advisory_xact_lock(7305422302);
    return;
  end if;
  begin
    perform set_config('lock_timeout', private.lock_patience(), true);
    perform pg_catalog.pg_advisory_xact_lock(7305422302);
    perform set_config('lock_timeout', before, true);
  exception when lock_not_available then
    perform private.refuse('policy_busy', 'Policy is being changed in another transaction, so this report was not taken.',
      'No action needed: the device sends it again.', 'PT503');
  end;
end
$$;
comment on function private.lock_policy() is 'Taken by whatever restricts policy or ends claims; waits for claims in progress.';
revoke execute on function private.lock_policy() from public;

create function private.lock_policy_first() returns trigger
language plpgsql set search_path = ''
as $$
begin
  perform pg_catalog.pg_advisory_xact_lock(7305422302);
  return null;
end
$$;
comment on function private.lock_policy_first() is 'Statement trigger: before the statement locks any row.';
revoke execute on function private.lock_policy_first() from public;
create trigger a_lock_policy_first before update on public.fleet_settings
  for each statement execute function private.lock_policy_first();

-- A rename is policy: a claim that is being decided sees it whole or not at all.
create trigger a_lock_policy_first before update of name on public.segments
  for each statement execute function private.lock_policy_first();
create trigger a_lock_policy_first before update of name on public.device_roles
  for each statement execute function private.lock_policy_first();
