"""From Git's output to what went wrong with a fetch: one table, the first match is the cause."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.release.git_command import Transfer, without_secrets
from fleet_agent.release.repository import CorruptError, looks_corrupt


class WantRefusedError(Exception):
    """The host does not serve objects by their id."""


class NotThereError(WantRefusedError):
    """The host serves objects by id but does not have this one (or, for files, serves only commits)."""


@dataclass(frozen=True)
class _Cause:
    pattern: re.Pattern[str]
    kind: Kind
    sentence: str
    hint: str
    retryable: bool = False


_WANT_REFUSED = re.compile(r"unadvertised object|does not allow request")
_NOT_THERE = re.compile(r"not our ref|not a valid object|couldn't find remote ref")
_FULL = _Cause(
    re.compile(r"No space left on device|Disk quota exceeded"),
    Kind.DISK_FULL,
    "The disk filled up while fetching from {host}.",
    "Free some disk space.",
)
_STALLED = _Cause(
    re.compile(""), Kind.TIMED_OUT, "{host} stopped sending data.", "It will be retried.", retryable=True
)
_CLOCK = _Cause(
    re.compile(r"certificate.*(?:not yet valid|has expired|expired)", re.IGNORECASE),
    Kind.CLOCK_WRONG,
    "The certificate of {host} is not valid at this device's time.",
    "Check the device's clock; if it is right, the host's certificate has expired.",
    retryable=True,
)
_REFUSED = _Cause(
    re.compile(
        r"Authentication failed|could not read (?:Username|Password)|Permission denied \(|"
        r"repository .*not found|does not appear to be a git repository|returned error: 40[134]|"
        r"Host key verification failed|dubious ownership|access denied",
        re.IGNORECASE,
    ),
    Kind.GIT_REFUSED,
    "{host} refuses access to the repository, or it does not exist.",
    "Check git_url in device.json and the key or token this device uses.",
)
# A pack cut off in transit reads like a damaged one, so signs of a broken line count before signs of damage.
_BROKEN = _Cause(
    re.compile(
        r"RPC failed|early EOF|unexpected disconnect|hung up|protocol error|unable to access|timed out|"
        r"reset by peer|resolve host|connection refused|still expected|unexpected EOF|Broken pipe",
        re.IGNORECASE,
    ),
    Kind.GIT_UNREACHABLE,
    "The connection to {host} failed.",
    "It will be retried; what arrived is kept.",
    retryable=True,
)


def failure(transfer: Transfer, url: str) -> Exception:
    """The exception for a transfer that failed: ReleaseError, WantRefusedError or CorruptError."""
    said = without_secrets(transfer.said)
    # A full disk may also look like a stall or like damage.
    if _FULL.pattern.search(said):
        return _error(_FULL, said, url)
    if transfer.timed_out:
        return _error(_STALLED, said, url)
    if _WANT_REFUSED.search(said):
        return WantRefusedError(said)
    if _NOT_THERE.search(said):
        return NotThereError(said)
    for cause in (_CLOCK, _REFUSED, _BROKEN):
        if cause.pattern.search(said):
            return _error(cause, said, url)
    return CorruptError(said) if looks_corrupt(said) else _error(_BROKEN, said, url)


def _error(cause: _Cause, said: str, url: str) -> ReleaseError:
    return ReleaseError(
        cause.kind,
        cause.sentence.format(host=without_secrets(url)),
        hint=cause.hint,
        retryable=cause.retryable,
        evidence={"git": [line for line in said.splitlines() if line][-5:]},
    )
