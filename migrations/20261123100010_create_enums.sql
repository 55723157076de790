-- Closed lists. As enums, so that the table editor shows a dropdown and a typing error is refused.

create type public.device_state as enum ('pending', 'active', 'suspended', 'retired');
comment on type public.device_state is 'pending: asked to join. active: served. suspended: refused for now. retired: gone for good.';

create type public.report_state as enum ('healthy', 'updating', 'degraded', 'rolled_back', 'isolated', 'safe_mode');
comment on type public.report_state is 'How a device says it is.';

create type public.update_outcome as enum ('succeeded', 'failed', 'rolled_back', 'skipped');
comment on type public.update_outcome is 'failed: never swapped (fetch, verify, validate). rolled_back: swapped and swapped back.';

create type public.release_state as enum ('available', 'withdrawn');
comment on type public.release_state is 'withdrawn: nobody is offered it, and who runs it is offered something else.';

create type public.operator_rank as enum ('viewer', 'operator', 'admin');
comment on type public.operator_rank is 'viewer reads, operator runs the fleet, admin manages people, tokens and settings. Ordered.';

create type public.halt_scope as enum ('fleet', 'segment', 'role', 'branch', 'release', 'rollout');
comment on type public.halt_scope is 'What a halt brakes.';

create type public.command_kind as enum (
  'update_now', 'rollback', 'enter_safe_mode', 'leave_safe_mode', 'restart', 'tail_logs', 'check_drift');
comment on type public.command_kind is 'What a device can be told to do once.';

create type public.command_state as enum ('queued', 'succeeded', 'failed', 'expired');
comment on type public.command_state is 'queued until the device answers or the command expires.';
