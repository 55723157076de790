-- approve_stage(rollout_id, position) could not be called through Lite, which writes the names of arguments as they are:
-- `position` is a word of SQL's grammar (pg_get_keywords() category C) and an error there unless it is quoted. The argument
-- is called `stage` now, as in preview_rollout() and fleetctl. Risky for nobody who names no arguments; whoever named
-- this one has to say `stage`. tests/sql/test_catalog.py keeps such names out of every exposed function.

drop function public.approve_stage(uuid, int);

create function public.approve_stage(rollout_id uuid, stage int) returns public.rollout_stages
language plpgsql volatile set search_path = ''
as $$
-- Runs under the caller's row-level security.
declare
  approved public.rollout_stages;
begin
  perform private.require_rank('operator');
  update public.rollout_stages s set approved_at = now()
  where s.rollout_id = approve_stage.rollout_id and s.position = approve_stage.stage and s.approved_at is null;
  select s.* into approved from public.rollout_stages s
  where s.rollout_id = approve_stage.rollout_id and s.position = approve_stage.stage;
  if approved.rollout_id is null then
    perform private.refuse('stage_unknown', 'There is no such stage.', 'Look it up in the table rollout_stages.', 'PT404');
  end if;
  return approved;
end
$$;
comment on function public.approve_stage(uuid, int) is
  'Lets a stage that waits for approval open when it is due. stage: its position.';
revoke execute on function public.approve_stage(uuid, int) from public;
grant execute on function public.approve_stage(uuid, int) to authenticated, service_role;
