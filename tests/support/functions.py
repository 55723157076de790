"""The edge functions `enroll` and `device-token` as a device reaches them."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import jwt
import psycopg

from fleet_agent.control_plane.edge_functions import Enrollment, EnrollmentRequest, enroll
from fleet_agent.control_plane.identity import Identity

FUNCTIONS = ("enroll", "device-token")
NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Site:
    """One way to reach the functions; `verify_key` is what a device token must verify with."""

    urls: dict[str, str]
    api_url: str
    publishable_key: str
    algorithm: str
    verify_key: Any
    key_id: str | None = None


def device_row(db: psycopg.Connection[dict[str, Any]], device_id: object) -> dict[str, Any]:
    row = db.execute("select * from devices where id = %s", [device_id]).fetchone()
    assert row is not None
    return row


def facts(name: str | None = None) -> EnrollmentRequest:
    return EnrollmentRequest(name or f"d-{uuid4().hex[:8]}", "Raspberry Pi 4", "Debian 13", "0.1.0")


class Caller(httpx.AsyncClient):
    """The agent's HTTP client, pointed at a site whose functions do not live under the API's address."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.bodies: list[dict[str, Any]] = []

    async def post(self, url: httpx.URL | str, **options: Any) -> httpx.Response:
        self.bodies.append(options.get("json") or {})
        return await super().post(self.site.urls[str(url).rsplit("/", 1)[1]], **options)


async def join(site: Site, identity: Identity, token: str | None, name: str | None = None) -> Enrollment:
    async with Caller(site) as caller:
        return await enroll(caller, site, identity, facts(name), token)


async def post(site: Site, function: str, body: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as made:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"apikey": site.publishable_key, **headers}
        return await made.post(site.urls[function], content=content, headers=given)


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and kind, once the answer has everything that every refusal must have."""
    body = response.json()
    assert set(body) == {"kind", "message", "hint", "server_time"}
    assert abs(datetime.fromisoformat(body["server_time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    return response.status_code, body["kind"]


# -- enrollment ------------------------------------------------------------------------------------------


def spoilt(member: Identity, **changes: Any) -> str:
    """An assertion of `member` with claims, header or key replaced."""
    now = int(datetime.now(UTC).timestamp())
    claims = {
        "aud": "device-token", "iss": str(member.device_id), "sub": str(member.device_id),
        "iat": now, "exp": now + 60, "jti": uuid4().hex, **changes.pop("claims", {}),
    }  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not None}
    key = changes.pop("key", None) or member._private_key()
    return jwt.encode(claims, key, **{"algorithm": "EdDSA", **changes})


def other_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()
