-- What happens by the clock. The embedded stack calls it every few seconds; where pg_cron exists, it does so every
-- minute or more often. It is safe to run twice, late, or from two places, and cheap when nothing is due.
--
-- Attempts are rolled up once a minute and adoption every ten; patterns are analyzed when failures arrive. Work that
-- reads the whole fleet comes before anything that takes the policy lock.

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
revoke execute on function private.is_due(text, interval, timestamptz) from public;

create function private.do_again(job text) returns void
language sql volatile security definer set search_path = ''
as $$
  -- Definer: policy's own table.
  delete from private.tick_state t where t.job = do_again.job
$$;
comment on function private.do_again(text) is 'There is more of a slower job than was done at once: it is due at the next tick.';
revoke execute on function private.do_again(text) from public;

-- Each duty fails alone: what one row makes impossible, or more rows than can be read in time, must not keep leases from
-- ending or stages from opening.
--
-- statement_timeout (two minutes where Supabase hosts it) is for the whole tick, and its clock can only be set again by
-- another statement. So a duty that ran out of it is not tried again for ten minutes, and then last, and what is left of this
-- tick has no clock: only duties that are bounded on their own are done, by a number of rows, by seconds, or because they
-- read each device once. The others are the next tick's. Whoever cancels the tick ends all of it, as does a shutdown.

create function private.ran_out_of_time() returns boolean
language sql volatile set search_path = ''
as $$
  -- Its message is translated, and its code is that of a person who cancels. A tenth, for the server counts from a moment
  -- before statement_timestamp().
  select t.allowed > '0' and clock_timestamp() >= statement_timestamp() + 0.9 * t.allowed
  from (select current_setting('statement_timeout')::interval as allowed) t
$$;
comment on function private.ran_out_of_time() is 'Was it statement_timeout that canceled, and not a person? Only true to life the first time in a statement.';
revoke execute on function private.ran_out_of_time() from public;

create function private.try_duty(duty text, work text, at timestamptz, about uuid, is_timed boolean) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the scheduler holds no rights of its own on the tables. `work` is one of tick()'s own statements; $1 is the
-- time, $2 what it is about; is_timed: statement_timeout has not struck yet. A duty that fails is taken back whole, and is
-- an alert until it works again.
declare
  done jsonb;
  whole_name text := duty || coalesce(' ' || about, '');
  broken text;
  late boolean := false;
begin
  begin
    execute work into done using at, about;
    delete from private.tick_state t where t.job = 'out of time: ' || whole_name;
    update public.alerts a set resolved_at = try_duty.at
    where a.kind = 'tick_failing' and a.subject = whole_name and a.resolved_at is null;
    return coalesce(done, '{}');
  exception
    when lock_not_available then
      -- A person holds the policy lock: the next tick does it.
      return '{}';
    when query_canceled then
      if not is_timed or not private.ran_out_of_time() then
        raise;
      end if;
      late := true;
      broken := format('it was not done within statement_timeout (%s). It is tried again every ten minutes.',
        current_setting('statement_timeout'));
    when others then
      broken := sqlerrm;
  end;
  if late then
    insert into private.tick_state as t (job, last_run) values ('out of time: ' || whole_name, try_duty.at)
    on conflict on constraint tick_state_pkey do update set last_run = excluded.last_run;
  end if;
  perform private.open_alert('tick_failing', 'critical',
    format('The scheduler cannot do "%s": %s', whole_name, left(broken, 1000)), at,
    subject => whole_name, evidence => jsonb_build_object('duty', duty, 'about', about, 'error', left(broken, 4000)));
  return jsonb_build_object('failed', jsonb_build_object(whole_name, left(broken, 1000)), 'late', late);
end
$$;
comment on function private.try_duty(text, text, timestamptz, uuid, boolean) is
  'Does one of the scheduler''s duties. Returns what was done, or {"failed": {duty: why}, "late": was it the time}, with an alert.';
revoke execute on function private.try_duty(text, text, timestamptz, uuid, boolean) from public;

create function private.drop_old_audit(at timestamptz, at_most int default 20000) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: nobody else may delete here. In parts: a shorter retention makes millions of rows old at once.
declare
  dropped int;
begin
  delete from public.audit_log a
  where a.id in (
    select o.id from public.audit_log o
    where o.at < drop_old_audit.at - make_interval(months => (select s.audit_retention_months from public.fleet_settings s))
    order by o.at limit at_most);
  get diagnostics dropped = row_count;
  if dropped = at_most then
    perform private.do_again('retention');
  end if;
  return dropped;
