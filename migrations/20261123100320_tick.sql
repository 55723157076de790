-- What must happen by the clock: called every few seconds by the embedded stack and every minute by pg_cron
-- where it exists. Safe when run twice, late or from two places. Cheap when nothing is due.

create function private.expire_commands(at timestamptz) returns int
language sql volatile security definer set search_path = ''
as $$
  -- Definer: the scheduler holds no rights of its own on the tables.
  with expired as (
    update public.device_commands c set state = 'expired'
    where c.state = 'queued' and c.expires_at <= at returning 1)
  select count(*)::int from expired
$$;
comment on function private.expire_commands(timestamptz) is 'Ends commands that no device answered in time.';

create function private.tick(at timestamptz default now()) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: see expire_commands().
declare
  done jsonb := '{}';
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
  done := done || jsonb_build_object('months_dropped', private.drop_old_history(at));
  return done;
end
$$;
comment on function private.tick(timestamptz) is 'Everything that is due by the clock. Returns what was done.';
revoke execute on function private.expire_commands(timestamptz), private.tick(timestamptz) from public;
grant execute on function private.tick(timestamptz) to service_role;

do $$
begin
  create extension if not exists pg_cron;
  execute $cron$ select cron.schedule('metrica-fleet-tick', '20 seconds', 'select private.tick(now())') $cron$;
exception
  -- Not installed, not preloaded or not allowed: then the embedded stack's own scheduler calls tick().
  when others then raise notice 'no pg_cron here (%): something else must call private.tick()', sqlerrm;
end
$$;
