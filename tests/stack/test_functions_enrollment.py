"""The edge functions `enroll` and `device-token`, as a device meets them.

Twice: inside the embedded stack, and as the same files under plain `deno run` with an ES256 key, which is how
they are deployed. Unknown to both is anything of ours on the device's side but the agent's own client.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg.rows import dict_row

from fleet_agent.control_plane.edge_functions import Enrollment, EnrollmentRequest, enroll, fetch_token
from fleet_agent.control_plane.identity import Identity
from fleet_agent.errors import ControlPlaneError, Kind
from fleet_agent.paths import Paths
from fleetctl.stack.deno import find_deno
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.fixture(scope="module")
def db(stack: Any) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as connection:
        # The tests share one address; the rations have their own tests below.
        before = connection.execute("select * from fleet_settings").fetchone()
        assert before is not None
        connection.execute(
            "update fleet_settings set enroll_per_minute_per_address = 100000,"
            " token_per_minute_per_address = 100000 where id"
        )
        yield connection
        for name in (
            "enroll_per_minute_per_address", "token_per_minute_per_address",
            "requests_per_hour_per_device", "max_pending_devices",
        ):  # fmt: skip
            connection.execute(f"update fleet_settings set {name} = %s where id", [before[name]])


@pytest.fixture(scope="module")
def embedded(stack: Any) -> Site:
    base = f"{stack.api_url}/functions/v1"
    return Site(
        {name: f"{base}/{name}" for name in FUNCTIONS},
        stack.api_url, stack.publishable_key, "HS256", stack.jwt_secret,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain_deno(stack: Any) -> Iterator[Site]:
    """Each function in a process of its own, as `deno run` starts it, signing with an ES256 key."""
    private = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(private))
    # As `supabase gen signing-key` writes it, with the members that WebCrypto refuses.
    jwk |= {"kid": "key-1", "alg": "ES256", "use": "sig", "key_ops": ["sign", "verify"], "ext": True}
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "DENO_DIR") if name in os.environ},
        "SUPABASE_URL": stack.api_url,
        "SUPABASE_SECRET_KEYS": json.dumps({"default": stack.secret_key}),
        "FLEET_SIGNING_JWK": json.dumps(jwk),
        "DENO_SERVE_ADDRESS": "tcp:127.0.0.1:0",
        "NO_COLOR": "1",
    }
    running = []
    urls = {}
    for name in FUNCTIONS:
        process = subprocess.Popen(
            [find_deno(), "run", "--no-prompt", "--allow-net", "--allow-env", f"{name}/index.ts"],
            cwd=ROOT / "edge_functions", env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if "Listening on" in line:
                port = line.rsplit(":", 1)[1].split("/")[0].strip()
                urls[name] = f"http://127.0.0.1:{port}/{name}"
                break
        else:
            pytest.fail(f"{name} did not start under plain deno")
        # Keep the pipe empty: a full one would stop the function.
        threading.Thread(target=process.stdout.read, daemon=True).start()
    yield Site(urls, stack.api_url, stack.publishable_key, "ES256", private.public_key(), "key-1")
    for process in running:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture(params=["embedded", "plain_deno"])
def site(request: pytest.FixtureRequest) -> Site:
    found: Site = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as made:
        yield made


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load_or_create(Paths(tmp_path))


@pytest.fixture
def member_to_be(identity: Identity, provisioning_token: Callable[..., str]) -> tuple[Identity, str]:
    return identity, provisioning_token()


@pytest.fixture
def provisioning_token(db: psycopg.Connection[dict[str, Any]]) -> Callable[..., str]:
    def make(**options: Any) -> str:
        options = {"role": "beacon", "segment": "canary", "branch": "main", "label": "test", **options}
        names = ", ".join(f"{name} => %({name})s" for name in options)
        row = db.execute(f"select create_provisioning_token({names}) as made", options).fetchone()
        assert row is not None
        return str(row["made"]["token"])

    return make


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
        return await made.post(site.urls[function], content=content, headers=headers)


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and kind, once the answer has everything that every refusal must have."""
    body = response.json()
    assert set(body) == {"kind", "message", "hint", "server_time"}
    assert abs(datetime.fromisoformat(body["server_time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    return response.status_code, body["kind"]


# -- enrollment ------------------------------------------------------------------------------------------


async def test_a_provisioning_token_lets_a_device_in_at_its_place(
    site: Site, identity: Identity, provisioning_token: Callable[..., str], db: Any
) -> None:
    got = await join(site, identity, provisioning_token(segment="early", branch="staging"), "kitchen.1")
    assert (got.kind, got.state, got.role, got.segment, got.branch) == (
        "enrolled", "active", "beacon", "early", "staging",
    )  # fmt: skip
    row = device_row(db, got.device_id)
    assert row["public_key"] == identity.public_key
    assert (row["name"], row["hardware_model"], row["os"]) == (got.name, "Raspberry Pi 4", "Debian 13")
    assert row["enrolled_at"] is not None


async def test_enrolling_again_finds_the_same_device_and_uses_no_token(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str], db: Any
) -> None:
    """An answer that got lost must not cost the token's only use, nor make a second device."""
    token = provisioning_token(max_uses=1)
    first = await join(embedded, identity, token)
    again = await join(embedded, identity, token, "another-name")
    without = await join(embedded, identity, None)
    assert first.device_id == again.device_id == without.device_id
    assert first.name == again.name == without.name
    count = db.execute("select count(*) from devices where public_key = %s", [identity.public_key]).fetchone()
    assert count == {"count": 1}


async def test_new_is_201_and_known_is_200(embedded: Site, identity: Identity, db: Any) -> None:
    statuses = []
    for _ in range(2):
        body = {"proof": identity.assertion("enroll", datetime.now(UTC)), "name": "twice"}
        statuses.append((await post(embedded, "enroll", body)).status_code)
    assert statuses == [201, 200]


async def test_a_taken_name_gets_a_suffix_of_the_key(
    embedded: Site, tmp_path: Path, provisioning_token: Callable[..., str]
) -> None:
    token = provisioning_token(max_uses=2)
    name = f"raspberrypi-{uuid4().hex[:6]}"
    keys = [Identity.load_or_create(Paths(tmp_path / part)) for part in "ab"]
    first, second = [await join(embedded, key, token, name) for key in keys]
    assert first.name == name
    assert second.name.startswith(f"{name}-")
    assert len(second.name) == len(name) + 7


@pytest.mark.parametrize("wish", ["küche süd", "x" * 200, "..", "-a-"])
async def test_a_name_that_the_table_would_refuse_becomes_the_nearest_allowed(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str], wish: str
) -> None:
    got = await join(embedded, identity, provisioning_token(), wish)
    assert got.kind == "enrolled"


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (None, "token_invalid"),
        ("revoked_at = now()", "token_invalid"),
        ("expires_at = now()", "token_expired"),
        ("uses = max_uses", "token_used_up"),
    ],
)
async def test_a_bad_token_is_refused_by_its_own_kind(
    site: Site, member_to_be: tuple[Identity, str], db: Any, spoil: str | None, kind: str
) -> None:
    identity, token = member_to_be
    if spoil is None:
        token = token[:-1] + ("0" if token[-1] != "0" else "1")
    else:
        db.execute(
            f"update private.provisioning_tokens set {spoil}"
            " where token_hash = sha256(convert_to(%s, 'UTF8'))",
            [token],
        )
    with pytest.raises(ControlPlaneError) as caught:
        await join(site, identity, token)
    assert (caught.value.kind, caught.value.evidence["answer_kind"]) == (Kind.TOKEN_INVALID, kind)
    assert not db.execute("select from devices where public_key = %s", [identity.public_key]).fetchall()


