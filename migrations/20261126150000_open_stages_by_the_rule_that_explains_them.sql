-- What keeps a stage shut was written twice: where stages open, and where a device is told why its stage has not. Now one
-- function says it, advance_rollout() opens what it says nothing about, and an explanation cannot drift from the rule.

create function private.shut_because(rollout public.rollouts, timezone text, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  last_open public.rollout_stages;
  following public.rollout_stages;
  brake public.halts;
  lacking text;
  soaked_at timestamptz;
  skip constant text := 'Set opened_at of the stage to skip the wait.';
begin
  if rollout.state = 'paused' then
    return private.gate_note('stage', 'the rollout is paused.', 'Resume the rollout: resume_rollout(), or set its state to running.');
  elsif rollout.state = 'completed' then
    return private.gate_note('stage', 'the rollout was completed without it.', 'Set opened_at of the stage to open it.');
  end if;
  select s.* into last_open from public.rollout_stages s
  where s.rollout_id = rollout.id and s.opened_at is not null order by s.position desc limit 1;
  if last_open.position is not null then
    brake := private.brake_on_stages(rollout);
    lacking := private.proof_lacking(last_open);
    soaked_at := last_open.proved_at + make_interval(secs => last_open.soak_s);
    if brake.id is not null then
      return private.gate_note('stage', format('%s is halted: %s',
        case brake.scope when 'fleet' then 'the fleet' when 'rollout' then 'the rollout' when 'release' then 'the release'
          else brake.scope::text || ' ' || brake.target end, brake.reason), private.how_to_lift(brake));
    elsif lacking is not null then
      return private.gate_note('stage', format('stage %s is not proved (%s).', last_open.position, lacking),
        format('Nothing to do: it opens when stage %s is proved and has soaked. %s', last_open.position, skip));
    elsif at < soaked_at then
      return private.gate_note('stage', format('stage %s soaks until %s.', last_open.position, private.local_time(soaked_at, timezone)),
        'Nothing to do: it opens by itself. ' || skip, soaked_at);
    end if;
  end if;
  select s.* into following from public.rollout_stages s
  where s.rollout_id = rollout.id and s.opened_at is null order by s.position limit 1;
  if following.needs_approval and following.approved_at is null then
    return private.gate_note('stage', format('stage %s waits for approval.', following.position),
      format('Approve it: approve_stage(''%s'', %s), or set its approved_at.', rollout.id, following.position));
  end if;
  return null;
end
$$;
comment on function private.shut_because(public.rollouts, text, timestamptz) is
  'What keeps the next stage of a rollout shut (after the last: keeps it from being completed), as half a sentence, on the clock of a time zone; all null when it is due.';

create or replace function private.remark_shut_stage(rollout public.rollouts, stage int, timezone text, at timestamptz) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  because private.gate_result;
  version text := private.release_name(rollout.release_id);
begin
  if stage is null then
    return private.gate_note('stage', format('%s is being rolled out, but no stage holds this device.', version),
      'Add a stage that holds it, raise the percentage of one, or pin the device.');
  end if;
  because := private.shut_because(rollout, timezone, at);
  return private.gate_note('stage',
    format('%s is being rolled out, but stage %s is not open yet: %s', version, stage, coalesce(because.detail, 'it is due.')),
    coalesce(because.hint, 'Nothing to do: it opens within a minute.'), because.look_again);
end
$$;

create function private.note_proof(stage public.rollout_stages, at timestamptz) returns void
language plpgsql volatile set search_path = ''
as $$
declare
  proved boolean := private.proof_lacking(stage) is null;
begin
  if proved is distinct from (stage.proved_at is not null) then
    update public.rollout_stages s set proved_at = case when proved then at end
    where s.rollout_id = stage.rollout_id and s.position = stage.position;
  end if;
end
$$;
comment on function private.note_proof(public.rollout_stages, timestamptz) is
  'Notes since when an open stage is proved, or that it no longer is.';

create or replace function private.advance_rollout(wanted_id uuid, at timestamptz) returns int
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: policy moves its own rows. Opens every stage that is due and completes the rollout after the last.
-- Returns how many stages it opened. The caller holds the policy lock.
declare
  rollout public.rollouts;
  stage public.rollout_stages;
  following int;
  opened int := 0;
begin
  select r.* into rollout from public.rollouts r where r.id = wanted_id;
  if rollout.state is distinct from 'running' then
    return 0;
  end if;
  loop
    select s.* into stage from public.rollout_stages s
    where s.rollout_id = wanted_id and s.opened_at is not null order by s.position desc limit 1;
    -- A stage that a person opened by hand has neither size nor counters yet.
    if stage.position is not null and stage.size_at_opening is null then
      perform private.open_stage(wanted_id, stage.position, at);
      opened := opened + 1;
      continue;
    elsif stage.position is not null then
      perform private.note_proof(stage, at);
    end if;
    exit when (private.shut_because(rollout, 'UTC', at)).gate is not null;
    select min(s.position) into following from public.rollout_stages s
    where s.rollout_id = wanted_id and s.opened_at is null;
    if following is null then
      -- The last stage is proved and soaked.
      update public.rollouts r set state = 'completed' where r.id = wanted_id and stage.position is not null;
      exit;
    end if;
    perform private.open_stage(wanted_id, following, at);
    opened := opened + 1;
  end loop;
  if opened > 0 then
    perform private.wake_candidates(wanted_id, 'stage_opened');
  end if;
  return opened;
end
$$;

revoke execute on function private.shut_because(public.rollouts, text, timestamptz),
  private.note_proof(public.rollout_stages, timestamptz) from public;
