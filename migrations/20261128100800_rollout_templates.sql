-- Patterns for rollouts. A template's columns mean what a rollout's columns mean, and have the same comments, because
-- the table editor shows a column's comment under its name. The stages of templates are in rollout_template_stages.

create table public.rollout_templates (
  name text primary key constraint "name must be 1 to 63 of a-z, 0-9 and -" check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  description text not null default '',
  role text references public.device_roles on update cascade,
  selector jsonb not null default '{}'
    constraint "selector must be an object of at most 8 kB"
    check (jsonb_typeof(selector) = 'object' and octet_length(selector::text) <= 8192),
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
  offline_patience_s int not null default 86400
    constraint "offline_patience_s must be 0 to 2592000 seconds" check (offline_patience_s between 0 and 2592000),
  on_bad public.rollout_reaction not null default 'halt_rollout',
  remember_patterns boolean not null default false,
  constraint "description must be at most 4000 characters"
    check (length(description) <= 4000),
  constraint "description must be plain text, without control characters" check (private.is_plain_text(description))
);
comment on table public.rollout_templates is 'Patterns for rollouts: put a name into branches.rollout_template and each new release of that branch starts one.';
comment on column public.rollout_templates.role is 'Rollouts made from it are for devices of this role only; empty means all.';
comment on column public.rollout_templates.selector is 'As in rollouts, like every column here.';
comment on column public.rollout_templates.max_in_flight is 'At most this many devices update at once; empty means no limit.';
comment on column public.rollout_templates.max_per_minute is 'At most this many devices start within any sixty seconds; empty means no limit.';
comment on column public.rollout_templates.lease_s is 'A device that holds a slot and does not report for this long counts as failed.';
comment on column public.rollout_templates.max_attempts is 'How often a device may attempt it in total, if its attempts fail before the swap.';
comment on column public.rollout_templates.halt_failure_ratio is 'Halt when failed / attempted is above this, once halt_min_attempted devices were attempted.';
comment on column public.rollout_templates.halt_min_attempted is 'halt_failure_ratio counts once this many devices were attempted.';
comment on column public.rollout_templates.halt_max_failures is 'Halt at this many failed devices, whatever the ratio.';
comment on column public.rollout_templates.halt_consecutive_failures is 'Halt at this many failures in a row.';
comment on column public.rollout_templates.regression_s is 'A device that becomes unhealthy within this many seconds of its success counts as failed.';
comment on column public.rollout_templates.offline_patience_s is
  'A device that stays offline for this long, in an open stage, does not hold up the next one.';
comment on column public.rollout_templates.on_bad is 'What follows when the halt rule triggers.';
comment on column public.rollout_templates.remember_patterns is 'As in rollouts, for those made from this template.';

alter table public.rollout_templates enable row level security;
grant select, insert, update, delete on public.rollout_templates to authenticated, service_role;
create policy "operators read rollout_templates" on public.rollout_templates for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add rollout_templates" on public.rollout_templates for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change rollout_templates" on public.rollout_templates for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove rollout_templates" on public.rollout_templates for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update or delete on public.rollout_templates
  for each statement execute function private.require_rank_to_write('operator');

insert into public.rollout_templates (name, description) values
  ('staged', 'Canary, then early, then a tenth, then all of stable; an hour to soak after each.'),
  ('at-once', 'All devices at once, halted by the usual rule.');

create trigger refuse_in_use before delete on public.rollout_templates
  for each row execute function private.refuse_in_use('name');
create trigger audit after insert or update or delete on public.rollout_templates
  for each row execute function private.audit_change('name');
