"""Opening a socket: which keys are let in, how the others are refused, and when a socket is closed."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.exceptions import InvalidStatus

from tests.stack.realtime.support import (
    Endpoint,
    EndpointFactory,
    Project,
    Raw,
    Subscribers,
)
from tests.support.patience import PATIENCE_S


@pytest.fixture(scope="module")
def project(open_project: Project) -> Project:
    """Of this file: the protocol is the same on private and public channels, and these need no token."""
    return open_project


@pytest.fixture(scope="module")
def quick(endpoint: EndpointFactory) -> Endpoint:
    """An endpoint that loses patience after a second."""
    return endpoint(idleMs=1000, frameBytes=2000)


async def refused(url: str, key: str, **options: str) -> tuple[int, str]:
    """Status and sentence of a refused connection."""
    with pytest.raises(InvalidStatus) as error:
        async with Raw.open(url, key, **options):
            pass
    response = error.value.response
    return response.status_code, json.loads(response.body)["error"]


async def test_a_connection_without_key_is_refused(project: Project) -> None:
    assert await refused(project.realtime_url, "") == (401, "API key is missing")


async def test_an_unknown_api_key_is_refused(project: Project) -> None:
    assert await refused(project.realtime_url, "sb_publishable_somebody_elses") == (401, "Invalid API key")


async def test_a_key_that_is_no_token_is_refused(project: Project) -> None:
    assert await refused(project.realtime_url, "rubbish") == (401, "The token provided is not a valid JWT")


async def test_an_expired_key_is_refused(project: Project) -> None:
    assert await refused(project.realtime_url, project.token("anon", ttl_s=0)) == (401, "Token has expired")


async def test_a_key_signed_by_somebody_else_is_refused(project: Project) -> None:
    key = project.token("anon")
    forged = key[:-8] + ("AAAAAAAA" if not key.endswith("AAAAAAAA") else "BBBBBBBB")
    assert await refused(project.realtime_url, forged) == (401, "Failed to validate JWT signature")


async def test_a_key_without_role_is_refused(project: Project) -> None:
    import jwt

    key = jwt.encode({"exp": 4_000_000_000}, project.jwt_secret, algorithm="HS256")
    assert await refused(project.realtime_url, key) == (401, "Fields `role` and `exp` are required in JWT")


async def test_a_key_of_an_algorithm_we_do_not_have_is_refused(project: Project) -> None:
    import jwt
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    key = jwt.encode(
        {"role": "anon", "exp": 4_000_000_000},
        generate_private_key(SECP256R1()),
        "ES256",
        headers={"kid": "k1"},
    )
    assert await refused(project.realtime_url, key) == (
        401,
        'Failed to generate JWT signer for key ID (kid) "k1", check your JWT secret or JWKS configuration',
    )


async def test_a_devices_own_token_is_no_api_key(project: Project) -> None:
    """Hosted refuses it at the gateway; passing here would only postpone the surprise."""
    assert await refused(project.realtime_url, project.token("fleet_device")) == (401, "Invalid API key")


async def test_an_unknown_protocol_version_is_refused(project: Project) -> None:
    status, _ = await refused(project.realtime_url, project.publishable_key, vsn="9.9.9")
    assert status == 403


@pytest.mark.parametrize("header", ["apikey", "x-api-key"])
async def test_the_key_may_come_in_a_header(project: Project, header: str) -> None:
    key = {header: project.publishable_key}
    async with Raw.open(project.realtime_url, "", additional_headers=key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.push("phoenix", "heartbeat", {})
        assert (await raw.receive())["payload"] == {"status": "ok", "response": {}}


async def test_keys_and_their_jwts_all_open_a_socket(project: Project) -> None:
    keys = (project.publishable_key, project.secret_key, project.token("anon"), project.token("service_role"))
    for key in keys:
        async with Raw.open(project.realtime_url, key) as socket:
            assert (await Raw(socket, "1.0.0").join("lobby"))["payload"]["status"] == "ok"


async def test_the_secret_key_joins_as_service_role(project: Project, topic: str) -> None:
    """Service role bypasses the policies; the publishable key is anon and may not."""
    async with Raw.open(project.realtime_url, project.secret_key) as socket:
        reply = await Raw(socket, "1.0.0").join(topic, {"private": True})
        assert reply["payload"]["status"] == "ok"


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_a_heartbeat_is_answered_in_both_framings(project: Project, vsn: str) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key, vsn) as socket:
        raw = Raw(socket, vsn)
        await raw.push("phoenix", "heartbeat", {}, ref="26", join_ref=None)
        ok = {"status": "ok", "response": {}}
        assert await raw.receive() == (
            {"topic": "phoenix", "event": "phx_reply", "payload": ok, "ref": "26"}
            if vsn == "1.0.0"
            else [None, "26", "phoenix", "phx_reply", ok]
        )


async def test_a_message_to_a_topic_not_joined_is_refused(project: Project) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.push("realtime:nowhere", "broadcast", {"type": "broadcast", "event": "e", "payload": {}})
        assert (await raw.receive())["payload"] == {
            "status": "error",
            "response": {"reason": "unmatched topic"},
        }


@pytest.mark.parametrize("frame", ["not json", "[1, 2]", b"\x09\x00", b"\x03\xff\xff\xff\xff\xff\x01short"])
async def test_an_unreadable_frame_closes_the_socket(project: Project, frame: str | bytes) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key, "2.0.0") as socket:
        await socket.send(frame)
        assert await Raw(socket, "2.0.0").closed() == 1007


async def test_a_frame_over_the_limit_closes_the_socket(project: Project, quick: Endpoint) -> None:
    async with Raw.open(quick.url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.push("phoenix", "heartbeat", {"filler": "x" * 1800})
        assert (await raw.receive())["payload"]["status"] == "ok"
        await raw.push("phoenix", "heartbeat", {"filler": "x" * 2000})
        assert await raw.closed() == 1009


async def test_a_silent_client_is_closed_and_a_talking_one_is_not(project: Project, quick: Endpoint) -> None:
    talking = Raw.open(quick.url, project.publishable_key)
    async with talking as one, Raw.open(quick.url, project.publishable_key) as other:
        raw = Raw(one, "1.0.0")
        silent = Raw(other, "1.0.0")
        async with asyncio.timeout(PATIENCE_S):
            while other.close_code is None:
                await raw.push("phoenix", "heartbeat", {})
                assert (await raw.receive())["event"] == "phx_reply"
        assert await silent.closed() == 1000
        assert one.close_code is None


async def test_a_socket_closed_while_it_opens_is_closed_all_the_same(
    project: Project, endpoint: EndpointFactory
) -> None:
    """A close that overtakes the handshake must not leave the client on a line to nobody."""
    url = endpoint(idleMs=0).url
    for _ in range(10):
        async with Raw.open(url, project.publishable_key) as socket:
            assert await Raw(socket, "1.0.0").closed() == 1000


async def test_a_stopping_endpoint_says_that_it_goes_away(
    project: Project, endpoint: EndpointFactory
) -> None:
    stopping = endpoint()
    async with Raw.open(stopping.url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.push("phoenix", "heartbeat", {})
        await raw.receive()
        stopping.stop()
        assert await raw.closed() == 1001


async def test_the_official_client_reconnects_after_the_endpoint_went_away(
    project: Project, endpoint: EndpointFactory, subscribers: Subscribers, topic: str
) -> None:
    """The client must recognize our close as one to come back from: it reports it and tries again."""
    stopping = endpoint()
    subscriber = await subscribers(topic, private=False, url=stopping.url, auto_reconnect=False).join()
    stopping.stop()
    state, error = await subscriber.state()
    assert state.value == "CHANNEL_ERROR"
    assert "1001" in error