async def test_devices_that_race_for_the_last_uses_get_exactly_those(
    embedded: Site, tmp_path: Path, provisioning_token: Callable[..., str], db: Any
) -> None:
    token = provisioning_token(max_uses=3)
    keys = [Identity.load_or_create(Paths(tmp_path / str(n))) for n in range(8)]
    results = await asyncio.gather(*(join(embedded, key, token) for key in keys), return_exceptions=True)
    refused = [r.evidence["answer_kind"] for r in results if isinstance(r, ControlPlaneError)]
    assert sum(isinstance(r, Enrollment) for r in results) == 3
    assert refused == ["token_used_up"] * 5


async def test_one_key_that_races_itself_is_one_device(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str], db: Any
) -> None:
    token = provisioning_token(max_uses=10)
    results = await asyncio.gather(*(join(embedded, identity, token) for _ in range(6)))
    assert len({result.device_id for result in results}) == 1
    uses = db.execute(
        "select uses from private.provisioning_tokens where token_hash = sha256(convert_to(%s, 'UTF8'))",
        [token],
    ).fetchone()
    assert uses == {"uses": 1}


async def test_without_a_token_a_device_waits_until_it_is_accepted(
    site: Site, identity: Identity, db: Any
) -> None:
    waiting = await join(site, identity, None)
    assert (waiting.kind, waiting.state) == ("pending", "pending")
    remembered = identity.remember(waiting.device_id)
    async with Caller(site) as caller:
        with pytest.raises(ControlPlaneError) as caught:
            await fetch_token(caller, site, remembered)
        assert caught.value.kind is Kind.DEVICE_PENDING
        db.execute("select accept_device(%s)", [waiting.device_id])
        assert (await join(site, identity, None)).kind == "enrolled"
        assert (await fetch_token(caller, site, remembered)).access_token


