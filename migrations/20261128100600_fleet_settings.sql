-- Settings for the whole fleet: one row of typed columns, so that each has its range, default and comment.

create table public.fleet_settings (
  id boolean primary key default true constraint "there is exactly one row of settings" check (id),
  default_poll_interval_s int not null default 900
    constraint "default_poll_interval_s must be 30 to 604800 seconds" check (default_poll_interval_s between 30 and 604800),
  offline_after_intervals int not null default 3
    constraint "offline_after_intervals must be 1 to 100" check (offline_after_intervals between 1 and 100),
  clock_drift_s int not null default 60
    constraint "clock_drift_s must be 1 to 86400 seconds" check (clock_drift_s between 1 and 86400),
  max_in_flight int constraint "max_in_flight must be 1 or more, or empty" check (max_in_flight >= 1),
  spread_ms_per_device int not null default 20
    constraint "spread_ms_per_device must be 0 to 60000" check (spread_ms_per_device between 0 and 60000),
  wake_one_by_one_up_to int not null default 200
    constraint "wake_one_by_one_up_to must be 0 to 10000" check (wake_one_by_one_up_to between 0 and 10000),
  device_token_ttl_s int not null default 43200
    constraint "device_token_ttl_s must be 300 to 604800 seconds" check (device_token_ttl_s between 300 and 604800),
  enroll_per_minute_per_address int not null default 60
    constraint "enroll_per_minute_per_address must be 1 to 100000" check (enroll_per_minute_per_address between 1 and 100000),
  token_per_minute_per_address int not null default 300
    constraint "token_per_minute_per_address must be 1 to 100000" check (token_per_minute_per_address between 1 and 100000),
  requests_per_hour_per_device int not null default 60
    constraint "requests_per_hour_per_device must be 1 to 100000" check (requests_per_hour_per_device between 1 and 100000),
  device_rows_per_hour int not null default 600
    constraint "device_rows_per_hour must be 60 to 1000000" check (device_rows_per_hour between 60 and 1000000),
  device_bytes_per_hour int not null default 4194304
    constraint "device_bytes_per_hour must be 65536 to 1073741824" check (device_bytes_per_hour between 65536 and 1073741824),
  max_pending_devices int not null default 1000
    constraint "max_pending_devices must be 0 to 100000" check (max_pending_devices between 0 and 100000),
  pending_role text not null default 'beacon' references public.device_roles on update cascade,
  history_retention_months int not null default 12
    constraint "history_retention_months must be 1 to 120" check (history_retention_months between 1 and 120),
  audit_retention_months int not null default 24
    constraint "audit_retention_months must be 1 to 120" check (audit_retention_months between 1 and 120),
  updated_at timestamptz not null default now(),
  constraint "times must be between 1970 and 2200"
    check (updated_at between '1970-01-01Z' and '2200-01-01Z')
);
comment on table public.fleet_settings is 'Settings of the whole fleet. One row; changed by admins.';
comment on column public.fleet_settings.default_poll_interval_s is 'Seconds between two polls of a device that has no poll_interval_s of its own.';
comment on column public.fleet_settings.offline_after_intervals is 'A device is shown as offline after this many missed polls.';
comment on column public.fleet_settings.clock_drift_s is 'A device whose clock is further off than this is listed in drifted_clocks.';
comment on column public.fleet_settings.max_in_flight is 'At most this many devices update at once over all rollouts; empty means no limit.';
comment on column public.fleet_settings.spread_ms_per_device is 'A wake spreads its audience over this many milliseconds per device.';
comment on column public.fleet_settings.wake_one_by_one_up_to is 'An edit that affects more devices than this wakes whole segments instead of each device.';
comment on column public.fleet_settings.device_token_ttl_s is 'Life of a device''s JWT in seconds.';
comment on column public.fleet_settings.enroll_per_minute_per_address is 'Enrollments per minute from one address; a site behind one router shares it.';
comment on column public.fleet_settings.token_per_minute_per_address is 'Token requests per minute from one address; a site behind one router shares it.';
comment on column public.fleet_settings.requests_per_hour_per_device is 'Enrollments, and token requests, per hour with one device key.';
comment on column public.fleet_settings.device_rows_per_hour is 'Rows per hour that one device may write: reports, attempts, and answers to commands.';
comment on column public.fleet_settings.device_bytes_per_hour is 'Bytes per hour that one device may write, as text.';
comment on column public.fleet_settings.max_pending_devices is 'At most this many devices may wait without a provisioning token; 0 makes the token mandatory.';
comment on column public.fleet_settings.pending_role is 'The role of a device that enrolled without a provisioning token, until an operator changes it.';
comment on column public.fleet_settings.history_retention_months is 'Whole months of update_history that are kept.';
comment on column public.fleet_settings.audit_retention_months is 'Whole months of audit_log that are kept.';

alter table public.fleet_settings enable row level security;
grant select, update on public.fleet_settings to authenticated, service_role;
create policy "operators read the settings" on public.fleet_settings for select to authenticated
  using ((select private.operator_is('viewer')));
create policy "admins change the settings" on public.fleet_settings for update to authenticated
  using ((select private.operator_is('admin'))) with check ((select private.operator_is('admin')));
create trigger a_check_rank_first before update on public.fleet_settings
  for each statement execute function private.require_rank_to_write('admin');

insert into public.fleet_settings default values;

create function private.keep_settings() returns trigger
language plpgsql security definer set search_path = ''
as $$
-- Definer: may_rewrite() writes the audit log.
begin
  if not private.may_rewrite('fleet_settings', 'delete') then
    perform private.refuse('settings_stay', 'The row of settings cannot be deleted: the whole fleet goes by it.',
      'Change its columns instead.');
  end if;
  return old;
end
$$;
revoke execute on function private.keep_settings() from public;
create trigger keep_settings before delete on public.fleet_settings
  for each row execute function private.keep_settings();
create trigger refuse_truncate before truncate on public.fleet_settings
  for each statement execute function private.refuse_truncate();

create trigger touch_updated_at before update on public.fleet_settings
  for each row execute function private.touch_updated_at();
create trigger audit after insert or update or delete on public.fleet_settings
  for each row execute function private.audit_change('id');
