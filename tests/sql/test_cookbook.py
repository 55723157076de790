"""Every query of docs/usage/sql-cookbook.md runs, as an operator, on a small fleet with a year of history, and finds something."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.bench._policy_fleet import seed
from tests.support.cluster import ROOT, Cluster
from tests.support.identities import OPERATOR, Fleet, become

PAGE = (ROOT / "docs" / "usage" / "sql-cookbook.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
DEVICES = 300

# What the seeded fleet lacks: something hot, restarting, pinned, in flight, dark, unapproved, halted, alerted and audited.
MORE = f"""
insert into public.operators (user_id, email, rank) values ('{OPERATOR}', 'operator@example.com', 'operator');
update public.device_status set resources = '{{"temperature_c": 81.5, "disk_free_bytes": 1000}}',
  containers = '[{{"service": "web", "restarts": 9}}]', phase = 'fetching' where device_id = md5('device1')::uuid;
update public.devices set pinned_release = md5('release20')::uuid where name = 'device-2';
insert into public.update_history (id, device_id, release_id, to_commit, outcome, error_kind, error, started_at, finished_at,
  phase_durations_ms)
select gen_random_uuid(), d.id, r.id, r.commit_sha,
  case when d.hardware_model like '%Zero%' then 'rolled_back' else 'succeeded' end::public.update_outcome,
  'unhealthy', 'It never got well.', now(), now(),
  '{{"probation": 30000}}'
from public.devices d, public.releases r where d.hardware_model ~ 'Zero|Pi 5' and r.version = 'v39';
update public.device_status set current_release = (select id from public.releases where version = 'v39')
where device_id = md5('device4')::uuid;
insert into public.halts (reason) values ('a test');
insert into public.rollout_claims (rollout_id, device_id, stage, state, claimed_at, lease_until, ended_at, to_release)
select md5('rollout13')::uuid, md5('device' || n)::uuid, 3, case n when 13 then 'claimed' else 'expired' end::public.claim_state,
  now(), now() + interval '1 hour', case n when 33 then now() end, md5('release34')::uuid from unnest(array[13, 33]) n;
insert into public.rollout_stages (rollout_id, position, needs_approval) values (md5('rollout13')::uuid, 99, true);
insert into public.known_bad_patterns (release_id, selector, reason, allow_empty)
select r.id, '{{"hardware_model": "Pi 0"}}', 'a test', true from public.releases r where r.version = 'v38';
select private.tick(now());
"""


@pytest.fixture(scope="module")
def seeded(cluster: Cluster) -> Iterator[Fleet]:
    """One fleet for all queries; each runs in a transaction that is rolled back."""
    database = cluster.clone(cluster.template)
    fleet = Fleet(cluster, database)
    try:
        seed(fleet.admin, DEVICES)
        fleet.admin.execute(MORE.encode())
        yield fleet
    finally:
        fleet.close()
        cluster.drop(database)


def test_the_cookbook_has_its_queries() -> None:
    assert len(QUERIES) >= 25
    assert PAGE.count("```sql") == len(QUERIES)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: " ".join(query.split())[:60])
def test_a_query_of_the_cookbook_runs_and_finds_something(seeded: Fleet, query: str) -> None:
    with seeded.api.transaction(force_rollback=True):
        become(seeded.api, "operator")
        # As the SQL editor has it: names without a schema.
        seeded.api.execute("set local search_path = public")
        cursor = seeded.api.execute(query.encode())
        assert cursor.rowcount > 0
