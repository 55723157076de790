"""A channel's token: refreshed, expired, revoked, of no use."""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.stack.realtime.support import Cast, Endpoint, EndpointFactory, Project, Raw, Subscribers, send


@pytest.fixture(scope="module")
def quick(endpoint: EndpointFactory) -> Endpoint:
    """An endpoint that refuses at once."""
    return endpoint()


async def test_a_join_with_an_expired_token_is_refused(
    project: Project, subscribers: Subscribers, quick: Endpoint, topic: str
) -> None:
    token = project.token("service_role", ttl_s=-60)
    refusal = await subscribers(topic, token=token, url=quick.url).refusal()
    assert re.fullmatch(r"InvalidJWTToken: Token has expired 6\d seconds ago", refusal)


async def test_a_join_with_rubbish_for_a_token_is_refused(
    subscribers: Subscribers, quick: Endpoint, topic: str
) -> None:
    refusal = await subscribers(topic, token="rubbish", url=quick.url).refusal()
    assert refusal == "MalformedJWT: The token provided is not a valid JWT"


async def test_a_join_with_a_forged_token_is_refused(
    project: Project, subscribers: Subscribers, quick: Endpoint, topic: str
) -> None:
    import jwt

    forged = jwt.encode({"role": "service_role", "exp": 4_000_000_000}, "x" * 40, algorithm="HS256")
    refusal = await subscribers(topic, token=forged, url=quick.url).refusal()
    assert refusal == "JwtSignatureError: Failed to validate JWT signature"


async def test_a_join_with_an_unsigned_token_is_refused(
    subscribers: Subscribers, quick: Endpoint, topic: str
) -> None:
    import jwt

    unsigned = jwt.encode({"role": "service_role", "exp": 4_000_000_000}, "", algorithm="none")
    refusal = await subscribers(topic, token=unsigned, url=quick.url).refusal()
    assert refusal.startswith("JwtSignerError: Failed to generate JWT signer")


async def test_a_join_with_a_token_without_role_is_refused(
    project: Project, subscribers: Subscribers, quick: Endpoint, topic: str
) -> None:
    import jwt

    token = jwt.encode({"exp": 4_000_000_000}, project.jwt_secret, algorithm="HS256")
    refusal = await subscribers(topic, token=token, url=quick.url).refusal()
    assert refusal == "InvalidJWTToken: Fields `role` and `exp` are required in JWT"


async def test_the_old_name_user_token_wins(project: Project, topic: str) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        reply = await Raw(socket, "1.0.0").join(
            topic, {"private": True}, access_token="rubbish", user_token=project.token("service_role")
        )
        assert reply["payload"]["status"] == "ok"


async def test_a_channel_ends_when_its_token_expires(
    project: Project, subscribers: Subscribers, topic: str
) -> None:
    """The client removes such a channel and never rejoins: whoever supervises it must know the sentence."""
    subscriber = await subscribers(topic, token=project.token("service_role", ttl_s=2)).join()
    assert re.fullmatch(r"Token has expired [01] seconds ago", await subscriber.closing())
    assert subscriber.client.get_channels() == []


async def test_a_refreshed_token_keeps_the_channel_beyond_the_first_ones_expiry(
    project: Project, subscribers: Subscribers, db: psycopg.Connection, topic: str
) -> None:
    refreshed = await subscribers(topic, token=project.token("service_role", ttl_s=3)).join()
    expiring = await subscribers(topic, token=project.token("service_role", ttl_s=3)).join()
    await refreshed.client.set_auth(project.token("service_role", ttl_s=600))
    await expiring.closing()
    send(db, topic, "still", {"v": 1})
    assert (await refreshed.broadcast())["event"] == "still"


async def test_a_token_that_may_no_longer_read_ends_the_channel(
    project: Project, cast: Cast, subscribers: Subscribers
) -> None:
    topic = f"device:{cast.device}"
    subscriber = await subscribers(topic, token=project.token("fleet_device", cast.device)).join()
    await subscriber.client.set_auth(project.token("fleet_device", cast.neighbor))
    assert (
        await subscriber.closing() == f"You do not have permissions to read from this Channel topic: {topic}"
    )


async def test_an_expired_refresh_ends_the_channel(
    project: Project, subscribers: Subscribers, topic: str
) -> None:
    subscriber = await subscribers(topic, token=project.token("service_role")).join()
    await subscriber.client.set_auth(project.token("service_role", ttl_s=-60))
    assert re.fullmatch(r"Token has expired 6\d seconds ago", await subscriber.closing())


@pytest.mark.parametrize("harmless", ["same", None, "sb_publishable_whatever"])
async def test_a_refresh_that_says_nothing_new_is_ignored(
    project: Project, db: psycopg.Connection, topic: str, harmless: str | None
) -> None:
    token = project.token("service_role")
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.join(topic, {"private": True}, access_token=token)
        refresh = {"access_token": token if harmless == "same" else harmless}
        await raw.push(f"realtime:{topic}", "access_token", refresh)
        send(db, topic, "still", {"v": 1})
        assert (await raw.receive())["payload"]["event"] == "still"
