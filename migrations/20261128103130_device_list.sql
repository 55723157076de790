-- The list of devices as the dashboard shows it: any part of it, in any order, for a selector.

create function private.natural_order(word text) returns text
language sql immutable parallel safe
return regexp_replace(regexp_replace(lower(word), '(\d+)', '0000000000000000000\1', 'g'), '0*(\d{20})', '\1', 'g');
comment on function private.natural_order(text) is 'For sorting: lobby-9 comes before lobby-10. Numbers of up to twenty digits.';
revoke execute on function private.natural_order(text) from public;
grant execute on function private.natural_order(text) to authenticated, service_role;

create function private.version_order(version text) returns text
language sql immutable parallel safe
-- With the order of bytes: a space sorts before a tilde, so that a release candidate comes before its release.
return case
  when version ~ '^[vV]?\d+(\.\d+)*([-+].*)?$' then '0' || private.natural_order(regexp_replace(version, '^[vV]?(\d+(?:\.\d+)*).*$', '\1'))
    || case when version ~ '^[vV]?\d+(\.\d+)*-' then ' ' || private.natural_order(substr(version, strpos(version, '-'))) else '~' end
  else '1' || private.natural_order(version)
end;
comment on function private.version_order(text) is
  'For sorting: 1.9.0, 1.10.0-rc.1, 1.10.0; what is not a version comes after those, nothing (null) last.';
revoke execute on function private.version_order(text) from public;
grant execute on function private.version_order(text) to authenticated, service_role;

create function private.meant_by(selector jsonb) returns table (device_id uuid)
language plpgsql stable set search_path = ''
as $$
-- Runs under the caller's row-level security. Retired devices are history: only a selector that names states has them.
declare
  checked jsonb := private.checked_selector(selector, null);
begin
  return query
  select m.device_id from private.devices_of(checked) m
  where checked ?| array['state', 'shown'] or exists (select from public.devices d where d.id = m.device_id and d.state <> 'retired');
end
$$;
comment on function private.meant_by(jsonb) is
  'The devices that a list or a bulk change means by a selector: retired ones only if it names them by state or shown.';
revoke execute on function private.meant_by(jsonb) from public;
grant execute on function private.meant_by(jsonb) to authenticated, service_role;

create function public.list_devices(
  selector jsonb default '{}', sort_by text default 'shown', descending boolean default false, skip int default 0, at_most int default 100
) returns jsonb
language plpgsql stable set search_path = '' set jit = off
as $$
-- Runs under the caller's row-level security. The whole answer is one value, so that no limit of rows cuts it.
declare
  orders constant jsonb := jsonb_build_object(
    'name', 'private.natural_order(d.name)', 'role', 'private.natural_order(d.role)', 'segment', 'private.natural_order(d.segment)',
    'branch', 'private.natural_order(d.branch)', 'current', 'private.version_order(r.version)', 'target', 'private.version_order(t.version)',
    'window', 'private.natural_order(d.maintenance_window)', 'hardware', 'private.natural_order(d.hardware_model)',
    'agent', 'private.version_order(s.agent_version)', 'contact', 's.reported_at',
    'shown', 'array_position(private.shown_states(), private.shown_state(d.state, s.state, private.is_offline(s.reported_at, '
      'coalesce(s.pinned_poll_interval_s, d.poll_interval_s), f.default_poll_interval_s, f.offline_after_intervals, now())))');
  direction text := case when descending then 'desc' else 'asc' end;
  answer jsonb;
begin
  perform private.require_rank('viewer');
  if not orders ? coalesce(sort_by, '') then
    perform private.refuse('sort_unknown', format('Devices cannot be sorted by %s.', left(coalesce(sort_by, 'nothing'), 100)),
      format('Use %s.', (select string_agg(k, ', ' order by k) from jsonb_object_keys(orders) k)), 'PT400');
  end if;
  if coalesce(at_most, 0) not between 1 and 1000 or coalesce(skip, -1) < 0 then
    perform private.refuse('page_malformed', 'A page has 1 to 1000 devices, after 0 or more.', 'Change at_most or skip.', 'PT400');
  end if;
  -- When a contact is sorted, the latest comes first, and what never was last.
  execute format($q$
    with meant as materialized (select m.device_id from private.meant_by($1) m),
    page as (
      select d.id, row_number() over () as place
      from (
        select d.id
        from meant m
        join public.devices d on d.id = m.device_id
        left join public.device_status s on s.device_id = d.id
        left join public.releases r on r.id = s.current_release
        left join public.releases t on t.id = coalesce(s.target_release, d.pinned_release)
        cross join public.fleet_settings f
        order by %1$s %2$s nulls last, private.natural_order(d.name) collate "C", d.id
        offset $2 limit $3) d
    )
    select jsonb_build_object('total', (select count(*) from meant), 'skip', $2, 'as_of', now(), 'devices', coalesce((
      select jsonb_agg(jsonb_build_object(
        'device', to_jsonb(d) - 'public_key' - 'key_number',
        'status', case when s.device_id is not null then jsonb_build_object(
          'device_id', s.device_id, 'state', s.state, 'phase', s.phase, 'reason', s.reason, 'current_release', s.current_release,
          'target_release', s.target_release, 'agent_version', s.agent_version, 'reported_at', s.reported_at,
          'pinned_poll_interval_s', s.pinned_poll_interval_s, 'error_kind', s.error_kind, 'error', s.error) end) order by p.place)
      from page p
      join public.devices d on d.id = p.id
      left join public.device_status s on s.device_id = d.id), '[]'))
    $q$,
    (orders ->> sort_by) || case when sort_by in ('shown', 'contact') then '' else ' collate "C"' end,
    case when sort_by = 'contact' then case when descending then 'asc' else 'desc' end else direction end)
  into answer using selector, skip, at_most;
  return answer;
end
$$;
comment on function public.list_devices(jsonb, text, boolean, int, int) is
  'One page of the devices that a selector takes, sorted, and how many it takes in all. Without retired ones, unless the selector names state or shown.';
revoke execute on function public.list_devices(jsonb, text, boolean, int, int) from public;
grant execute on function public.list_devices(jsonb, text, boolean, int, int) to authenticated, service_role;
