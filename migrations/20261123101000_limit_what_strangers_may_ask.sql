-- Enrollment and token requests come from callers that nobody knows yet. What keeps them in bounds: every
-- assertion is accepted once, requests are rationed per address and per key, and the waiting room has a size.
--
-- The refusals are values and not exceptions: an exception would roll back the counter it is about.

alter table public.fleet_settings
  add column enroll_per_minute_per_address int not null default 60
    constraint "enroll_per_minute_per_address must be 1 to 100000" check (enroll_per_minute_per_address between 1 and 100000),
  add column token_per_minute_per_address int not null default 300
    constraint "token_per_minute_per_address must be 1 to 100000" check (token_per_minute_per_address between 1 and 100000),
  add column requests_per_hour_per_device int not null default 60
    constraint "requests_per_hour_per_device must be 1 to 100000" check (requests_per_hour_per_device between 1 and 100000),
  add column max_pending_devices int not null default 1000
    constraint "max_pending_devices must be 0 to 100000" check (max_pending_devices between 0 and 100000),
  add column pending_role text not null default 'beacon' references public.device_roles on update cascade;
comment on column public.fleet_settings.enroll_per_minute_per_address is 'Enrollments per minute from one address; a site behind one router shares it.';
comment on column public.fleet_settings.token_per_minute_per_address is 'Token requests per minute from one address; a site behind one router shares it.';
comment on column public.fleet_settings.requests_per_hour_per_device is 'Enrollments, and token requests, per hour with one device key.';
comment on column public.fleet_settings.max_pending_devices is 'So many devices may wait without a provisioning token; 0 makes the token compulsory.';
comment on column public.fleet_settings.pending_role is 'The role of a device that asked without a provisioning token, until an operator gives it another.';

create table private.used_assertions (
  public_key text not null,
  jti text not null,
  forget_after timestamptz not null,
  primary key (public_key, jti)
);
comment on table private.used_assertions is 'Assertions that were accepted, kept until they would be refused as stale anyway.';
create index used_assertions_by_end on private.used_assertions (forget_after);
alter table private.used_assertions enable row level security;

-- Unlogged: after a crash everybody starts with a full allowance, which is better than a WAL write a request.
create unlogged table private.allowances (
  kind text not null,
  subject text not null,
  spent_until timestamptz not null,
  primary key (kind, subject)
);
comment on table private.allowances is 'Token buckets. spent_until is when the bucket is full again; a row in the past means a full bucket.';
create index allowances_by_end on private.allowances (spent_until);
alter table private.allowances enable row level security;

create function private.spend(kind text, subject text, allowed int, per interval, at timestamptz) returns int
language plpgsql set search_path = ''
as $$
-- The generic cell rate algorithm: one row a bucket, no burst where two windows meet.
declare
  cost interval := per / allowed;
  until timestamptz;
begin
  insert into private.allowances as a (kind, subject, spent_until)
  values (spend.kind, spend.subject, at + cost)
  on conflict on constraint allowances_pkey do update
    set spent_until = greatest(a.spent_until, at) + cost
    -- The millisecond is for the rounding of per / allowed.
    where greatest(a.spent_until, at) + cost <= at + per + interval '1 millisecond';
  if found then
    return 0;
  end if;
  select a.spent_until into until from private.allowances a where a.kind = spend.kind and a.subject = spend.subject;
  return greatest(1, ceil(extract(epoch from coalesce(until, at) + cost - per - at)))::int;
end
$$;
comment on function private.spend(text, text, int, interval, timestamptz) is
  'Take one from the bucket of this kind and subject, which holds "allowed" and refills in "per". 0, or the seconds to wait.';

create function private.address_group(address text) returns text
language plpgsql immutable set search_path = ''
as $$
begin
  -- One IPv6 customer has a /64 or more, so single addresses would ration nobody.
  return case family(address::inet)
    when 6 then network(set_masklen(address::inet, 64))::text
    else host(address::inet)
  end;
exception when others then
  return 'unknown';
end
$$;
comment on function private.address_group(text) is 'The address, or the /64 network of an IPv6 address, that shares an allowance.';

create function private.use_assertion(public_key text, jti text, forget_after timestamptz) returns boolean
language plpgsql set search_path = ''
as $$
begin
  insert into private.used_assertions (public_key, jti, forget_after)
  values (use_assertion.public_key, use_assertion.jti, use_assertion.forget_after)
  on conflict do nothing;
  return found;
end
$$;
comment on function private.use_assertion(text, text, timestamptz) is 'Use up an assertion; false if it was used before.';

create function private.forget_strangers(at timestamptz, at_most int default 1000) returns int
language plpgsql set search_path = ''
as $$
declare
  assertions int;
  buckets int;
begin
  -- skip locked: two requests that tidy at once must not wait for each other.
  delete from private.used_assertions where (public_key, jti) in (
    select u.public_key, u.jti from private.used_assertions u
    where u.forget_after < at order by u.forget_after limit at_most for update skip locked);
  get diagnostics assertions = row_count;
  delete from private.allowances where (kind, subject) in (
    select a.kind, a.subject from private.allowances a
    where a.spent_until < at order by a.spent_until limit at_most for update skip locked);
  get diagnostics buckets = row_count;
  return assertions + buckets;
end
$$;
comment on function private.forget_strangers(timestamptz, int) is
  'Delete spent assertions and full buckets, some at a time; every enrollment and token request does a little of it.';

revoke execute on function private.spend(text, text, int, interval, timestamptz), private.address_group(text),
  private.use_assertion(text, text, timestamptz), private.forget_strangers(timestamptz, int) from public;
