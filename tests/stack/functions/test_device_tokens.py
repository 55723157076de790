"""A device proves who it is and gets its token; nobody else does."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_agent.control_plane.edge_functions import enroll, fetch_token
from fleet_agent.control_plane.identity import Identity
from fleet_agent.errors import ControlPlaneError, Kind
from fleet_agent.paths import Paths
from tests.support.functions import NOW, Caller, Site, facts, join, other_key, post, refusal, spoilt


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
    assert set(claims) == {"role", "sub", "iat", "exp", "key_number"}
    assert (claims["role"], claims["sub"], claims["key_number"]) == ("fleet_device", str(member.device_id), 1)
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
    wrong = await post(site, "device-token", {"assertion": spoilt(member, key=other_key())})
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
