"""Whoever has the service key, or an operator's account: they offer what they like, and can sign nothing."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.model import FLEET_FILE, EngineStatus, Release, ReportState
from tests.support.engine_harness import FakeClock, Fleet

OURS, THEIRS = UUID(int=1), UUID(int=2)


class Offers:
    """Releases of any fleet and any age, all signed by the key that the device trusts."""

    def __init__(self, fleet: Fleet, config: EngineConfig, dependencies: Dependencies) -> None:
        self.fleet, self.config, self.dependencies = fleet, config, dependencies

    def release(self, of: UUID | str | None, version: str = "", *, date: str | None = None) -> Release:
        """A release whose `fleet.json` names `of`, or is that text; None: it has no such file."""
        version = version or f"v-{uuid4()}"
        repo = self.fleet.repo
        self.fleet.release("v1")
        there = (repo.path / FLEET_FILE).exists()
        text = of if isinstance(of, str) else json.dumps({"fleet_id": str(of)})
        edits = {FLEET_FILE: None if of is None else text}
        commit = repo.commit(version, edits if of is not None or there else {}, date=date)
        return Release(id=uuid4(), commit_sha=commit, version=version, branch="main")

    def to(self, release: Release, **changes: object) -> EngineStatus:
        """Offer it to the device, which has these settings."""
        config = self.config.model_copy(update=changes)
        return api.converge(config, self.fleet.directive(release), dependencies=self.dependencies)


@pytest.fixture
def offers(fleet: Fleet, root: Path, dependencies: Dependencies) -> Offers:
    return Offers(fleet, fleet.config(root), dependencies)


def took(status: EngineStatus, release: Release) -> None:
    assert (status.state, status.current, status.error) == (ReportState.HEALTHY, release, None), status


def refused(status: EngineStatus, kind: str, current: Release | None) -> None:
    assert (status.error_kind, status.current) == (kind, current), status


def test_a_release_of_another_fleet_is_refused_although_its_signature_is_good(offers: Offers) -> None:
    """The first verified release says which fleet a device belongs to; nothing does so afterward."""
    first = offers.release(OURS)
    took(offers.to(first), first)
    for other in (
        offers.release(THEIRS),
        offers.release(None),
        offers.release("{}"),
        offers.release("[" * 9),
    ):
        refused(offers.to(other), "wrong_fleet", first)
    again = offers.release(OURS)
    took(offers.to(again), again)


def test_the_id_in_device_json_counts_more(offers: Offers) -> None:
    for other in (THEIRS, None):
        refused(offers.to(offers.release(other), fleet_id=OURS), "wrong_fleet", None)
    ours = offers.release(OURS)
    took(offers.to(ours, fleet_id=OURS), ours)
    # The device is given to another fleet.
    theirs = offers.release(THEIRS)
    refused(offers.to(theirs), "wrong_fleet", ours)
    offers.dependencies.clock.passed += 7200  # type: ignore[attr-defined]
    theirs = offers.release(THEIRS)
    took(offers.to(theirs, fleet_id=THEIRS), theirs)


def test_without_an_id_a_release_without_one_is_taken(offers: Offers) -> None:
    nameless = offers.release(None)
    took(offers.to(nameless), nameless)
    ours = offers.release(OURS)
    took(offers.to(ours), ours)
    refused(offers.to(offers.release(None)), "wrong_fleet", ours)


@pytest.mark.parametrize("damage", ["lost", "torn"])
def test_a_lost_id_is_read_from_what_runs(offers: Offers, damage: str) -> None:
    ours = offers.release(OURS)
    took(offers.to(ours), ours)
    file = offers.config.paths.membership
    file.unlink() if damage == "lost" else file.write_bytes(file.read_bytes()[:9])
    refused(offers.to(offers.release(THEIRS)), "wrong_fleet", ours)


def test_an_unverified_release_does_not_say_which_fleet_this_is(offers: Offers) -> None:
    theirs, ours = offers.release(THEIRS), offers.release(OURS)
    took(offers.to(theirs, verify_signatures=False), theirs)
    took(offers.to(ours), ours)


def test_an_old_signed_release_is_refused_where_that_is_asked(offers: Offers, clock: FakeClock) -> None:
    """By the committer's time, with a day of tolerance; what ran here before may come back, however old."""
    ran = offers.release(OURS, date="2026-01-01T00:00:00Z")
    old = offers.release(OURS, date="2026-05-30T11:59:59Z")
    near = offers.release(OURS, date="2026-05-30T12:00:00Z")
    new = offers.release(OURS, date="2026-05-31T12:00:00Z")
    for release in (ran, new):
        took(offers.to(release, refuse_older_releases=True), release)
    refused(offers.to(old, refuse_older_releases=True), "release_older", new)
    took(offers.to(near, refuse_older_releases=True), near)
    took(offers.to(new, refuse_older_releases=True), new)
    took(offers.to(ran, refuse_older_releases=True), ran)
    # Off, it is the control plane's choice.
    took(offers.to(new), new)
    older = offers.release(OURS, date="2026-02-01T00:00:00Z")
    took(offers.to(older), older)