end
$$;
comment on function private.drop_old_audit(timestamptz, int) is
  'Deletes audit rows past fleet_settings.audit_retention_months, the oldest first. Returns how many.';
revoke execute on function private.drop_old_audit(timestamptz, int) from public;

create function private.attend_rollout(rollout_id uuid, at timestamptz) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the scheduler holds no rights of its own on the tables.
declare
  opened int := 0;
begin
  if exists (select from public.rollouts r where r.id = attend_rollout.rollout_id and r.state = 'running') then
    perform private.lock_policy();
    perform private.look_at_proof(attend_rollout.rollout_id, at);
    opened := private.advance_rollout(attend_rollout.rollout_id, at);
  end if;
  -- A rate lets the next ones in with the clock, not with an outcome.
  if exists (select from private.rollout_queue q where q.rollout_id = attend_rollout.rollout_id) then
    perform private.wake_waiting(attend_rollout.rollout_id);
  end if;
  return jsonb_build_object('stages_opened', opened);
end
$$;
comment on function private.attend_rollout(uuid, timestamptz) is 'Opens the stages of a rollout that are due, and wakes those its rate lets in.';
revoke execute on function private.attend_rollout(uuid, timestamptz) from public;

create function private.tick(at timestamptz default now()) returns jsonb
language plpgsql volatile security definer set search_path = '' set lock_timeout = '2s'
as $$
-- Definer: the scheduler holds no rights of its own on the tables.
declare
  done jsonb := '{}';
  one jsonb;
  failed jsonb := '{}';
  opened int := 0;
  duty record;
  is_timed boolean := true;
begin
  -- Somebody else is at it: their work is as good as ours.
  if not pg_try_advisory_xact_lock(hashtext('private.tick')) then
    return jsonb_build_object('skipped', true);
  end if;
  for duty in
    select d.name, d.work, d.about, d.is_bounded, late.job is not null as was_late
    from (
      values
        (1, 'commands', $do$select jsonb_build_object('commands_expired', private.expire_commands($1))$do$, null::uuid, true),
        -- The month after next is missing only around the turn of a month. Not bounded: it takes over whatever rows there are
        -- of the month already.
        (2, 'months', $do$select jsonb_build_object('months_made', private.make_history_partitions($1)) where to_regclass(
          format('private.%I', 'update_history_' || to_char($1 at time zone 'UTC' + interval '2 months', 'YYYY_MM'))) is null$do$, null, false),
        (3, 'retention', $do$select jsonb_build_object('months_dropped', private.drop_old_history($1),
          'audit_rows_dropped', private.drop_old_audit($1)) where private.is_due('retention', interval '1 hour', $1)$do$, null, true),
        (4, 'offline', $do$select private.watch_offline($1) where private.is_due('offline', interval '1 minute', $1)$do$, null, true),
        (5, 'rations', $do$select private.watch_rations($1) where private.is_due('rations', interval '1 minute', $1)$do$, null, true),
        (5, 'identities', $do$select private.watch_shared_identities($1) where private.is_due('identities', interval '10 minutes', $1)$do$, null, true),
        (6, 'reports', $do$select jsonb_build_object('attempts_rolled_up', private.roll_up_history($1))
          where private.is_due('reports', interval '1 minute', $1)$do$, null, true),
        (7, 'adoption', $do$select jsonb_build_object('releases_in_use', private.count_adoption($1))
          where private.is_due('adoption', interval '10 minutes', $1)$do$, null, true),
        -- Not bounded: it reads all attempts of a release.
        (8, 'patterns', $do$select jsonb_build_object('patterns_looked_at', private.look_for_patterns($1))$do$, null, false),
        -- From here on the policy lock may be held to the end, and devices that ask for a slot wait: what reads the whole
        -- fleet stands above.
        (9, 'leases', $do$select jsonb_build_object('leases_expired', private.expire_leases($1) + private.expire_ways_back($1))$do$, null, true)
      union all
      select 10, 'rollout', 'select private.attend_rollout($2, $1)', r.id, true
      from public.rollouts r where r.state = 'running'
        or exists (select from private.rollout_queue q where q.rollout_id = r.id)
    ) d (position, name, work, about, is_bounded)
    left join private.tick_state late on late.job = 'out of time: ' || d.name || coalesce(' ' || d.about, '')
    where late.job is null or not at between late.last_run and late.last_run + interval '10 minutes'
    order by late.job is not null, d.position, d.about
  loop
    -- Nothing measures the time any more.
    continue when not is_timed and not duty.is_bounded;
    exit when not is_timed and (duty.was_late
      or clock_timestamp() > statement_timestamp() + 2 * current_setting('statement_timeout')::interval + interval '2 seconds');
    one := private.try_duty(duty.name, duty.work, at, duty.about, is_timed);
    failed := failed || coalesce(one -> 'failed', '{}');
    is_timed := is_timed and not coalesce((one ->> 'late')::boolean, false);
    opened := opened + coalesce((one ->> 'stages_opened')::int, 0);
    done := done || (one - 'failed' - 'late' - 'stages_opened');
  end loop;
  done := done || jsonb_build_object('stages_opened', opened);
  return case when failed = '{}' then done else done || jsonb_build_object('failed', failed) end;
