-- Provisioning tokens: with one, a new machine can join without an operator. Only its hash is stored; the token is shown
-- once.

create table private.provisioning_tokens (
  id uuid primary key default gen_random_uuid(),
  note text not null default '',
  token_hash bytea not null unique constraint "token_hash must be a SHA-256" check (octet_length(token_hash) = 32),
  role text not null references public.device_roles on update cascade,
  segment text not null default 'stable' references public.segments on update cascade,
  branch text not null default 'main' references public.branches on update cascade,
  auto_accept boolean not null default true,
  labels jsonb not null default '{}'
    constraint "labels must be an object of texts, like {""site"": ""rome""}"
    check (jsonb_typeof(labels) = 'object' and not jsonb_path_exists(labels, '$.* ? (@.type() != "string")')
           and octet_length(labels::text) <= 4096),
  replaces uuid references public.devices on delete cascade,
  max_uses int not null default 1 constraint "max_uses must be 1 to 100000" check (max_uses between 1 and 100000),
  uses int not null default 0,
  expires_at timestamptz not null default now() + interval '7 days',
  created_by uuid,
  created_at timestamptz not null default now(),
  revoked_at timestamptz,
  constraint "uses cannot pass max_uses" check (uses between 0 and max_uses),
  constraint "note must be one line, without control characters" check (private.is_one_line(note))
);
comment on table private.provisioning_tokens is 'Tokens with which machines enroll. Hashed; made by create_provisioning_token().';
comment on column private.provisioning_tokens.token_hash is 'SHA-256 of the token''s UTF-8 bytes.';
comment on column private.provisioning_tokens.labels is 'Labels that its devices begin with; those in a device''s device.json come on top.';
comment on column private.provisioning_tokens.replaces is 'The device whose place the new one takes: its row, under the new one''s key.';
create index provisioning_tokens_by_replaced on private.provisioning_tokens (replaces) where replaces is not null;
comment on column private.provisioning_tokens.auto_accept is 'false: the device still waits as pending until an operator accepts it.';

alter table private.provisioning_tokens enable row level security;
-- No policy: only definer functions and the service key have access. The service key counts uses and revokes.
grant select, update on private.provisioning_tokens to service_role;

create trigger audit after insert or update or delete on private.provisioning_tokens
  for each row execute function private.audit_change('id', 'token_hash', 'uses');

create function public.create_provisioning_token(
  role text, segment text default 'stable', branch text default 'main', note text default '',
  max_uses int default 1, valid_for_s int default 604800, auto_accept boolean default true, labels jsonb default '{}'
) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: nobody may write the table of tokens directly. Answers with the token, once.
declare
  token text;
  made private.provisioning_tokens;
begin
  perform private.require_rank('admin');
  perform private.require_role(role);
  perform private.require_segment(segment);
  perform private.require_branch(branch);
  if valid_for_s is null or valid_for_s not between 60 and 31536000 then
    perform private.refuse('bad_validity', 'A token is valid for 60 seconds to 365 days.',
      'Give valid_for_s in seconds.', 'PT400');
  elsif max_uses is null or max_uses not between 1 and 100000 then
    perform private.refuse('bad_max_uses', 'A token can be used 1 to 100000 times.', 'Give max_uses in that range.', 'PT400');
  end if;
  -- Two random UUIDs: 244 bits from the server's strong random source, without an extension.
  token := 'fpt_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  insert into private.provisioning_tokens
    (note, token_hash, role, segment, branch, auto_accept, labels, max_uses, expires_at, created_by)
  values (coalesce(create_provisioning_token.note, ''), sha256(convert_to(token, 'UTF8')), create_provisioning_token.role,
    create_provisioning_token.segment, create_provisioning_token.branch, coalesce(create_provisioning_token.auto_accept, true),
    coalesce(create_provisioning_token.labels, '{}'), create_provisioning_token.max_uses, now() + make_interval(secs => valid_for_s), private.actor_id())
  returning * into made;
  return jsonb_build_object('id', made.id, 'token', token, 'note', made.note, 'role', made.role,
    'segment', made.segment, 'branch', made.branch, 'auto_accept', made.auto_accept,
    'labels', made.labels, 'max_uses', made.max_uses, 'expires_at', made.expires_at);
