"""Who may listen to what, under the real policies: the refusal is named, and so is who may."""

from __future__ import annotations

import psycopg
import pytest

from tests.stack.realtime.support import Cast, Endpoint, EndpointFactory, Project, Raw, Subscribers, send


@pytest.fixture(scope="module")
def url(endpoint: EndpointFactory) -> str:
    """An endpoint that refuses at once: a refused join takes half a second otherwise."""
    quick: Endpoint = endpoint()
    return quick.url


def unauthorized(topic: str) -> str:
    """The whole sentence, as hosted Realtime says it."""
    return f"Unauthorized: You do not have permissions to read from this Channel topic: {topic}"


def device_token(project: Project, device: object) -> str:
    return project.token("fleet_device", str(device))


async def test_a_device_listens_to_its_own_topic_and_its_segment(
    project: Project, cast: Cast, subscribers: Subscribers, db: psycopg.Connection, url: str
) -> None:
    token = device_token(project, cast.device)
    for topic in (f"device:{cast.device}", "segment:canary"):
        subscriber = await subscribers(topic, token=token, url=url).join()
        send(db, topic, "wake", {"v": 1, "reason": "test", "spread_s": 0})
        assert (await subscriber.broadcast())["payload"]["reason"] == "test"


async def test_a_device_cannot_join_another_devices_topic(
    project: Project, cast: Cast, subscribers: Subscribers, url: str
) -> None:
    topic = f"device:{cast.neighbor}"
    refusal = await subscribers(topic, token=device_token(project, cast.device), url=url).refusal()
    assert refusal == unauthorized(topic)


@pytest.mark.parametrize("topic", ["fleet", "segment:stable", "device:", "anything"])
async def test_a_device_cannot_join_what_is_not_its_own(
    project: Project, cast: Cast, subscribers: Subscribers, url: str, topic: str
) -> None:
    refusal = await subscribers(topic, token=device_token(project, cast.device), url=url).refusal()
    assert refusal == unauthorized(topic)


async def test_a_suspended_device_cannot_join_even_its_own_topic(
    project: Project, cast: Cast, subscribers: Subscribers, url: str
) -> None:
    topic = f"device:{cast.suspended}"
    refusal = await subscribers(topic, token=device_token(project, cast.suspended), url=url).refusal()
    assert refusal == unauthorized(topic)


async def test_suspending_a_device_ends_its_channel_at_its_next_token(
    project: Project, cast: Cast, subscribers: Subscribers, db: psycopg.Connection, url: str
) -> None:
    topic = f"device:{cast.neighbor}"
    subscriber = await subscribers(topic, token=device_token(project, cast.neighbor), url=url).join()
    db.execute("update public.devices set state = 'suspended' where id = %s", [cast.neighbor])
    try:
        await subscriber.client.set_auth(project.token("fleet_device", cast.neighbor, ttl_s=1800))
        closing = await subscriber.closing()
    finally:
        db.execute("update public.devices set state = 'active' where id = %s", [cast.neighbor])
    assert closing == f"You do not have permissions to read from this Channel topic: {topic}"


async def test_a_device_cannot_write_to_its_own_topic(project: Project, cast: Cast, url: str) -> None:
    """A refused send is silent, as on hosted: no ack comes and nobody hears it."""
    topic = f"device:{cast.device}"
    async with (
        Raw.open(url, project.publishable_key) as socket,
        Raw.open(url, project.publishable_key) as listening,
    ):
        device, listener = Raw(socket, "1.0.0"), Raw(listening, "1.0.0")
        config = {"private": True, "broadcast": {"ack": True}}
        await device.join(topic, config, access_token=device_token(project, cast.device))
        await listener.join(topic, config, access_token=project.token("authenticated", cast.operator))
        forged = {"type": "broadcast", "event": "wake", "payload": {"v": 1}}
        await device.push(f"realtime:{topic}", "broadcast", forged, ref="7")
        await device.push(f"realtime:{topic}", "presence", {"event": "track", "payload": {}}, ref="8")
        answer = await device.receive()
        assert (answer["ref"], answer["payload"]["status"]) == ("8", "error")
        with psycopg.connect(project.db_url, autocommit=True) as db:
            send(db, topic, "marker", {"v": 1})
        assert (await listener.receive())["payload"]["event"] == "marker"


async def test_a_device_cannot_write_through_the_rest_call(
    project: Project, cast: Cast, subscribers: Subscribers, url: str
) -> None:
    from realtime.exceptions import RealtimeHTTPError

    subscriber = subscribers(f"device:{cast.device}", token=device_token(project, cast.device), url=url)
    with pytest.raises(RealtimeHTTPError) as error:
        await subscriber.channel.http_send("wake", {"v": 1})
    assert (error.value.status, error.value.message) == (403, "Unauthorized")


async def test_an_operator_listens_to_the_fleet_and_to_every_device(
    project: Project, cast: Cast, subscribers: Subscribers, url: str
) -> None:
    token = project.token("authenticated", cast.operator)
    for topic in ("fleet", f"device:{cast.device}", "segment:stable"):
        await subscribers(topic, token=token, url=url).join()


async def test_a_user_who_is_no_operator_cannot_listen(
    project: Project, cast: Cast, subscribers: Subscribers, url: str
) -> None:
    token = project.token("authenticated", cast.device)
    assert await subscribers("fleet", token=token, url=url).refusal() == unauthorized("fleet")


async def test_the_publishable_key_alone_opens_no_private_topic(subscribers: Subscribers, url: str) -> None:
    assert await subscribers("fleet", url=url).refusal() == unauthorized("fleet")


@pytest.mark.parametrize("role", ["no_such_role", "none", "postgres; reset role"])
async def test_a_token_of_a_role_that_is_none_is_refused(
    project: Project, subscribers: Subscribers, url: str, role: str
) -> None:
    """`none` would be taken by `set role` as: back to the superuser."""
    assert await subscribers("fleet", token=project.token(role), url=url).refusal() == unauthorized("fleet")


async def test_asking_leaves_no_rows_behind(
    project: Project, cast: Cast, subscribers: Subscribers, db: psycopg.Connection, url: str
) -> None:
    topic = f"device:{cast.device}"
    before = db.execute("select count(*) from realtime.messages where topic = %s", [topic]).fetchone()
    await subscribers(topic, token=device_token(project, cast.device), url=url, presence_key="k").join()
    assert db.execute("select count(*) from realtime.messages where topic = %s", [topic]).fetchone() == before
