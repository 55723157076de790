-- Which devices: one selector for rollouts, templates, known-bad patterns, lists, commands and bulk edits. A selector is an
-- object of attributes, all of which a device has to have; a list of values means any of them; {} means all devices:
--
--   {"segment": ["canary", "early"], "hardware_model": "Pi 3", "labels": {"site": "rome"}}
--
-- docs/usage/selectors.md has the keys, and the text form that people type.

-- Of the last attempt of each device, in the order of arrival: searching a year of history for each device would take
-- seconds.
create table private.last_outcomes (
  device_id uuid primary key references public.devices on delete cascade,
  outcome public.update_outcome not null
);
comment on table private.last_outcomes is 'How the last attempt of each device ended. Kept by the trigger remember_last_outcome.';

alter table private.last_outcomes enable row level security;
grant select on private.last_outcomes to authenticated, service_role;
create policy "operators read last outcomes" on private.last_outcomes for select to authenticated
  using ((select private.operator_is('viewer')));

create function private.remember_last_outcome() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: devices may not write here.
begin
  insert into private.last_outcomes (device_id, outcome) values (new.device_id, new.outcome)
  on conflict (device_id) do update set outcome = excluded.outcome where last_outcomes.outcome <> excluded.outcome;
  return null;
end
$$;
revoke execute on function private.remember_last_outcome() from public;
create trigger remember_last_outcome after insert on public.update_history
  for each row execute function private.remember_last_outcome();

-- Values.

