"""The fleets that this terminal knows by name, in one file: where each is, and who is signed in there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

from fleetctl.errors import FleetctlError

#: The stack in `.fleet`, unless a fleet in the file has this name.
LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOSTED = (".supabase.co", ".supabase.in")


@dataclass(frozen=True, kw_only=True)
class Session:
    """One person at one fleet. Tokens are secrets: `repr` leaves them out."""

    fleet: str
    api_url: str
    publishable_key: str
    email: str
    user_id: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class KnownFleets:
    """Sessions by the name of their fleet, and which of them commands use if nothing is typed."""

    sessions: Mapping[str, Session] = field(default_factory=dict)
    in_use: str | None = None

    def at(self, api_url: str) -> list[Session]:
        """Who is signed in at this address; the fleet in use alone if it is one of them."""
        found = [one for one in self.sessions.values() if one.api_url == api_url]
        return [one for one in found if one.fleet == self.in_use] or found

    def named(self, fleet: str) -> Session:
        """Raises FleetctlError `fleet_unknown`."""
        if fleet in self.sessions:
            return self.sessions[fleet]
        raise FleetctlError(
            "fleet_unknown",
            f"There is no fleet {fleet} here. Known: {', '.join(sorted({LOCAL, *self.sessions}))}.",
            hint="See: fleetctl fleet list. A new one is named by fleetctl login EMAIL --fleet NAME.",
            exit_code=5,
        )


def file() -> Path:
    """FLEET_SESSION, else `session.json` in the user's configuration folder for fleetctl."""
    return Path(os.environ.get("FLEET_SESSION") or Path(typer.get_app_dir("fleetctl")) / "session.json")


def load() -> KnownFleets:
    """The fleets of this terminal, none at all if nobody ever signed in.

    Raises FleetctlError `session_unreadable`.
    """
    try:
        return _parsed(json.loads(file().read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return KnownFleets()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetctlError(
            "session_unreadable",
            f"{file()} is not a valid session file.",
            hint="Sign in again: fleetctl logout, then fleetctl login",
            exit_code=4,
        ) from error


def remember(session: Session, *, use: bool = False) -> None:
    """Keep a session under the name of its fleet, for this user of the machine alone."""
    with _changing() as known:
        sessions = {**known.sessions, session.fleet: session}
        _save(KnownFleets(sessions, session.fleet if use else known.in_use))


def use(fleet: str) -> None:
    """From now on commands use this fleet. Raises FleetctlError `fleet_unknown`."""
    with _changing() as known:
        if fleet != LOCAL:
            known.named(fleet)
        _save(replace(known, in_use=fleet))


def forget(fleet: str) -> None:
    """Remove one from this machine. If commands used it, they use none until one is chosen."""
    with _changing() as known:
        sessions = {name: one for name, one in known.sessions.items() if name != fleet}
        if sessions:
            _save(KnownFleets(sessions, None if known.in_use == fleet else known.in_use))
        else:
            forget_all()


def forget_all() -> None:
    """Remove the file, whatever is in it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        file().unlink()


def check_name(fleet: str) -> str:
    """The name itself. Raises FleetctlError `fleet_name_malformed`."""
    if not _NAME.fullmatch(fleet):
        raise FleetctlError(
            "fleet_name_malformed",
            f"{fleet} is not a name of a fleet.",
            hint="Use up to 63 letters, digits, dots, hyphens and underscores.",
            exit_code=2,
        )
    return fleet


def name_for(api_url: str) -> str:
    """The name of a fleet that nobody named: the project's reference, else host and port."""
    parts = urlsplit(api_url)
    host = parts.hostname or ""
    for suffix in _HOSTED:
        if host.endswith(suffix):
            return host.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{host}-{parts.port}" if parts.port else host).strip("-")[:63]


def _parsed(value: Mapping[str, Any]) -> KnownFleets:
    sessions = {name: _session(name, one) for name, one in value["fleets"].items()}
    in_use = value["in_use"]
    if in_use not in (None, LOCAL, *sessions):
        raise ValueError(in_use)
    return KnownFleets(sessions, in_use)


def _session(fleet: str, value: Mapping[str, Any]) -> Session:
    texts = {one.name: value[one.name] for one in fields(Session) if one.name not in ("fleet", "expires_at")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError(fleet)
    ends = datetime.fromisoformat(value["expires_at"])
    if ends.tzinfo is None:
        raise ValueError(fleet)
    return Session(fleet=fleet, expires_at=ends, **texts)


def _save(known: KnownFleets) -> None:
    fleets = {name: asdict(one) for name, one in sorted(known.sessions.items())}
    for one in fleets.values():
        del one["fleet"]
    # Loaded by the few commands that write.
    from fleet_agent.errors import FleetError
    from fleet_agent.support.atomic_files import write_atomic

    content = json.dumps({"in_use": known.in_use, "fleets": fleets}, indent=1, default=datetime.isoformat)
    try:
        write_atomic(file(), content.encode(), mode=0o600)
    except FleetError as error:
        raise _unwritable(str(error)) from error


@contextlib.contextmanager
def _changing() -> Iterator[KnownFleets]:
    """What the file holds, while no other fleetctl changes it: two renew their sessions at the same time."""
    path = file().with_name(f"{file().name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield load()
    finally:
        os.close(handle)


def _unwritable(why: str) -> FleetctlError:
    return FleetctlError(
        "session_unwritable",
        f"The session cannot be kept: {why.rstrip('.')}.",
        hint="Make the folder writable, or name another file in FLEET_SESSION.",
    )