end
$$;
comment on function private.tick(timestamptz) is 'Everything that is due by the clock. Returns what was done.';
revoke execute on function private.tick(timestamptz) from public;
grant execute on function private.tick(timestamptz) to service_role;

-- With pg_cron two jobs call tick() and clean up after it. Both belong to role `postgres`, which owns tick(). Scheduling
-- them again changes nothing: pg_cron replaces a job of the same name. pg_cron before 1.5 (Debian's is 1.4) refuses a
-- schedule in seconds.
create function private.schedule_tick() returns text
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the jobs are postgres's, whoever asks for them. Returns the schedule of tick(), or null without pg_cron.
declare
  every text := '20 seconds';
begin
  if to_regprocedure('cron.schedule(text, text, text)') is null then
    return null;
  end if;
  begin
    execute 'select cron.schedule($1, $2, $3)' using 'metrica-fleet-tick', every, 'select private.tick(now())';
  exception when invalid_parameter_value then
    -- Before 1.5 a minute is the least. Nothing waits for tick() that cannot wait a minute.
    every := '* * * * *';
    execute 'select cron.schedule($1, $2, $3)' using 'metrica-fleet-tick', every, 'select private.tick(now())';
  end;
  execute 'select cron.schedule($1, $2, $3)'
    using 'metrica-fleet-forget-runs', '17 * * * *', 'select private.forget_tick_runs(now())';
  return every;
end
$$;
comment on function private.schedule_tick() is
  'Has pg_cron call tick(). For a project that got pg_cron after the migrations: enable the extension, then call this once.';
revoke execute on function private.schedule_tick() from public;

-- cron.job_run_details grows by 4,320 rows a day, and nothing else clears it.
create function private.forget_tick_runs(at timestamptz) returns int
language plpgsql volatile set search_path = ''
as $$
-- Dynamic: schema cron is missing where pg_cron is. A run that a crash cut off has no times, hence by number.
declare
  forgotten int;
begin
  execute $run$
    with ours as (select j.jobid from cron.job j where j.jobname in ('metrica-fleet-tick', 'metrica-fleet-forget-runs'))
    delete from cron.job_run_details d
    where d.jobid in (select o.jobid from ours o)
      and d.runid <= (select max(old.runid) from cron.job_run_details old
        where old.jobid in (select o.jobid from ours o) and coalesce(old.end_time, old.start_time) < $1 - interval '3 days')
  $run$ using at;
  get diagnostics forgotten = row_count;
  return forgotten;
end
$$;
comment on function private.forget_tick_runs(timestamptz) is
  'Deletes what pg_cron wrote about runs of our own jobs more than three days ago. Returns how many.';
revoke execute on function private.forget_tick_runs(timestamptz) from public;

do $$
declare
  every text;
begin
  if exists (select from pg_catalog.pg_available_extensions e where e.name = 'pg_cron') then
    begin
      create extension if not exists pg_cron;
    exception
      -- Not preloaded, meant for another database, or only a superuser may: not ours to change.
      when others then raise notice 'pg_cron is installed but cannot be used here: %', sqlerrm;
    end;
  end if;
  begin
    every := private.schedule_tick();
    if every is null then
      raise notice 'There is no pg_cron here: something else must call private.tick().';
    end if;
  exception
    when insufficient_privilege then
      raise warning 'pg_cron is here, but postgres may not use it (%).', sqlerrm
        using hint = 'As its owner: grant usage on schema cron to postgres; then: select private.schedule_tick();';
  end;
end
$$;
