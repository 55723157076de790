-- tick() as before, and what reports need with it: attempts rolled up once a minute, adoption every ten, patterns when
-- failures arrived. Work that reads the whole fleet now comes before anything that takes the policy lock.

create or replace function private.tick(at timestamptz default now()) returns jsonb
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
  for rollout in select r.id, r.state, r.max_per_minute from public.rollouts r where r.state in ('running', 'completed') order by r.id loop
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
