"""What failed here before: which releases are not retried automatically, and which only later."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from loguru import logger
from pydantic import Field
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.errors import Kind
from fleet_agent.model import Frozen
from fleet_agent.support import retry

#: Enough for years of bad releases; the oldest is forgotten first.
LIMIT = 100
RETRY_FIRST = timedelta(seconds=retry.AGAIN_BASE_S)
RETRY_CAP = timedelta(seconds=retry.AGAIN_CAP_S)
#: An update that died this often in the same release is the release's fault.
INTERRUPTIONS_LIMIT = 3

#: Trouble of the device or its surroundings, whoever reports it: it never counts against a release.
PASSING = frozenset(
    {
        Kind.DISK_FULL,
        Kind.STATE_UNWRITABLE,
        Kind.DOCKER_UNAVAILABLE,
        Kind.COMPOSE_KILLED,
        Kind.COMPOSE_HUNG,
        Kind.GIT_UNREACHABLE,
        Kind.REGISTRY_UNREACHABLE,
        Kind.IMAGE_DAMAGED,
        Kind.TIMED_OUT,
        Kind.CLOCK_WRONG,
        Kind.TOOL_MISSING,
        Kind.TOOL_FAILED,
        Kind.CONFIG_MISSING,
        Kind.CONFIG_INVALID,
        Kind.MANIFEST_MISMATCH,
        Kind.STATE_CORRUPT,
    }
)

#: Passing trouble that is mostly over after a few seconds. A port only if it is Docker that holds it, and
#: memory only if the agent itself had none, which the error then says by `retryable`.
SOON_OVER = frozenset({Kind.COMPOSE_KILLED, Kind.TOOL_FAILED, Kind.PORT_CONFLICT, Kind.MEMORY_SHORT})

#: A release that hangs this often although what ran before does not: then it is the release's fault.
HANGS_LIMIT = 3

#: Failures that may go away when somebody edits the device's own .env.
FIXED_BY_ENV = frozenset(
    {
        Kind.VARIABLE_MISSING,
        Kind.VARIABLE_INVALID,
        Kind.PORT_CONFLICT,
        Kind.LOW_PORT,
        Kind.HOST_PATH,
        Kind.DOCKER_SOCKET,
        Kind.VALIDATE_FAILED,
        Kind.VALIDATE_ENDLESS,
    }
)


def fingerprint(env_file: Path) -> str:
    """Changes when the device's .env does; empty if there is none."""
    try:
        return hashlib.sha256(env_file.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


class BadRelease(Frozen):
    """A release that failed here. `env` is the fingerprint of the .env, if that may be the cause."""

    kind: str
    message: str
    at: datetime
    env: str | None = None


class Trouble(Frozen):
    """A release whose attempts failed for a passing cause: not retried before `not_before`.

    `hangs` of the failures were a start or a check that did not end and may be the release's own fault.
    """

    failures: int
    hangs: int = 0
    not_before: datetime
    kind: str
    message: str


class Memory(Frozen):
    """By deployment key (`<commit>.<role>`)."""

    bad: dict[str, BadRelease] = Field(default_factory=dict)
    trouble: dict[str, Trouble] = Field(default_factory=dict)
    interruptions: dict[str, int] = Field(default_factory=dict)

    def known_bad(self, key: str, env: str) -> BadRelease | None:
        """Why `key` is not retried automatically, or None. A changed .env clears what it may have caused."""
        bad = self.bad.get(key)
        if bad is None or (bad.env is not None and bad.env != env):
            return None
        return bad

    def wait_for(self, key: str, now: datetime) -> Trouble | None:
        """The trouble `key` still waits for. A wait longer than the cap means the clock jumped: no wait."""
        trouble = self.trouble.get(key)
        if trouble is None or not now < trouble.not_before <= now + RETRY_CAP:
            return None
        return trouble

    def with_bad(self, key: str, bad: BadRelease) -> Memory:
        kept = dict(sorted(self.bad.items(), key=lambda item: item[1].at)[-(LIMIT - 1) :])
        return self.without(key).model_copy(update={"bad": {**kept, key: bad}})

    def hangs(self, key: str) -> int:
        """How often `key` hung."""
        return self.trouble[key].hangs if key in self.trouble else 0

    def with_trouble(
        self, key: str, kind: str, message: str, now: datetime, random: Random, *, hung: bool = False
    ) -> Memory:
        """Exponential backoff with full jitter, capped."""
        failures = (self.trouble[key].failures if key in self.trouble else 0) + 1
        ceiling = min(RETRY_CAP, RETRY_FIRST * 2 ** min(failures - 1, 16))
        trouble = Trouble(
            failures=failures,
            hangs=self.hangs(key) + hung,
            not_before=now + ceiling * random.random(),
            kind=kind,
            message=message,
        )
        # Only the newest target's trouble matters.
        return self.model_copy(update={"trouble": {key: trouble}})

    def with_interruption(self, key: str) -> Memory:
        count = self.interruptions.get(key, 0) + 1
        return self.model_copy(update={"interruptions": {key: count}})

    def without(self, key: str) -> Memory:
        """Forget everything about `key`: it worked, or an operator asked to retry."""
        return Memory(
            bad={k: v for k, v in self.bad.items() if k != key},
            trouble={k: v for k, v in self.trouble.items() if k != key},
            interruptions={k: v for k, v in self.interruptions.items() if k != key},
        )


def load(file: Path) -> Memory:
    """Read it. What is unreadable is forgotten: that costs one more try of a bad release, and a rollback."""
    try:
        return Memory.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Memory()
    except (PydanticValidationError, OSError) as error:
        logger.error(
            "{file} cannot be read; the device's memory of failed releases is lost: {error}",
            file=file,
            error=error,
        )
        return Memory()