async def test_a_pending_device_is_let_in_by_a_token(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str]
) -> None:
    waiting = await join(embedded, identity, None)
    got = await join(embedded, identity, provisioning_token(segment="early"))
    assert (got.device_id, got.kind, got.segment) == (waiting.device_id, "enrolled", "early")


async def test_a_token_that_does_not_accept_leaves_the_device_waiting_at_its_place(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str]
) -> None:
    token = provisioning_token(auto_accept=False, segment="early")
    got = [await join(embedded, identity, token) for _ in range(2)]
    assert [(g.kind, g.state, g.segment) for g in got] == [("pending", "pending", "early")] * 2


async def test_the_waiting_room_has_a_size(
    embedded: Site, tmp_path: Path, provisioning_token: Callable[..., str], db: Any
) -> None:
    db.execute(
        "update fleet_settings set max_pending_devices ="
        " (select count(*) from devices where state = 'pending') + 1 where id"
    )
    keys = [Identity.load_or_create(Paths(tmp_path / part)) for part in "abc"]
    try:
        assert (await join(embedded, keys[0], None)).kind == "pending"
        with pytest.raises(ControlPlaneError, match="Too many devices are already waiting") as caught:
            await join(embedded, keys[1], None)
        assert (caught.value.kind, caught.value.retry_after_s) == (Kind.RATE_LIMITED, 3600)
        assert (await join(embedded, keys[2], provisioning_token())).kind == "enrolled"
    finally:
        db.execute("update fleet_settings set max_pending_devices = 1000 where id")


@pytest.mark.parametrize("state", ["suspended", "retired"])
async def test_a_locked_out_device_cannot_enroll_itself_back_in(
    embedded: Site, identity: Identity, provisioning_token: Callable[..., str], db: Any, state: str
) -> None:
    got = await join(embedded, identity, provisioning_token())
    db.execute("update devices set state = %s where id = %s", [state, got.device_id])
    with pytest.raises(ControlPlaneError) as caught:
        await join(embedded, identity, provisioning_token())
    assert caught.value.kind == f"device_{state}"


# -- assertions -----------------------------------------------------------------------------------------


@pytest.fixture
async def member(embedded: Site, identity: Identity, provisioning_token: Callable[..., str]) -> Identity:
    got = await join(embedded, identity, provisioning_token())
    return identity.remember(got.device_id)


