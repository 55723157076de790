"""The device's key pair: made once, private, durable, and never replaced behind one's back."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleet_agent.control_plane.identity import Identity
from fleet_agent.errors import Kind, StateError
from fleet_agent.paths import Paths
from tests.support.patience import PATIENCE_S

AT = datetime(2026, 3, 1, 12, 0, 0, 700_000, tzinfo=UTC)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def verifier(identity: Identity) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(identity.public_key + "="))


def test_the_key_is_made_once_and_stays(paths: Paths) -> None:
    first = Identity.load_or_create(paths)
    assert Identity.load_or_create(paths) == first == Identity.load(paths)
    assert len(first.public_key) == 43


def test_nothing_is_made_by_looking(paths: Paths) -> None:
    assert Identity.load(paths) is None
    assert not paths.identity.exists()


def test_only_the_owner_can_read_the_key(paths: Paths) -> None:
    old = os.umask(0)
    try:
        Identity.load_or_create(paths).remember(uuid4())
    finally:
        os.umask(old)
    assert stat.S_IMODE(paths.identity.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in paths.identity.iterdir()}
    assert modes == {"key.json": 0o600, "device.json": 0o600}


def test_a_key_left_open_is_closed_again(paths: Paths) -> None:
    Identity.load_or_create(paths)
    key = paths.identity / "key.json"
    key.chmod(0o644)
    Identity.load_or_create(paths)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_processes_that_start_at_once_share_one_key(paths: Paths) -> None:
    script = (
        "import sys; from pathlib import Path; from fleet_agent.control_plane.identity import Identity;"
        " from fleet_agent.paths import Paths; sys.stdin.readline();"
        " print(Identity.load_or_create(Paths(Path(sys.argv[1]))).public_key)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(paths.root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    keys = {racer.communicate(timeout=PATIENCE_S)[0].strip() for racer in racers}
    stored = Identity.load(paths)
    assert stored is not None
    assert keys == {stored.public_key}
    assert [file.name for file in paths.identity.iterdir()] == ["key.json"]


def test_the_id_is_remembered_and_forgotten_without_touching_the_key(paths: Paths) -> None:
    device_id = uuid4()
    identity = Identity.load_or_create(paths)
    assert identity.remember(device_id).device_id == device_id
    assert Identity.load_or_create(paths).device_id == device_id
    assert Identity.load_or_create(paths).forget() == identity
    assert Identity.load_or_create(paths) == identity


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"x": 7}', b'{"x": "AAAA"}', b'{"x": "' + b"*" * 43 + b'"}', b"\xff"],
)
def test_a_damaged_key_is_an_error_and_never_a_new_device(paths: Paths, content: bytes) -> None:
    Identity.load_or_create(paths)
    key = paths.identity / "key.json"
    key.write_bytes(content)
    with pytest.raises(StateError) as caught:
        Identity.load_or_create(paths)
    assert caught.value.kind is Kind.STATE_CORRUPT
    assert key.read_bytes() == content


def test_a_private_key_of_another_public_key_is_not_used(paths: Paths, tmp_path: Path) -> None:
    identity = Identity.load_or_create(paths)
    other = Identity.load_or_create(Paths(tmp_path / "other"))
    key = paths.identity / "key.json"
    content = json.loads(key.read_bytes())
    key.write_text(json.dumps({**content, "x": other.public_key}))
    mixed = Identity.load_or_create(paths)
    with pytest.raises(StateError) as caught:
        mixed.assertion("device-token", AT, uuid4())
    assert caught.value.kind is Kind.STATE_CORRUPT
    assert identity.public_key != other.public_key


def test_a_damaged_device_id_is_an_error(paths: Paths) -> None:
    Identity.load_or_create(paths).remember(uuid4())
    (paths.identity / "device.json").write_text('{"device_id": "kitchen"}')
    with pytest.raises(StateError) as caught:
        Identity.load_or_create(paths)
    assert caught.value.kind is Kind.STATE_CORRUPT


def test_an_assertion_says_who_for_whom_and_for_a_minute(paths: Paths) -> None:
    device_id = UUID(int=7)
    identity = Identity.load_or_create(paths).remember(device_id)
    texts = [identity.assertion("device-token", AT) for _ in range(2)]
    claims = [
        jwt.decode(
            text, verifier(identity), algorithms=["EdDSA"], audience="device-token",
            options={"verify_exp": False, "verify_iat": False},
        )
        for text in texts
    ]  # fmt: skip
    issued = int(AT.timestamp())
    for claim in claims:
        assert (claim["iss"], claim["sub"]) == (str(device_id), str(device_id))
        assert (claim["iat"], claim["exp"]) == (issued, issued + 60)
    assert claims[0]["jti"] != claims[1]["jti"]
    assert set(jwt.get_unverified_header(texts[0])) == {"alg", "typ"}


def test_a_proof_of_enrollment_shows_the_public_key_and_only_that(paths: Paths) -> None:
    identity = Identity.load_or_create(paths).remember(uuid4())
    text = identity.assertion("enroll", AT)
    assert jwt.get_unverified_header(text)["jwk"] == {
        "kty": "OKP", "crv": "Ed25519", "x": identity.public_key,
    }  # fmt: skip
    claims = jwt.decode(text, options={"verify_signature": False})
    assert set(claims) == {"aud", "iat", "exp", "jti"}


def test_without_an_id_there_is_no_assertion(paths: Paths) -> None:
    with pytest.raises(StateError) as caught:
        Identity.load_or_create(paths).assertion("device-token", AT)
    assert caught.value.kind is Kind.NOT_ENROLLED


async def test_a_child_process_signs_the_same(paths: Paths) -> None:
    identity = Identity.load_or_create(paths).remember(uuid4())
    text = await identity.assertion_from_child("device-token", AT)
    claims = jwt.decode(
        text, verifier(identity), algorithms=["EdDSA"], audience="device-token",
        options={"verify_exp": False, "verify_iat": False},
    )  # fmt: skip
    assert (claims["sub"], claims["iat"]) == (str(identity.device_id), int(AT.timestamp()))


async def test_a_child_process_passes_its_error_on(paths: Paths) -> None:
    identity = Identity.load_or_create(paths)
    with pytest.raises(StateError) as caught:
        await identity.assertion_from_child("device-token", AT)
    assert caught.value.kind is Kind.NOT_ENROLLED


def test_loading_an_identity_imports_no_crypto(paths: Paths) -> None:
    """The idle agent pays for PyJWT and cryptography (9 MiB) only if it signs in its own process."""
    Identity.load_or_create(paths)
    script = (
        "import sys; from pathlib import Path; from fleet_agent.control_plane.identity import Identity;"
        " from fleet_agent.paths import Paths; import fleet_agent.control_plane.edge_functions;"
        " Identity.load(Paths(Path(sys.argv[1])));"
        " print([m for m in ('jwt', 'cryptography', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(paths.root)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
