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

create function private.tick(at timestamptz default now()) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: the scheduler holds no rights of its own on the tables.
declare
  done jsonb := '{}';
  rollout record;
  opened int := 0;
begin
  -- Somebody else is at it: their work is as good as ours.
  if not pg_try_advisory_xact_lock(hashtext('private.tick')) then
    return jsonb_build_object('skipped', true);
  end if;
  done := done || jsonb_build_object('commands_expired', private.expire_commands(at));
  -- The month after next is missing only around the turn of a month.
  if to_regclass(format('private.%I', 'update_history_' || to_char(at at time zone 'UTC' + interval '2 months', 'YYYY_MM'))) is null then
    done := done || jsonb_build_object('months_made', private.make_history_partitions(at));
  end if;
  if private.is_due('retention', interval '1 hour', at) then
    done := done || jsonb_build_object('months_dropped', private.drop_old_history(at));
    delete from public.audit_log a where a.at < tick.at - make_interval(months => (select s.audit_retention_months from public.fleet_settings s));
  end if;
  if private.is_due('silence', interval '1 minute', at) then
    done := done || private.watch_offline(at);
  end if;
  if private.is_due('reports', interval '1 minute', at) then
    done := done || jsonb_build_object('attempts_rolled_up', private.roll_up_history(at));
  end if;
  if private.is_due('adoption', interval '10 minutes', at) then
    done := done || jsonb_build_object('releases_in_use', private.count_adoption(at));
  end if;
  done := done || jsonb_build_object('patterns_looked_at', private.look_for_patterns(at));
  -- From here on the policy lock may be held to the end, and devices that ask for a slot wait: what reads the whole
  -- fleet stands above.
  done := done || jsonb_build_object('leases_expired', private.expire_leases(at));
  for rollout in select r.id, r.state, r.max_per_minute from public.rollouts r where r.state in ('running', 'completed', 'superseded') order by r.id loop
    if rollout.state = 'running' then
      perform private.lock_policy();
      opened := opened + private.advance_rollout(rollout.id, at);
    end if;
    -- A rate lets the next ones in with the clock, not with an outcome.
    if exists (select from private.rollout_queue q where q.rollout_id = rollout.id) then
      perform private.wake_waiting(rollout.id);
    end if;
  end loop;
  done := done || jsonb_build_object('stages_opened', opened);
  return done;
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
