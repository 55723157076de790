"""The policy written twice: in Python in tests/support/policy_model.py, in SQL in the migrations. On random fleets both agree."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.identities import Fleet
from tests.support.policy_model import Halt, Pattern, Release, Rollout, Stage, World, decide
from tests.support.profiles import OLDER_SERVER_IN_FULL, amount

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DEVICE = UUID(int=100)
RELEASES = [UUID(int=200 + n) for n in range(4)]
SEGMENTS = ["canary", "early", "stable"]


stages = st.builds(
    Stage,
    segment=st.sampled_from([None, None, None, *SEGMENTS]),
    percent=st.sampled_from([None, None, 0, 1, 20, 50, 99, 100]),
    named=st.sampled_from([False, False, False, True]),
    open=st.sampled_from([True, True, False]),
    limit=st.none() | st.integers(1, 3),
    in_flight=st.integers(0, 3),
)


def rollouts(number: int) -> st.SearchStrategy[Rollout]:
    return st.builds(
        Rollout,
        id=st.just(UUID(int=300 + number)),
        release=st.sampled_from([0, 1, 2, 0, 1, 2, 3]),
        state=st.sampled_from(
            [*["running"] * 4, "paused", *["completed", "cancelled", "superseded"] * 2, "draft"]
        ),
        role=st.sampled_from([None, None, "beacon", "kiosk"]),
        selects_label=st.sampled_from([False, False, True]),
        stages=st.lists(stages, min_size=1, max_size=3).map(tuple),
        limit=st.none() | st.integers(1, 4),
        allow_downgrade=st.booleans(),
        claim=st.none() | st.sampled_from(["claimed", "failed", "expired", "succeeded", "released"]),
        attempts=st.integers(1, 4),
        max_attempts=st.integers(1, 4),
        hours_ago=st.just(10 - number),
        came_from=st.sampled_from([None, 0, 1, 2]),
    )


halts = st.one_of(
    st.builds(Halt, scope=st.just("fleet"), target=st.none(), lifted=st.booleans()),
    st.builds(Halt, scope=st.just("segment"), target=st.sampled_from(SEGMENTS), lifted=st.booleans()),
    st.builds(Halt, scope=st.just("role"), target=st.sampled_from(["beacon", "kiosk"]), lifted=st.booleans()),
    st.builds(
        Halt, scope=st.just("branch"), target=st.sampled_from(["main", "staging"]), lifted=st.booleans()
    ),
    st.builds(
        Halt,
        scope=st.just("release"),
        target=st.sampled_from([str(r) for r in RELEASES]),
        lifted=st.booleans(),
        roll_back=st.booleans(),
    ),
    st.builds(
        Halt,
        scope=st.just("rollout"),
        target=st.sampled_from([str(UUID(int=300 + n)) for n in range(3)]),
        lifted=st.booleans(),
        roll_back=st.just(True),
        all_at_once=st.booleans(),
    ),
)

patterns = st.builds(
    Pattern,
    release=st.integers(0, 3),
    attributes=st.frozensets(
        st.sampled_from(
            [
                ("hardware_model", "Pi 3"), ("hardware_model", "Pi 4"), ("agent_version", "0.9"), ("role", "beacon"), ("role", "kiosk"),
                ("segment", "canary"), ("segment", "stable"), ("label site", "rome"), ("label site", "oslo"), ("label power", "solar"),
            ]
        ),
        min_size=1, max_size=2,
    ).filter(lambda chosen: len({name for name, _ in chosen}) == len(chosen)),
    lifted=st.sampled_from([False, False, False, True]),
)  # fmt: skip

worlds = st.builds(
    World,
    device=st.just(DEVICE),
    state=st.sampled_from(["active"] * 17 + ["suspended", "pending", "retired"]),
    segment=st.sampled_from(SEGMENTS),
    hold=st.sampled_from([False, False, False, True]),
    hold_hours=st.none() | st.sampled_from([-1, 0, 1]),
    pinned=st.sampled_from([None] * 9 + [0, 1, 2]),
    pinned_hours_ago=st.sampled_from([4, 6]),
    labeled=st.sampled_from([True, True, False]),
    current=st.sampled_from([None, 0, 1, 2, 0, 1, 2, 3]),
    releases=st.permutations([0, 1, 2, 3]).flatmap(
        lambda ages: st.tuples(
            *(
                st.builds(
                    Release,
                    id=st.just(RELEASES[n]),
                    age_days=st.just(ages[n]),
                    available=st.sampled_from([True] * 6 + [False]),
                    all_at_once=st.booleans(),
                    branch=st.just("staging" if n == 3 else "main"),
                    by_rollout_only=st.sampled_from([False, False, True]),
                    # Of the first three the next older one, now and then.
                    requires=st.sampled_from(
                        [None, None, *(m for m in range(3) if n != 3 and ages[m] > ages[n])]
                    ),
                )
                for n in range(4)
            )
        )
    ),
    rollouts=st.integers(0, 5).flatmap(lambda n: st.tuples(*(rollouts(i) for i in range((n + 1) // 2)))),
    halts=st.lists(halts, max_size=2).map(tuple),
    bad=st.frozensets(st.integers(0, 3), max_size=2),
    patterns=st.lists(patterns, max_size=3).map(tuple),
    hardware_model=st.sampled_from(["Pi 3", "Pi 3", "Pi 4", None]),
    agent_version=st.sampled_from(["0.9", "1.0", None]),
    immediate=st.booleans(),
    fleet_limit=st.none() | st.integers(1, 8),
    window=st.sampled_from([None, None, None, "open", "shut", "shut", "never"]),
    prefetch=st.booleans(),
    ignored=st.sampled_from([False, False, False, True]),
    begun=st.sampled_from([None, 0, 1, 2, 0, 1, 2]),
)


def selector_of(pattern: Pattern) -> dict[str, Any]:
    """The pattern as its row has it: labels are an object inside."""
    selector: dict[str, Any] = {
        name: value for name, value in pattern.attributes if not name.startswith("label ")
    }
    labels = {
        name.removeprefix("label "): value for name, value in pattern.attributes if name.startswith("label ")
    }
    return selector | ({"labels": labels} if labels else {})


def write(fleet: Fleet, world: World) -> None:
    """Put the world into tables, past all triggers: any state is allowed to meet any other."""
    run = fleet.admin.execute
    run("set local session_replication_role = replica")
    run("insert into public.device_roles (name) values ('kiosk')")
    run(
        "update public.branches set delivery = %s where name = 'main'",
        ("immediate" if world.immediate else "rollout_only",),
    )
    run("update public.fleet_settings set max_in_flight = %s where id", (world.fleet_limit,))
    for release in world.releases:
        run(
            "insert into public.releases (id, commit_sha, branch, version, state, all_at_once, created_at, by_rollout_only, requires_release) "
            "values (%s, lpad(%s, 40, '0'), %s, %s, %s, %s, %s, %s, %s)",
            (
                release.id, str(release.id.int), release.branch, f"v{release.id.int}",
                "available" if release.available else "withdrawn",
                release.all_at_once and not release.available, NOW - timedelta(days=release.age_days),
                release.by_rollout_only, None if release.requires is None else RELEASES[release.requires],
            ),
        )  # fmt: skip
    if world.window is not None:
        run(
            "insert into public.maintenance_windows (name, prefetch) values ('w', %s)",
            (world.prefetch,),
        )
    if world.window in ("open", "shut"):
        run(
            "insert into public.maintenance_openings (maintenance_window, starts_at, minutes) values ('w', %s, 60)",
            ("11:30" if world.window == "open" else "02:00",),
        )
    run(
        "insert into public.devices (id, name, role, segment, state, public_key, hold, hold_until, pinned_release, pinned_at, labels, maintenance_window, ignore_window_until, hardware_model) "
        "values (%s, 'x', 'beacon', %s, %s, repeat('k', 43), %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            DEVICE, world.segment, world.state, world.hold,
            None if world.hold_hours is None or not world.hold else NOW + timedelta(hours=world.hold_hours),
            None if world.pinned is None else RELEASES[world.pinned],
            None if world.pinned is None else NOW - timedelta(hours=world.pinned_hours_ago),
            '{"site": "rome"}' if world.labeled else "{}",
            None if world.window is None else "w",
            NOW + timedelta(hours=1 if world.ignored else -1),
            world.hardware_model,
        ),
    )  # fmt: skip
    run(
        "insert into public.device_status (device_id, state, current_release, target_release, agent_version) "
        "values (%s, %s, %s, %s, %s)",
        (
            DEVICE,
            "healthy" if world.begun is None else "updating",
            None if world.current is None else RELEASES[world.current],
            None if world.begun is None else RELEASES[world.begun],
            world.agent_version,
        ),
    )
    # The same open row twice is what an index forbids.
    for pattern in {(p.release, p.attributes, p.lifted): p for p in world.patterns}.values():
        run(
            "insert into public.known_bad_patterns (release_id, selector, reason, opened_at, lifted_at, lift_reason) "
            "values (%s, %s, 'r', %s, %s, %s)",
            (
                RELEASES[pattern.release], json.dumps(selector_of(pattern)), NOW - timedelta(hours=5),
                NOW if pattern.lifted else None, "ok" if pattern.lifted else None,
            ),
        )  # fmt: skip
    for number in world.bad:
        run(
            "insert into public.known_bad_releases (device_id, release_id, at) values (%s, %s, %s)",
            (DEVICE, RELEASES[number], NOW - timedelta(hours=5)),
        )
    for number, rollout in enumerate(world.rollouts):
        _write_rollout(fleet, rollout, NOW - timedelta(hours=10 - number))
    for halt in world.halts:
        run(
            "insert into public.halts (scope, target, reason, roll_back, all_at_once, opened_at, lifted_at, lift_reason) "
            "values (%s, %s, 'r', %s, %s, %s, %s, %s)",
            (
                halt.scope,
                halt.target,
                halt.roll_back,
                halt.all_at_once,
                NOW,
                NOW if halt.lifted else None,
                "ok" if halt.lifted else None,
            ),
        )
    run("set local session_replication_role = origin")


def _write_rollout(fleet: Fleet, rollout: Rollout, started: datetime) -> None:
    run = fleet.admin.execute
    release = RELEASES[rollout.release]
    run(
        "insert into public.rollouts (id, release_id, branch, role, selector, state, max_in_flight, allow_downgrade, max_attempts, started_at) "
        "select %s, r.id, r.branch, %s, %s, %s, %s, %s, %s, %s from public.releases r where r.id = %s",
        (
            rollout.id, rollout.role, '{"labels": {"site": "rome"}}' if rollout.selects_label else "{}", rollout.state, rollout.limit,
            rollout.allow_downgrade, rollout.max_attempts, started, release,
        ),
    )  # fmt: skip
    total = 0
    for position, stage in enumerate(rollout.stages, 1):
        percent: Any = 0 if stage.named and stage.percent is None else stage.percent
        run(
            "insert into public.rollout_stages (rollout_id, position, segment, percent, device_ids, max_in_flight, opened_at) "
            "values (%s, %s, %s, %s, %s, %s, %s)",
            (
                rollout.id, position, stage.segment, percent, [DEVICE] if stage.named else None, stage.limit,
                started if stage.open else None,
            ),
        )  # fmt: skip
        run(
            "insert into private.rollout_counters (rollout_id, position, in_flight) values (%s, %s, %s)",
            (rollout.id, position, stage.in_flight),
        )
        total += stage.in_flight
    run(
        "insert into private.rollout_counters (rollout_id, position, in_flight) values (%s, 0, %s)",
        (rollout.id, total),
    )
    if rollout.claim is not None:
        run(
            "insert into public.rollout_claims (rollout_id, device_id, stage, state, attempts, claimed_at, lease_until, from_release, to_release) "
            "values (%s, %s, 1, %s, %s, %s, %s, %s, %s)",
            (
                rollout.id,
                DEVICE,
                rollout.claim,
                rollout.attempts,
                started,
                NOW,
                None if rollout.came_from is None else RELEASES[rollout.came_from],
                release,
            ),
        )


@OLDER_SERVER_IN_FULL
@settings(
    max_examples=amount(60, full=400),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(world=worlds)
def test_the_policy_in_sql_and_its_model_in_python_agree(bare: Fleet, world: World) -> None:
    expected = decide(world)
    with bare.admin.transaction(force_rollback=True):
        write(bare, world)
        row = bare.admin.execute(
            "select d.action, d.release_id, d.rollout_id, d.prefetch_id, d.gates from public.devices x, private.decide(x, %s) d where x.id = %s",
            (NOW, DEVICE),
        ).fetchone()
    assert row is not None
    action, release, rollout, prefetch, gates = row
    refused = {gate["gate"] for gate in gates if gate["verdict"] != "pass"}
    # A newer rollout whose stage is shut is told, and blocks nothing older.
    expected_no = {gate.rstrip("?") for gate in expected.no}
    assert all(gate.get("hint") for gate in gates if gate["verdict"] != "pass")
    assert (action, release, rollout, prefetch, refused) == (
        expected.action,
        expected.release,
        expected.rollout,
        expected.prefetch,
        expected_no,
    )
