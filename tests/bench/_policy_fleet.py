"""A seeded fleet for the policy benchmark: bulk rows, a year of history, 20 running rollouts.

Everything goes in past the triggers (`session_replication_role = replica`), so it takes seconds per 10,000
devices; whatever triggers would have kept (counters, rollups, planner statistics) is made afterwards.
"""

# ruff: noqa: E501 - a statement reads better on its line

from __future__ import annotations

from tests.support.cluster import type_of_connection

ROLLOUTS = 20
# Attempts of each device: one in each of the eleven months before, four in the last 30 days.
PER_MONTH, LAST_30_DAYS = 1, 4
MODELS = ["Raspberry Pi 3 B+", "Raspberry Pi 4 B", "Raspberry Pi 5", "Raspberry Pi Zero 2 W"]

# n is 1 to the number of devices; wave n % 20 picks the rollout.
_DEVICES = """
insert into public.devices (id, name, role, segment, branch, state, public_key, labels, hardware_model, os, poll_interval_s,
  enrolled_at, created_at)
select md5('device' || n)::uuid, 'device-' || n, 'beacon',
  case when n % 50 = 0 then 'canary' when n % 10 = 0 then 'early' else 'stable' end, 'main', 'active',
  left(md5('k' || n) || md5('l' || n), 43), jsonb_build_object('site', 'site-' || n % 200, 'wave', 'w' || n % {rollouts}),
  (array{models})[1 + n % 4], (array['Debian 12', 'Debian 13', 'Ubuntu 24.04'])[1 + n % 3],
  case when n % 7 = 0 then 300 end, now() - interval '13 months', now() - interval '13 months'
from generate_series(1, {devices}) n
"""
_RELEASES = """
insert into public.releases (id, commit_sha, branch, version, created_at)
select md5('release' || n)::uuid, md5('c' || n) || left(md5('d' || n), 8), 'main', 'v' || n,
  now() - make_interval(days => 365 - n * 365 / 40)
from generate_series(1, 40) n
"""
_STATUS = """
insert into public.device_status (device_id, state, current_release, target_release, agent_version, booted_at, device_time,
  reported_at, resources, containers)
select md5('device' || n)::uuid,
  (case when n % 100 = 0 then 'degraded' when n % 100 = 1 then 'updating' else 'healthy' end)::public.report_state,
  case when n % 10 = 3 then md5('release20')::uuid else md5('release' || 21 + n % {rollouts})::uuid end, null,
  '1.0', now() - interval '9 days',
  t.reported - case when n % 250 = 0 then interval '5 minutes' else interval '80 milliseconds' end, t.reported,
  '{{"cpu_percent": 3.1, "memory_used_bytes": 310000000, "memory_total_bytes": 1000000000, "disk_free_bytes": 9000000000,
     "disk_total_bytes": 16000000000, "load_1m": 0.11, "temperature_c": 48.2, "uptime_s": 777600}}',
  '[{{"service": "web", "image": "registry.local/web@sha256:0123456789abcdef", "state": "running", "health": "healthy",
      "restarts": 0, "exit_code": null, "started_at": "2026-11-20T10:00:00Z"}},
    {{"service": "clock", "image": "busybox:stable", "state": "running", "health": null, "restarts": 0, "exit_code": null,
      "started_at": "2026-11-20T10:00:00Z"}}]'
from generate_series(1, {devices}) n
cross join lateral (
  select now() - make_interval(secs => case when n % 33 = 0 then 86400 else n % 280 end) as reported) t
"""
_HISTORY = """
insert into public.update_history (id, device_id, release_id, from_commit, to_commit, outcome, failed_phase, error_kind,
  started_at, finished_at, phase_durations_ms, bytes_fetched, agent_version, signer, received_at)
select gen_random_uuid(), md5('device' || n)::uuid, r.id, null, r.commit_sha,
  (case when {month} = 0 and n % 20 = 7 then 'rolled_back' when n * 7 % 101 = {month} then 'rolled_back' when n * 3 % 97 = {month} then 'failed' else 'succeeded' end)::public.update_outcome,
  null, null, t.at, t.at + make_interval(secs => 40 + n % 500), '{{"fetching": 3000, "pulling": 20000, "probation": 30000}}',
  500000 + n, '1.' || n % 3, 'release@fleet.example', t.at + make_interval(secs => 40 + n % 500)
from generate_series(1, {devices}) n
cross join lateral (select now() - make_interval(days => {days}, secs => n % {span}) as at) t
join public.releases r on r.id = md5('release' || {release})::uuid
"""
# 20 rollouts, each for its wave: nine of ten devices are there, some hold a slot, the others stand in line.
_ROLLOUTS = """
insert into public.rollouts (id, name, release_id, branch, selector, state, max_in_flight, created_at, started_at)
select md5('rollout' || w)::uuid, 'wave ' || w, md5('release' || 21 + w)::uuid, 'main', jsonb_build_object('labels', jsonb_build_object('wave', 'w' || w)),
  'running', {cap}, now() - interval '2 days', now() - interval '2 days' + make_interval(mins => w)
from generate_series(0, {rollouts} - 1) w
"""
_STAGES = """
insert into public.rollout_stages (rollout_id, position, segment, percent, soak_s, min_attempted, opened_at, floor_bucket,
  size_at_opening, proved_at)
select md5('rollout' || w)::uuid, p, case p when 1 then 'canary' end, case p when 2 then 30 end, 3600, 1000000,
  now() - interval '1 day', 1, 1, case when p < 3 then now() - interval '1 day' end
from generate_series(0, {rollouts} - 1) w, generate_series(1, 3) p
"""
_CLAIMS = """
insert into public.rollout_claims (rollout_id, device_id, stage, state, claimed_at, lease_until, ended_at, last_outcome,
  outcome_number, to_release)
select md5('rollout' || n % {rollouts})::uuid, md5('device' || n)::uuid, 3, 'succeeded', now() - interval '1 day',
  now() - interval '23 hours', now() - interval '1 day', 'succeeded', n, md5('release' || 21 + n % {rollouts})::uuid
from generate_series(1, {devices}) n where n % 10 <> 3
"""
_COUNTERS = """
insert into private.rollout_counters (rollout_id, position, in_flight, succeeded, outcomes)
select md5('rollout' || w)::uuid, p, 0,
  (select count(*) from public.rollout_claims c where c.rollout_id = md5('rollout' || w)::uuid) * (p <> 1 and p <> 2)::int,
  case p when 0 then {devices} else 0 end
from generate_series(0, {rollouts} - 1) w, generate_series(0, 3) p
"""


def seed(admin: type_of_connection, devices: int) -> None:
    """Fill a freshly migrated database."""
    values = {
        "devices": devices,
        "rollouts": ROLLOUTS,
        "models": str(MODELS),
        # One device in a hundred may update at once.
        "cap": max(1, devices // 100 // ROLLOUTS),
    }

    def run(statement: str, **more: object) -> None:
        admin.execute(statement.format(**values, **more).encode())

    for months in range(1, 12):
        admin.execute(
            "select private.make_history_partitions(now() - make_interval(months => %s))", (months,)
        )
    admin.execute("set session_replication_role = replica")
    for statement in (_DEVICES, _RELEASES, _STATUS, _ROLLOUTS, _STAGES, _CLAIMS, _COUNTERS):
        run(statement)
    for month in range(1, 12):
        run(_HISTORY, month=month, days=30 + month * 30, span=86400 * 20, release=20 - month)
    for week in range(LAST_30_DAYS):
        run(_HISTORY, month=week, days=week * 7 + 1, span=86400 * 6, release=21 + week * 4)
    admin.execute("set session_replication_role = origin")
    admin.execute("select private.rebuild_reports(now())")
    admin.execute("vacuum (analyze)")
