"""A device takes its place in the fleet: with a token, without one, twice, and in a crowd."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from fleet_agent.control_plane.edge_functions import Enrollment, fetch_token
from fleet_agent.control_plane.identity import Identity
from fleet_agent.errors import ControlPlaneError, Kind
from fleet_agent.paths import Paths
from tests.support.functions import (
    Caller,
    Site,
    device_row,
    join,
    post,
)


async def test_a_provisioning_token_lets_a_device_in_at_its_place(
    site: Site, identity: Identity, provisioning_token: Callable[..., str], db: Any
) -> None:
    got = await join(site, identity, provisioning_token(segment="early", branch="staging"), "kitchen.1")
    assert (got.kind, got.state, got.role, got.segment, got.branch) == (
        "enrolled", "active", "beacon", "early", "staging",
    )  # fmt: skip
    row = device_row(db, got.device_id)
    assert row["public_key"] == identity.public_key
    assert (row["name"], row["hardware_model"], row["os"]) == (got.name, "Raspberry Pi 4", "Debian 13")
    assert row["enrolled_at"] is not None


async def test_enrolling_again_finds_the_same_device_and_uses_no_token(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str], db: Any
) -> None:
    """An answer that got lost must not cost the token's only use, nor make a second device."""
    token = provisioning_token(max_uses=1)
    first = await join(embedded, identity, token)
    again = await join(embedded, identity, token, "another-name")
    without = await join(embedded, identity, None)
    assert first.device_id == again.device_id == without.device_id
    assert first.name == again.name == without.name
    count = db.execute("select count(*) from devices where public_key = %s", [identity.public_key]).fetchone()
    assert count == {"count": 1}


async def test_new_is_201_and_known_is_200(embedded: Site, identity: Identity, db: Any) -> None:
    statuses = []
    for _ in range(2):
        body = {"proof": identity.assertion("enroll", datetime.now(UTC)), "name": "twice"}
        statuses.append((await post(embedded, "enroll", body)).status_code)
    assert statuses == [201, 200]


async def test_a_taken_name_gets_a_suffix_of_the_key(
    embedded: Site, tmp_path: Path, provisioning_token: Callable[..., str]
) -> None:
    token = provisioning_token(max_uses=2)
    name = f"raspberrypi-{uuid4().hex[:6]}"
    keys = [Identity.load_or_create(Paths(tmp_path / part)) for part in "ab"]
    first, second = [await join(embedded, key, token, name) for key in keys]
    assert first.name == name
    assert second.name.startswith(f"{name}-")
    assert len(second.name) == len(name) + 7


@pytest.mark.parametrize("wish", ["küche süd", "x" * 200, "..", "-a-"])
async def test_a_name_that_the_table_would_refuse_becomes_the_nearest_allowed(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str], wish: str
) -> None:
    got = await join(embedded, identity, provisioning_token(), wish)
    assert got.kind == "enrolled"


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (None, "token_invalid"),
        ("revoked_at = now()", "token_invalid"),
        ("expires_at = now()", "token_expired"),
        ("uses = max_uses", "token_used_up"),
    ],
)
async def test_a_bad_token_is_refused_by_its_own_kind(
    site: Site, member_to_be: tuple[Identity, str], db: Any, spoil: str | None, kind: str
) -> None:
    identity, token = member_to_be
    if spoil is None:
        token = token[:-1] + ("0" if token[-1] != "0" else "1")
    else:
        db.execute(
            f"update private.provisioning_tokens set {spoil}"
            " where token_hash = sha256(convert_to(%s, 'UTF8'))",
            [token],
        )
    with pytest.raises(ControlPlaneError) as caught:
        await join(site, identity, token)
    assert (caught.value.kind, caught.value.evidence["answer_kind"]) == (Kind.TOKEN_INVALID, kind)
    assert not db.execute("select from devices where public_key = %s", [identity.public_key]).fetchall()


