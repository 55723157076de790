"""A device that missed a release: explain_device() names it and its rollout."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.identities import DEVICE, V1, V2, Fleet
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import roll_out

pytestmark = OLDER_SERVER_IN_FULL


@pytest.mark.parametrize(
    ("options", "then", "why"),
    [
        ({}, "cancelled", "was cancelled before it had a turn"),
        ({"selector": {"labels": {"site": "rome"}}}, None, "is for other devices"),
    ],
)
def test_a_device_that_missed_a_release_is_told_which_and_by_which_rollout(
    fleet: Fleet, options: dict[str, Any], then: str | None, why: str
) -> None:
    fleet.sql("update public.branches set delivery = 'rollout_only' where true")
    fleet.report(V1)
    rollout = roll_out(fleet, {"segment": "early"}, {}, name="spring", **options)
    if then is not None:
        fleet.sql("update public.rollouts set state = %s where id = %s", then, rollout, who="operator")
    explained = fleet.one("select public.explain_device(%s)", DEVICE, who="viewer")
    assert explained["missed"]["release"]["id"] == str(V2)
    assert explained["missed"]["rollout_id"] == str(rollout)
    assert explained["missed"]["why"] == f"It missed v2: the rollout spring ({str(rollout)[:8]}) {why}."
    assert explained["missed"]["why"] in explained["summary"]
    fleet.report(V2)
    assert fleet.one("select public.explain_device(%s)", DEVICE, who="viewer")["missed"] is None
