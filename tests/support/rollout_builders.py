"""What the tests of rollouts do: make devices, start a rollout, ask as a device, record how it ended."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

from tests.support.identities import DEVICE, V2, Fleet

V3 = UUID("00000000-0000-4000-8000-000000000009")


def make_devices(
    fleet: Fleet, count: int, segment: str = "stable", prefix: str = "bulk", **columns: str
) -> None:
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", '{value}'" for value in columns.values())
    fleet.sql(
        f"insert into public.devices (id, name, role, segment, state, public_key{names}) "
        f"select md5(%s || n)::uuid, %s || n, 'beacon', %s, 'active', left(md5(%s || n) || md5('x' || n), 43){values} "
        f"from generate_series(1, %s) n",
        prefix, prefix, segment, prefix, count,
    )  # fmt: skip


def device_id(fleet: Fleet, name: str) -> UUID:
    found = fleet.one("select id from public.devices where name = %s", name)
    assert isinstance(found, UUID)
    return found


def roll_out(
    fleet: Fleet, *stages: dict[str, Any], release: UUID = V2, start: bool = True, **options: Any
) -> UUID:
    """A rollout made, and started, through the functions that operators use."""
    role = options.pop("role", None)
    options.setdefault("allow_empty", True)
    made = fleet.one(
        "select (public.create_rollout(%s, role => %s, stages => %s, options => %s)).id",
        release, role, json.dumps(list(stages) or [{}]), json.dumps(options), who="operator",
    )  # fmt: skip
    if start:
        fleet.sql("select public.start_rollout(%s)", made, who="operator")
    assert isinstance(made, UUID)
    return made


def ask(fleet: Fleet, device: UUID = DEVICE) -> dict[str, Any]:
    """desired_state() as this device."""
    with fleet.api.transaction():
        fleet.api.execute(
            "select set_config('request.jwt.claims', %s, true), set_config('role', 'fleet_device', true)",
            (json.dumps({"role": "fleet_device", "sub": str(device)}),),
        )
        row = fleet.api.execute("select public.desired_state()").fetchone()
    assert row is not None
    answer = row[0]
    assert isinstance(answer, dict)
    return answer


def finish(
    fleet: Fleet,
    rollout: UUID | None,
    device: UUID = DEVICE,
    outcome: str = "succeeded",
    release: UUID = V2,
    *,
    phase: str | None = None,
    evidence: str = "{}",
) -> None:
    """The device records its attempt and reports what it runs."""
    commit = fleet.one("select commit_sha from public.releases where id = %s", release)
    with fleet.api.transaction():
        fleet.api.execute(
            "select set_config('request.jwt.claims', %s, true), set_config('role', 'fleet_device', true)",
            (json.dumps({"role": "fleet_device", "sub": str(device)}),),
        )
        fleet.api.execute(
            "insert into public.update_history (id, device_id, release_id, rollout_id, to_commit, outcome, error_kind, failed_phase, evidence, started_at, finished_at) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, now(), now())",
            (
                uuid4(),
                device,
                release,
                rollout,
                commit,
                outcome,
                None if outcome == "succeeded" else "health_failed",
                phase,
                evidence,
            ),
        )
        if outcome == "succeeded":
            fleet.api.execute(
                "insert into public.device_status (device_id, current_release) values (%s, %s) "
                "on conflict (device_id) do update set current_release = excluded.current_release, state = 'healthy'",
                (device, release),
            )


def opened(fleet: Fleet, rollout: UUID) -> list[int]:
    rows = fleet.sql(
        "select position from public.rollout_stages where rollout_id = %s and opened_at is not null order by 1",
        rollout,
    )
    return [row[0] for row in rows]


def state(fleet: Fleet, rollout: UUID) -> str:
    return str(fleet.one("select state::text from public.rollouts where id = %s", rollout))


def tick(fleet: Fleet, at: str = "now()") -> dict[str, Any]:
    done = fleet.one(f"select private.tick({at})", who="service")
    assert isinstance(done, dict)
    return done


def check_counters(fleet: Fleet) -> None:
    """Every stage has counters, and they are what counting the claims gives."""
    assert fleet.sql(
        "select s.rollout_id, s.position from public.rollout_stages s where s.opened_at is not null and not exists ("
        "select from private.rollout_counters c where c.rollout_id = s.rollout_id and c.position = s.position)"
    ) == []  # fmt: skip
    wrong = fleet.sql(
        "select c.rollout_id, c.position, c.in_flight, c.succeeded, c.failed, c.base_attempted, c.base_failed, n.* "
        "from private.rollout_counters c "
        "cross join lateral (select count(*) filter (where k.state = 'claimed') + (select count(*) from public.roll_back_slots b "
        "where b.state = 'claimed' and b.rollout_id = c.rollout_id and (c.position = 0 or c.position = b.stage)) as f, "
        "count(*) filter (where k.last_outcome = 'succeeded') as s, count(*) filter (where private.is_failure(k.last_outcome)) as b, "
        "count(*) filter (where c.position = 0 and k.outcome_number <= c.outcomes_at_lift) as base, "
        "count(*) filter (where c.position = 0 and k.outcome_number <= c.outcomes_at_lift and private.is_failure(k.last_outcome)) as base_b "
        "from public.rollout_claims k where k.rollout_id = c.rollout_id and c.position in (0, k.stage)) n "
        "where (c.in_flight, c.succeeded, c.failed, c.base_attempted, c.base_failed) <> (n.f, n.s, n.b, n.base, n.base_b)"
    )
    assert wrong == []


def window(fleet: Fleet, days: str, starts: str, minutes: int, timezone: str = "Europe/Rome") -> None:
    """Give the window `w` an opening, and the device that window."""
    fleet.sql("insert into public.maintenance_windows (name) values ('w') on conflict do nothing")
    fleet.sql(
        "insert into public.maintenance_openings (maintenance_window, days, starts_at, minutes) values ('w', %s, %s, %s)",
        days,
        starts,
        minutes,
    )
    fleet.sql(
        "update public.devices set maintenance_window = 'w', timezone = %s where id = %s", timezone, DEVICE
    )