end
$$;
comment on function public.create_provisioning_token(text, text, text, text, int, int, boolean, jsonb) is
  'For admins: makes a token with which machines enroll. The token is shown once; only its hash is kept.';
revoke execute on function public.create_provisioning_token(text, text, text, text, int, int, boolean, jsonb) from public;
grant execute on function public.create_provisioning_token(text, text, text, text, int, int, boolean, jsonb)
  to authenticated, service_role;

create function public.replace_device(device_id uuid, valid_for_s int default 604800) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: nobody may write the table of tokens directly. Answers with the token, once.
declare
  device public.devices;
  made jsonb;
begin
  perform private.require_rank('admin');
  select d.* into device from public.devices d where d.id = replace_device.device_id;
  if device.id is null then
    perform private.refuse_unknown('device', 'device list');
  elsif device.state not in ('active', 'suspended') then
    perform private.refuse('device_state_is_final', format('%s is %s, so nothing takes its place.', device.name, device.state),
      'Enroll the new machine with a token of its own: fleetctl token create.');
  end if;
  made := public.create_provisioning_token(device.role, device.segment, device.branch,
    'Replaces ' || device.name, 1, valid_for_s);
  -- Of two tokens for one place the newer counts.
  update private.provisioning_tokens t set revoked_at = now()
  where t.replaces = device.id and t.revoked_at is null and t.uses < t.max_uses;
  update private.provisioning_tokens t set replaces = device.id where t.id = (made ->> 'id')::uuid;
  return made || jsonb_build_object('replaces', device.id, 'name', device.name);
end
$$;
comment on function public.replace_device(uuid, int) is
  'For admins: makes a token with which a new machine takes the place of a broken one, under a key of its own.';
revoke execute on function public.replace_device(uuid, int) from public;
grant execute on function public.replace_device(uuid, int) to authenticated, service_role;

create function public.provisioning_tokens() returns table (
  id uuid, note text, role text, segment text, branch text, auto_accept boolean, labels jsonb, replaces uuid, max_uses int, uses int,
  expires_at timestamptz, created_by uuid, created_at timestamptz, revoked_at timestamptz, devices text[])
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: the table is not exposed. Never the hash.
begin
  perform private.require_rank('admin');
  return query select t.id, t.note, t.role, t.segment, t.branch, t.auto_accept, t.labels, t.replaces, t.max_uses, t.uses,
    t.expires_at, t.created_by, t.created_at, t.revoked_at, array(
      select d.name from private.enrollments e join public.devices d on d.id = e.device_id
      where e.token_id = t.id order by d.name)
  from private.provisioning_tokens t order by t.created_at desc;
end
$$;
comment on function public.provisioning_tokens() is 'For admins: the provisioning tokens without their secret, and the names of the devices that came with each.';
revoke execute on function public.provisioning_tokens() from public;
grant execute on function public.provisioning_tokens() to authenticated, service_role;

create function public.revoke_provisioning_token(token_id uuid) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the table is not exposed.
begin
  perform private.require_rank('admin');
  update private.provisioning_tokens t set revoked_at = now() where t.id = token_id and t.revoked_at is null;
  if not found and not exists (select from private.provisioning_tokens t where t.id = token_id) then
    perform private.refuse('token_unknown', 'There is no such token.', 'Look it up: fleetctl token list.', 'PT404');
  end if;
end
$$;
comment on function public.revoke_provisioning_token(uuid) is 'For admins: no more devices can enroll with the token, for example because it leaked.';
revoke execute on function public.revoke_provisioning_token(uuid) from public;
grant execute on function public.revoke_provisioning_token(uuid) to authenticated, service_role;
