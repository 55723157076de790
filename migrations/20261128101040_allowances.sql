-- How much callers may ask for and devices may write.
--
-- Enrollment and token requests come from callers that are not known yet. Three things limit them: every assertion is
-- accepted once, requests are rate-limited per address and per key, and the number of pending devices is limited.
--
-- Refusals are return values and not exceptions: an exception would roll back the counter that it is about.

create table private.used_assertions (
  public_key text not null,
  jti text not null,
  forget_after timestamptz not null,
  primary key (public_key, jti)
);
comment on table private.used_assertions is 'Assertions that were accepted, kept until they would be refused as stale anyway.';
create index used_assertions_by_end on private.used_assertions (forget_after);

alter table private.used_assertions enable row level security;

-- Unlogged: after a crash every caller starts with a full allowance, which is better than a WAL write per request.
create unlogged table private.allowances (
  kind text not null,
  subject text not null,
  spent_until timestamptz not null,
  primary key (kind, subject)
);
comment on table private.allowances is 'Token buckets. spent_until is when the bucket is full again; a row in the past means a full bucket.';
create index allowances_by_end on private.allowances (spent_until);

alter table private.allowances enable row level security;

create function private.spend(
  kind text, subject text, allowed int, per interval, at timestamptz, amount int default 1
) returns int
language plpgsql set search_path = ''
as $$
-- The generic cell rate algorithm: one row a bucket, no burst where two windows meet.
declare
  cost interval := per * (amount::double precision / allowed);
  until timestamptz;
begin
  if amount > allowed then
    -- More than the bucket ever holds.
    return ceil(extract(epoch from per))::int;
  end if;
  insert into private.allowances as a (kind, subject, spent_until)
  values (spend.kind, spend.subject, at + cost)
  on conflict on constraint allowances_pkey do update
    set spent_until = greatest(a.spent_until, at) + cost
    -- The millisecond is for the rounding of costs.
    where greatest(a.spent_until, at) + cost <= at + per + interval '1 millisecond';
  if found then
    return 0;
  end if;
  select a.spent_until into until from private.allowances a where a.kind = spend.kind and a.subject = spend.subject;
  return greatest(1, ceil(extract(epoch from coalesce(until, at) + cost - per - at)))::int;
end
$$;
comment on function private.spend(text, text, int, interval, timestamptz, int) is
  'Take "amount" from the bucket of this kind and subject, which holds "allowed" and refills in "per". 0, or the seconds to wait.';
revoke execute on function private.spend(text, text, int, interval, timestamptz, int) from public;

-- What one device may write. A stolen key must not fill the database: whatever a device writes is kept for months.

create function private.spend_ration(device_id uuid, rows int, bytes bigint) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the buckets are nobody's to read or write. A refusal undoes the write and what it took from the buckets.
declare
  at constant timestamptz := clock_timestamp();
  settings public.fleet_settings;
  wait int;
begin
  select s.* into settings from public.fleet_settings s;
  wait := greatest(
    private.spend('device rows', device_id::text, settings.device_rows_per_hour, '1 hour', at, rows),
    private.spend('device bytes', device_id::text, settings.device_bytes_per_hour, '1 hour', at, least(bytes, 2147483647)::int));
  if wait > 0 then
    perform private.refuse('rate_limited', 'This device has written as much as one device may in an hour.',
      format('Try again in %s s. An admin can change device_rows_per_hour and device_bytes_per_hour.', wait), 'PT429');
  end if;
end
$$;
comment on function private.spend_ration(uuid, int, bigint) is
  'Takes rows and bytes from what the device may write in an hour; refuses with 429 when too little is left.';
revoke execute on function private.spend_ration(uuid, int, bigint) from public;

create function private.ration_writes() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: spend_ration() is nobody's to call. What operators and policy write costs a device nothing.
declare
  writer constant uuid := private.device_id();
  written record;
begin
  if writer is not null then
    select count(*)::int as rows, sum(octet_length(n::text)) as bytes into written from new_rows n;
    if written.rows > 0 then
      perform private.spend_ration(writer, written.rows, written.bytes);
    end if;
  end if;
  return null;
end
$$;
comment on function private.ration_writes() is
  'Trigger for each table that devices write, after insert and after update, with new_rows. Last, so that its lock is the last one taken.';
revoke execute on function private.ration_writes() from public;

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
revoke execute on function private.address_group(text) from public;

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
revoke execute on function private.use_assertion(text, text, timestamptz) from public;

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
revoke execute on function private.forget_strangers(timestamptz, int) from public;
