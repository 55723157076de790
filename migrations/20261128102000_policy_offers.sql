-- What policy would have a device go to: its pin, else the slot that it holds, else what was said last for it: by a rollout
-- when it started, or by an immediate branch when the release was added. Where nobody said anything, nothing.

create type private.offer as (
  release public.releases,
  rollout public.rollouts,
  stage int,
  claim public.rollout_claims,
  said private.gate_result[]
);
comment on type private.offer is
  'The release that a device would go to, by which rollout and stage (null: pinned, or no rollout), the slot it holds or held there, and the results of the gates on the way.';

create function private.offer_by_pin(device public.devices, current_release public.releases) returns private.offer
language plpgsql stable set search_path = ''
as $$
declare
  offer private.offer;
  target public.releases;
  step public.releases;
begin
  select r.* into target from public.releases r where r.id = device.pinned_release;
  step := private.missing_step(target, current_release);
  if step.id is not null then
    offer.said := array[private.judge_stepping_stone(target, step, pinned => true)];
  end if;
  offer.said := offer.said || private.judge_pin(target);
  offer.release := target;
  return offer;
end
$$;
comment on function private.offer_by_pin(public.devices, public.releases) is 'What a pinned device goes to.';
revoke execute on function private.offer_by_pin(public.devices, public.releases) from public;

create function private.takes(rollout public.rollouts, device public.devices) returns boolean
language sql stable
return rollout.branch = device.branch and (rollout.role is null or rollout.role = device.role)
  and private.device_matches(device, rollout.selector);
comment on function private.takes(public.rollouts, public.devices) is 'Do branch, role and selector of the rollout take this device? Its stages are another question.';
revoke execute on function private.takes(public.rollouts, public.devices) from public;

create function private.what_bars(device public.devices, target public.releases, current_id uuid, rollout_id uuid) returns private.gate_result
language plpgsql stable set search_path = ''
as $$
declare
  said private.gate_result;
begin
  if target.id = current_id then
    return null;
  end if;
  said := private.judge_release_halt(target, rollout_id);
  if not said.blocks then
    said := private.judge_known_bad(device, target);
  end if;
  if not said.blocks then
    return null;
  end if;
  said.blocks := false;
  return said;
end
$$;
comment on function private.what_bars(public.devices, public.releases, uuid, uuid) is
  'Why a release that was said may not be given to this device any more (halted, known bad), as a note; all null for nothing, or where it runs it.';
revoke execute on function private.what_bars(public.devices, public.releases, uuid, uuid) from public;

create function private.offer_by_slot(device public.devices, current_release public.releases) returns private.offer
language plpgsql stable set search_path = ''
as $$
-- Who has begun finishes, also when the rollout is over, or a newer one began; not with what is halted or known bad, or it
-- would miss the release that mends it.
declare
  offer private.offer;
  claim public.rollout_claims;
  rollout public.rollouts;
  target public.releases;
begin
  for claim in
    select c.* from public.rollout_claims c
    where c.device_id = device.id and c.state = 'claimed' order by c.claimed_at desc, c.rollout_id
  loop
    select r.* into rollout from public.rollouts r where r.id = claim.rollout_id;
    select r.* into target from public.releases r where r.id = claim.to_release and r.state = 'available';
    if target.id is not null and private.takes(rollout, device)
       and (private.what_bars(device, target, current_release.id, claim.rollout_id)).gate is null
       and (private.missing_step(target, current_release)).id is null then
      offer.release := target;
      offer.rollout := rollout;
      offer.stage := claim.stage;
      offer.claim := claim;
      offer.said := array[private.judge_rollout_state(rollout, target, claim, current_release.id)];
      return offer;
    end if;
  end loop;
  return null;
end
$$;
comment on function private.offer_by_slot(public.devices, public.releases) is 'What a device is on its way to, by the slot that it holds; all null for none.';
revoke execute on function private.offer_by_slot(public.devices, public.releases) from public;

create function private.newest_at_once(device public.devices, current_release public.releases) returns public.releases
language plpgsql stable set search_path = ''
as $$
declare
  newest public.releases;
begin
  if (select b.delivery = 'immediate' from public.branches b where b.name = device.branch) then
    select r.* into newest from public.releases r
    where r.branch = device.branch and r.state = 'available' and not r.by_rollout_only
      and (r.requires_release is null or (private.missing_step(r, current_release)).id is null)
    order by r.created_at desc, r.id limit 1;
  end if;
  return newest;
end
$$;
comment on function private.newest_at_once(public.devices, public.releases) is 'The newest release that the branch of the device gives without a rollout; all null for none.';
revoke execute on function private.newest_at_once(public.devices, public.releases) from public;

