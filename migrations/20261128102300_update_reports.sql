-- Reports over 30 days read two small tables instead of half a million attempts: attempts by day, release, outcome and
-- rounded duration, and how many devices ran what at the end of each day. private.tick() keeps both up to date.
--
-- Days are UTC and by arrival (server time), because a device's clock may be years off. Everything up to `through` is in
-- private.update_days; what arrived later is read from update_history itself, so a report is always current.

create table private.report_state (
  id boolean primary key default true check (id),
  through timestamptz not null
);
comment on table private.report_state is 'Up to when update_history is rolled up into private.update_days. One row.';

alter table private.report_state enable row level security;
-- The views below read these tables with the rights of the reader; schema private itself is not exposed.
grant select on private.report_state to authenticated, service_role;
create policy "operators read how far reports are" on private.report_state for select to authenticated
  using ((select private.operator_is('viewer')));

insert into private.report_state (through) values ('-infinity');

create table private.update_days (
  day date not null,
  release_id uuid,
  outcome public.update_outcome not null,
  seconds int not null,
  attempts bigint not null,
  bytes_fetched numeric not null,
  unique nulls not distinct (day, release_id, outcome, seconds)
);
comment on table private.update_days is 'Attempts by day of arrival, release, outcome and duration to two digits: any percentile is exact to 5 %. Kept by tick().';
comment on column private.update_days.seconds is 'Duration of the attempt by the device''s clock, rounded to two digits.';

alter table private.update_days enable row level security;
grant select on private.update_days to authenticated, service_role;
create policy "operators read attempts by day" on private.update_days for select to authenticated
  using ((select private.operator_is('viewer')));

create table private.adoption_days (
  day date not null,
  role text not null references public.device_roles on update cascade on delete cascade,
  release_id uuid not null,
  devices bigint not null,
  primary key (day, role, release_id)
);
comment on table private.adoption_days is 'How many active devices of each role ran which release at the end of each day (for today: so far). Kept by tick().';
create index adoption_days_by_role on private.adoption_days (role);

alter table private.adoption_days enable row level security;
grant select on private.adoption_days to authenticated, service_role;
create policy "operators read adoption by day" on private.adoption_days for select to authenticated
  using ((select private.operator_is('viewer')));

create function private.two_digits(seconds double precision) returns int
language sql immutable parallel safe
return case
  when seconds is null or seconds < 0 then 0
  when seconds >= 1e9 then 1000000000
  when seconds < 100 then round(seconds)::int
  else (round(seconds / 10 ^ (floor(log(seconds)) - 1)) * 10 ^ (floor(log(seconds)) - 1))::int
end;
comment on function private.two_digits(double precision) is '12345 becomes 12000. A clock that jumped back gives 0.';
revoke execute on function private.two_digits(double precision) from public;
grant execute on function private.two_digits(double precision) to authenticated, service_role;

create view private.update_days_now with (security_invoker = true) as
select u.day, u.release_id, u.outcome, u.seconds, u.attempts, u.bytes_fetched from private.update_days u
union all
select (h.received_at at time zone 'UTC')::date, h.release_id, h.outcome,
  private.two_digits(extract(epoch from h.finished_at - h.started_at)::double precision), 1, h.bytes_fetched
from public.update_history h
where h.received_at >= (select r.through from private.report_state r);
comment on view private.update_days_now is 'update_days plus what has arrived since, so it is always current.';
revoke all on private.update_days_now from public;
grant select on private.update_days_now to authenticated, service_role;

create function private.roll_up_history(at timestamptz, at_most int default 200000) returns bigint
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the rollups are policy's own rows. Returns how many attempts it took in. Each row is taken exactly once: by
-- its time of arrival, ten minutes behind, when no transaction that could still add an earlier one is left (devices
-- are cut off after five seconds). Never past the real clock, whatever `at` says: rows arrive by the real clock. About
-- at_most attempts at once, whole minutes of them: where much waits, each tick takes a part.
declare
  since timestamptz;
  enough timestamptz;
  until timestamptz := date_trunc('minute', least(at, clock_timestamp()) - interval '10 minutes');
  taken bigint;
