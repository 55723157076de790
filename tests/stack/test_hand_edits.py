"""A row edited by hand in the table editor is a first-class operation: it wakes, is audited, is checked."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from fleetctl.stack.local_stack import LocalStack
from tests.stack.realtime.support import Project, Subscriber, Subscribers, make_device
from tests.support.patience import PATIENCE_S
from tests.support.stack_identities import DeviceJwt


@pytest.fixture
async def editor(stack: LocalStack) -> AsyncIterator[httpx.AsyncClient]:
    """The API that the table editor's page calls: its own port, no key."""
    assert stack.table_editor_url is not None
    async with httpx.AsyncClient(base_url=stack.table_editor_url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def device(admin: psycopg.Connection) -> Iterator[uuid.UUID]:
    device = make_device(admin, "active", "canary")
    yield device
    admin.execute("update public.devices set state = 'retired' where id = %s", (device,))


@pytest.fixture
async def subscribed(
    stack: LocalStack, device: uuid.UUID, device_jwt: DeviceJwt
) -> AsyncIterator[Subscriber]:
    """The device, listening on its own topic with the official client."""
    async with Subscribers(Project.of(stack)) as subscribers:
        yield await subscribers(f"device:{device}", token=device_jwt(device)).join()


async def edit(editor: httpx.AsyncClient, device: uuid.UUID, **row: Any) -> httpx.Response:
    return await editor.patch("/rest/v1/devices", params={"id": f"eq.{device}"}, json=row)


async def add_order(editor: httpx.AsyncClient, device: uuid.UUID) -> None:
    order = {"device_id": str(device), "kind": "check_drift"}
    assert (await editor.post("/rest/v1/device_commands", json=order)).status_code == 201


async def test_an_edit_of_its_row_wakes_a_subscribed_device(
    editor: httpx.AsyncClient, subscribed: Subscriber, device: uuid.UUID, admin: psycopg.Connection
) -> None:
    label = secrets.token_hex(4)
    assert (await edit(editor, device, labels={"site": label})).status_code == 204
    wake = await subscribed.broadcast()
    assert wake["event"] == "wake"
    assert wake["payload"] | {"id": ""} == {"v": 1, "reason": "device_changed", "spread_s": 0, "id": ""}
    audited = admin.execute(
        "select actor, action, after->'labels'->>'site' from public.audit_log "
        "where table_name = 'devices' and row_id = %s order by id desc limit 1",
        (str(device),),
    ).fetchone()
    assert audited == ("service_role", "update", label)


async def test_a_row_added_by_hand_wakes_a_subscribed_device(
    editor: httpx.AsyncClient, subscribed: Subscriber, device: uuid.UUID
) -> None:
    await add_order(editor, device)
    assert (await subscribed.broadcast())["payload"]["reason"] == "command"


@pytest.mark.parametrize(
    ("row", "refusal"),
    [
        ({"timezone": "Mars/Olympus"}, (400, 'There is no time zone "Mars/Olympus".')),
        ({"segment": "nowhere"}, (400, 'There is no segment "nowhere".')),
        ({"poll_interval_s": 1}, (400, "poll_interval_s must be 30 to 604800 seconds, or empty")),
        ({"labels": {"site": 1}}, (400, "labels must be an object of texts")),
        ({"state": "pending"}, (409, " is active and cannot become pending.")),
    ],
)
async def test_a_refused_edit_says_why_in_words_and_wakes_nobody(
    editor: httpx.AsyncClient,
    subscribed: Subscriber,
    device: uuid.UUID,
    row: dict[str, Any],
    refusal: tuple[int, str],
) -> None:
    answer = await edit(editor, device, **row)
    status, sentence = refusal
    assert answer.status_code == status
    assert sentence in answer.json()["message"]
    # Messages keep their order: a wake of the refused edit would come first.
    await add_order(editor, device)
    assert (await subscribed.broadcast())["payload"]["reason"] == "command"


async def test_a_device_that_took_part_cannot_be_deleted_by_hand(
    editor: httpx.AsyncClient, device: uuid.UUID
) -> None:
    answer = await editor.delete("/rest/v1/devices", params={"id": f"eq.{device}"})
    assert answer.status_code == 409
    assert answer.json()["details"] == "device_is_known"
    assert answer.json()["hint"].startswith("Set its state to retired")
