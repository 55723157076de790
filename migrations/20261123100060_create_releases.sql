-- One commit of the fleet repository, offered to the devices that track its branch.

create table public.releases (
  id uuid primary key default gen_random_uuid(),
  commit_sha text not null
    constraint "commit_sha must be the full 40 or 64 hex digits of a commit" check (commit_sha ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
  branch text not null default 'main' references public.branches on update cascade,
  version text not null default ''
    constraint "version must be at most 100 characters" check (length(version) <= 100),
  state public.release_state not null default 'available',
  signer text,
  notes text not null default '',
  created_by uuid,
  created_at timestamptz not null default now(),
  constraint "this commit is already a release of this branch" unique (branch, commit_sha)
);
comment on table public.releases is 'Commits of the fleet repository that devices can be given.';
comment on column public.releases.commit_sha is 'The full commit id. Fixed once the row exists: make a new release for a new commit.';
comment on column public.releases.version is 'A name for people; the first 12 digits of the commit when left empty.';
comment on column public.releases.state is 'Set to withdrawn to take a release back: devices that run it are offered the newest available one.';
comment on column public.releases.signer is 'Who signed the commit, as the Git host or fleetctl saw it. Devices verify for themselves.';
create index releases_newest_available on public.releases (branch, created_at desc, id) where state = 'available';
create index releases_by_commit on public.releases (commit_sha);

create function private.check_release() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: looks into branches for the sentence, whatever the caller may read.
begin
  new.commit_sha := lower(new.commit_sha);
  new.version := coalesce(nullif(btrim(new.version), ''), left(new.commit_sha, 12));
  if not exists (select from public.branches b where b.name = new.branch) then
    perform private.refuse('unknown_branch', format('There is no branch "%s".', new.branch),
      'Add it to the table branches first, or pick one that is there.', 'PT400');
  end if;
  if tg_op = 'INSERT' then
    new.created_by := coalesce(private.actor_id(), new.created_by);
  elsif (new.id, new.commit_sha, new.created_at) is distinct from (old.id, old.commit_sha, old.created_at)
     or (new.branch is distinct from old.branch and exists (select from public.branches b where b.name = old.branch)) then
    perform private.refuse('release_is_fixed', 'A release cannot be pointed at another commit or branch.',
      'Insert a new release, and withdraw this one if nobody should get it.');
  end if;
  return new;
end
$$;
revoke execute on function private.check_release() from public;
create trigger check_release before insert or update on public.releases
  for each row execute function private.check_release();
create trigger audit after insert or update or delete on public.releases
  for each row execute function private.audit_change('id');

alter table public.releases enable row level security;
grant select, insert, update on public.releases to authenticated, service_role;
create policy "operators read releases" on public.releases for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add releases" on public.releases for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change releases" on public.releases for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