begin
  select r.through into since from private.report_state r for update;
  if until <= since then
    return 0;
  end if;
  select h.received_at into enough from public.update_history h
  where h.received_at >= since and h.received_at < until order by h.received_at offset at_most limit 1;
  if enough is not null then
    until := least(until, date_trunc('minute', enough) + interval '1 minute');
  end if;
  with arrived as (
    select (h.received_at at time zone 'UTC')::date as day, h.release_id, h.outcome,
      private.two_digits(extract(epoch from h.finished_at - h.started_at)::double precision) as seconds,
      count(*) as attempts, sum(h.bytes_fetched) as bytes_fetched
    from public.update_history h
    where h.received_at >= since and h.received_at < until
    group by 1, 2, 3, 4
  ),
  added as (
    insert into private.update_days as u (day, release_id, outcome, seconds, attempts, bytes_fetched)
    select a.day, a.release_id, a.outcome, a.seconds, a.attempts, a.bytes_fetched from arrived a
    on conflict (day, release_id, outcome, seconds) do update
      set attempts = u.attempts + excluded.attempts, bytes_fetched = u.bytes_fetched + excluded.bytes_fetched
  )
  select coalesce(sum(a.attempts), 0) into taken from arrived a;
  if taken > 0 then
    -- Only then: a fleet without a history yet may still have one imported, and nothing is lost by waiting.
    update private.report_state r set through = until where r.id;
  end if;
  if enough is not null then
    perform private.do_again('reports');
  end if;
  return taken;
end
$$;
comment on function private.roll_up_history(timestamptz, int) is 'Takes the attempts that arrived since the last time into private.update_days.';
revoke execute on function private.roll_up_history(timestamptz, int) from public;

create function private.count_adoption(at timestamptz) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the rollups are policy's own rows. Returns how many releases are in use. The last call of a day stands.
declare
  today date := (at at time zone 'UTC')::date;
  counted int;
begin
  delete from private.adoption_days a where a.day = today;
  insert into private.adoption_days (day, role, release_id, devices)
  select today, d.role, s.current_release, count(*)
  from public.device_status s join public.devices d on d.id = s.device_id
  where d.state = 'active' and s.current_release is not null
  group by d.role, s.current_release;
  select count(distinct a.release_id) into counted from private.adoption_days a where a.day = today;
  return counted;
end
$$;
comment on function private.count_adoption(timestamptz) is 'Notes how many devices run which release on the day of `at`.';
revoke execute on function private.count_adoption(timestamptz) from public;

-- Who signed what, by each device's own word. Counted as attempts arrive: a year of them has 1.5 million rows for 100,000
-- devices, and people ask for all releases at once.

create table private.signer_counts (
  release_id uuid not null references public.releases on delete cascade,
  signer text not null,
  devices bigint not null
);
comment on table private.signer_counts is 'How many devices verified that this release was signed by whom. Kept by the trigger zzz_count_signers.';
-- By its hash: a signer may be longer than an index takes.
create unique index signer_counts_once on private.signer_counts (release_id, md5(signer));

alter table private.signer_counts enable row level security;
grant select on private.signer_counts to authenticated, service_role;
create policy "operators read signers" on private.signer_counts for select to authenticated
  using ((select private.operator_is('viewer')));

create function private.count_signers() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: the counts are policy's own rows. What the device said before is found by its index.
begin
  insert into private.signer_counts as c (release_id, signer, devices)
  select n.release_id, n.signer, count(distinct n.device_id)
  from new_rows n
  where n.release_id is not null and n.signer is not null and not exists (
    select from public.update_history h
    where h.device_id = n.device_id and h.release_id = n.release_id and h.signer = n.signer
      and not exists (select from new_rows o where o.id = h.id and o.started_at = h.started_at))
  group by n.release_id, n.signer order by n.release_id, n.signer
  on conflict (release_id, md5(signer)) do update set devices = c.devices + excluded.devices;
  return null;
end
$$;
revoke execute on function private.count_signers() from public;
-- After the ration, whose lock keeps two rows of one device from being counted at once; and last, because all devices that
-- verify one release wait for the same row.
create trigger zzz_count_signers after insert on public.update_history referencing new table as new_rows
  for each statement execute function private.count_signers();

create function private.rebuild_reports(at timestamptz) returns void
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the rollups are policy's own rows. For a fleet that had a history before these tables, and after rows were
-- imported or mended by hand. Past days of adoption come from the attempts: a device ran what it last moved to.
declare
  today date := (at at time zone 'UTC')::date;
  first_day date;
