-- The stages of templates. They come after devices, which use segments, too: if a segment is in use, the refusal to
-- remove it names the table whose foreign key was created first.

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
comment on column public.rollout_template_stages.position is 'Stages open in this order; gaps are fine.';
comment on column public.rollout_template_stages.segment is 'Only devices of this segment; empty means all segments.';
comment on column public.rollout_template_stages.percent is 'This share of the matching devices, always the same ones; empty means all of them (none when device_ids is set).';
comment on column public.rollout_template_stages.max_in_flight is 'At most this many devices of the stage update at once; empty means only the rollout''s limit.';
comment on column public.rollout_template_stages.soak_s is 'Seconds to wait after the stage is proved, before the next one opens.';
comment on column public.rollout_template_stages.min_attempted is 'The stage is proved when this many of its devices (or all, if fewer) were attempted ...';
comment on column public.rollout_template_stages.min_success_ratio is '... and at least this share of them succeeded.';
comment on column public.rollout_template_stages.needs_approval is 'Opens only after approved_at is set.';

alter table public.rollout_template_stages enable row level security;
grant select, insert, update, delete on public.rollout_template_stages to authenticated, service_role;
create policy "operators read rollout_template_stages" on public.rollout_template_stages for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "operators of rank operator add rollout_template_stages" on public.rollout_template_stages for insert to authenticated
  with check ((select private.operator_is('operator')));
create policy "operators of rank operator change rollout_template_stages" on public.rollout_template_stages for update to authenticated
  using ((select private.operator_is('operator'))) with check ((select private.operator_is('operator')));
create policy "operators of rank operator remove rollout_template_stages" on public.rollout_template_stages for delete to authenticated
  using ((select private.operator_is('operator')));
create trigger a_check_rank_first before insert or update or delete on public.rollout_template_stages
  for each statement execute function private.require_rank_to_write('operator');

insert into public.rollout_template_stages (template, position, segment, percent, soak_s) values
  ('staged', 1, 'canary', null, 3600),
  ('staged', 2, 'early', null, 3600),
  ('staged', 3, 'stable', 10, 3600),
  ('staged', 4, null, null, 0),
  ('at-once', 1, null, null, 0);

create trigger audit after insert or update or delete on public.rollout_template_stages
  for each row execute function private.audit_change('template,position');
