-- The release that a device should go to: its pin, otherwise the newest rollout with an open stage for it, otherwise the
-- newest release of its branch that never had a rollout.

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

create function private.offer_by_rollout(device public.devices, current_release public.releases, at timestamptz) returns private.offer
language plpgsql stable set search_path = ''
as $$
-- The newest rollout that concerns the device and has an open stage for it; what is newer still is remarked on.
declare
  offer private.offer;
  rollout public.rollouts;
  target public.releases;
  step public.releases;
  claim public.rollout_claims;
begin
  for rollout in
    select r.* from public.rollouts r
    where r.branch = device.branch and r.state in ('running', 'paused', 'completed')
      and (r.role is null or r.role = device.role) and device.labels @> r.label_selector
    order by r.started_at desc, r.id
  loop
    select r.* into target from public.releases r where r.id = rollout.release_id and r.state = 'available';
    continue when target.id is null;
    step := private.missing_step(target, current_release);
    if step.id is not null then
      offer.said := offer.said || private.judge_stepping_stone(target, step, pinned => false);
      continue;
    end if;
    offer.stage := private.stage_for(device, rollout, opened => true);
    if offer.stage is null then
      offer.said := offer.said || private.remark_shut_stage(
        rollout, private.stage_for(device, rollout, opened => false), device.timezone, at);
      continue;
    end if;
    select c.* into claim from public.rollout_claims c where c.rollout_id = rollout.id and c.device_id = device.id;
    offer.release := target;
    offer.rollout := rollout;
    offer.claim := claim;
    offer.said := offer.said || private.judge_rollout_state(rollout, target, claim, current_release.id)
      || private.gate_pass('stage', format('Stage %s includes this device and is open.', offer.stage));
    return offer;
  end loop;
  return offer;
end
$$;
comment on function private.offer_by_rollout(public.devices, public.releases, timestamptz) is 'What rollouts offer a device; without a release when none has an open stage for it.';
revoke execute on function private.offer_by_rollout(public.devices, public.releases, timestamptz) from public;

create function private.offer_by_branch(device public.devices, current_release public.releases) returns private.offer
language plpgsql stable set search_path = ''
as $$
-- The newest release of the branch that never had a rollout.
declare
  offer private.offer;
  target public.releases;
  rollout_only boolean := (select b.requires_rollout from public.branches b where b.name = device.branch);
begin
  if not rollout_only then
    select r.* into target from public.releases r
    where r.branch = device.branch and r.state = 'available'
      and not exists (select from public.rollouts o where o.release_id = r.id)
      and (r.requires_release is null or (private.missing_step(r, current_release)).id is null)
    order by r.created_at desc, r.id limit 1;
  end if;
  offer.release := target;
  offer.said := array[private.judge_release(device.branch, rollout_only, target, current_release.id)];
  return offer;
end
$$;
comment on function private.offer_by_branch(public.devices, public.releases) is 'What a device is offered that no rollout serves.';
revoke execute on function private.offer_by_branch(public.devices, public.releases) from public;

create function private.offer_to(device public.devices, current_release public.releases, at timestamptz) returns private.offer
language plpgsql stable set search_path = ''
as $$
declare
  offer private.offer;
  nothing_newer private.gate_result[];
begin
  if device.pinned_release is not null then
    return private.offer_by_pin(device, current_release);
  end if;
  offer := private.offer_by_rollout(device, current_release, at);
  if (offer.rollout).id is null then
    nothing_newer := offer.said;
    offer := private.offer_by_branch(device, current_release);
    offer.said := nothing_newer || offer.said;
  end if;
  offer.said := private.judge_pin(null) || offer.said;
  return offer;
end
$$;
comment on function private.offer_to(public.devices, public.releases, timestamptz) is 'What policy would have a device run: its pin, else the newest rollout with an open stage for it, else the newest release of its branch that never had a rollout.';
revoke execute on function private.offer_to(public.devices, public.releases, timestamptz) from public;
