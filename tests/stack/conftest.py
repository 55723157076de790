"""One embedded stack a session, and a cast to act on it: operators by rank, devices, the database's owner.

A test leaves rows behind, so it makes its own operators and devices and counts only those.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from fleetctl.stack.local_stack import LocalStack
from tests.support.stack import make_immediate, running_stack
from tests.support.stack_identities import DeviceJwt, MakeOperator


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """A running stack on free ports, without the dashboard's build."""
    with running_stack() as running:
        make_immediate(running)
        yield running


@pytest.fixture
def admin(stack: LocalStack) -> Iterator[psycopg.Connection]:
    """An autocommit connection as the superuser: to arrange and to look, never to act in a test's name."""
    with psycopg.connect(stack.db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def make_operator(stack: LocalStack) -> MakeOperator:
    """Signs up (or in, when the address is known) through Auth, and sets the rank."""

    def make(email: str, rank: str | None) -> str:
        person = {"email": email, "password": "correct horse battery"}
        # Strangers cannot sign up: the secret key makes users, as `fleetctl operator add` does.
        answer = httpx.post(
            f"{stack.api_url}/auth/v1/signup", headers={"apikey": stack.secret_key}, json=person
        )
        if answer.status_code == 422:
            answer = httpx.post(
                f"{stack.api_url}/auth/v1/token?grant_type=password",
                headers={"apikey": stack.publishable_key}, json=person,
            )  # fmt: skip
        answer.raise_for_status()
        body = answer.json()
        with psycopg.connect(stack.db_url, autocommit=True) as connection:
            user_id = body["user"]["id"]
            connection.execute("delete from public.operators where user_id = %s", (user_id,))
            if rank is not None:
                connection.execute(
                    "insert into public.operators (user_id, email, rank) values (%s, %s, %s)",
                    (user_id, email, rank),
                )
        return str(body["access_token"])

    return make


@pytest.fixture(scope="session")
def device_jwt(stack: LocalStack) -> DeviceJwt:
    """Mints HS256 tokens with the stack's secret, with the claims that the brief gives a device."""

    def mint(device_id: str | uuid.UUID, *, expires_in_s: int = 3600, **claims: Any) -> str:
        now = int(time.time())
        standard = {"role": "fleet_device", "sub": str(device_id), "iat": now, "exp": now + expires_in_s}
        return jwt.encode(standard | claims, stack.jwt_secret, algorithm="HS256")

    return mint
