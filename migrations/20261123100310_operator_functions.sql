-- What operators do most, as functions: for fleetctl, the dashboard and the SQL editor. Each does nothing that a
-- row edit could not, and runs under the caller's own row-level security, except where tokens are made.

create function public.halt_fleet(reason text) returns public.halts
language plpgsql volatile set search_path = ''
as $$
declare
  opened public.halts;
begin
  perform private.require_rank('operator');
  insert into public.halts (scope, reason) values ('fleet', halt_fleet.reason) returning * into opened;
  return opened;
end
$$;
comment on function public.halt_fleet(text) is 'The emergency stop: nobody starts an update until it is lifted.';

create function public.lift_halt(halt_id uuid, reason text) returns public.halts
language plpgsql volatile set search_path = ''
as $$
declare
  lifted public.halts;
begin
  perform private.require_rank('operator');
  if btrim(coalesce(lift_halt.reason, '')) = '' then
    perform private.refuse('reason_missing', 'Lifting a halt needs a reason in words.',
      'Say why it is safe to go on.', 'PT400');
  end if;
  update public.halts h set lift_reason = lift_halt.reason
  where h.id = lift_halt.halt_id and h.lifted_at is null returning * into lifted;
  if lifted.id is null then
    if exists (select from public.halts h where h.id = lift_halt.halt_id) then
      perform private.refuse('halt_is_lifted', 'This halt is lifted already.', 'Nothing is left to do.');
    end if;
    perform private.refuse('halt_unknown', 'There is no such halt.', 'Look it up in the table halts.', 'PT404');
  end if;
  return lifted;
end
$$;
comment on function public.lift_halt(uuid, text) is 'Lifts an open halt, and keeps why.';

create function public.pin_device(device_id uuid, release_id uuid) returns public.devices
language plpgsql volatile set search_path = ''
as $$
declare
  pinned public.devices;
begin
  perform private.require_rank('operator');
  if not exists (select from public.releases r where r.id = pin_device.release_id) then
    perform private.refuse('release_unknown', 'There is no such release.', 'Look it up in the table releases.', 'PT404');
  end if;
  -- Pinning again to the same release says "try again", so the time must move: empty it first.
  update public.devices d set pinned_release = null where d.id = pin_device.device_id and d.pinned_release = pin_device.release_id;
  update public.devices d set pinned_release = pin_device.release_id
  where d.id = pin_device.device_id returning * into pinned;
  if pinned.id is null then
    perform private.refuse('device_unknown', 'There is no such device.', 'Look it up in the table devices.', 'PT404');
  end if;
  return pinned;
end
$$;
comment on function public.pin_device(uuid, uuid) is 'Sends a device to one release and keeps it there.';

create function public.unpin_device(device_id uuid) returns public.devices
language plpgsql volatile set search_path = ''
as $$
declare
  freed public.devices;
begin
  perform private.require_rank('operator');
  update public.devices d set pinned_release = null where d.id = unpin_device.device_id returning * into freed;
  if freed.id is null then
    perform private.refuse('device_unknown', 'There is no such device.', 'Look it up in the table devices.', 'PT404');
  end if;
  return freed;
end
$$;
comment on function public.unpin_device(uuid) is 'Lets a device follow its branch again.';

create function public.accept_device(device_id uuid) returns public.devices
language plpgsql volatile set search_path = ''
as $$
declare
  accepted public.devices;
begin
  perform private.require_rank('operator');
  update public.devices d set state = 'active'
  where d.id = accept_device.device_id and d.state in ('pending', 'active') returning * into accepted;
  if accepted.id is null then
    if exists (select from public.devices d where d.id = accept_device.device_id) then
      perform private.refuse('device_not_pending', 'This device is not waiting to be accepted.',
        'Set state to active to end a suspension; a retired device enrolls again.');
    end if;
    perform private.refuse('device_unknown', 'There is no such device.', 'Look it up in the table devices.', 'PT404');
  end if;
  return accepted;
end
$$;
comment on function public.accept_device(uuid) is 'Lets a pending device into the fleet.';

