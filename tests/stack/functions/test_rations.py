"""Addresses and devices are rationed, and what was counted is forgotten in time."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from fleet_agent.control_plane.edge_functions import fetch_token
from fleet_agent.control_plane.identity import Identity
from fleet_agent.paths import Paths
from tests.support.functions import (
    Caller,
    Site,
    other_key,
    post,
    refusal,
    spoilt,
)


async def test_an_address_is_rationed_and_told_when_to_come_back(
    site: Site, member: Identity, db: Any
) -> None:
    here, elsewhere = (f"2001:db8:{uuid4().hex[:4]}::1" for _ in range(2))
    db.execute("update fleet_settings set token_per_minute_per_address = 3 where id")
    try:
        answers = [
            await post(
                site, "device-token",
                {"assertion": member.assertion("device-token", datetime.now(UTC))},
                **{"x-forwarded-for": address},
            )
            for address in [f"{here}, 10.0.0.1"] * 4 + [elsewhere]
        ]  # fmt: skip
    finally:
        db.execute("update fleet_settings set token_per_minute_per_address = 100000 where id")
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 200]
    assert refusal(answers[3]) == (429, "rate_limited")
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20


async def test_enrollment_is_rationed_by_address(plain_deno: Site, tmp_path: Path, db: Any) -> None:
    """Fresh keys cost nothing, so only the address stands in the way. One IPv6 /64 is one address."""
    db.execute("update fleet_settings set enroll_per_minute_per_address = 2 where id")
    answers = []
    try:
        for n, address in enumerate(["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"]):
            key = Identity.load_or_create(Paths(tmp_path / str(n)))
            body = {"proof": key.assertion("enroll", datetime.now(UTC)), "name": f"flood-{n}"}
            answers.append(await post(plain_deno, "enroll", body, **{"x-forwarded-for": address}))
    finally:
        db.execute("update fleet_settings set enroll_per_minute_per_address = 100000 where id")
    assert [answer.status_code for answer in answers] == [201, 201, 429, 201]
    assert int(answers[2].headers["retry-after"]) >= 1


async def test_a_device_is_rationed_wherever_it_asks_from_and_a_stranger_cannot_spend_its_share(
    plain_deno: Site, member: Identity, db: Any
) -> None:
    db.execute("update fleet_settings set requests_per_hour_per_device = 2 where id")
    forged = spoilt(member, key=other_key())
    statuses = []
    try:
        for n, assertion in enumerate([forged, forged, forged, None, None, None]):
            body = {"assertion": assertion or member.assertion("device-token", datetime.now(UTC))}
            answer = await post(plain_deno, "device-token", body, **{"x-forwarded-for": f"198.51.100.{n}"})
            statuses.append(answer.status_code)
    finally:
        db.execute("update fleet_settings set requests_per_hour_per_device = 60 where id")
    assert statuses == [401, 401, 401, 200, 200, 429]


async def test_requests_that_race_spend_one_allowance(plain_deno: Site, member: Identity, db: Any) -> None:
    db.execute("update fleet_settings set token_per_minute_per_address = 5 where id")
    address = f"2001:db8:{uuid4().hex[:4]}::1"
    assertions = [member.assertion("device-token", datetime.now(UTC)) for _ in range(15)]
    # The same assertion twice in the race as well: one of the two at most is believed.
    try:
        answers = await asyncio.gather(
            *(
                post(plain_deno, "device-token", {"assertion": assertion}, **{"x-forwarded-for": address})
                for assertion in [*assertions, assertions[0]]
            )
        )
    finally:
        db.execute("update fleet_settings set token_per_minute_per_address = 100000 where id")
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(429) == 11
    assert answers[0].status_code != 200 or answers[-1].status_code != 200


async def test_spent_assertions_and_allowances_are_forgotten_in_time(
    member: Identity, embedded: Site, db: Any
) -> None:
    async with Caller(embedded) as caller:
        await fetch_token(caller, embedded, member)
    of_member = "select count(*) from private.used_assertions where public_key = %s"
    assert db.execute(of_member, [member.public_key]).fetchone() == {"count": 2}
    db.execute("select private.forget_strangers(now() + interval '30 seconds', 100000)")
    assert db.execute(of_member, [member.public_key]).fetchone() == {"count": 2}
    db.execute("select private.forget_strangers(now() + interval '3 hours', 100000)")
    assert db.execute(of_member, [member.public_key]).fetchone() == {"count": 0}
    assert db.execute("select count(*) from private.allowances").fetchone() == {"count": 0}


@pytest.mark.parametrize(
    "call",
    [
        "enroll_device('a', 'a', 'a', now(), 'a')",
        "begin_device_token(gen_random_uuid(), 'a')",
        "finish_device_token(gen_random_uuid(), 'a', now())",
    ],
)
@pytest.mark.parametrize("role", ["anon", "authenticated", "fleet_device"])
def test_the_functions_behind_are_for_the_service_key_alone(db: Any, role: str, call: str) -> None:
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"),
        db.transaction(),
    ):
        db.execute(f"set local role {role}")
        db.execute(f"select public.{call}")