begin
  delete from private.last_outcomes where true;
  insert into private.last_outcomes (device_id, outcome)
  select distinct on (h.device_id) h.device_id, h.outcome from public.update_history h order by h.device_id, h.received_at desc, h.id;
  delete from private.signer_counts where true;
  insert into private.signer_counts (release_id, signer, devices)
  select h.release_id, h.signer, count(distinct h.device_id)
  from public.update_history h where h.release_id is not null and h.signer is not null group by h.release_id, h.signer;
  delete from private.update_days where true;
  update private.report_state r set through = '-infinity' where r.id;
  while private.roll_up_history(at) > 0 loop end loop;
  delete from private.adoption_days where true;
  select (min(h.received_at) at time zone 'UTC')::date into first_day from public.update_history h;
  insert into private.adoption_days (day, role, release_id, devices)
  with moves as (
    select h.device_id, d.role, h.release_id, (h.received_at at time zone 'UTC')::date as day,
      lead((h.received_at at time zone 'UTC')::date) over (partition by h.device_id order by h.received_at, h.id) as next_day
    from public.update_history h join public.devices d on d.id = h.device_id
    where h.outcome = 'succeeded' and h.release_id is not null and d.state = 'active'
  ),
  steps as (
    -- A device counts for what it ran when the day ended.
    select m.day, m.role, m.release_id, 1 as change from moves m where m.day is distinct from m.next_day
    union all
    select m.next_day, m.role, m.release_id, -1 from moves m where m.next_day is not null and m.day <> m.next_day
  ),
  daily as (
    select s.role, s.release_id, s.day, sum(s.change) as change from steps s group by s.role, s.release_id, s.day
  ),
  running as (
    select d.role, d.release_id, g.day::date as day,
      sum(sum(c.change)) over (partition by d.role, d.release_id order by g.day) as devices
    from (select role, release_id, min(day) as first_day from daily group by role, release_id) d
    cross join lateral generate_series(d.first_day, today - 1, interval '1 day') as g (day)
    left join daily c on c.role = d.role and c.release_id = d.release_id and c.day = g.day::date
    group by d.role, d.release_id, g.day
  )
  select r.day, r.role, r.release_id, r.devices from running r where r.devices > 0 and r.day >= first_day;
  perform private.count_adoption(at);
end
$$;
comment on function private.rebuild_reports(timestamptz) is 'Rebuilds the rollups from update_history and device_status, after rows were imported or corrected.';
revoke execute on function private.rebuild_reports(timestamptz) from public;
grant execute on function private.rebuild_reports(timestamptz) to service_role;

create view public.update_outcomes_per_day with (security_invoker = true) as
select u.day, u.release_id, u.outcome, sum(u.attempts)::bigint as attempts,
  -- Devices write what they like: two of them may say more than a bigint holds.
  least(sum(u.bytes_fetched), 9223372036854775807)::bigint as bytes_fetched
from private.update_days_now u
group by u.day, u.release_id, u.outcome;
comment on view public.update_outcomes_per_day is 'Attempts to update by day of arrival (UTC), release and outcome.';
comment on column public.update_outcomes_per_day.release_id is 'Empty for a commit that is not a release here.';
revoke all on public.update_outcomes_per_day from public;
grant select on public.update_outcomes_per_day to authenticated, service_role;

create view public.release_signers with (security_invoker = true) as
select r.id as release_id, c.signer, c.devices from public.releases r join private.signer_counts c on c.release_id = r.id;
comment on view public.release_signers is 'Who signed each release, and how many devices verified that. More than one row: devices differ.';
comment on column public.release_signers.signer is 'The principal of the device''s allowed_signers file.';
revoke all on public.release_signers from public;
grant select on public.release_signers to authenticated, service_role;

create view public.version_adoption with (security_invoker = true) as
with today as (
  select (now() at time zone 'UTC')::date as day
),
counted as (
  select a.day, a.release_id, sum(a.devices)::bigint as devices from private.adoption_days a
  where a.day < (select t.day from today t) group by a.day, a.release_id
  union all
  select (select t.day from today t), s.current_release, count(*)
  from public.device_status s join public.devices d on d.id = s.device_id
  where d.state = 'active' and s.current_release is not null
  group by s.current_release
)
select c.day, c.release_id, r.version, r.branch, c.devices,
  round(100.0 * c.devices / sum(c.devices) over (partition by c.day), 2) as percent
from counted c left join public.releases r on r.id = c.release_id;
comment on view public.version_adoption is
  'How many active devices ran which release at the end of each day (UTC); today as of now.';
comment on column public.version_adoption.percent is 'Share of the devices that ran any release that day.';
revoke all on public.version_adoption from public;
grant select on public.version_adoption to authenticated, service_role;

