-- What lets a new machine join without a person at hand. Only the hash is kept; the token is shown once.

create table private.provisioning_tokens (
  id uuid primary key default gen_random_uuid(),
  label text not null default '',
  token_hash bytea not null unique constraint "token_hash must be a SHA-256" check (octet_length(token_hash) = 32),
  role text not null references public.device_roles on update cascade,
  segment text not null default 'stable' references public.segments on update cascade,
  branch text not null default 'main' references public.branches on update cascade,
  auto_accept boolean not null default true,
  max_uses int not null default 1 constraint "max_uses must be 1 to 100000" check (max_uses between 1 and 100000),
  uses int not null default 0,
  expires_at timestamptz not null default now() + interval '7 days',
  created_by uuid,
  created_at timestamptz not null default now(),
  revoked_at timestamptz,
  constraint "uses cannot pass max_uses" check (uses between 0 and max_uses)
);
comment on table private.provisioning_tokens is 'Tokens with which machines enroll. Hashed; made by create_provisioning_token().';
comment on column private.provisioning_tokens.auto_accept is 'false: the device still waits as pending until an operator accepts it.';
comment on column private.provisioning_tokens.token_hash is 'SHA-256 of the token''s UTF-8 bytes.';
alter table private.provisioning_tokens enable row level security;
-- No policy: only definer functions and the service key. The service key counts uses and revokes.
grant select, update on private.provisioning_tokens to service_role;
create trigger audit after insert or update or delete on private.provisioning_tokens
  for each row execute function private.audit_change('id', 'token_hash', 'uses');
