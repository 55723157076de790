-- Who may listen to which private topic. Realtime checks this when a channel is joined and when its token is renewed.
-- Nobody may send: there is no insert policy, and the database sends as postgres. Nothing here alters realtime.messages
-- itself, because hosted Supabase allows only policies and grants.

grant usage on schema realtime to fleet_device;
grant select on realtime.messages to fleet_device;

create policy "an active device listens to its own topic and its segment" on realtime.messages
  for select to fleet_device
  using (
    extension = 'broadcast'
    and (select private.device_is_active())
    and (select realtime.topic()) in (
      'device:' || (select private.device_id()), 'segment:' || (select private.device_segment()))
  );

create policy "operators listen to the fleet" on realtime.messages
  for select to authenticated
  using (
    extension = 'broadcast'
    and (select private.operator_is('viewer'))
    and ((select realtime.topic()) = 'fleet'
         or (select realtime.topic()) like 'device:%'
         or (select realtime.topic()) like 'segment:%')
  );

do $$
begin
  -- On some hosted versions the grant only warned; a fleet without it would poll and never say why.
  if not has_table_privilege('fleet_device', 'realtime.messages', 'select') then
    raise exception 'fleet_device could not be granted select on realtime.messages'
      using hint = 'Update Realtime (fixed in September 2026), then push again.';
  end if;
end
$$;