async def test_devices_that_race_for_the_last_uses_get_exactly_those(
    embedded: Site, tmp_path: Path, provisioning_token: Callable[..., str], db: Any
) -> None:
    token = provisioning_token(max_uses=3)
    keys = [Identity.load_or_create(Paths(tmp_path / str(n))) for n in range(8)]
    results = await asyncio.gather(*(join(embedded, key, token) for key in keys), return_exceptions=True)
    refused = [r.evidence["answer_kind"] for r in results if isinstance(r, ControlPlaneError)]
    assert sum(isinstance(r, Enrollment) for r in results) == 3
    assert refused == ["token_used_up"] * 5


async def test_one_key_that_races_itself_is_one_device(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str], db: Any
) -> None:
    token = provisioning_token(max_uses=10)
    results = await asyncio.gather(*(join(embedded, identity, token) for _ in range(6)))
    assert len({result.device_id for result in results}) == 1
    uses = db.execute(
        "select uses from private.provisioning_tokens where token_hash = sha256(convert_to(%s, 'UTF8'))",
        [token],
    ).fetchone()
    assert uses == {"uses": 1}


async def test_without_a_token_a_device_waits_until_it_is_accepted(
    site: Site, identity: Identity, db: Any
) -> None:
    waiting = await join(site, identity, None)
    assert (waiting.kind, waiting.state) == ("pending", "pending")
    remembered = identity.remember(waiting.device_id)
    async with Caller(site) as caller:
        with pytest.raises(ControlPlaneError) as caught:
            await fetch_token(caller, site, remembered)
        assert caught.value.kind is Kind.DEVICE_PENDING
        db.execute("select accept_device(%s)", [waiting.device_id])
        assert (await join(site, identity, None)).kind == "enrolled"
        assert (await fetch_token(caller, site, remembered)).access_token


async def test_a_pending_device_is_let_in_by_a_token(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str]
) -> None:
    waiting = await join(embedded, identity, None)
    got = await join(embedded, identity, provisioning_token(segment="early"))
    assert (got.device_id, got.kind, got.segment) == (waiting.device_id, "enrolled", "early")


async def test_a_token_that_does_not_accept_leaves_the_device_waiting_at_its_place(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str]
) -> None:
    token = provisioning_token(auto_accept=False, segment="early")
    got = [await join(embedded, identity, token) for _ in range(2)]
    assert [(g.kind, g.state, g.segment) for g in got] == [("pending", "pending", "early")] * 2


async def test_the_waiting_room_has_a_size(
    embedded: Site, tmp_path: Path, provisioning_token: Callable[..., str], db: Any
) -> None:
    db.execute(
        "update fleet_settings set max_pending_devices ="
        " (select count(*) from devices where state = 'pending') + 1 where id"
    )
    keys = [Identity.load_or_create(Paths(tmp_path / part)) for part in "abc"]
    try:
        assert (await join(embedded, keys[0], None)).kind == "pending"
        with pytest.raises(ControlPlaneError, match="Too many devices are already waiting") as caught:
            await join(embedded, keys[1], None)
        assert (caught.value.kind, caught.value.retry_after_s) == (Kind.RATE_LIMITED, 3600)
        assert (await join(embedded, keys[2], provisioning_token())).kind == "enrolled"
    finally:
        db.execute("update fleet_settings set max_pending_devices = 1000 where id")


@pytest.mark.parametrize("state", ["suspended", "retired"])
async def test_a_locked_out_device_cannot_enroll_itself_back_in(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str], db: Any, state: str
) -> None:
    got = await join(embedded, identity, provisioning_token())
    db.execute("update devices set state = %s where id = %s", [state, got.device_id])
    with pytest.raises(ControlPlaneError) as caught:
        await join(embedded, identity, provisioning_token())
    assert caught.value.kind == f"device_{state}"


# -- assertions -----------------------------------------------------------------------------------------
