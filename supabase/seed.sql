-- Demo data for `supabase start` and for trying things out. Segments, branches and the role beacon come with the
-- migrations, because every fleet needs them; devices join by enrolling, since a seeded one would answer nobody.
insert into public.device_roles (name, description) values ('kiosk', 'A screen with a browser.')
on conflict (name) do nothing;
