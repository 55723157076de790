-- "Download now, apply in the window": where only the window is still shut, desired_state() also names a release to
-- prefetch. What the device does then is fetching, checking and pulling; what it runs stays as it is, and no slot is taken.

alter table public.maintenance_windows add column prefetch boolean not null default false;
comment on column public.maintenance_windows.prefetch is
  'Devices fetch, check and pull a release before the window opens, so that only the change itself is inside it. Off: they start no download outside of the window.';

alter type private.decision add attribute prefetch_id uuid;
comment on type private.decision is
  'What a device should do: release_id is what it should be on, null for nothing yet; prefetch_id is what it may fetch ahead of its window, or null.';

create function private.release_facts(release_id uuid) returns jsonb
language sql stable set search_path = ''
as $$
  select jsonb_build_object('id', r.id, 'commit_sha', r.commit_sha, 'version', r.version, 'branch', r.branch)
  from public.releases r where r.id = release_facts.release_id
$$;
comment on function private.release_facts(uuid) is 'A release as devices are told of it; null for none.';
revoke execute on function private.release_facts(uuid) from public;

create or replace function private.answer(device public.devices, decided private.decision, at timestamptz) returns jsonb
language sql stable security definer set search_path = ''
as $$
  -- Definer: reads releases and commands for the device.
  select jsonb_build_object(
    'action', decided.action,
    'device', jsonb_build_object('id', device.id, 'name', device.name, 'role', device.role,
      'segment', device.segment, 'branch', device.branch),
    'release', private.release_facts(decided.release_id),
    'prefetch', private.release_facts(decided.prefetch_id),
    'rollout_id', decided.rollout_id,
    'gates', decided.gates,
    'commands', coalesce((
      select jsonb_agg(jsonb_build_object('id', c.id, 'kind', c.kind, 'args', c.args) order by c.requested_at, c.id)
      from public.device_commands c
      where c.device_id = device.id and c.state = 'queued' and at < c.expires_at), '[]'),
    'config', jsonb_build_object('poll_interval_s', device.poll_interval_s, 'labels', device.labels),
    'next_poll_s', decided.next_poll_s,
    'server_time', at)
$$;