async def test_the_token_is_signed_as_the_project_signs_and_says_who_it_is(
    site: Site, member: Identity, db: Any
) -> None:
    db.execute("update fleet_settings set device_token_ttl_s = 7200 where id")
    try:
        async with Caller(site) as caller:
            token = await fetch_token(caller, site, member)
    finally:
        db.execute("update fleet_settings set device_token_ttl_s = 43200 where id")
    header = jwt.get_unverified_header(token.access_token)
    assert header["alg"] == site.algorithm
    assert header.get("kid") == site.key_id
    claims = jwt.decode(token.access_token, site.verify_key, algorithms=[site.algorithm])
    assert set(claims) == {"role", "sub", "iat", "exp"}
    assert (claims["role"], claims["sub"]) == ("fleet_device", str(member.device_id))
    assert claims["exp"] - claims["iat"] == token.expires_in_s == 7200
    assert token.expires_at.timestamp() == claims["exp"]
    assert token.access_token not in repr(token)


async def test_the_token_opens_desired_state_on_rest(
    embedded: Site, member: Identity, client: httpx.AsyncClient
) -> None:
    async with Caller(embedded) as caller:
        token = await fetch_token(caller, embedded, member)
    answer = await client.post(
        f"{embedded.api_url}/rest/v1/rpc/desired_state",
        headers={"apikey": embedded.publishable_key, "Authorization": f"Bearer {token.access_token}"},
        json={},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["device"]["id"] == str(member.device_id)


async def test_an_assertion_works_once(site: Site, member: Identity) -> None:
    assertion = member.assertion("device-token", datetime.now(UTC))
    assert (await post(site, "device-token", {"assertion": assertion})).status_code == 200
    again = await post(site, "device-token", {"assertion": assertion})
    assert refusal(again) == (401, "assertion_replayed")


async def test_a_proof_of_enrollment_works_once(site: Site, identity: Identity) -> None:
    body = {"proof": identity.assertion("enroll", datetime.now(UTC)), "name": "once"}
    assert (await post(site, "enroll", body)).status_code == 201
    assert refusal(await post(site, "enroll", body)) == (401, "assertion_replayed")


@pytest.mark.parametrize("off_by", [timedelta(days=-400), timedelta(minutes=-2), timedelta(days=3)])
async def test_a_device_with_a_wrong_clock_is_corrected_once(
    site: Site, member: Identity, off_by: timedelta
) -> None:
    async with Caller(site) as caller:
        token = await fetch_token(caller, site, member, clock=lambda: datetime.now(UTC) + off_by)
        assert len(caller.bodies) == 2
    assert abs(token.clock_offset_s + off_by.total_seconds()) < 30


async def test_enrollment_corrects_a_wrong_clock_too(site: Site, identity: Identity) -> None:
    async with Caller(site) as caller:
        year_1970 = datetime(1970, 1, 1, 0, 5, tzinfo=UTC)
        got = await enroll(caller, site, identity, facts(), clock=lambda: year_1970)
    assert got.kind == "pending"


async def test_a_clock_that_jumps_again_is_given_up_on(embedded: Site, member: Identity) -> None:
    """One retry and no more: a device whose clock runs wild must not hammer the function."""
    wild = iter(range(0, 100_000, 1000))

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=1000 + next(wild))

    async with Caller(embedded) as caller:
        with pytest.raises(ControlPlaneError) as caught:
            await fetch_token(caller, embedded, member, clock=clock)
        assert caught.value.kind is Kind.CLOCK_WRONG
        assert len(caller.bodies) == 2


@pytest.mark.parametrize(
    ("shift_s", "status", "kind"),
    [(-80, 200, None), (-100, 401, "assertion_stale"), (20, 200, None), (40, 401, "assertion_stale")],
)
async def test_freshness_allows_half_a_minute_between_two_clocks(
    site: Site, member: Identity, shift_s: int, status: int, kind: str | None
) -> None:
    """The agent's assertions live 60 s: until 90 s of age, and 30 s before their own time, they are good."""
    assertion = member.assertion("device-token", datetime.now(UTC) + timedelta(seconds=shift_s))
    answer = await post(site, "device-token", {"assertion": assertion})
    assert answer.status_code == status
    assert answer.json().get("kind") == kind


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


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "enroll"},
        {"iss": str(uuid4())},
        {"sub": "nobody", "iss": "nobody"},
        {"jti": None},
        {"jti": "short"},
        {"iat": None},
        {"exp": None},
        {"exp": int(NOW.timestamp()) + 100_000},
        {"exp": int(NOW.timestamp()) - 100_000},
        {"jti": ["a" * 20]},
    ],
    ids="+".join,
)
async def test_an_assertion_with_wrong_claims_is_invalid(
    site: Site, member: Identity, claims: dict[str, Any]
) -> None:
    answer = await post(site, "device-token", {"assertion": spoilt(member, claims=claims)})
    assert refusal(answer) == (401, "assertion_invalid")