create function public.create_provisioning_token(
  role text, segment text default 'stable', branch text default 'main', label text default '',
  max_uses int default 1, valid_for_s int default 604800, auto_accept boolean default true
) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: nobody may write the table of tokens directly. Answers with the token, once.
declare
  token text;
  made private.provisioning_tokens;
begin
  perform private.require_rank('admin');
  if not exists (select from public.device_roles r where r.name = create_provisioning_token.role) then
    perform private.refuse('unknown_role', format('There is no device role "%s".', coalesce(role, '')),
      'Add it to the table device_roles first, or pick one that is there.', 'PT400');
  elsif not exists (select from public.segments s where s.name = create_provisioning_token.segment) then
    perform private.refuse('unknown_segment', format('There is no segment "%s".', coalesce(segment, '')),
      'Add it to the table segments first, or pick one that is there.', 'PT400');
  elsif not exists (select from public.branches b where b.name = create_provisioning_token.branch) then
    perform private.refuse('unknown_branch', format('There is no branch "%s".', coalesce(branch, '')),
      'Add it to the table branches first, or pick one that is there.', 'PT400');
  elsif valid_for_s is null or valid_for_s not between 60 and 31536000 then
    perform private.refuse('bad_validity', 'A token is valid for 60 seconds to 365 days.',
      'Give valid_for_s in seconds.', 'PT400');
  elsif max_uses is null or max_uses not between 1 and 100000 then
    perform private.refuse('bad_max_uses', 'A token can be used 1 to 100000 times.', 'Give max_uses in that range.', 'PT400');
  end if;
  -- Two random UUIDs: 244 bits from the server's strong random source, without an extension.
  token := 'fpt_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  insert into private.provisioning_tokens
    (label, token_hash, role, segment, branch, auto_accept, max_uses, expires_at, created_by)
  values (coalesce(create_provisioning_token.label, ''), sha256(convert_to(token, 'UTF8')), create_provisioning_token.role,
    create_provisioning_token.segment, create_provisioning_token.branch, coalesce(create_provisioning_token.auto_accept, true),
    create_provisioning_token.max_uses, now() + make_interval(secs => valid_for_s), private.actor_id())
  returning * into made;
  return jsonb_build_object('id', made.id, 'token', token, 'label', made.label, 'role', made.role,
    'segment', made.segment, 'branch', made.branch, 'auto_accept', made.auto_accept,
    'max_uses', made.max_uses, 'expires_at', made.expires_at);
end
$$;
comment on function public.create_provisioning_token(text, text, text, text, int, int, boolean) is
  'For admins: makes a token with which machines enroll. The token is shown once; only its hash is kept.';

create function public.provisioning_tokens() returns table (
  id uuid, label text, role text, segment text, branch text, auto_accept boolean, max_uses int, uses int,
  expires_at timestamptz, created_by uuid, created_at timestamptz, revoked_at timestamptz)
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: the table is not exposed. Never the hash.
begin
  perform private.require_rank('admin');
  return query select t.id, t.label, t.role, t.segment, t.branch, t.auto_accept, t.max_uses, t.uses,
    t.expires_at, t.created_by, t.created_at, t.revoked_at
  from private.provisioning_tokens t order by t.created_at desc;
end
$$;
comment on function public.provisioning_tokens() is 'For admins: the provisioning tokens, without their secret.';

create function public.revoke_provisioning_token(token_id uuid) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the table is not exposed.
begin
  perform private.require_rank('admin');
  update private.provisioning_tokens t set revoked_at = now() where t.id = token_id and t.revoked_at is null;
  if not found and not exists (select from private.provisioning_tokens t where t.id = token_id) then
    perform private.refuse('token_unknown', 'There is no such token.', 'Call provisioning_tokens() for the list.', 'PT404');
  end if;
end
$$;
comment on function public.revoke_provisioning_token(uuid) is 'For admins: a token that leaked lets nobody else in.';

do $$
declare
  f regprocedure;
begin
  for f in select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in (
      'halt_fleet', 'lift_halt', 'pin_device', 'unpin_device', 'accept_device', 'create_provisioning_token',
      'provisioning_tokens', 'revoke_provisioning_token')
  loop
    execute format('revoke execute on function %s from public', f);
    execute format('grant execute on function %s to authenticated, service_role', f);
  end loop;
end
$$;
