"""From Git's output to what went wrong with a fetch: one table, the first match is the cause."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.release.git_command import OUT_OF_MEMORY, Transfer, out_of_memory, without_secrets
from fleet_agent.release.repository import CorruptError, looks_corrupt
from fleet_agent.support import processes


class WantRefusedError(Exception):
    """The host does not serve objects by their id."""


class NotThereError(WantRefusedError):
    """The host serves objects by id but does not have this one (or, for files, serves only commits)."""


class RedirectedError(Exception):
    """The host sends us to an address that Git was not allowed to follow to."""


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
    processes.NO_SPACE,
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
#: How curl says that it did not follow.
_REDIRECTED = re.compile(
    r"returned error: 30[12378]|HTTP 30[12378]|[Pp]rotocol \"?\w+\"? (?:not supported|disabled)|"
    r"unable to update url base from redirection"
)
#: What another request may help with.
_OTHER_WAYS: tuple[tuple[re.Pattern[str], type[Exception]], ...] = (
    (_WANT_REFUSED, WantRefusedError),
    (_NOT_THERE, NotThereError),
)
_ELSEWHERE = _Cause(
    re.compile(""),
    Kind.GIT_REFUSED,
    "{host} redirects to an address that releases are not fetched from.",
    "Give the repository's own address as git_url in device.json.",
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


def failure(transfer: Transfer, url: str, *, memory: int) -> Exception:
    """The exception for a transfer that failed: ReleaseError, one of the above, or CorruptError.

    `memory` is what each Git process had.
    """
    said, own = without_secrets(transfer.said), transfer.own
    if transfer.overrun is not None or OUT_OF_MEMORY.search(own):
        return transfer.overrun or out_of_memory(memory, said)
    # A full disk may also look like a stall or like damage.
    if _FULL.pattern.search(own) or transfer.timed_out:
        return _error(_FULL if _FULL.pattern.search(own) else _STALLED, said, url)
    if _REDIRECTED.search(own):
        return RedirectedError(said)
    for pattern, exception in _OTHER_WAYS:
        if pattern.search(said):
            return exception(said)
    cause = next((cause for cause in (_CLOCK, _REFUSED, _BROKEN) if cause.pattern.search(said)), None)
    if cause is None and looks_corrupt(own):
        return CorruptError(said)
    return _error(cause or _BROKEN, said, url)


def refused_redirect(said: str, url: str) -> ReleaseError:
    """The error for a redirect that is not followed: trying again would not help."""
    return _error(_ELSEWHERE, said, url)


def _error(cause: _Cause, said: str, url: str) -> ReleaseError:
    return ReleaseError(
        cause.kind,
        cause.sentence.format(host=without_secrets(url)),
        hint=cause.hint,
        retryable=cause.retryable,
        evidence={"git": [line for line in said.splitlines() if line][-5:]},
    )
