-- A push to a branch can make the usual rollout by itself: the branch names a template, and each new release of the
-- branch gets a running rollout made from it.

create table public.rollout_templates (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and -" check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  description text not null default '',
  role text references public.device_roles on update cascade,
  label_selector jsonb not null default '{}'
    constraint "label_selector must be an object of texts, like {""site"": ""rome""}"
    check (jsonb_typeof(label_selector) = 'object' and not jsonb_path_exists(label_selector, '$.* ? (@.type() != "string")')),
  max_in_flight int constraint "max_in_flight must be 1 or more, or empty" check (max_in_flight >= 1),
  max_per_minute int constraint "max_per_minute must be 1 or more, or empty" check (max_per_minute >= 1),
  lease_s int not null default 3600 constraint "lease_s must be 60 to 604800 seconds" check (lease_s between 60 and 604800),
  max_attempts int not null default 3 constraint "max_attempts must be 1 to 100" check (max_attempts between 1 and 100),
  halt_failure_ratio numeric default 0.1
    constraint "halt_failure_ratio must be 0 to 1, or empty" check (halt_failure_ratio between 0 and 1),
  halt_min_attempted int not null default 5 constraint "halt_min_attempted must be 1 or more" check (halt_min_attempted >= 1),
  halt_max_failures int constraint "halt_max_failures must be 1 or more, or empty" check (halt_max_failures >= 1),
  halt_consecutive_failures int default 3
    constraint "halt_consecutive_failures must be 1 or more, or empty" check (halt_consecutive_failures >= 1),
  regression_s int not null default 3600
    constraint "regression_s must be 0 to 604800 seconds" check (regression_s between 0 and 604800),
  on_bad public.rollout_reaction not null default 'halt_rollout'
);
comment on table public.rollout_templates is 'Patterns for rollouts: put a name into branches.rollout_template and each new release of that branch starts one.';
comment on column public.rollout_templates.label_selector is 'As in rollouts, like every column here.';

create table public.rollout_template_stages (
  template text not null references public.rollout_templates on update cascade on delete cascade,
  position int not null constraint "position must be 1 to 100" check (position between 1 and 100),
  segment text references public.segments on update cascade,
  percent numeric(6, 3) constraint "percent must be 0 to 100, or empty" check (percent between 0 and 100),
  max_in_flight int constraint "max_in_flight must be 1 or more, or empty" check (max_in_flight >= 1),
  soak_s int not null default 0 constraint "soak_s must be 0 to 2592000 seconds" check (soak_s between 0 and 2592000),
  min_attempted int not null default 1 constraint "min_attempted must be 1 or more" check (min_attempted >= 1),
  min_success_ratio numeric not null default 0.9
    constraint "min_success_ratio must be 0 to 1" check (min_success_ratio between 0 and 1),
  needs_approval boolean not null default false,
  primary key (template, position)
);
comment on table public.rollout_template_stages is 'The stages of a template; columns as in rollout_stages.';

insert into public.rollout_templates (name, description) values
  ('staged', 'Canary, then early, then a tenth, then all of stable; an hour to soak after each.'),
  ('at-once', 'Everybody at once, halted by the usual rule.');
insert into public.rollout_template_stages (template, position, segment, percent, soak_s) values
  ('staged', 1, 'canary', null, 3600),
  ('staged', 2, 'early', null, 3600),
  ('staged', 3, 'stable', 10, 3600),
  ('staged', 4, null, null, 0),
  ('at-once', 1, null, null, 0);

alter table public.branches add column rollout_template text references public.rollout_templates on update cascade;
comment on column public.branches.rollout_template is
  'A new release of this branch starts a rollout made from this template. Empty: it waits for a rollout if requires_rollout is on, and goes to everybody at once if not.';

do $$
declare
  t text;
begin
  foreach t in array array['rollout_templates', 'rollout_template_stages'] loop
    execute format('alter table public.%I enable row level security', t);
    execute format('grant select, insert, update, delete on public.%I to authenticated, service_role', t);
    execute format('create policy %I on public.%I for select to authenticated
      using ((select private.operator_is(''viewer'')))', 'operators read ' || t, t);
    execute format('create policy %I on public.%I for insert to authenticated
      with check ((select private.operator_is(''operator'')))', 'operators of rank operator add ' || t, t);
    execute format('create policy %I on public.%I for update to authenticated
      using ((select private.operator_is(''operator''))) with check ((select private.operator_is(''operator'')))',
      'operators of rank operator change ' || t, t);
    execute format('create policy %I on public.%I for delete to authenticated
      using ((select private.operator_is(''operator'')))', 'operators of rank operator remove ' || t, t);
  end loop;
end
$$;
create trigger audit after insert or update or delete on public.rollout_templates
  for each row execute function private.audit_change('name');
create trigger audit after insert or update or delete on public.rollout_template_stages
  for each row execute function private.audit_change('template,position');

create function private.rollout_from_template(wanted_release uuid, template_name text) returns uuid
language plpgsql volatile security definer set search_path = ''
as $$
-- Definer: used by a trigger for whoever adds the release. Makes a draft.
declare
  made uuid;
begin
  insert into public.rollouts (release_id, role, label_selector, max_in_flight, max_per_minute, lease_s, max_attempts,
    halt_failure_ratio, halt_min_attempted, halt_max_failures, halt_consecutive_failures, regression_s, on_bad, notes)
  select wanted_release, t.role, t.label_selector, t.max_in_flight, t.max_per_minute, t.lease_s, t.max_attempts,
    t.halt_failure_ratio, t.halt_min_attempted, t.halt_max_failures, t.halt_consecutive_failures, t.regression_s, t.on_bad,
    'Made from template ' || t.name || '.'
  from public.rollout_templates t where t.name = template_name
  returning id into made;
  insert into public.rollout_stages (rollout_id, position, segment, percent, max_in_flight, soak_s, min_attempted, min_success_ratio, needs_approval)
  select made, s.position, s.segment, s.percent, s.max_in_flight, s.soak_s, s.min_attempted, s.min_success_ratio, s.needs_approval
  from public.rollout_template_stages s where s.template = template_name and made is not null;
  return made;
end
$$;
comment on function private.rollout_from_template(uuid, text) is 'Makes a draft of a rollout from a template; null if there is no such template.';

create function private.follow_template() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
  wanted text := (select b.rollout_template from public.branches b where b.name = new.branch);
  made uuid;
begin
  if wanted is not null and new.state = 'available' then
    perform private.lock_policy();
    made := private.rollout_from_template(new.id, wanted);
    -- A template without stages stays a draft: refusing it here would refuse the push.
    update public.rollouts r set state = 'running'
    where r.id = made and exists (select from public.rollout_stages s where s.rollout_id = made);
  end if;
  return null;
end
$$;
create trigger follow_template after insert on public.releases
  for each row execute function private.follow_template();
revoke execute on function private.rollout_from_template(uuid, text), private.follow_template() from public;