create function private.values_of(selected jsonb) returns text[]
language plpgsql immutable set search_path = ''
as $$
begin
  if jsonb_typeof(selected) = 'array' then
    return array(select e from jsonb_array_elements_text(selected) e);
  end if;
  return array(select selected #>> '{}' where selected is not null);
end
$$;
comment on function private.values_of(jsonb) is 'The values of one key of a selector, which are a text or a list of texts.';
revoke execute on function private.values_of(jsonb) from public;
grant execute on function private.values_of(jsonb) to authenticated, service_role;

create function private.one_or_many(chosen text[]) returns jsonb
language plpgsql immutable set search_path = ''
as $$
declare
  sorted text[] := array(select distinct c collate "C" from unnest(chosen) c order by 1);
begin
  return case when cardinality(sorted) = 1 then to_jsonb(sorted[1]) else to_jsonb(sorted) end;
end
$$;
comment on function private.one_or_many(text[]) is 'Values as a selector has them: one as a text, several sorted and each once.';
revoke execute on function private.one_or_many(text[]) from public;
grant execute on function private.one_or_many(text[]) to authenticated, service_role;

create function private.label_choices(wanted jsonb) returns jsonb[]
language plpgsql immutable set search_path = ''
as $$
-- The query over the whole fleet computes it once, when it is planned: the selector is a constant there.
declare
  choices jsonb[] := array['{}'::jsonb];
  label record;
begin
  for label in select l.key, private.values_of(l.value) as chosen from jsonb_each(wanted) l loop
    if cardinality(choices) * cardinality(label.chosen) > 1000 then
      return null;
    end if;
    choices := array(
      select c || jsonb_build_object(label.key, v) from unnest(choices) c, unnest(label.chosen) v);
  end loop;
  return choices;
end
$$;
comment on function private.label_choices(jsonb) is
  'Every combination of the labels of a selector, of which a device has to contain one; null if there are more than a thousand.';
revoke execute on function private.label_choices(jsonb) from public;
grant execute on function private.label_choices(jsonb) to authenticated, service_role;

create function private.has_labels(labels jsonb, wanted jsonb) returns boolean
language plpgsql immutable set search_path = ''
as $$
begin
  return not exists (
    select from jsonb_each(wanted) w where coalesce(not w.value ? (has_labels.labels ->> w.key), true));
end
$$;
comment on function private.has_labels(jsonb, jsonb) is 'Has a device one of the wanted values of each label?';
revoke execute on function private.has_labels(jsonb, jsonb) from public;
grant execute on function private.has_labels(jsonb, jsonb) to authenticated, service_role;

-- The one state in which people see a device: what they decided, else whether it reports, else what it reports. The
-- dashboard counts and filters by it; the order is that of urgency.
create function private.shown_states() returns text[]
language sql immutable parallel safe
return array['safe_mode', 'isolated', 'degraded', 'offline', 'rolled_back', 'pending', 'updating', 'never_seen', 'suspended', 'healthy', 'retired'];
comment on function private.shown_states() is 'Every state in which a device can be shown, the most urgent first.';
revoke execute on function private.shown_states() from public;
grant execute on function private.shown_states() to authenticated, service_role;

create function private.shown_state(state public.device_state, reported public.report_state, offline boolean) returns text
language sql immutable parallel safe
return case when state <> 'active' then state::text when reported is null then 'never_seen' when offline then 'offline'
  else reported::text end;
comment on function private.shown_state(public.device_state, public.report_state, boolean) is
  'The one state in which people see a device; reported is null for one that never reported.';
revoke execute on function private.shown_state(public.device_state, public.report_state, boolean) from public;
grant execute on function private.shown_state(public.device_state, public.report_state, boolean) to authenticated, service_role;

-- What people type to find a device, and what it is looked for in.
create function private.text_matches(wanted jsonb, searched text) returns boolean
language plpgsql immutable set search_path = ''
as $$
declare
  lowered text := lower(searched);
begin
  return exists (
    select from unnest(private.values_of(wanted)) v
    where not exists (select from regexp_split_to_table(btrim(lower(v)), '\s+') w where strpos(lowered, w) = 0));
end
$$;
comment on function private.text_matches(jsonb, text) is
  'Does every word of one of the wanted texts occur in what is searched, whatever the case of letters?';
revoke execute on function private.text_matches(jsonb, text) from public;
grant execute on function private.text_matches(jsonb, text) to authenticated, service_role;

-- Matching. Two functions have a body that is bound when it is created, so that PostgreSQL inlines it into the query over
-- the whole fleet. With a selector that is constant there, what it does not name costs nothing. `->` then `?` is "is the
-- value, or one of the list".

create function private.attributes_match(selector jsonb, device public.devices) returns boolean
language sql stable parallel safe
return case
    when not selector ? 'labels' then true
    when device.labels @> (selector -> 'labels') then true
    -- Also true where a value contains the sign: that is only slower.
    when strpos((selector -> 'labels')::text, '[') > 0 then
      coalesce(device.labels @> any (private.label_choices(selector -> 'labels')), private.has_labels(device.labels, selector -> 'labels'))
    else false
  end
  and (not selector ? 'segment' or (selector -> 'segment') ? device.segment)
  and (not selector ? 'role' or (selector -> 'role') ? device.role)
  and (not selector ? 'branch' or (selector -> 'branch') ? device.branch)
  and (not selector ? 'name' or (selector -> 'name') ? device.name)
  and (not selector ? 'state' or (selector -> 'state') ? device.state::text)
  and (not selector ? 'hardware_model' or coalesce((selector -> 'hardware_model') ? device.hardware_model, false))
  and (not selector ? 'os' or coalesce((selector -> 'os') ? device.os, false));
comment on function private.attributes_match(jsonb, public.devices) is
  'The part of a selector that is about the row of the device.';
revoke execute on function private.attributes_match(jsonb, public.devices) from public;
grant execute on function private.attributes_match(jsonb, public.devices) to authenticated, service_role;

create function private.report_matches(
  selector jsonb, agent_version text, current_release uuid, releases uuid[], not_releases uuid[], offline boolean,
  last_outcome public.update_outcome, shown text, searched text
) returns boolean
language sql stable parallel safe
return (not selector ? 'agent_version' or coalesce((selector -> 'agent_version') ? report_matches.agent_version, false))
  and (not selector ? 'release' or coalesce(current_release = any (releases), false))
  and (not selector ? 'not_release' or not coalesce(current_release = any (not_releases), false))
  and (not selector ? 'offline' or selector -> 'offline' = to_jsonb(coalesce(report_matches.offline, false)))
  and (not selector ? 'last_outcome' or coalesce((selector -> 'last_outcome') ? report_matches.last_outcome::text, false))
  and (not selector ? 'shown' or (selector -> 'shown') ? report_matches.shown)
  and (not selector ? 'text' or private.text_matches(selector -> 'text', report_matches.searched));
comment on function private.report_matches(jsonb, text, uuid, uuid[], uuid[], boolean, public.update_outcome, text, text) is
  'The part of a selector that is about what a device reported. releases, not_releases: those that it names.';
revoke execute on function private.report_matches(jsonb, text, uuid, uuid[], uuid[], boolean, public.update_outcome, text, text) from public;
grant execute on function private.report_matches(jsonb, text, uuid, uuid[], uuid[], boolean, public.update_outcome, text, text)
  to authenticated, service_role;

create function private.releases_named(named jsonb) returns uuid[]
language plpgsql stable set search_path = ''
as $$
-- Runs under the caller's row-level security. A version may be on several branches: then all of them are meant.
declare
  called text;
  found_ids uuid[];
  ids uuid[] := '{}';
begin
  foreach called in array private.values_of(named) loop
    found_ids := array(
      select r.id from public.releases r
      where r.version = called or r.id::text = lower(called)
        or (called ~ '^[0-9a-f]{7,64}$' and starts_with(r.commit_sha, called)));
    if found_ids = '{}' then
      perform private.refuse('release_unknown', format('There is no release %s.', left(called, 100)),
        'Give a version, an id, or 7 or more digits of a commit: fleetctl release list.', 'PT400');
    end if;
    ids := ids || found_ids;
  end loop;
  return ids;
end
$$;
comment on function private.releases_named(jsonb) is 'The releases with these versions, ids or commits. Refuses one that does not exist.';
revoke execute on function private.releases_named(jsonb) from public;
grant execute on function private.releases_named(jsonb) to authenticated, service_role;

create function private.searched_text(device public.devices, reason text, error text, version text) returns text
language sql stable parallel safe
return concat_ws(E'\n', device.name, device.role, device.segment, device.branch, device.hardware_model, device.labels::text,
  reason, error, version);
comment on function private.searched_text(public.devices, text, text, text) is
  'What the key text of a selector is looked for in: the row of the device, what it reported last, the version that it runs.';
revoke execute on function private.searched_text(public.devices, text, text, text) from public;
grant execute on function private.searched_text(public.devices, text, text, text) to authenticated, service_role;

create function private.reported_by(device public.devices, selector jsonb) returns boolean
language plpgsql stable set search_path = ''
as $$
declare
  said public.device_status;
  fleet public.fleet_settings;
  offline boolean;
begin
  select s.* into said from public.device_status s where s.device_id = device.id;
  select f.* into fleet from public.fleet_settings f;
  offline := device.state = 'active' and private.is_offline(said.reported_at, coalesce(said.pinned_poll_interval_s, device.poll_interval_s),
    fleet.default_poll_interval_s, fleet.offline_after_intervals, now());
  return private.report_matches(selector, said.agent_version, said.current_release,
    private.releases_named(selector -> 'release'), private.releases_named(selector -> 'not_release'), offline,
    (select o.outcome from private.last_outcomes o where o.device_id = device.id),
    private.shown_state(device.state, said.state, offline),
    private.searched_text(device, said.reason, said.error, (select r.version from public.releases r where r.id = said.current_release)));
end
$$;
comment on function private.reported_by(public.devices, jsonb) is 'Does what this device reported match the selector?';
revoke execute on function private.reported_by(public.devices, jsonb) from public;
grant execute on function private.reported_by(public.devices, jsonb) to authenticated, service_role;

create function private.device_matches(device public.devices, selector jsonb) returns boolean
language sql stable parallel safe
return private.attributes_match(selector, device)
  and (not selector ?| array['agent_version', 'release', 'not_release', 'offline', 'last_outcome', 'shown', 'text']
    or private.reported_by(device, selector));
comment on function private.device_matches(public.devices, jsonb) is
  'Does the selector take this device? {} takes every device. Asks for its report only if the selector names what is reported.';
revoke execute on function private.device_matches(public.devices, jsonb) from public;
grant execute on function private.device_matches(public.devices, jsonb) to authenticated, service_role;

create function private.devices_of(selector jsonb) returns table (device_id uuid)
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan
as $$
-- Runs under the caller's row-level security. The rule of device_matches(), for the whole fleet at once. The plan is made
-- for this selector, so that only the tables that it is about are read.
declare
  named uuid[] := private.releases_named(selector -> 'release');
  not_named uuid[] := private.releases_named(selector -> 'not_release');
  asked_at timestamptz := now();
begin
  return query
  select d.id
  from public.devices d
  left join public.device_status s on s.device_id = d.id
  left join private.last_outcomes o on o.device_id = d.id
  left join public.fleet_settings f on f.id
  left join public.releases r on r.id = s.current_release
  where private.attributes_match(devices_of.selector, d)
    and private.report_matches(devices_of.selector, s.agent_version, s.current_release, named, not_named,
      d.state = 'active' and private.is_offline(s.reported_at, coalesce(s.pinned_poll_interval_s, d.poll_interval_s),
        f.default_poll_interval_s, f.offline_after_intervals, asked_at),
      o.outcome,
      private.shown_state(d.state, s.state,
        private.is_offline(s.reported_at, coalesce(s.pinned_poll_interval_s, d.poll_interval_s),
          f.default_poll_interval_s, f.offline_after_intervals, asked_at)),
      private.searched_text(d, s.reason, s.error, r.version));
end
$$;
comment on function private.devices_of(jsonb) is 'Every device that the selector takes. The selector was checked.';
revoke execute on function private.devices_of(jsonb) from public;
grant execute on function private.devices_of(jsonb) to authenticated, service_role;

-- Words.

create function private.describe_selector(selector jsonb) returns text
language sql immutable
return coalesce((
  select string_agg(a.attribute || ' ' || array_to_string(private.values_of(a.value), ' or '), ' and ' order by a.attribute collate "C")
  from (
    select m.key as attribute, m.value from jsonb_each(selector - 'labels') m
    union all
    select 'label ' || l.key, l.value from jsonb_each(coalesce(selector -> 'labels', '{}')) l) a), 'any attribute');
comment on function private.describe_selector(jsonb) is
  'A selector in a sentence: "hardware_model Pi 3 and label site milan or rome".';
revoke execute on function private.describe_selector(jsonb) from public;
grant execute on function private.describe_selector(jsonb) to authenticated, service_role;

create function private.selector_of(attribute text, value text) returns jsonb
language sql immutable
return case when starts_with(attribute, 'label ')
  then jsonb_build_object('labels', jsonb_build_object(substr(attribute, 7), value))
  else jsonb_build_object(attribute, value) end;
comment on function private.selector_of(text, text) is 'An attribute and value of failure_patterns as a selector.';
revoke execute on function private.selector_of(text, text) from public;
grant execute on function private.selector_of(text, text) to authenticated, service_role;

-- What is not a selector is refused, and what is one gets its normal form, by which two are compared.

create function private.refuse_selector(problem text) returns void
language plpgsql set search_path = ''
as $$
begin
  perform private.refuse('selector_malformed', problem,
    'For example {"segment": "canary"} or {"hardware_model": "Pi 3", "labels": {"site": ["rome", "milan"]}}.', 'PT400');
end
$$;
comment on function private.refuse_selector(text) is 'Refuses a selector whose shape or value is wrong.';
revoke execute on function private.refuse_selector(text) from public;
grant execute on function private.refuse_selector(text) to authenticated, service_role;

create function private.checked_values(key text, given jsonb) returns jsonb
language plpgsql stable set search_path = ''
as $$
declare
  closed text[] := case key
    when 'state' then enum_range(null::public.device_state)::text[]
    when 'last_outcome' then enum_range(null::public.update_outcome)::text[]
    when 'shown' then private.shown_states() end;
  wrong text;
begin
  if key = 'offline' then
    if jsonb_typeof(given) <> 'boolean' then
      perform private.refuse_selector('offline must be true or false.');
    end if;
    return given;
  end if;
  if jsonb_typeof(given) not in ('string', 'array') or given = '[]' then
    perform private.refuse_selector(format('%s must be a text, or a list of at least one text.', key));
  end if;
  select min(jsonb_typeof(e)) into wrong
  from jsonb_array_elements(case jsonb_typeof(given) when 'array' then given else '[]' end) e where jsonb_typeof(e) <> 'string';
  if wrong is not null then
    perform private.refuse_selector(format('%s must be a text, or a list of at least one text.', key));
  end if;
  select min(v) into wrong from unnest(private.values_of(given)) v where v <> all (closed);
  if wrong is not null then
    perform private.refuse_selector(format('%s cannot be %s: it is one of %s.', key, left(wrong, 100), array_to_string(closed, ', ')));
  end if;
  return private.one_or_many(private.values_of(given));
end
$$;
comment on function private.checked_values(text, jsonb) is 'The values of a key in their normal form; refuses what cannot be one.';
revoke execute on function private.checked_values(text, jsonb) from public;
grant execute on function private.checked_values(text, jsonb) to authenticated, service_role;

create function private.checked_selector(selector jsonb, chooser text) returns jsonb
language plpgsql stable set search_path = ''
as $$
-- chooser: what selects by it, as in the sentence ("rollout", "known-bad pattern", …); null: a question of a person, who
-- may ask for anything.
declare
  known constant text[] := array['agent_version', 'branch', 'hardware_model', 'labels', 'last_outcome', 'name', 'not_release',
    'offline', 'os', 'release', 'role', 'segment', 'shown', 'state', 'text'];
  changing text[] := case when chooser is not null then array['last_outcome', 'not_release', 'offline', 'release', 'shown', 'state', 'text'] end
    || case when chooser in ('rollout', 'template') then array['agent_version'] end;
  wrong text;
  normal jsonb := '{}';
  labels jsonb := '{}';
  part record;
begin
  if jsonb_typeof(selector) is distinct from 'object' then
    perform private.refuse_selector('A selector is an object of attributes and values.');
  end if;
  if octet_length(selector::text) > 8192 then
    perform private.refuse_selector('A selector may have at most 8 kB.');
  end if;
  select string_agg(left(k, 100), ', ' order by k collate "C") into wrong from jsonb_object_keys(selector) k where k <> all (known);
  if wrong is not null then
    perform private.refuse('selector_unknown', format('Devices have no attribute %s.', wrong),
      format('Use %s. A label goes into labels: {"labels": {"site": "rome"}}.', array_to_string(known, ', ')), 'PT400');
  end if;
  select string_agg(k, ', ' order by k collate "C") into wrong from jsonb_object_keys(selector) k where k = any (changing);
  if wrong is not null then
    perform private.refuse('selector_changes',
      format('A %s cannot select by %s, because that changes while it acts.', chooser, wrong),
      format('Use %s. The others are for lists, commands and bulk edits.',
        (select string_agg(k, ', ' order by k) from unnest(known) k where k <> all (changing))), 'PT400');
  end if;
  for part in select e.key, e.value from jsonb_each(selector) e where e.key <> 'labels' loop
    normal := normal || jsonb_build_object(part.key, private.checked_values(part.key, part.value));
  end loop;
  if jsonb_typeof(coalesce(selector -> 'labels', '{}')) <> 'object' then
    perform private.refuse_selector('labels must be an object of labels and values.');
  end if;
  for part in select e.key, e.value from jsonb_each(coalesce(selector -> 'labels', '{}')) e loop
    if part.key = '' then
      perform private.refuse_selector('A label needs a name.');
    end if;
    labels := labels || jsonb_build_object(part.key, private.checked_values('label ' || left(part.key, 100), part.value));
  end loop;
  return normal || case when labels = '{}' then '{}' else jsonb_build_object('labels', labels) end;
end
$$;
comment on function private.checked_selector(jsonb, text) is
  'A selector in its normal form: several values are sorted, one is a text, no empty labels. Refuses in words what is not a selector.';
revoke execute on function private.checked_selector(jsonb, text) from public;
grant execute on function private.checked_selector(jsonb, text) to authenticated, service_role;

-- Renames. What a selector calls by name follows; a release is called by name in no selector that is kept.

create function private.renamed_in(selector jsonb, key text, old_name text, new_name text) returns jsonb
language sql immutable
return case when selector -> key ? old_name
  then selector || jsonb_build_object(key, private.one_or_many(array_replace(private.values_of(selector -> key), old_name, new_name)))
  else selector end;
comment on function private.renamed_in(jsonb, text, text, text) is 'The selector after what it calls old_name was renamed.';
revoke execute on function private.renamed_in(jsonb, text, text, text) from public;

-- Templates are older than what checks them.
create function private.check_template() returns trigger
language plpgsql set search_path = ''
as $$
begin
  new.selector := private.checked_selector(new.selector, 'template');
  return new;
end
$$;
revoke execute on function private.check_template() from public;
create trigger check_template before insert or update of selector on public.rollout_templates
  for each row execute function private.check_template();

-- What operators ask.

create function public.matching_devices(selector jsonb, after text default null, at_most int default null) returns setof public.devices
language plpgsql stable set search_path = ''
as $$
-- Runs under the caller's row-level security.
begin
  perform private.require_rank('viewer');
  return query
  select d.* from private.devices_of(private.checked_selector(matching_devices.selector, null)) m
  join public.devices d on d.id = m.device_id
  where matching_devices.after is null or d.name > matching_devices.after
  order by d.name limit at_most;
end
$$;
comment on function public.matching_devices(jsonb, text, int) is
  'The devices that a selector takes, by name. A page: at_most this many, after the last name of the page before.';
revoke execute on function public.matching_devices(jsonb, text, int) from public;
grant execute on function public.matching_devices(jsonb, text, int) to authenticated, service_role;

create function public.count_devices(selector jsonb) returns bigint
language plpgsql stable set search_path = ''
as $$
-- Runs under the caller's row-level security.
begin
  perform private.require_rank('viewer');
  return (select count(*) from private.devices_of(private.checked_selector(count_devices.selector, null)));
end
$$;
comment on function public.count_devices(jsonb) is 'How many devices a selector takes.';
revoke execute on function public.count_devices(jsonb) from public;
grant execute on function public.count_devices(jsonb) to authenticated, service_role;
