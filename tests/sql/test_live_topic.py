"""What people set up is announced on the topic fleet, so that every page of the dashboard follows it."""

from __future__ import annotations

import pytest

from tests.support.identities import DEVICE, V1, Fleet
from tests.support.profiles import OLDER_SERVER_IN_FULL

pytestmark = OLDER_SERVER_IN_FULL


def heard(fleet: Fleet) -> list[tuple[str, str]]:
    """Table and operation of each message on the topic."""
    return sorted((event, payload["op"]) for _, event, payload in fleet.messages(topic="fleet"))


@pytest.mark.parametrize(
    ("edit", "table"),
    [
        ("update public.operators set rank = 'viewer' where email = 'operator@example.com'", "operators"),
        ("update public.fleet_settings set offline_after_intervals = 4 where id", "fleet_settings"),
        ("update public.segments set description = 'x' where name = 'canary'", "segments"),
        ("update public.device_roles set description = 'x' where name = 'beacon'", "device_roles"),
        ("update public.branches set delivery = 'rollout_only' where name = 'main'", "branches"),
        ("insert into public.rollout_templates (name) values ('x')", "rollout_templates"),
    ],
)
def test_what_people_set_up_is_announced_without_its_rows(fleet: Fleet, edit: str, table: str) -> None:
    fleet.messages()
    fleet.sql(edit, who="admin")
    (payload,) = [payload for _, event, payload in fleet.messages(topic="fleet") if event == table]
    assert {key: payload[key] for key in ("id", "device_id", "record")} == {
        "id": None, "device_id": None, "record": None,
    }  # fmt: skip


def test_a_device_that_may_try_again_is_announced_and_one_that_learns_it_is_not(fleet: Fleet) -> None:
    fleet.sql("insert into public.known_bad_releases (device_id, release_id) values (%s, %s)", DEVICE, V1)
    assert heard(fleet) == []
    fleet.sql("delete from public.known_bad_releases where device_id = %s", DEVICE, who="operator")
    assert heard(fleet) == [("known_bad_releases", "delete")]
