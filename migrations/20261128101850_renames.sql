-- A segment, a role or a branch has its name as its key, so a rename must reach whatever holds the name. Columns with a
-- foreign key follow by "on update cascade"; the targets of halts and the attributes of known-bad patterns follow here.
-- What was already written about the past (audit_log, alerts, evidence) keeps the old name.

create function private.follow_rename() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Argument: what was renamed, as halts and patterns call it. Definer: a brake follows whoever renames. Lifted ones follow,
-- too: the history of a segment stays its own.
begin
  update public.halts h set target = new.name where h.scope = tg_argv[0]::public.halt_scope and h.target = old.name;
  update public.known_bad_patterns p set match = p.match || jsonb_build_object(tg_argv[0], new.name)
  where p.match ->> tg_argv[0] = old.name;
  return null;
end
$$;
comment on function private.follow_rename() is 'Trigger: brings the new name to halts and known-bad patterns.';
revoke execute on function private.follow_rename() from public;

create trigger follow_rename after update of name on public.segments
  for each row when (new.name is distinct from old.name) execute function private.follow_rename('segment');
create trigger follow_rename after update of name on public.device_roles
  for each row when (new.name is distinct from old.name) execute function private.follow_rename('role');
create trigger follow_rename after update of name on public.branches
  for each row when (new.name is distinct from old.name) execute function private.follow_rename('branch');
