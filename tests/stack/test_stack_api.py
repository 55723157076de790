"""The API port: who gets in, as whom, and what stays closed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import httpx
import jwt
import psycopg
import pytest

from fleetctl.stack.local_stack import LocalStack
from tests.support.stack_identities import DeviceJwt, MakeOperator


@pytest.fixture(scope="module")
def api(stack: LocalStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.api_url) as client:
        yield client


@pytest.fixture
def device(admin: psycopg.Connection) -> str:
    """An active device's id."""
    row = admin.execute(
        "insert into public.devices (name, role, state, public_key) "
        "values (%s, 'beacon', 'active', %s) returning id",
        (f"api-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex + "0123456789A"),
    ).fetchone()
    assert row is not None
    return str(row[0])


def publishable(stack: LocalStack, token: str | None = None) -> dict[str, str]:
    return {"apikey": stack.publishable_key} | ({"authorization": f"Bearer {token}"} if token else {})


@pytest.mark.parametrize("path", ["/rest/v1/segments", "/rest/v1/rpc/desired_state", "/auth/v1/user"])
def test_keyless_loopback_request_is_refused(api: httpx.Client, path: str) -> None:
    """Lite would run these as service_role, in its default mode, because they come from this machine."""
    answer = api.get(path)
    assert (answer.status_code, answer.json()["message"]) == (401, "No API key found in request")


def test_token_without_a_key_is_refused(api: httpx.Client, device_jwt: DeviceJwt, device: str) -> None:
    answer = api.get("/rest/v1/devices", headers={"authorization": f"Bearer {device_jwt(device)}"})
    assert (answer.status_code, answer.json()["message"]) == (401, "No API key found in request")


def test_publishable_key_alone_sees_nothing(stack: LocalStack, api: httpx.Client) -> None:
    answer = api.get("/rest/v1/devices", headers=publishable(stack))
    assert (answer.status_code, answer.json()["code"]) == (401, "42501")
    assert answer.json()["message"] == "permission denied for table devices"


def test_secret_key_acts_as_service_role(stack: LocalStack, api: httpx.Client) -> None:
    answer = api.get("/rest/v1/segments?select=name&order=position", headers={"apikey": stack.secret_key})
    assert [row["name"] for row in answer.json()][:3] == ["canary", "early", "stable"]


def test_secret_key_is_refused_in_a_browser(stack: LocalStack, api: httpx.Client) -> None:
    browser = {"apikey": stack.secret_key, "user-agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    answer = api.get("/rest/v1/segments", headers=browser)
    assert (answer.status_code, answer.json()["message"]) == (
        401,
        "Forbidden use of secret API key in browser",
    )


def test_operator_sees_what_a_signed_up_stranger_does_not(
    stack: LocalStack, api: httpx.Client, make_operator: MakeOperator
) -> None:
    operator = make_operator("viewer@api.example", "viewer")
    stranger = make_operator("stranger@api.example", None)
    seen = api.get("/rest/v1/segments?select=name", headers=publishable(stack, operator)).json()
    hidden = api.get("/rest/v1/segments?select=name", headers=publishable(stack, stranger)).json()
    assert {"name": "canary"} in seen
    assert hidden == []


def test_device_token_acts_as_that_device(
    stack: LocalStack, api: httpx.Client, device_jwt: DeviceJwt, device: str
) -> None:
    answer = api.post("/rest/v1/rpc/desired_state", headers=publishable(stack, device_jwt(device)), json={})
    assert answer.status_code == 200
    assert answer.json()["device"]["id"] == device


def test_token_signed_with_another_key_is_refused(stack: LocalStack, api: httpx.Client, device: str) -> None:
    claims = {"role": "fleet_device", "sub": device, "iat": 1, "exp": 4_000_000_000}
    forged = jwt.encode(claims, "another secret, but just as long as it should be", algorithm="HS256")
    answer = api.post("/rest/v1/rpc/desired_state", headers=publishable(stack, forged), json={})
    assert (answer.status_code, answer.json()["code"]) == (401, "PGRST301")


def test_expired_token_is_refused(
    stack: LocalStack, api: httpx.Client, device_jwt: DeviceJwt, device: str
) -> None:
    late = device_jwt(device, expires_in_s=-120)
    answer = api.post("/rest/v1/rpc/desired_state", headers=publishable(stack, late), json={})
    assert (answer.status_code, answer.json()["code"]) == (401, "PGRST303")


@pytest.mark.parametrize("role", ["supabase_admin", "postgres", "supabase_auth_admin"])
def test_not_even_a_signed_token_becomes_an_owner(
    stack: LocalStack, api: httpx.Client, device_jwt: DeviceJwt, device: str, role: str
) -> None:
    """REST connects as `authenticator`, which may become the API roles and nothing else."""
    answer = api.get("/rest/v1/devices", headers=publishable(stack, device_jwt(device, role=role)))
    assert (answer.status_code, answer.json()["code"]) == (403, "42501")
    assert answer.json()["message"] == f'permission denied to set role "{role}"'


def test_lite_grants_nothing(stack: LocalStack, api: httpx.Client, admin: psycopg.Connection) -> None:
    """By itself it would GRANT ALL on every table to the API roles at the first request."""
    api.get("/rest/v1/segments", headers={"apikey": stack.secret_key})
    granted = admin.execute(
        "select table_name from information_schema.role_table_grants "
        "where grantee = 'anon' and table_schema in ('public', 'private')"
    )
    assert list(granted) == []
    defaults = admin.execute(
        "select count(*) from pg_default_acl where array_to_string(defaclacl, ',') like '%%anon=%%'"
    )
    assert list(defaults) == [(0,)]


@pytest.mark.parametrize(
    "path", ["/_system/info", "/_system/introspect", "/static/favicon.ico", "/storage/v1/bucket"]
)
def test_lites_own_pages_stay_off_the_api_port(stack: LocalStack, api: httpx.Client, path: str) -> None:
    answer = api.get(path, headers={"apikey": stack.secret_key})
    assert answer.status_code == 404 or "<!doctype html>" in answer.text.lower()
    assert "postgresql://" not in answer.text


def test_health_names_every_part(api: httpx.Client) -> None:
    body = api.get("/_fleet/health").json()
    assert body["ready"] is True
    assert {name: part["state"] for name, part in body["parts"].items()} == {
        "database": "ready",
        "realtime": "ready",
        "functions": "ready",
        "scheduler": "ready",
    }
