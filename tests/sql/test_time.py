"""Time only moves forward: whatever order ticks, outcomes and edits come in, nothing that happened is undone."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.cluster import type_of_connection
from tests.support.identities import V2, Fleet, become
from tests.support.profiles import OLDER_SERVER_IN_FULL, amount
from tests.support.rollout_builders import make_devices

pytestmark = OLDER_SERVER_IN_FULL

DEVICES = 6
#: Percentages of the stages, in per cent of everybody; soak of each, minutes; slots.
PLANS = st.tuples(
    st.lists(st.tuples(st.sampled_from([50, 100]), st.sampled_from([0, 10, 60])), min_size=1, max_size=3),
    st.sampled_from([1, 2, None]),
)
STEPS = st.lists(
    st.one_of(
        # Minutes from now; the clock of a scheduler may go back, and may be a year ahead.
        st.tuples(st.just("tick"), st.sampled_from([-60, -1, 0, 1, 9, 11, 59, 61, 200, 525_600])),
        *[st.tuples(st.just("ask"), st.integers(1, DEVICES))] * 3,
        *[st.tuples(st.just("succeeded"), st.integers(1, DEVICES))] * 3,
        st.tuples(st.just("rolled_back"), st.integers(1, DEVICES)),
        st.tuples(st.just("lift"), st.just(0)),
    ),
    min_size=12,
    max_size=25,
)
_ORDER = {"draft": 0, "running": 1, "completed": 2}


class Story:
    """One rollout inside a transaction that is thrown away."""

    def __init__(self, db: type_of_connection, plan: tuple[list[tuple[int, int]], int | None]) -> None:
        self.db = db
        stages, slots = plan
        listed = [{"percent": percent, "soak_s": soak * 60} for percent, soak in stages]
        options = {"max_in_flight": slots, "halt_max_failures": 2}
        self.rollout = self._as(
            "operator",
            "select (public.create_rollout(%s, stages => %s, options => %s)).id",
            V2, json.dumps(listed), json.dumps(options),
        )  # fmt: skip
        self._as("operator", "select public.start_rollout(%s)", self.rollout)

    def _as(self, who: str, query: str, *params: object) -> Any:
        become(self.db, who)
        try:
            row = self.db.execute(query.encode(), params).fetchone()
        finally:
            self.db.execute("reset role")
        return None if row is None else row[0]

    def do(self, what: str, value: int) -> None:
        if what == "tick":
            self._as("service", "select private.tick(now() + make_interval(mins => %s))", value)
        elif what == "lift":
            self.db.execute("update public.halts set lift_reason = 'looked' where lifted_at is null")
        else:
            self._act(what, value)

    def _act(self, what: str, number: int) -> None:
        row = self.db.execute("select id from public.devices where name = %s", (f"bulk{number}",)).fetchone()
        assert row is not None
        device: UUID = row[0]
        claims = json.dumps({"role": "fleet_device", "sub": str(device)})
        self.db.execute(
            "select set_config('request.jwt.claims', %s, true), set_config('role', 'fleet_device', true)",
            (claims,),
        )
        # Who tells how it went was told to go first.
        self.db.execute("select public.desired_state()")
        if what != "ask":
            self.db.execute(
                "insert into public.update_history (id, device_id, release_id, rollout_id, to_commit, outcome, error_kind, started_at, finished_at) "
                "values (%s, %s, %s, %s, repeat('2', 40), %s, %s, now(), now())",
                (uuid4(), device, V2, self.rollout, what, None if what == "succeeded" else "unhealthy"),
            )
        self.db.execute("reset role")

    def seen(self) -> dict[str, Any]:
        """All that policy has made happen."""
        row = self.db.execute(
            "select jsonb_build_object("
            "'state', (select state from public.rollouts where id = %(id)s), "
            "'opened', (select coalesce(jsonb_object_agg(position, opened_at) filter (where opened_at is not null), '{}') "
            "  from public.rollout_stages where rollout_id = %(id)s), "
            "'claims', (select coalesce(jsonb_object_agg(device_id, jsonb_build_array(state, attempts, claimed_at)), '{}') "
            "  from public.rollout_claims where rollout_id = %(id)s), "
            "'halts', (select coalesce(jsonb_object_agg(id, opened_at), '{}') from public.halts))",
            {"id": self.rollout},
        ).fetchone()
        assert row is not None
        found: dict[str, Any] = row[0]
        return found


def check(before: dict[str, Any], after: dict[str, Any], slots: int | None) -> None:
    assert _ORDER[after["state"]] >= _ORDER[before["state"]]
    for kept in ("opened", "halts"):
        # An instant that was noted stays as it is, whatever clock comes by later.
        assert {key: after[kept].get(key) for key in before[kept]} == before[kept]
    positions = sorted(int(position) for position in after["opened"])
    assert positions == list(range(1, len(positions) + 1)), "a stage was opened before the one before it"
    for device, (_, attempts, claimed_at) in before["claims"].items():
        assert after["claims"][device][1] >= attempts
        assert after["claims"][device][2] >= claimed_at
    in_flight = [device for device, claim in after["claims"].items() if claim[0] == "claimed"]
    assert slots is None or len(in_flight) <= slots


@settings(
    max_examples=amount(12, full=30),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=PLANS, steps=STEPS)
def test_nothing_that_happened_is_undone(
    fleet: Fleet, plan: tuple[list[tuple[int, int]], int | None], steps: list[tuple[str, int]]
) -> None:
    with fleet.admin.transaction(force_rollback=True):
        make_devices(fleet, DEVICES)
        story = Story(fleet.admin, plan)
        last_tick: int | None = None
        for what, value in steps:
            before = story.seen()
            story.do(what, value)
            after = story.seen()
            check(before, after, plan[1])
            if what == "tick":
                # A tick that is late, or of a clock that went back, adds nothing to one that was further ahead.
                if last_tick is not None and value <= last_tick:
                    assert after == before
                last_tick = value if last_tick is None else max(last_tick, value)
            else:
                last_tick = None
