-- A segment, a role or a branch has its name as its key, so a rename must reach whatever holds the name. Columns with a
-- foreign key follow by "on update cascade"; the targets of halts and what selectors call by name follow here. What was
-- already written about the past (audit_log, alerts, evidence) keeps the old name.
--
-- A selector that is kept can also name devices, but no releases: what calls those by their version is not kept.

create function private.follow_rename() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Argument: what was renamed, as halts and selectors call it. Definer: a brake follows whoever renames. Lifted ones follow,
-- too: the history of a segment stays its own.
declare
  key constant text := tg_argv[0];
begin
  if key <> 'name' then
    update public.halts h set target = new.name where h.scope = key::public.halt_scope and h.target = old.name;
  end if;
  -- A selector may have called a name that nothing had. Of those that are the same from now on, one stays: the one that had
  -- the new name already, or the oldest.
  update public.known_bad_patterns p set lift_reason = format('The same as another one since %s was renamed to %s.', old.name, new.name)
  where p.lifted_at is null and p.selector -> key ? old.name and exists (
    select from public.known_bad_patterns k
    where k.id <> p.id and k.lifted_at is null and k.release_id = p.release_id
      and private.renamed_in(k.selector, key, old.name, new.name) = private.renamed_in(p.selector, key, old.name, new.name)
      and (not k.selector -> key ? old.name or (k.opened_at, k.id) < (p.opened_at, p.id)));
  update public.known_bad_patterns p set selector = private.renamed_in(p.selector, key, old.name, new.name)
  where p.selector -> key ? old.name;
  update public.rollouts r set selector = private.renamed_in(r.selector, key, old.name, new.name)
  where r.selector -> key ? old.name;
  update public.rollout_templates t set selector = private.renamed_in(t.selector, key, old.name, new.name)
  where t.selector -> key ? old.name;
  return null;
end
$$;
comment on function private.follow_rename() is 'Trigger: brings the new name to halts and to the selectors of rollouts, templates and known-bad patterns.';
revoke execute on function private.follow_rename() from public;

create trigger follow_rename after update of name on public.segments
  for each row when (new.name is distinct from old.name) execute function private.follow_rename('segment');
create trigger follow_rename after update of name on public.device_roles
  for each row when (new.name is distinct from old.name) execute function private.follow_rename('role');
create trigger follow_rename after update of name on public.branches
  for each row when (new.name is distinct from old.name) execute function private.follow_rename('branch');
-- Not of a retired device: another one may have its name, and be meant.
create trigger follow_rename after update of name on public.devices
  for each row when (new.name is distinct from old.name and new.state <> 'retired') execute function private.follow_rename('name');
