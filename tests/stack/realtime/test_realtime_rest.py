"""Sending over HTTP: the batch call, and the one-message call that the clients' http_send uses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.stack.realtime.support import Cast, Endpoint, EndpointFactory, Project, Raw, Subscribers


@pytest.fixture(scope="module")
def project(open_project: Project) -> Project:
    """Of this file: the protocol is the same on private and public channels, and these need no token."""
    return open_project


@pytest.fixture(scope="module")
def small(endpoint: EndpointFactory) -> Endpoint:
    """An endpoint with a payload limit of 1,000 bytes (hosted's padding of 500 comes on top)."""
    return endpoint(payloadBytes=1000)


def message(topic: str, event: str, *, private: bool = False, **payload: Any) -> dict[str, Any]:
    return {"topic": topic, "event": event, "payload": payload, "private": private}


def post(url: str, key: str | None, body: Any, token: str | None = None) -> httpx.Response:
    headers = {"apikey": key} if key else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.post(f"{url}/api/broadcast", json=body, headers=headers)


async def test_a_batch_reaches_public_and_private_topics(
    project: Project, subscribers: Subscribers, topic: str
) -> None:
    public = await subscribers(topic, private=False).join()
    private = await subscribers(topic, token=project.token("service_role")).join()
    body = {"messages": [message(topic, "open", n=1), message(topic, "closed", private=True, n=2)]}
    response = post(project.realtime_url, project.secret_key, body)
    assert (response.status_code, response.text) == (202, "")
    assert await public.broadcast() == {"event": "open", "payload": {"n": 1}}
    assert await private.broadcast() == {"event": "closed", "payload": {"n": 2}}


async def test_a_private_message_without_permission_is_left_out_silently(
    project: Project, cast: Cast, subscribers: Subscribers
) -> None:
    topic = f"device:{cast.device}"
    subscriber = await subscribers(topic, token=project.token("authenticated", cast.operator)).join()
    forged = {"messages": [message(topic, "forged", private=True)]}
    for token in (None, project.token("fleet_device", cast.device)):
        assert post(project.realtime_url, project.publishable_key, forged, token).status_code == 202
    post(project.realtime_url, project.secret_key, {"messages": [message(topic, "end", private=True)]})
    assert await subscriber.events("end") == []


@pytest.mark.parametrize(
    ("key", "token", "answer"),
    [
        (None, None, (401, "API key is missing")),
        ("sb_publishable_other", None, (401, "Invalid API key")),
        ("good", "rubbish", (401, "Unauthorized")),
    ],
)
def test_a_call_without_good_credentials_is_refused(
    project: Project, topic: str, key: str | None, token: str | None, answer: tuple[int, str]
) -> None:
    key = project.publishable_key if key == "good" else key
    response = post(project.realtime_url, key, {"messages": [message(topic, "e")]}, token)
    assert (response.status_code, response.json()["message"]) == answer


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"messages": ["can't be blank"]}),
        ({"messages": [{"event": "e", "payload": {}}]}, {"messages": [{"topic": ["can't be blank"]}]}),
        (
            {"messages": [{"topic": "t", "event": "e", "payload": 1}]},
            {"messages": [{"payload": ["is invalid"]}]},
        ),
    ],
)
def test_a_batch_that_is_none_is_refused_whole(project: Project, body: Any, errors: Any) -> None:
    response = post(project.realtime_url, project.secret_key, body)
    assert (response.status_code, response.json()) == (422, {"errors": errors})


def test_too_large_a_payload_is_refused(project: Project, small: Endpoint, topic: str) -> None:
    response = post(small.url, project.secret_key, {"messages": [message(topic, "e", x="x" * 1600)]})
    assert (response.status_code, response.json()) == (
        422,
        {"errors": {"messages": [{"payload": ["Payload size exceeds tenant limit"]}]}},
    )


@pytest.mark.parametrize(("size", "status"), [(5, 202), (6, 429)])
def test_a_batch_larger_than_a_seconds_messages_is_refused(
    project: Project, endpoint: EndpointFactory, topic: str, size: int, status: int
) -> None:
    url = endpoint(messagesPerSecond=5, rateTickMs=600_000).url
    response = post(url, project.secret_key, {"messages": [message(topic, "e")] * size})
    assert response.status_code == status
    if status == 429:
        assert response.json() == {"message": "Too many messages to broadcast, please reduce the batch size"}


async def test_the_clients_http_send_reaches_a_private_topic(
    project: Project, subscribers: Subscribers, topic: str
) -> None:
    subscriber = await subscribers(topic, token=project.token("service_role")).join()
    await subscriber.channel.http_send("ünder way", {"n": 1})
    assert await subscriber.broadcast() == {"event": "ünder way", "payload": {"n": 1}}


async def test_bytes_sent_over_http_arrive_as_bytes(
    project: Project, subscribers: Subscribers, topic: str
) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key, "2.0.0") as socket:
        raw = Raw(socket, "2.0.0")
        await raw.join(topic)
        await subscribers(topic, private=False).channel.http_send("bytes", b"\x00\xff")
        frame = await raw.receive()
    assert (
        frame == b"\x04" + bytes([len(topic) + 9, 5, 0, 0]) + f"realtime:{topic}bytes".encode() + b"\x00\xff"
    )


def test_an_unknown_content_type_is_refused(project: Project, topic: str) -> None:
    response = httpx.post(
        f"{project.realtime_url}/api/broadcast/{topic}/events/e",
        content="<xml/>", headers={"apikey": project.publishable_key, "Content-Type": "text/xml"},
    )  # fmt: skip
    assert response.status_code == 415


def test_a_browser_may_ask_first(project: Project) -> None:
    response = httpx.options(f"{project.realtime_url}/api/broadcast")
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (204, "*")


def test_an_address_that_is_none_is_not_found(project: Project) -> None:
    assert httpx.get(f"{project.realtime_url}/nothing").status_code == 404
