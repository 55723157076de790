"""Whoever has the publishable key, which every device and the dashboard's file hold, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from websockets.asyncio.client import ClientConnection

from fleetctl.stack.local_stack import LocalStack
from tests.stack.conftest import stack  # noqa: F401  the fixture
from tests.stack.realtime.support import Project, Raw

PRIVATE_ONLY = {
    "status": "error",
    "response": {"reason": "PrivateOnly: This project only allows private channels"},
}


@pytest.fixture
def project(stack: LocalStack) -> Project:  # noqa: F811
    return Project.of(stack)


async def joins(socket: ClientConnection, configs: list[dict[str, Any]]) -> list[Any]:
    """Join a topic of its own for each of `configs`, all at once; the replies, in any order."""
    raw = Raw(socket, "1.0.0")
    for number, config in enumerate(configs):
        await raw.push(f"realtime:stranger:{number}", "phx_join", {"config": config}, join_ref=str(number))
    return [(await raw.receive())["payload"] for _ in configs]


async def test_a_public_channel_is_refused(project: Project) -> None:
    """However `private` is left out, also with a token of the service role: there is no public channel."""
    public: list[dict[str, Any]] = [{}, {"private": False}, {"private": None}, {"private": "false"}]
    for key in (project.publishable_key, project.secret_key):
        async with Raw.open(project.realtime_url, key) as socket:
            assert await joins(socket, public) == [PRIVATE_ONLY] * len(public)


async def test_a_private_channel_is_refused_by_the_policies(project: Project) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        (reply,) = await joins(socket, [{"private": True}])
    assert reply["response"]["reason"].startswith("Unauthorized: You do not have permissions to read")


def test_no_public_topic_is_used_by_the_fleet_itself(project: Project) -> None:
    """Nothing in the migrations sends where nobody may listen."""
    with psycopg.connect(project.db_url) as db:
        found = db.execute(
            "select p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname in ('public', 'private') and p.prosrc ~ 'realtime\\.send'"
            " and p.prosrc ~* 'realtime\\.send[^;]*\\yfalse\\y'"
        ).fetchall()
    assert found == []


@pytest.fixture
def auth(stack: LocalStack) -> Iterator[httpx.Client]:  # noqa: F811
    """Auth, as a stranger reaches it; the test is a proxy on the machine, which says who the caller is."""
    with httpx.Client(
        base_url=f"{stack.api_url}/auth/v1", headers={"apikey": stack.publishable_key}
    ) as client:
        yield client


def users(stack: LocalStack) -> int:  # noqa: F811
    with psycopg.connect(stack.db_url) as db:
        row = db.execute("select count(*) from auth.users").fetchone()
    assert row is not None
    return int(row[0])


def somebody() -> str:
    return f"{uuid.uuid4().hex[:12]}@stranger.example"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("signup", {"password": "correct horse battery"}),
        ("%73ignup", {"password": "correct horse battery"}),
        ("otp", {}),
        ("otp", {"create_user": True}),
        ("magiclink", {}),
        ("admin/users", {"password": "correct horse battery", "email_confirm": True}),
    ],
)
def test_nobody_signs_up(stack: LocalStack, auth: httpx.Client, path: str, body: dict[str, Any]) -> None:  # noqa: F811
    before = users(stack)
    bearer = {"authorization": f"Bearer {stack.secret_key}"}
    for headers in ({}, bearer):
        answer = auth.post(path, json={"email": somebody(), **body}, headers=headers)
        assert answer.status_code in (401, 404, 422), answer.text
    assert users(stack) == before
    assert auth.get("settings").json()["disable_signup"] is True


def test_the_secret_key_makes_a_user(stack: LocalStack, auth: httpx.Client) -> None:  # noqa: F811
    """`fleetctl operator add` does it like this where Auth has no `/admin`."""
    person = {"email": somebody(), "password": "correct horse battery"}
    answer = auth.post("signup", json=person, headers={"apikey": stack.secret_key})
    assert answer.status_code == 200
    assert auth.post("token?grant_type=password", json=person).status_code == 200


RIGHT, WRONG = "correct horse battery", "wrong horse battery"


def guess(auth: httpx.Client, email: str, address: str, password: str = WRONG) -> httpx.Response:
    return auth.post(
        "token?grant_type=password",
        json={"email": email, "password": password}, headers={"x-forwarded-for": address},
    )  # fmt: skip


#: bcrypt of "correct horse battery" at its lowest cost, so that guessing costs the test nothing.
CHEAP = "$2b$04$J5OPcJQFbwmzEN./oToZzON5ZXnSZVSdM.xQsSuxLXBv.d5PkaoMK"


@pytest.fixture
def person(stack: LocalStack) -> str:  # noqa: F811
    email = somebody()
    with psycopg.connect(stack.db_url, autocommit=True) as db:
        db.execute(
            "insert into auth.users (id, aud, role, email, encrypted_password, email_confirmed_at)"
            " values (gen_random_uuid(), 'authenticated', 'authenticated', %s, %s, now())",
            (email, CHEAP),
        )
    return email


def test_one_address_guesses_slowly_whoever_it_tries(auth: httpx.Client, person: str) -> None:
    """What it claims of itself to the proxy does not count; IPv6 is one address a network."""
    for claims, other in (("203.0.113.9", "198.51.100.1"), ("2001:db8:0:7::{}", "2001:db8:0:8::1")):
        for number in range(30):
            address = f"192.0.2.{number}, {claims.format(number)}"
            assert guess(auth, somebody(), address).json()["error_code"] == "invalid_credentials"
        answer = guess(auth, person, claims.format(99), RIGHT)
        assert (answer.status_code, answer.json()["error_code"]) == (429, "over_request_rate_limit")
        assert 1 <= int(answer.headers["retry-after"]) <= 10
        assert guess(auth, person, other, RIGHT).status_code == 200


def test_many_addresses_guess_one_account_slowly_and_do_not_lock_its_owner_out(
    auth: httpx.Client, person: str
) -> None:
    home = "198.51.100.77"
    assert guess(auth, person, home, RIGHT).status_code == 200
    answers = [guess(auth, person.upper(), f"203.0.113.{100 + number}") for number in range(12)]
    assert [answer.status_code for answer in answers] == [400] * 10 + [429] * 2
    assert 50 <= int(answers[-1].headers["retry-after"]) <= 60
    # Not even the right password tells a guesser more.
    assert guess(auth, person, "203.0.113.150", RIGHT).status_code == 429
    assert guess(auth, person, home, RIGHT).status_code == 200


def test_codes_by_mail_are_guessed_slowly_too(auth: httpx.Client, person: str) -> None:
    """Six digits; without a limit they are guessed within the hour that they count."""
    code = {"type": "magiclink", "email": person}
    tries = [auth.post("verify", json={**code, "token": f"{n:06}"}) for n in range(11)]
    assert [answer.status_code for answer in tries] == [403] * 10 + [429]


def test_every_answer_says_what_a_browser_must_not_do(stack: LocalStack, auth: httpx.Client) -> None:  # noqa: F811
    tls = {"x-forwarded-proto": "https"}
    for path in (
        "/",
        "/config.json",
        "/auth/v1/settings",
        "/rest/v1/devices",
        "/functions/v1/nothing",
        "/_fleet/health",
    ):
        answer = auth.get(f"{stack.api_url}{path}", headers=tls)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["referrer-policy"] == "no-referrer", path
        assert answer.headers["strict-transport-security"].startswith("max-age="), path
        assert "strict-transport-security" not in auth.get(f"{stack.api_url}{path}").headers, path
    assert auth.get(f"{stack.api_url}/config.json", headers=tls).json()["supabaseUrl"].startswith("https://")
