"""Sign-in as the official clients see it: they parse every instant, and refuse what is not RFC 3339."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from supabase import Client, create_client

from fleetctl.stack.local_stack import LocalStack
from tests.support.stack_identities import MakeOperator

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def email(make_operator: MakeOperator) -> str:
    email = f"{secrets.token_hex(4)}@python.example"
    make_operator(email, "viewer")
    return email


@pytest.fixture
def client(stack: LocalStack) -> Client:
    return create_client(stack.api_url, stack.publishable_key)


def test_the_python_client_signs_in_refreshes_and_reads_its_user(
    stack: LocalStack, client: Client, email: str
) -> None:
    before = datetime.now(UTC)
    first = client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    assert first.user is not None
    assert first.session is not None
    assert first.user.last_sign_in_at is not None
    assert before - timedelta(seconds=1) < first.user.last_sign_in_at < datetime.now(UTC)
    assert client.table("fleet_settings").select("id").execute().data == [{"id": True}]

    second = client.auth.refresh_session()
    assert second.session is not None
    assert second.session.refresh_token != first.session.refresh_token
    got = client.auth.get_user()
    assert got is not None
    assert (got.user.id, got.user.email) == (first.user.id, email)
    assert got.user.identities is not None
    assert [one.created_at.tzinfo for one in got.user.identities] == [UTC]
    changed = client.auth.update_user({"data": {"name": "Ada"}})
    assert changed.user.user_metadata["name"] == "Ada"
    client.auth.sign_out()


def instants(value: object, path: str = "") -> dict[str, str]:
    """Every member `…_at` of a body, by its path; counts of seconds are not text."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {path: value} if path.endswith("_at") and isinstance(value, str) else {}
    return {key: at for name, one in value.items() for key, at in instants(one, f"{path}/{name}").items()}


def test_every_instant_of_auth_is_written_as_gotrue_writes_it(stack: LocalStack, email: str) -> None:
    """Also those that the client leaves unread: RFC 3339 in UTC with Z, up to microseconds."""
    headers = {"apikey": stack.publishable_key}
    with httpx.Client(base_url=f"{stack.api_url}/auth/v1", headers=headers) as auth:
        signed_in = auth.post("/token?grant_type=password", json={"email": email, "password": PASSWORD})
        bodies = [signed_in.json()]
        auth.headers["authorization"] = f"Bearer {bodies[0]['access_token']}"
        auth.post("/recover", json={"email": email})
        bodies += [auth.get("/user").json(), auth.put("/user", json={"email": f"new-{email}"}).json()]
        refresh = {"refresh_token": bodies[0]["refresh_token"]}
        bodies.append(auth.post("/token?grant_type=refresh_token", json=refresh).json())
    found = [instants(body) for body in bodies]
    assert "/email_change_sent_at" in found[2]
    assert min(len(one) for one in found) >= 6
    for text in [text for one in found for text in one.values()]:
        assert (text[10], text[-1]) == ("T", "Z"), text
        assert datetime.fromisoformat(text).tzinfo is UTC
