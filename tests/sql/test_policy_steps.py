"""The policy's model held against a fleet that lives: devices ask and report, people edit by hand, and after each step both agree.

The reader takes facts from the tables (tests/support/policy_model.py decides from them), and counts claims itself.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.support.identities import V1, Fleet
from tests.support.policy_model import Halt, Pattern, Release, Rollout, Stage, World, decide
from tests.support.profiles import OLDER_SERVER_IN_FULL, amount
from tests.support.rollout_builders import ask, check_counters, finish, make_devices, tick

SITE = {"labels": {"site": "rome"}}


def hours(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds() / 3600


class Facts:
    """What the tables say at one moment."""

    def __init__(self, fleet: Fleet) -> None:
        def rows(query: str) -> list[dict[str, Any]]:
            cursor = fleet.admin.execute(query.encode())
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        self.now: datetime = fleet.one("select clock_timestamp()")
        self.branches = {
            b["name"]: b["delivery"] for b in rows("select name, delivery::text from public.branches")
        }
        self.releases = rows("select *, state::text as state from public.releases order by created_at, id")
        self.number = {release["id"]: n for n, release in enumerate(self.releases)}
        self.rollouts = rows(
            "select *, state::text as state from public.rollouts order by started_at nulls first, id desc"
        )
        self.stages = rows("select * from public.rollout_stages order by rollout_id, position")
        self.claims = rows(
            "select *, state::text as state, last_outcome::text as last_outcome from public.rollout_claims order by claimed_at"
        )
        self.ways = rows("select *, state::text as state from public.roll_back_slots")
        self.halts = rows("select *, scope::text as scope from public.halts")
        self.patterns = rows("select * from public.known_bad_patterns")
        self.bad = rows("select * from public.known_bad_releases")
        self.devices = rows("select *, state::text as state from public.devices order by name")
        self.status = {
            s["device_id"]: s for s in rows("select *, state::text as state from public.device_status")
        }
        self.fleet_limit = fleet.one("select max_in_flight from public.fleet_settings")

    def flying(self, rollout: UUID, position: int | None) -> int:
        slots = [*self.claims, *self.ways]
        wanted = ("claimed", rollout, position)
        return [(s["state"], s["rollout_id"], s["stage"]) for s in slots].count(wanted)

    def rollout(self, row: dict[str, Any], device: UUID) -> Rollout:
        stages = [s for s in self.stages if s["rollout_id"] == row["id"]]
        claim = next(
            (c for c in self.claims if (c["rollout_id"], c["device_id"]) == (row["id"], device)), None
        )
        return Rollout(
            id=row["id"], release=self.number[row["release_id"]], state=row["state"], role=row["role"],
            selects_label=bool(row["selector"]),
            stages=tuple(
                Stage(
                    segment=s["segment"],
                    percent=(0 if s["device_ids"] is not None else 100) if s["percent"] is None else int(s["percent"]),
                    named=device in (s["device_ids"] or []), open=s["opened_at"] is not None, limit=s["max_in_flight"],
                    in_flight=self.flying(row["id"], s["position"]), floor=s["floor_bucket"] or 0,
                )
                for s in stages
            ),
            limit=row["max_in_flight"], allow_downgrade=row["allow_downgrade"], claim=claim["state"] if claim else None,
            attempts=claim["attempts"] if claim else 0, max_attempts=row["max_attempts"],
            hours_ago=0 if row["started_at"] is None else hours(self.now, row["started_at"]),
            came_from=self.number[claim["from_release"]] if claim and claim["from_release"] else None,
            claim_stage=1 + [s["position"] for s in stages].index(claim["stage"]) if claim else 1,
            going_back=self.flying(row["id"], None),
        )  # fmt: skip

    def world(self, device: dict[str, Any]) -> World:
        pinned_at = device["pinned_at"]
        said = self.status.get(device["id"], {})
        current = said.get("current_release")
        return World(
            state=device["state"], segment=device["segment"], hold=device["hold"],
            hold_hours=None, pinned=self.number.get(device["pinned_release"]), pinned_hours_ago=6,
            labeled=device["labels"].get("site") == "rome", current=self.number.get(current) if current else None,
            releases=tuple(
                Release(
                    id=r["id"], age_days=hours(self.now, r["created_at"]) / 24,  # type: ignore[arg-type]
                    available=r["state"] == "available", branch=r["branch"], by_rollout_only=r["by_rollout_only"],
                    requires=None, all_at_once=r["all_at_once"],
                )
                for r in self.releases
            ),
            rollouts=tuple(self.rollout(r, device["id"]) for r in self.rollouts if r["started_at"] is not None),
            halts=tuple(
                Halt(h["scope"], h["target"], h["lifted_at"] is not None, h["roll_back"], h["all_at_once"]) for h in self.halts
            ),
            bad=frozenset(
                self.number[b["release_id"]] for b in self.bad
                if b["device_id"] == device["id"] and not (pinned_at and pinned_at > b["at"])
            ),
            patterns=tuple(
                Pattern(self.number[p["release_id"]], frozenset(p["selector"].items()), lifted=p["lifted_at"] is not None)
                for p in self.patterns if not (pinned_at and pinned_at > p["opened_at"])
            ),
            hardware_model=None, agent_version=None, immediate=self.branches[device["branch"]] == "immediate",
            fleet_limit=self.fleet_limit, window=None, prefetch=False, ignored=False, begun=None,
            device=device["id"], branch=device["branch"], role=device["role"],
            on_its_way_back=any(
                (w["device_id"], w["from_release"], w["state"]) == (device["id"], current, "claimed") for w in self.ways
            ),
            others_back=sum(w["state"] == "claimed" and w["rollout_id"] is None for w in self.ways),
        )  # fmt: skip


class Life:
    """A small fleet, what has been reported of it, and the steps that may happen to it."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.random = random.Random(seed)
        self.words: dict[tuple[UUID, UUID], str] = {}
        self.made = 0
        self.told: dict[UUID, UUID] = {}
        self.story: list[str] = []
        fleet.sql("update public.branches set delivery = 'rollout_only' where true")
        fleet.sql("update public.devices set state = 'suspended' where state = 'active'")
        fleet.sql("insert into public.device_roles (name) values ('kiosk')")
        for segment in ("canary", "early", "stable"):
            make_devices(
                fleet, 1, segment, segment, labels='{"site": "rome"}' if segment != "early" else "{}"
            )
        fleet.sql(
            "insert into public.device_status (device_id, current_release) select d.id, %s from public.devices d where d.state = 'active'",
            V1,
        )
        self.rolls_out(at_once=True)

    def pick(self, query: str) -> Any:
        rows = self.fleet.sql(query)
        return self.random.choice(rows)[0] if rows else None

    def device(self) -> UUID:
        found = self.pick("select id from public.devices where state = 'active' order by name")
        return found if isinstance(found, UUID) else uuid4()

    def edit(self, query: str, *params: object) -> None:
        """By hand, as the owner of the database, or as an operator; what is refused is refused."""
        try:
            self.fleet.sql(query, *params, who="operator" if query.startswith("select") else None)
            self.story.append(f"{query} {params}")
        except psycopg.Error as error:
            assert error.diag.message_detail or error.diag.constraint_name, error
            self.story.append(f"refused: {query} {params}: {error.diag.message_primary}")

    # What devices do.

    def asks(self) -> None:
        device = self.device()
        before = Facts(self.fleet)
        answer = ask(self.fleet, device)
        self.story.append(f"{device} asks: {answer['action']} {(answer['release'] or {}).get('version')}")
        if answer["action"] != "run" and answer["rollout_id"] is None:
            self.told[device] = UUID(answer["release"]["id"])
        after = Facts(self.fleet)
        at_once = any(h["all_at_once"] for h in after.halts) or any(r["all_at_once"] for r in after.releases)
        for row in after.rollouts:
            was, now = (
                sum(
                    facts.flying(row["id"], p)
                    for p in {None, *(s["position"] for s in facts.stages if s["rollout_id"] == row["id"])}
                )
                for facts in (before, after)
            )
            assert now <= was or row["max_in_flight"] is None or now <= row["max_in_flight"] or at_once

    def ends(self) -> None:
        """Somebody on the way, forward or back, says how it went."""
        forward = self.fleet.sql(
            "select rollout_id, device_id, to_release from public.rollout_claims c join public.devices d on d.id = c.device_id "
            "where c.state = 'claimed' and d.state = 'active' order by d.name"
        )
        back = self.fleet.sql(
            "select null::uuid, device_id, to_release from public.roll_back_slots b join public.devices d on d.id = b.device_id "
            "where b.state = 'claimed' and d.state = 'active' order by d.name"
        )
        branch = [(None, device, release) for device, release in self.told.items()]
        if not [*forward, *back, *branch]:
            return
        rollout, device, release = self.random.choice([*forward, *back, *branch])
        self.told.pop(device, None)
        if not self.fleet.sql("select 1 from public.devices where id = %s and state = 'active'", device):
            return
        outcome = self.random.choice(
            ["succeeded", "succeeded", "succeeded", "failed", "rolled_back", "no Git"]
        )
        self.story.append(f"{device} ends {outcome}: {release}, rollout {rollout}")
        if outcome == "no Git":
            finish(self.fleet, rollout, device, "failed", release, phase="fetching")
            return
        for given, who, to in forward:
            if who == device and (given == rollout or (rollout is None and to == release)):
                self.words[given, who] = outcome
        finish(self.fleet, rollout, device, outcome, release)

    def loses_or_gains_health(self) -> None:
        device, good = self.device(), self.random.random() < 0.5
        claims = self.fleet.sql(
            "select c.rollout_id, c.state::text from public.rollout_claims c join public.device_status s using (device_id) "
            "where c.device_id = %s and c.to_release = s.current_release order by c.claimed_at desc limit 1", device
        )  # fmt: skip
        was = self.fleet.sql("select state::text from public.device_status where device_id = %s", device)
        if not was or good == (was[0][0] == "healthy"):
            return
        for rollout, state in claims:
            if good or state == "succeeded":
                self.words[rollout, device] = "succeeded" if good else "regressed"
        self.story.append(f"{device} is healthy: {good}")
        self.fleet.sql(
            "update public.device_status set state = %s where device_id = %s",
            "healthy" if good else "degraded",
            device,
        )

    # What people do.

    def adds_a_release(self) -> None:
        self.made += 1
        self.edit(
            "insert into public.releases (commit_sha, version, branch) values (%s, %s, 'main')",
            f"{self.made:040d}", f"r{self.made}",
        )  # fmt: skip

    def rolls_out(self, *, at_once: bool = False) -> None:
        choice = self.random.choice
        if self.random.random() < 0.5:
            self.adds_a_release()
        stages = [
            {"segment": choice([None, "canary", "early"]), "percent": choice([None, None, 40]), "needs_approval": choice([False, False, True])}
            for _ in range(choice([1, 2, 3]))
        ]  # fmt: skip
        options = {
            "max_in_flight": choice([None, 1, 1, 2]), "allow_downgrade": choice([False, False, True]), "allow_empty": True,
            "selector": choice([{}, {}, SITE]), "halt_consecutive_failures": choice([None, 2]), "halt_failure_ratio": None,
            "on_bad": choice(["halt_rollout", "roll_back"]),
        }  # fmt: skip
        release = self.pick(
            "select id from public.releases where branch = 'main' order by created_at desc limit 3"
        )
        if at_once:
            stages = [{}]
        self.edit(
            "select public.create_rollout(%s, stages => %s, options => %s)",
            release,
            json.dumps(stages),
            json.dumps(options),
        )
        if at_once or self.random.random() < 0.8:
            self.edit(
                "select public.start_rollout((select id from public.rollouts where state = 'draft' order by created_at desc limit 1))"
            )

    def edits_a_device(self) -> None:
        change = self.random.choice([
            "hold = not hold", "segment = 'early'", "segment = 'canary'", "role = 'kiosk'", "role = 'beacon'", "branch = 'staging'", "branch = 'main'",
            "labels = '{}'", "labels = '{\"site\": \"rome\"}'", "pinned_release = null", "state = 'suspended'", "state = 'active'", "state = 'active'",
            "pinned_release = (select id from public.releases where state = 'available' order by random() limit 1)",
        ])  # fmt: skip
        device = self.pick(
            "select id from public.devices where name ~ '^(canary|early|stable|new)' and state <> 'retired' order by name"
        )
        self.edit(f"update public.devices set {change} where id = %s", device)

    def retires_one_and_gets_another(self) -> None:
        self.edit("update public.devices set state = 'retired' where id = %s", self.device())
        self.made += 1
        make_devices(self.fleet, 1, "stable", f"new{self.made}x")

    def edits_a_rollout(self) -> None:
        change = self.random.choice(
            [
                "state = 'paused'",
                "state = 'running'",
                "state = 'running'",
                "state = 'cancelled'",
                "state = 'completed'",
                "max_in_flight = 2",
            ]
        )
        self.edit(
            f"update public.rollouts set {change} where id = %s",
            self.pick("select id from public.rollouts order by created_at"),
        )

    def edits_a_stage(self) -> None:
        found = self.pick(
            "select rollout_id || '|' || position from public.rollout_stages order by rollout_id, position"
        )
        if found is None:
            return
        rollout, position = found.split("|")
        what = self.random.choice([
            "update public.rollout_stages set opened_at = now() where rollout_id = %s and position = %s",
            "update public.rollout_stages set approved_at = now() where rollout_id = %s and position = %s",
            "update public.rollout_stages set percent = 80 where rollout_id = %s and position = %s",
            "update public.rollout_stages set max_in_flight = 1 where rollout_id = %s and position = %s",
            "delete from public.rollout_stages where rollout_id = %s and position = %s",
            "insert into public.rollout_stages (rollout_id, position) select %s, %s::int + 7",
        ])  # fmt: skip
        self.edit(what, UUID(rollout), int(position))

    def deletes_a_draft(self) -> None:
        self.edit(
            "delete from public.rollouts where id = %s",
            self.pick("select id from public.rollouts where state = 'draft' order by created_at"),
        )

    def withdraws_or_restores(self) -> None:
        change = self.random.choice(
            [
                "state = 'withdrawn', all_at_once = false",
                "state = 'withdrawn', all_at_once = random() < 0.2",
                "state = 'available'",
            ]
        )
        self.edit(
            f"update public.releases set {change} where id = %s",
            self.pick(
                "select current_release from public.device_status union all select id from public.releases order by 1"
            ),
        )

    def halts(self) -> None:
        scope = self.random.choice(["fleet", "segment", "role", "branch", *["release"] * 6, *["rollout"] * 4])
        targets: dict[str, Callable[[], str | None]] = {
            "fleet": lambda: None, "segment": lambda: "early", "role": lambda: "beacon", "branch": lambda: "main",
            "release": lambda: str(self.pick("select current_release from public.device_status order by device_id")),
            "rollout": lambda: str(self.pick("select id from public.rollouts order by created_at")),
        }  # fmt: skip
        target = targets[scope]()
        back = scope in ("release", "rollout") and self.random.random() < 0.7
        self.edit(
            "insert into public.halts (scope, target, reason, roll_back, all_at_once) values (%s, %s, 'x', %s, %s)",
            scope, target, back, back and self.random.random() < 0.2,
        )  # fmt: skip

    def lifts(self) -> None:
        self.edit(
            "update public.halts set lift_reason = 'x' where id = %s",
            self.pick("select id from public.halts where lifted_at is null order by opened_at"),
        )

    def marks_or_forgives(self) -> None:
        what = self.random.choice([
            "select public.mark_known_bad(%s, '{\"segment\": \"early\"}', 'x', allow_empty => true)",
            "update public.known_bad_patterns set lift_reason = 'x' where release_id = %s and lifted_at is null",
            "delete from public.known_bad_releases where release_id = %s",
        ])  # fmt: skip
        self.edit(what, self.pick("select id from public.releases order by created_at"))

    def renames(self) -> None:
        """There and back, so that steps can name it; in between all agree, too."""
        table, name = self.random.choice(
            [("segments", "early"), ("device_roles", "beacon"), ("branches", "main")]
        )
        self.edit(f"update public.{table} set name = 'x' where name = %s", name)
        self.agree()
        self.edit(f"update public.{table} set name = %s where name = 'x'", name)

    def sets_delivery_or_the_limit(self) -> None:
        self.edit(self.random.choice([
            "update public.branches set delivery = 'immediate' where name = 'main'",
            "update public.branches set delivery = 'rollout_only' where name = 'main'",
            "update public.fleet_settings set max_in_flight = 2 where id", "update public.fleet_settings set max_in_flight = null where id",
        ]))  # fmt: skip

    def ticks(self) -> None:
        tick(self.fleet, "clock_timestamp()")

    # What has to be so after each.

    def agree(self) -> None:
        facts = Facts(self.fleet)
        for device in facts.devices:
            if device["state"] == "retired" or device["name"] in ("device", "other", "pending", "suspended"):
                continue
            told = self.fleet.sql(
                "select d.action, d.release_id, d.rollout_id, d.gates from public.devices x, private.decide(x, %s) d where x.id = %s",
                facts.now, device["id"],
            )[0]  # fmt: skip
            expected = decide(facts.world(device))
            refused = {gate["gate"] for gate in told[3] if gate["verdict"] != "pass"}
            assert (*told[:3], refused) == (
                expected.action, expected.release, expected.rollout, {gate.rstrip("?") for gate in expected.no}
            ), (device["name"], told[3])  # fmt: skip
        check_counters(self.fleet)
        said = {
            (c["rollout_id"], c["device_id"]): c["last_outcome"]
            for c in facts.claims
            if c["last_outcome"] is not None
        }
        assert said == self.words, (
            "each device counts once, by its last word, and nobody is blamed who said nothing"
        )


@OLDER_SERVER_IN_FULL
@pytest.mark.parametrize("seed", range(amount(1, full=60)))
def test_the_model_agrees_with_a_fleet_that_is_edited_by_hand_between_the_steps(
    fleet: Fleet, seed: int
) -> None:
    life = Life(fleet, seed)
    devices: list[Callable[[], None]] = [
        life.asks,
        life.asks,
        life.asks,
        life.ends,
        life.ends,
        life.ends,
        life.loses_or_gains_health,
        life.ticks,
    ]
    people: list[Callable[[], None]] = [
        life.adds_a_release, life.rolls_out, life.rolls_out, life.edits_a_device, life.edits_a_device, life.retires_one_and_gets_another,
        life.edits_a_rollout, life.edits_a_stage, life.edits_a_stage, life.deletes_a_draft, life.withdraws_or_restores, life.halts, life.lifts,
        life.lifts, life.marks_or_forgives, life.renames, life.sets_delivery_or_the_limit,
    ]  # fmt: skip
    for number in range(amount(8, full=60)):
        step = life.random.choice(devices if number % 4 else people)
        step()
        try:
            life.agree()
        except AssertionError as error:
            raise AssertionError("\n".join(["The story:", *life.story, str(error)])) from None
