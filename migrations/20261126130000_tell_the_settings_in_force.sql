-- What a device goes by can differ from its row: its own file pins values and adds labels. So it says what is in
-- force. Adding a column with a constant default rewrites nothing; agents that do not know it leave it empty.

alter table public.device_status
  add column settings jsonb not null default '{}'
    constraint "settings must be an object of at most 32 kB"
    check (jsonb_typeof(settings) = 'object' and octet_length(settings::text) <= 32768);
comment on column public.device_status.settings is 'What the device goes by: poll_interval_s, labels, and pinned: the names of those that its own file decides.';
