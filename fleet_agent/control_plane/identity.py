"""Who this device is: an Ed25519 key pair made here, and the id that the control plane gave it.

The private key is written once, as a JWK in `state/identity/key.json` (mode 0600, folder 0700), and leaves
the device in no form; what leaves are short-lived assertions signed with it. A key that cannot be read is an
error and never replaced: a new key would be a new device.

PyJWT and cryptography cost about 9 MiB of memory for good, so they are imported only to sign, and a daemon
that must not keep them signs in a child process (`assertion_from_child`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

from fleet_agent.errors import (
    Kind,
    StateError,
    internal,
    not_enrolled,
    state_corrupt,
    state_unwritable,
)
from fleet_agent.support import atomic_files
from fleet_agent.support.fingerprint import fingerprint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fleet_agent.paths import Paths

#: The server refuses assertions that live longer than 120 s; a minute leaves room for a slow network.
ASSERTION_LIFETIME_S = 60
ENROLL_AUDIENCE = "enroll"
TOKEN_AUDIENCE = "device-token"  # noqa: S105 - the name of a function, not a secret
_CHILD_TIMEOUT_S = 60
_KEY_BYTES = 32


@dataclass(frozen=True)
class Identity:
    """The device's key pair and, once enrolled, its id.

    `public_key` is the raw Ed25519 key, base64url without padding (43 characters). The private half stays in
    the file and is read when something has to be signed.
    """

    folder: Path
    public_key: str
    device_id: UUID | None = None

    @classmethod
    def load_or_create(cls, paths: Paths) -> Self:
        """Read this device's identity, making the key pair on first use.

        Two processes that start at once end up with the same key. Raises StateError (`state_corrupt`,
        `state_unwritable`, `disk_full`).
        """
        folder = paths.identity
        if not _key_file(folder).exists():
            _make_key(folder)
        return cls._read(folder)

    @classmethod
    def load(cls, paths: Paths) -> Self | None:
        """Read this device's identity; None without a key. Raises StateError (`state_corrupt`)."""
        return cls._read(paths.identity) if _key_file(paths.identity).exists() else None

    def remember(self, device_id: UUID) -> Self:
        """Keep the id that enrollment gave, durably; returns the identity that carries it."""
        content = json.dumps({"device_id": str(device_id)}).encode()
        atomic_files.write_atomic(_id_file(self.folder), content, mode=0o600)
        return type(self)(self.folder, self.public_key, device_id)

    def forget(self) -> Self:
        """Drop the device id and keep the key: the next enrollment with it finds the same device again."""
        atomic_files.remove(_id_file(self.folder))
        return type(self)(self.folder, self.public_key, None)

    @property
    def fingerprint(self) -> str:
        """What a person compares before accepting this device."""
        return fingerprint(self.public_key)

    def assertion(self, audience: str, now: datetime, device_id: UUID | None = None) -> str:
        """Sign a fresh single-use assertion: a compact JWS (EdDSA) that is valid for a minute from `now`.

        For `audience` "enroll" it carries the public key in its header and no device id; for any other the
        device id (given, or the remembered one) as `iss` and `sub`. `now` is an aware time, corrected by the
        caller where the device's clock is known to be wrong. Raises StateError (`state_corrupt`,
        `not_enrolled` without an id).
        """
        import jwt

        issued = int(now.astimezone(UTC).timestamp())
        claims: dict[str, Any] = {
            "aud": audience,
            "iat": issued,
            "exp": issued + ASSERTION_LIFETIME_S,
            "jti": uuid4().hex,
        }
        headers: dict[str, Any] = {}
        if audience == ENROLL_AUDIENCE:
            headers["jwk"] = {"kty": "OKP", "crv": "Ed25519", "x": self.public_key}
        else:
            device_id = device_id or self.device_id
            if device_id is None:
                raise not_enrolled()
            claims["iss"] = claims["sub"] = str(device_id)
        return jwt.encode(claims, self._private_key(), algorithm="EdDSA", headers=headers)

    async def assertion_from_child(self, audience: str, now: datetime, device_id: UUID | None = None) -> str:
        """The same as `assertion`, signed in a short-lived process: the crypto libraries leave with it.

        Costs about 0.2 s of CPU; a token lasts 12 hours. Raises StateError.
        """
        call = {
            "folder": str(self.folder),
            "audience": audience,
            "now": now.isoformat(),
            "device_id": str(device_id or self.device_id or "") or None,
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fleet_agent.control_plane.identity",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_CHILD_TIMEOUT_S):
                output, complaints = await child.communicate(json.dumps(call).encode())
        except TimeoutError as error:
            raise internal(f"signing took longer than {_CHILD_TIMEOUT_S} s", retryable=True) from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        try:
            answer = json.loads(output)
        except ValueError as error:
            last = complaints.decode(errors="replace").strip().splitlines()[-1:]
            what = f"the signing process exited with code {child.returncode}"
            raise internal(what, retryable=True, evidence={"stderr": last}) from error
        if "error" in answer:
            problem = answer["error"]
            raise StateError(Kind(problem["kind"]), problem["message"], hint=problem["hint"])
        return str(answer["assertion"])

    @classmethod
    def _read(cls, folder: Path) -> Self:
        file = _key_file(folder)
        _keep_private(file)
        public = _read_json(file).get("x")
        if not isinstance(public, str) or len(_raw(public)) != _KEY_BYTES:
            raise _corrupt(file, "it does not contain an Ed25519 key")
        return cls(folder, public, _read_device_id(folder))

    def _private_key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        file = _key_file(self.folder)
        raw = _raw(_read_json(file).get("d"))
        if len(raw) != _KEY_BYTES:
            raise _corrupt(file, "it does not contain a private key")
        key = Ed25519PrivateKey.from_private_bytes(raw)
        if _encode(key.public_key().public_bytes_raw()) != self.public_key:
            raise _corrupt(file, "its private key does not belong to its public key")
        return key


def _key_file(folder: Path) -> Path:
    return folder / "key.json"


def _id_file(folder: Path) -> Path:
    return folder / "device.json"


def _make_key(folder: Path) -> None:
    """Write a new key pair, unless another process was first: a hard link takes the name or fails."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    content = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": _encode(key.public_key().public_bytes_raw()),
        "d": _encode(key.private_bytes_raw()),
    }
    try:
        atomic_files.keep_private(folder.parent)
        atomic_files.keep_private(folder)
    except OSError as error:
        raise state_unwritable(folder, error.strerror) from error
    file = _key_file(folder)
    with tempfile.TemporaryDirectory(prefix=".key-", dir=folder) as scratch:
        fresh = Path(scratch) / f"{secrets.token_hex(4)}.json"
        atomic_files.write_atomic(fresh, json.dumps(content).encode(), mode=0o600)
        try:
            os.link(fresh, file)
        except FileExistsError:
            return
        except OSError as error:
            hint = "The folder must be on a file system with hard links (ext4, btrfs, xfs, overlayfs)."
            raise state_unwritable(file, error.strerror, hint=hint) from error
    atomic_files.sync_folder(folder)
    atomic_files.sync_folder(folder.parent)


def _keep_private(file: Path) -> None:
    """Close a key that other users could read (a careless copy), and warn about it."""
    if file.stat().st_mode & 0o077:
        from loguru import logger

        logger.warning("{file} was readable by other users; its mode is 0600 again", file=file)
        file.chmod(0o600)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _corrupt(file, "it cannot be read") from error
    if not isinstance(content, dict):
        raise _corrupt(file, "it is not a JSON object")
    return content


def _read_device_id(folder: Path) -> UUID | None:
    file = _id_file(folder)
    if not file.exists():
        return None
    try:
        return UUID(_read_json(file).get("device_id"))
    except (TypeError, ValueError, AttributeError) as error:
        raise _corrupt(file, "it does not contain a device id") from error


def _raw(text: object) -> bytes:
    """Decode base64url without padding; empty for anything else."""
    if not isinstance(text, str):
        return b""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _corrupt(file: Path, why: str) -> StateError:
    hint = "Restore it from a backup, or remove the folder and enroll again as a new device."
    return state_corrupt(file, why, hint=hint)


def _child() -> None:
    """Sign for `assertion_from_child`: one JSON call on stdin, one JSON answer on stdout."""
    call = json.load(sys.stdin)
    device_id = UUID(call["device_id"]) if call["device_id"] else None
    try:
        identity = Identity._read(Path(call["folder"]))
        answer: dict[str, Any] = {
            "assertion": identity.assertion(call["audience"], datetime.fromisoformat(call["now"]), device_id)
        }
    except StateError as error:
        answer = {"error": {"kind": error.kind, "message": error.message, "hint": error.hint}}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _child()