create function private.offer_said_last(device public.devices, current_release public.releases, at timestamptz) returns private.offer
language plpgsql stable set search_path = ''
as $$
-- From the rollout that started last to the first one. What said something newer, and does not reach the device, is noted.
-- Once the branch had gone on to a release, what it gave to everybody before that is given to nobody any more (by_branch).
declare
  offer private.offer;
  by_branch public.releases := private.newest_at_once(device, current_release);
  rollout public.rollouts;
  target public.releases;
  step public.releases;
  claim public.rollout_claims;
  bar private.gate_result;
  is_over boolean;
  by_completion boolean;
  needed uuid;
  noted boolean := false;
begin
  for rollout in
    select r.* from public.rollouts r
    where r.branch = device.branch and private.takes(r, device)
      and (r.state in ('running', 'paused', 'completed', 'superseded')
        -- A cancel leaves it to who runs it.
        or (r.state = 'cancelled' and r.started_at is not null and r.release_id = current_release.id))
    order by r.started_at desc, r.id
  loop
    is_over := rollout.state not in ('running', 'paused');
    exit when is_over and rollout.started_at < by_branch.created_at;
    select r.* into target from public.releases r where r.id = rollout.release_id and r.state = 'available';
    continue when target.id is null;
    offer.stage := private.stage_for(device, rollout, opened => true);
    by_completion := false;
    step := private.missing_step(target, current_release);
    if step.id is not null then
      offer.said := offer.said || private.judge_stepping_stone(target, step, pinned => false);
      -- Said for what needs it, so also said for this device.
      needed := case when offer.stage is not null then step.id else needed end;
      continue;
    end if;
    if is_over and (offer.stage is null and target.id = needed or rollout.state = 'cancelled') then
      offer.stage := coalesce(offer.stage,
        (select min(s.position) from public.rollout_stages s where s.rollout_id = rollout.id and s.opened_at is not null));
    elsif offer.stage is null and rollout.state = 'completed' and private.stage_for(device, rollout, opened => false) is null then
      -- Completed, it counts for all that its branch, role and selector take: under the limits of its last stage.
      offer.stage := (select max(s.position) from public.rollout_stages s where s.rollout_id = rollout.id and s.opened_at is not null);
      by_completion := offer.stage is not null;
    end if;
    if offer.stage is null then
      if rollout.state = 'superseded' then
        by_branch := null;
      elsif not (is_over and noted) then
        offer.said := offer.said || private.remark_shut_stage(
          rollout, private.stage_for(device, rollout, opened => false), device.timezone, at);
        noted := is_over;
      end if;
      continue;
    end if;
    if is_over then
      bar := private.what_bars(device, target, current_release.id, rollout.id);
      if bar.gate is not null then
        offer.said := offer.said || bar;
        by_branch := null;
        continue;
      end if;
    end if;
    select c.* into claim from public.rollout_claims c where c.rollout_id = rollout.id and c.device_id = device.id;
    offer.release := target;
    offer.rollout := rollout;
    offer.claim := claim;
    offer.said := offer.said || private.judge_rollout_state(rollout, target, claim, current_release.id)
      || private.gate_pass('stage', format(case when by_completion
        then 'The rollout is completed, so it is for every device that its branch, role and selector take (stage %s).'
        else 'Stage %s holds this device and is open.' end, offer.stage));
    return offer;
  end loop;
  offer.release := by_branch;
  offer.stage := null;
  offer.said := offer.said || private.judge_release(device.branch,
    (select b.delivery = 'immediate' from public.branches b where b.name = device.branch), by_branch, current_release.id);
  return offer;
end
$$;
comment on function private.offer_said_last(public.devices, public.releases, timestamptz) is
  'What was said last for a device, by a rollout or by its immediate branch; without a release when nobody said anything.';
revoke execute on function private.offer_said_last(public.devices, public.releases, timestamptz) from public;

create function private.offer_to(device public.devices, current_release public.releases, at timestamptz) returns private.offer
language plpgsql stable set search_path = ''
as $$
declare
  offer private.offer;
begin
  if device.pinned_release is not null then
    return private.offer_by_pin(device, current_release);
  end if;
  offer := private.offer_by_slot(device, current_release);
  if (offer.rollout).id is null then
    offer := private.offer_said_last(device, current_release, at);
  end if;
  offer.said := private.judge_pin(null) || offer.said;
  return offer;
end
$$;
comment on function private.offer_to(public.devices, public.releases, timestamptz) is
  'What policy would have a device run: its pin, else what it holds a slot for, else what was said last for it.';
revoke execute on function private.offer_to(public.devices, public.releases, timestamptz) from public;
