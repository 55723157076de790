-- Closed lists, as enums: the table editor shows a dropdown, and a typo is refused.

create type public.operator_rank as enum ('viewer', 'operator', 'admin');
comment on type public.operator_rank is 'viewer reads, operator runs the fleet, admin manages people, tokens and settings. Ordered.';

create type public.device_state as enum ('pending', 'active', 'suspended', 'retired');
comment on type public.device_state is 'pending: asked to join. active: served. suspended: refused for now. retired: gone for good.';

create type public.report_state as enum ('healthy', 'updating', 'degraded', 'rolled_back', 'isolated', 'safe_mode');
comment on type public.report_state is 'The state that a device reports.';

create type public.release_state as enum ('available', 'withdrawn');
comment on type public.release_state is 'withdrawn: it is not offered to any device, and devices that run it are offered another one.';

create type public.branch_delivery as enum ('rollout_only', 'immediate');
comment on type public.branch_delivery is
  'rollout_only: a release reaches nobody without a rollout. immediate: each release goes to every device of the branch when it is added.';

create type public.update_outcome as enum ('succeeded', 'failed', 'rolled_back', 'skipped');
comment on type public.update_outcome is 'failed: never swapped (fetch, verify, validate). rolled_back: swapped and swapped back.';

create type public.command_kind as enum (
  'update_now', 'rollback', 'enter_safe_mode', 'leave_safe_mode', 'restart', 'tail_logs', 'check_drift');
comment on type public.command_kind is 'What a device can be told to do once.';

create type public.command_state as enum ('queued', 'succeeded', 'failed', 'expired');
comment on type public.command_state is 'queued until the device answers or the command expires.';

create type public.halt_scope as enum ('fleet', 'segment', 'role', 'branch', 'release', 'rollout');
comment on type public.halt_scope is 'What a halt stops.';

create type public.opening_days as enum (
  'daily', 'weekdays', 'weekends', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday');
comment on type public.opening_days is 'The days on which an opening starts.';

create type public.rollout_state as enum ('draft', 'running', 'paused', 'completed', 'superseded', 'cancelled');
comment on type public.rollout_state is
  'draft: being written. running: hands out slots. paused: hands out no new ones. completed: proved, late devices still get it. superseded: a newer one took over. cancelled: stopped for good.';

create type public.claim_state as enum (
  'claimed', 'succeeded', 'failed', 'rolled_back', 'expired', 'regressed', 'released');
comment on type public.claim_state is
  'claimed: in flight. expired: went offline past its lease. regressed: became unhealthy after a success. released: gave the slot back, which is not a failure.';

create type public.rollout_reaction as enum ('halt_rollout', 'halt_release', 'roll_back');
comment on type public.rollout_reaction is
  'What follows when the halt rule triggers: the rollout stops; the release stops everywhere; or it stops and devices that run it go back.';

create type public.alert_severity as enum ('info', 'warning', 'critical');
comment on type public.alert_severity is 'critical: look now. warning: look today. info: worth knowing.';