create view public.update_durations with (security_invoker = true) as
with weighted as (
  select u.day, u.release_id, u.outcome, u.seconds, sum(u.attempts) as attempts
  from private.update_days_now u
  where u.outcome in ('succeeded', 'rolled_back')
  group by u.day, u.release_id, u.outcome, u.seconds
),
ranked as (
  select w.*, sum(w.attempts) over (partition by w.day, w.release_id, w.outcome order by w.seconds) as so_far,
    sum(w.attempts) over (partition by w.day, w.release_id, w.outcome) as total
  from weighted w
)
select r.day, r.release_id,
  case r.outcome when 'succeeded' then 'update' else 'roll_back' end as what,
  max(r.total)::bigint as attempts,
  min(r.seconds) filter (where r.so_far >= 0.5 * r.total) as p50_s,
  min(r.seconds) filter (where r.so_far >= 0.9 * r.total) as p90_s,
  min(r.seconds) filter (where r.so_far >= 0.99 * r.total) as p99_s
from ranked r
group by r.day, r.release_id, r.outcome;
comment on view public.update_durations is
  'How long updates and rollbacks took, start to end: nearest-rank percentiles by day (UTC) and release, in seconds to two digits.';
comment on column public.update_durations.what is 'update: ended healthy on the new release. roll_back: ended back on the old one.';
revoke all on public.update_durations from public;
grant select on public.update_durations to authenticated, service_role;

create function public.adoption_over_time(days int default 30, role text default null, branch text default null) returns jsonb
language plpgsql stable set search_path = '' set jit = off
as $$
-- Runs under the caller's row-level security. One value, which no limit of rows cuts: a list of days, and of each release
-- as many numbers. The eight releases that most devices ran are named, the others are added up.
declare
  today date := (now() at time zone 'UTC')::date;
  first_day date := today - least(greatest(coalesce(adoption_over_time.days, 30), 2), 400) + 1;
  answer jsonb;
begin
  perform private.require_rank('viewer');
  with counted as (
    select a.day, a.role, a.release_id, a.devices from private.adoption_days a where a.day < today and a.day >= first_day
    union all
    select today, d.role, s.current_release, count(*)
    from public.device_status s join public.devices d on d.id = s.device_id
    where d.state = 'active' and s.current_release is not null group by d.role, s.current_release
  ),
  meant as materialized (
    select c.day, c.release_id, sum(c.devices)::bigint as devices
    from counted c left join public.releases r on r.id = c.release_id
    where (adoption_over_time.role is null or c.role = adoption_over_time.role)
      and (adoption_over_time.branch is null or r.branch = adoption_over_time.branch)
    group by c.day, c.release_id
  ),
  -- A fleet that is a week old is not shown as a month of nothing.
  spent as materialized (
    select g::date as day from generate_series(coalesce((select min(m.day) from meant m), today)::timestamp, today::timestamp, interval '1 day') g
  ),
  ranked as (
    select m.release_id, row_number() over (order by sum(m.devices) desc, m.release_id) as place from meant m group by m.release_id
  ),
  named as materialized (
    select r.release_id, coalesce(l.version, left(r.release_id::text, 8)) as version, l.branch, l.created_at
    from ranked r left join public.releases l on l.id = r.release_id where r.place <= 8
  )
  select jsonb_build_object(
    'days', (select jsonb_agg(s.day order by s.day) from spent s),
    'releases', coalesce((
      select jsonb_agg(jsonb_build_object('release_id', n.release_id, 'version', n.version, 'branch', n.branch, 'devices', (
          select jsonb_agg(coalesce(m.devices, 0) order by s.day)
          from spent s left join meant m on m.day = s.day and m.release_id = n.release_id))
        order by n.created_at nulls first, n.version)
      from named n), '[]'),
    'others', (
      select jsonb_agg(o.devices order by o.day) from (
        select s.day, coalesce(sum(m.devices) filter (where m.release_id not in (select n.release_id from named n)), 0) as devices
        from spent s left join meant m on m.day = s.day group by s.day) o))
  into answer;
  return answer;
end
$$;
comment on function public.adoption_over_time(int, text, text) is
  'How many active devices ran which release at the end of each of the last days (UTC; today as of now), of a role and a branch or of all. For charts.';
revoke execute on function public.adoption_over_time(int, text, text) from public;
grant execute on function public.adoption_over_time(int, text, text) to authenticated, service_role;
