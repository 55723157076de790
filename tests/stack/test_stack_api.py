"""The API port: who gets in, as whom, and what stays closed."""

from __future__ import annotations

import httpx
import pytest

from fleetctl.stack import Stack
from tests.stack.cast import MakeOperator


@pytest.fixture(scope="module")
def api(stack: Stack) -> httpx.Client:
    return httpx.Client(base_url=stack.api_url)


def publishable(stack: Stack, token: str | None = None) -> dict[str, str]:
    return {"apikey": stack.publishable_key} | ({"authorization": f"Bearer {token}"} if token else {})


@pytest.mark.parametrize("path", ["/rest/v1/segments", "/rest/v1/rpc/desired_state", "/auth/v1/user"])
def test_keyless_loopback_request_is_refused(api: httpx.Client, path: str) -> None:
    """Lite would run these as service_role, in its default mode, because they come from this machine."""
    answer = api.get(path)
    assert (answer.status_code, answer.json()["message"]) == (401, "No API key found in request")


def test_publishable_key_alone_sees_nothing(stack: Stack, api: httpx.Client) -> None:
    answer = api.get("/rest/v1/devices", headers=publishable(stack))
    assert (answer.status_code, answer.json()["code"]) == (401, "42501")
    assert answer.json()["message"] == "permission denied for table devices"


def test_secret_key_acts_as_service_role(stack: Stack, api: httpx.Client) -> None:
    answer = api.get("/rest/v1/segments?select=name&order=position", headers={"apikey": stack.secret_key})
    assert [row["name"] for row in answer.json()][:3] == ["canary", "early", "stable"]


def test_operator_sees_what_a_signed_up_stranger_does_not(
    stack: Stack, api: httpx.Client, make_operator: MakeOperator
) -> None:
    operator = make_operator("viewer@api.example", "viewer")
    stranger = make_operator("stranger@api.example", None)
    seen = api.get("/rest/v1/segments?select=name", headers=publishable(stack, operator)).json()
    hidden = api.get("/rest/v1/segments?select=name", headers=publishable(stack, stranger)).json()
    assert {"name": "canary"} in seen
    assert hidden == []
