-- Branches of the fleet repository, and releases: one commit each, offered to the devices that track its branch.

create table public.branches (
  name text primary key
    constraint "name must look like a Git branch" check (name ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$' and name !~ '\.\.|//|/$|\.lock$'),
  delivery public.branch_delivery not null default 'rollout_only',
  rollout_template text references public.rollout_templates on update cascade,
  description text not null default '',
  constraint "description must be at most 4000 characters"
    check (length(description) <= 4000),
  constraint "description must be plain text, without control characters" check (private.is_plain_text(description))
);
comment on table public.branches is 'Git branches of the fleet repository that devices can track.';
comment on column public.branches.delivery is
  'rollout_only: a release of this branch reaches nobody without a rollout. immediate: it goes to every device of the branch when it is added, for branches on which releases are tried.';
comment on column public.branches.rollout_template is
  'A new release of this branch starts a rollout made from this template, and is never delivered outside of one.';

alter table public.branches enable row level security;
grant select, insert, update, delete on public.branches to authenticated, service_role;
create policy "operators read branches" on public.branches for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add branches" on public.branches for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change branches" on public.branches for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove branches" on public.branches for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update or delete on public.branches
  for each statement execute function private.require_rank_to_write('operator');

insert into public.branches (name, description) values
  ('main', 'What the fleet runs.'),
  ('staging', 'What is tried first.');

create trigger a_lock_policy_first before update of name on public.branches
  for each statement execute function private.lock_policy_first();
create trigger refuse_in_use before delete on public.branches
  for each row execute function private.refuse_in_use('name');
create trigger audit after insert or update or delete on public.branches
  for each row execute function private.audit_change('name');

create function private.require_branch(wanted text) returns void
language plpgsql stable set search_path = ''
as $$
begin
  if not exists (select from public.branches b where b.name = wanted) then
    perform private.refuse('unknown_branch', format('There is no branch "%s".', wanted),
      'See `fleetctl branch list`, or add it to the table branches first.', 'PT400');
  end if;
end
$$;
comment on function private.require_branch(text) is 'Refuses a name that no branch has, in words (PT400). For definer functions.';
revoke execute on function private.require_branch(text) from public;

create table public.releases (
  id uuid primary key default gen_random_uuid(),
  commit_sha text not null
    constraint "commit_sha must be the full 40 or 64 hex digits of a commit" check (commit_sha ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
  branch text not null default 'main' references public.branches on update cascade,
  version text not null default ''
    constraint "version must be at most 100 characters" check (length(version) <= 100),
  state public.release_state not null default 'available',
  all_at_once boolean not null default false,
  requires_release uuid references public.releases,
  by_rollout_only boolean not null default false,
  notes text not null default '',
  access jsonb not null default '{}'
    constraint "access must be an object of at most 20000 characters"
      check (jsonb_typeof(access) = 'object' and length(access::text) <= 20000),
  created_by uuid,
  created_at timestamptz not null default now(),
  constraint "all_at_once is for a release that is withdrawn" check (not all_at_once or state = 'withdrawn'),
  constraint "this commit is already a release of this branch" unique (branch, commit_sha),
  constraint "this version is already a release of this branch" unique (branch, version),
  constraint "times must be between 1970 and 2200"
    check (created_at between '1970-01-01Z' and '2200-01-01Z'),
  constraint "texts must be at most 20000 characters"
    check (length(notes) <= 20000),
  constraint "version must be one line, without control characters" check (private.is_one_line(version)),
  constraint "notes must be plain text, without control characters" check (private.is_plain_text(notes))
);
comment on table public.releases is 'Commits of the fleet repository that devices can be given.';
comment on column public.releases.commit_sha is 'The full commit id. Fixed once the row exists: make a new release for a new commit.';
comment on column public.releases.version is 'A name for people; the first 12 digits of the commit if left empty.';
comment on column public.releases.state is 'Set to withdrawn to take a release back: devices that run it get what was said before, under the limits of slots.';
comment on column public.releases.all_at_once is
  'Set it with the withdrawal: devices that run the release go back all at once, past the limits of slots.';
comment on column public.releases.requires_release is
  'A device that runs something older than this must go through it first. A device that runs nothing yet need not.';
comment on column public.releases.by_rollout_only is
  'On: it reaches devices through rollouts only, on an immediate branch, too. Its first rollout, or a template of its branch, switches it on.';
comment on column public.releases.access is
  'What its roles declare to take of a device, with a reason each: {"kiosk": {"root": "why"}}. fleetctl reads it from the commit, for people; devices judge the signed files.';
create index releases_newest_available on public.releases (branch, created_at desc, id) where state = 'available';
create index releases_by_commit on public.releases (commit_sha);

alter table public.releases enable row level security;
grant select, insert, update on public.releases to authenticated, service_role;
create policy "operators read releases" on public.releases for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add releases" on public.releases for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change releases" on public.releases for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update on public.releases
  for each statement execute function private.require_rank_to_write('operator');
create trigger a_keep_machine_columns before insert or update of created_at, created_by on public.releases
  for each row execute function private.keep_machine_columns('{"created_at": "now", "created_by": null}');

create function private.check_release() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks into branches for the sentence, whatever the caller may read.
begin
  new.commit_sha := lower(new.commit_sha);
  new.version := coalesce(nullif(btrim(new.version), ''), left(new.commit_sha, 12));
  perform private.require_branch(new.branch);
  if exists (select from public.releases r
      where r.branch = new.branch and r.version = new.version and r.id <> new.id and r.commit_sha <> new.commit_sha) then
    perform private.refuse('version_taken', (
      select format('Branch %s has a release %s already: commit %s.', r.branch, r.version, left(r.commit_sha, 12))
      from public.releases r where r.branch = new.branch and r.version = new.version),
      'Give this one another version.');
  end if;
  if tg_op = 'INSERT' then
    perform private.refuse_future('created_at', new.created_at);
    new.created_by := coalesce(private.actor_id(), new.created_by);
  elsif (new.id, new.commit_sha, new.created_at) is distinct from (old.id, old.commit_sha, old.created_at)
     or (new.branch is distinct from old.branch and exists (select from public.branches b where b.name = old.branch)) then
    perform private.refuse('release_is_fixed', 'A release cannot be pointed at another commit or branch.',
      'Insert a new release, and withdraw this one if no device should get it.');
  end if;
  new.all_at_once := new.all_at_once and new.state = 'withdrawn';
  -- Also a row that was withdrawn until now: what has a template never goes to everybody at once.
  if (tg_op = 'INSERT' or new.state is distinct from old.state)
     and exists (select from public.branches b where b.name = new.branch and b.rollout_template is not null) then
    new.by_rollout_only := true;
  end if;
  return new;
end
$$;
revoke execute on function private.check_release() from public;
create trigger check_release before insert or update on public.releases
  for each row execute function private.check_release();

create trigger refuse_in_use before delete on public.releases
  for each row execute function private.refuse_in_use('version');
create trigger a_lock_policy_first before update of state on public.releases
  for each statement execute function private.lock_policy_first();
create trigger audit after insert or update or delete on public.releases
  for each row execute function private.audit_change('id');

create function private.release_name(release_id uuid) returns text
language sql stable security definer set search_path = ''
as $$
  -- Definer: for devices' answers.
  select coalesce((select r.version from public.releases r where r.id = release_id), 'nothing')
$$;
comment on function private.release_name(uuid) is 'A release''s version for sentences; "nothing" for null.';
revoke execute on function private.release_name(uuid) from public;

create function private.release_facts(release_id uuid) returns jsonb
language sql stable set search_path = ''
as $$
  select jsonb_build_object('id', r.id, 'commit_sha', r.commit_sha, 'version', r.version, 'branch', r.branch)
  from public.releases r where r.id = release_facts.release_id
$$;
comment on function private.release_facts(uuid) is 'A release as devices receive it; null for none.';
revoke execute on function private.release_facts(uuid) from public;

create function private.is_given_at_once(release public.releases) returns boolean
language sql stable set search_path = ''
as $$
  select not release.by_rollout_only and b.delivery = 'immediate' from public.branches b where b.name = release.branch
$$;
comment on function private.is_given_at_once(public.releases) is 'Does its branch give this release to every device, without a rollout?';
revoke execute on function private.is_given_at_once(public.releases) from public;

-- Some releases may not be skipped (for example, only they convert a data format). A release names the one that must be
-- run before it. A device that has not run that one yet is offered it first, under that rollout's own limits.

create function private.check_required_release() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  if new.requires_release is not null and not exists (
    select from public.releases r
    where r.id = new.requires_release and r.branch = new.branch and r.id <> new.id and r.created_at < new.created_at) then
    perform private.refuse('bad_stepping_stone', 'requires_release must be an older release of the same branch.',
      'Leave it empty, or pick one: fleetctl release list.', 'PT400');
  end if;
  return new;
end
$$;
revoke execute on function private.check_required_release() from public;
-- Runs after check_release, because of its name: that one fills in what is checked here.
create trigger check_required_release before insert or update of requires_release on public.releases
  for each row execute function private.check_required_release();

create function private.missing_step(target public.releases, current_release public.releases) returns public.releases
language plpgsql stable security definer set search_path = ''
as $$
-- Definer: reads releases for devices. The first release that must be run before the target, or all null. An older
-- branch-mate is behind; another branch is another story, told by the required release itself.
declare
  step public.releases;
begin
  if target.requires_release is null or current_release.id is null or current_release.id = target.id then
    return null;
  end if;
  select r.* into step from public.releases r where r.id = target.requires_release;
  if current_release.id = step.id
     or (current_release.branch = step.branch and current_release.created_at >= step.created_at) then
    return null;
  end if;
  return step;
end
$$;
comment on function private.missing_step(public.releases, public.releases) is 'The mandatory release that a device has not run yet, or null.';
revoke execute on function private.missing_step(public.releases, public.releases) from public;
