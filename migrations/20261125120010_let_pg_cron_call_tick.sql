-- Who calls tick() where PostgreSQL has pg_cron. The first form of this asked for a schedule in seconds, which pg_cron
-- before 1.5 refuses (Debian's is 1.4), took that for "no pg_cron here" and undid the extension with it; and nobody
-- cleared cron.job_run_details, which gains 4,320 rows a day.
--
-- Both jobs belong to role `postgres`, who owns tick(). Safe to run again: pg_cron replaces a job of the same name.

create or replace function private.forget_tick_runs(at timestamptz) returns int
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

create or replace function private.schedule_tick() returns text
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
revoke execute on function private.schedule_tick(), private.forget_tick_runs(timestamptz) from public;

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
      raise notice 'No pg_cron here: something else must call private.tick().';
    end if;
  exception
    when insufficient_privilege then
      raise warning 'pg_cron is here, but postgres may not use it (%).', sqlerrm
        using hint = 'As its owner: grant usage on schema cron to postgres; then: select private.schedule_tick();';
  end;
end
$$;