async def test_only_the_devices_own_key_and_eddsa_are_believed(
    site: Site, member: Identity, tmp_path: Path
) -> None:
    other = Identity.load_or_create(Paths(tmp_path / "other"))
    forged = [
        spoilt(member, key=other._private_key()),
        # The public key as an HMAC secret: the oldest trick there is.
        spoilt(member, key=member.public_key, algorithm="HS256"),
        spoilt(member, key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"),
        jwt.encode({"sub": str(member.device_id), "iss": str(member.device_id)}, "", algorithm="none"),
        # A key in the header is for enrollment; here the stored one alone counts.
        spoilt(
            member, key=other._private_key(),
            headers={"jwk": {"kty": "OKP", "crv": "Ed25519", "x": other.public_key}},
        ),
    ]  # fmt: skip
    for assertion in forged:
        answer = await post(site, "device-token", {"assertion": assertion})
        assert refusal(answer) == (401, "assertion_invalid")


async def test_an_unknown_device_is_told_what_a_wrong_key_is_told(site: Site, member: Identity) -> None:
    nobody = replace(member, device_id=uuid4())
    unknown = await post(
        site, "device-token", {"assertion": nobody.assertion("device-token", datetime.now(UTC))}
    )
    wrong = await post(site, "device-token", {"assertion": spoilt(member, key=_other_key())})
    assert refusal(unknown) == refusal(wrong) == (401, "assertion_invalid")
    assert unknown.json()["message"] == wrong.json()["message"]


async def test_enrollment_needs_proof_of_the_key_it_shows(
    site: Site, identity: Identity, tmp_path: Path
) -> None:
    other = Identity.load_or_create(Paths(tmp_path / "other"))
    # The header shows one key, the signature is made with another's.
    stolen = jwt.encode(
        {"aud": "enroll", "iat": NOW, "exp": NOW + timedelta(seconds=60), "jti": uuid4().hex},
        other._private_key(), algorithm="EdDSA",
        headers={"jwk": {"kty": "OKP", "crv": "Ed25519", "x": identity.public_key}},
    )  # fmt: skip
    bare = jwt.encode({"aud": "enroll"}, other._private_key(), algorithm="EdDSA")
    for proof in (stolen, bare, identity.assertion("device-token", datetime.now(UTC), uuid4())):
        answer = await post(site, "enroll", {"proof": proof, "name": "thief"})
        assert refusal(answer) == (401, "assertion_invalid")


async def test_one_key_is_one_device_however_it_is_spelt(embedded: Site, identity: Identity) -> None:
    """The last of 43 base64url characters has two spare bits, so each key can be spelt in four ways."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = identity.public_key[:-1] + alphabet[alphabet.index(identity.public_key[-1]) ^ 1]
    first = await join(embedded, identity, None)
    second = await join(embedded, _Spelt(identity.folder, identity.public_key, None, twin), None)
    assert second.device_id == first.device_id


@dataclass(frozen=True)
class _Spelt(Identity):
    spelling: str = ""

    def assertion(self, audience: str, now: datetime, device_id: UUID | None = None) -> str:
        token = super().assertion(audience, now, device_id)
        claims = jwt.decode(token, options={"verify_signature": False})
        header = {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": self.spelling}}
        return jwt.encode(claims, self._private_key(), algorithm="EdDSA", headers=header)


@pytest.mark.parametrize("state", ["suspended", "retired"])
async def test_a_locked_out_device_gets_no_token(site: Site, member: Identity, db: Any, state: str) -> None:
    db.execute("update devices set state = %s where id = %s", [state, member.device_id])
    async with Caller(site) as caller:
        with pytest.raises(ControlPlaneError) as caught:
            await fetch_token(caller, site, member)
    assert (caught.value.kind, caught.value.evidence["status"]) == (f"device_{state}", 403)


# -- rations --------------------------------------------------------------------------------------------


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
    forged = spoilt(member, key=_other_key())
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


# -- who may call what, and malformed requests ----------------------------------------------------------


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


def _other_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_other_methods_and_paths_are_refused_and_browsers_may_ask_first(
    site: Site, function: str, client: httpx.AsyncClient
) -> None:
    url = site.urls[function]
    got = await client.get(url)
    assert refusal(got) == (405, "method_not_allowed")
    assert got.headers["allow"] == "POST, OPTIONS"
    assert (await client.post(f"{url}/more", json={})).status_code == 404
    preflight = await client.options(url, headers={"Origin": "https://example.org"})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "apikey" in preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_a_malformed_body_is_a_bad_request_whatever_it_is(site: Site, function: str) -> None:
    bodies: list[bytes] = [
        b"", b"null", b"[]", b"7", b'"text"', b"{", b"\xff\xfe", b"{}", b'{"proof": 1, "assertion": 1}',
        b'{"proof": null, "name": {}, "assertion": []}', b'{"proof":"' + b"a" * 20_000 + b'"}',
        b'{"assertion":"' + b"a" * 5_000 + b'"}',
    ]  # fmt: skip
    for body in bodies:
        assert refusal(await post(site, function, body)) == (400, "bad_request"), body[:40]


async def test_text_that_postgres_cannot_store_is_a_bad_request(embedded: Site, identity: Identity) -> None:
    for name in ("a\u0000b", "a\nb", "\ud800", "", "   "):
        body = {"proof": identity.assertion("enroll", datetime.now(UTC)), "name": name}
        answer = await post(embedded, "enroll", body)
        assert refusal(answer) == (400, "bad_request"), ascii(name)


async def test_random_damage_to_an_assertion_never_passes_and_never_breaks_the_function(
    embedded: Site, member: Identity
) -> None:
    """Every answer is one of our own refusals: no 500, no token."""
    chance = random.Random(20261123)
    good = member.assertion("device-token", datetime.now(UTC))
    alphabet = "abcXYZ019-_.=+/ \n\u00e9{"
    for _ in range(60):
        damaged = list(good)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(damaged))
            match chance.randrange(3):
                case 0:
                    damaged[place] = chance.choice(alphabet)
                case 1:
                    del damaged[place]
                case _:
                    damaged.insert(place, chance.choice(alphabet))
        text = "".join(damaged)
        if text == good:
            continue
        answer = await post(embedded, "device-token", {"assertion": text})
        status, kind = refusal(answer)
        assert (status, kind) == (401, "assertion_invalid"), text


async def test_a_function_without_its_settings_says_so(tmp_path: Path) -> None:
    """Asked in one process without any environment: a sentence for the log, none of it in the answer."""
    script = tmp_path / "ask.ts"
    module = (ROOT / "edge_functions" / "device-token" / "index.ts").as_uri()
    script.write_text(
        f'import {{ handler }} from "{module}";\n'
        'const r = await handler(new Request("http://x/device-token", { method: "POST", body: "{}" }));\n'
        "console.log(r.status, await r.text());\n"
    )
    done = await asyncio.create_subprocess_exec(
        find_deno(), "run", "--no-prompt", "--allow-env", "--allow-read",
        "--config", str(ROOT / "edge_functions" / "device-token" / "deno.json"), str(script),
        env={name: os.environ[name] for name in ("PATH", "HOME", "DENO_DIR") if name in os.environ},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, log = await done.communicate()
    status, body = output.decode().split(" ", 1)
    assert (status, json.loads(body)["kind"]) == ("500", "misconfigured")
    assert "FLEET_SIGNING_JWK" not in body
    assert "FLEET_SIGNING_JWK is not set" in log.decode()
