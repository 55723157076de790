"""What a device makes of the answers that it may get from a bad network or a wrong server.

The good answers, and the refusals of the real functions, are in tests/stack/functions/.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import respx

from fleet_agent.control_plane import error_mapping
from fleet_agent.control_plane.edge_functions import EnrollmentRequest, enroll, fetch_token
from fleet_agent.control_plane.identity import Identity
from fleet_agent.errors import ControlPlaneError, Kind
from fleet_agent.paths import Paths

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TOKEN = {
    "access_token": "secret-jwt",
    "expires_at": "2026-03-01T12:00:00Z",
    "expires_in": 43200,
    "server_time": "2026-03-01T00:00:05.000Z",
}


@dataclass(frozen=True)
class Endpoint:
    api_url: str = "http://fleet.test/"
    publishable_key: str = "sb_publishable_x"


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load_or_create(Paths(tmp_path)).remember(uuid4())


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as made:
        yield made


@pytest.fixture
def function() -> Any:
    with respx.mock:
        yield respx.post("http://fleet.test/functions/v1/device-token")


def clock() -> datetime:
    return NOW


async def test_a_token_tells_how_wrong_the_clock_is(
    function: respx.Route, client: httpx.AsyncClient, identity: Identity
) -> None:
    function.respond(json=TOKEN)
    token = await fetch_token(client, Endpoint(), identity, clock=clock)
    assert token.clock_offset_s == 5
    assert token.expires_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert function.calls.last.request.headers["apikey"] == "sb_publishable_x"
    assert "secret-jwt" not in repr(token)


@pytest.mark.parametrize(
    ("answer", "kind", "retryable"),
    [
        (httpx.ConnectError("no route"), Kind.UNREACHABLE, True),
        (httpx.ReadTimeout("slow"), Kind.TIMED_OUT, True),
        (httpx.RemoteProtocolError("cut"), Kind.UNREACHABLE, True),
        (httpx.Response(200, html="<h1>Hotel Wi-Fi</h1>"), Kind.NOT_OUR_SERVER, True),
        (httpx.Response(302, headers={"location": "http://portal.test"}), Kind.NOT_OUR_SERVER, True),
        (httpx.Response(429, html="slow down"), Kind.RATE_LIMITED, True),
        (httpx.Response(502, html="bad gateway"), Kind.SERVER_ERROR, True),
        (httpx.Response(503, json={"kind": "unavailable", "message": "m"}), Kind.SERVER_ERROR, True),
        (httpx.Response(404, json={"kind": "function_not_found", "message": "m"}), Kind.REFUSED, False),
        (httpx.Response(401, json={"msg": "No API key found in request"}), Kind.UNAUTHORIZED, False),
        (httpx.Response(200, json={"access_token": 7}), Kind.BAD_ANSWER, True),
        (httpx.Response(200, json={**TOKEN, "expires_in": "soon"}), Kind.BAD_ANSWER, True),
        (httpx.Response(200, json=[]), Kind.NOT_OUR_SERVER, True),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else None,
)
async def test_every_bad_answer_has_its_kind(
    *,
    function: respx.Route,
    client: httpx.AsyncClient,
    identity: Identity,
    answer: httpx.Response | Exception,
    kind: Kind,
    retryable: bool,
) -> None:
    function.mock(side_effect=[answer])
    with pytest.raises(ControlPlaneError) as caught:
        await fetch_token(client, Endpoint(), identity, clock=clock)
    assert (caught.value.kind, caught.value.retryable) == (kind, retryable)
    assert "secret-jwt" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status_code": 429, "json": {"kind": "rate_limited", "message": "m"}}, Kind.RATE_LIMITED),
        ({"status_code": 429, "html": "slow down"}, Kind.RATE_LIMITED),
        ({"status_code": 503, "html": "maintenance"}, Kind.SERVER_ERROR),
    ],
)
@pytest.mark.parametrize(("asked", "seconds"), [("17", 17), ("1e9", error_mapping.RETRY_AFTER_LIMIT_S)])
async def test_retry_after_reaches_the_caller_within_a_limit(  # noqa: PLR0917
    function: respx.Route,
    client: httpx.AsyncClient,
    identity: Identity,
    answer: dict[str, Any],
    kind: Kind,
    asked: str,
    seconds: float,
) -> None:
    function.respond(**answer, headers={"retry-after": asked})
    with pytest.raises(ControlPlaneError) as caught:
        await fetch_token(client, Endpoint(), identity, clock=clock)
    assert (caught.value.kind, caught.value.retry_after_s) == (kind, seconds)


@pytest.mark.parametrize("server_time", ["never", "", None, "2026-03-01T00:00:00"])
async def test_a_stale_answer_without_a_usable_time_is_not_retried(
    function: respx.Route, client: httpx.AsyncClient, identity: Identity, server_time: str | None
) -> None:
    function.respond(401, json={"kind": "assertion_stale", "message": "m", "server_time": server_time})
    with pytest.raises(ControlPlaneError) as caught:
        await fetch_token(client, Endpoint(), identity, clock=clock)
    assert caught.value.kind is Kind.CLOCK_WRONG
    assert function.call_count == 1


async def test_a_place_that_is_no_place_is_a_bad_answer(
    client: httpx.AsyncClient, identity: Identity
) -> None:
    with respx.mock:
        respx.post("http://fleet.test/functions/v1/enroll").respond(
            json={"kind": "enrolled", "device_id": "x"}
        )
        with pytest.raises(ControlPlaneError, match="device_id") as caught:
            await enroll(client, Endpoint(), identity, EnrollmentRequest("kitchen"), "fpt_1", clock=clock)
    assert caught.value.kind is Kind.BAD_ANSWER
