"""Every error the agent raises on purpose.

    FleetError
    ├── ConfigError        the device's own configuration
    ├── ControlPlaneError  talking to Supabase (REST, functions, Realtime)
    ├── ReleaseError       fetching, verifying, exporting a release from Git
    ├── ValidationError    a release that must not be started on this device
    ├── ContainerError     Docker and Compose
    ├── HealthError        a release that started and is not well
    └── StateError         the agent's own files

Each carries a `kind` from `Kind` (closed list: metrics, tests and the dashboard rely on it), one sentence
for a person, and optionally what to try.
"""

from __future__ import annotations

import os
from datetime import timedelta
from enum import StrEnum
from typing import Any

#: What a process of the agent exits with while another one is updating the device.
EXIT_LOCKED = os.EX_TEMPFAIL


class Kind(StrEnum):
    """Stable names of what can go wrong. Add here, describe in docs/usage/errors.md (a test reads it)."""

    # configuration
    CONFIG_INVALID = "config_invalid"
    CONFIG_MISSING = "config_missing"
    NOT_ENROLLED = "not_enrolled"
    NOT_SUPPORTED = "not_supported"
    # control plane
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    NOT_OUR_SERVER = "not_our_server"  # captive portal: 200 with HTML
    RATE_LIMITED = "rate_limited"
    UNAUTHORIZED = "unauthorized"
    REFUSED = "refused"
    SERVER_ERROR = "server_error"
    BAD_ANSWER = "bad_answer"
    CLOCK_WRONG = "clock_wrong"
    DEVICE_PENDING = "device_pending"
    DEVICE_SUSPENDED = "device_suspended"
    DEVICE_RETIRED = "device_retired"
    DEVICE_REPLACED = "device_replaced"  # another machine has its place, under a new key
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a kind of error, not a password
    # release
    GIT_UNREACHABLE = "git_unreachable"
    GIT_REFUSED = "git_refused"  # the host answered: no such repository, or no right to read it
    COMMIT_MISSING = "commit_missing"
    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_INVALID = "signature_invalid"
    WRONG_FLEET = "wrong_fleet"  # signed by the right key, for another fleet
    RELEASE_OLDER = "release_older"  # than what runs, on a device that refuses that
    ROLE_MISSING = "role_missing"
    RELEASE_UNSAFE = "release_unsafe"  # links out of the release, submodules, impossible names
    RELEASE_TOO_LARGE = "release_too_large"
    MANIFEST_MISMATCH = "manifest_mismatch"
    TOOL_MISSING = "tool_missing"  # git or ssh-keygen is not installed
    TOOL_FAILED = "tool_failed"  # one of these was killed, or the device had nothing left for it
    DISK_FULL = "disk_full"
    # validation
    COMPOSE_INVALID = "compose_invalid"
    ROLE_INVALID = "role_invalid"
    VARIABLE_MISSING = "variable_missing"
    VARIABLE_INVALID = "variable_invalid"
    IMAGE_UNPINNED = "image_unpinned"
    IMAGE_MISSING = "image_missing"
    IMAGE_DAMAGED = "image_damaged"  # Docker has it, and its files are not what they were
    REGISTRY_UNREACHABLE = "registry_unreachable"
    PORT_CONFLICT = "port_conflict"
    MEMORY_SHORT = "memory_short"
    RESOURCE_MISSING = "resource_missing"  # an external network or volume, a device, a path of this machine
    PLATFORM_MISMATCH = "platform_mismatch"
    VOLUME_DIFFERS = "volume_differs"  # it is here with other options than the release asks for
    VALIDATE_FAILED = "validate_failed"
    VALIDATE_ENDLESS = "validate_endless"  # it did not end, or used or printed too much
    COMPOSE_TOO_COSTLY = "compose_too_costly"  # reading it takes too much time or memory
    PATTERN_TOO_SLOW = "pattern_too_slow"  # a log pattern that is not done with a few lines in seconds
    # what a release may not take of the device, or must declare (fleet_agent/roles/host_table.py)
    OUTSIDE_RELEASE = "outside_release"  # the compose file is continued in a file that was not signed
    ENVIRONMENT_TAKEN = "environment_taken"  # a variable of the agent's own environment
    HOST_PATH = "host_path"
    HOST_DEVICE = "host_device"
    HOST_NAMESPACE = "host_namespace"
    HOST_NETWORK = "host_network"
    HOST_PROGRAM = "host_program"
    LOW_PORT = "low_port"
    FOREIGN_LOGGING = "foreign_logging"
    CAPABILITY = "capability"
    DOCKER_SOCKET = "docker_socket"
    PRIVILEGED = "privileged"
    UNCONFINED = "unconfined"
    # containers and health
    DOCKER_UNAVAILABLE = "docker_unavailable"
    COMPOSE_FAILED = "compose_failed"
    COMPOSE_HUNG = "compose_hung"
    COMPOSE_KILLED = "compose_killed"  # by the kernel or by hand, not by the agent; or it found no memory
    CONTAINER_EXITED = "container_exited"
    UNHEALTHY = "unhealthy"
    # the agent's own state
    STATE_CORRUPT = "state_corrupt"
    STATE_UNWRITABLE = "state_unwritable"
    LOCKED = "locked"
    INTERRUPTED = "interrupted"
    SUPERSEDED = "superseded"  # the control plane asked for something else before anything was changed
    NOTHING_TO_ROLL_BACK = "nothing_to_roll_back"
    NOTHING_TO_RESTART = "nothing_to_restart"
    LEFT = "left"  # no failure of the release: somebody asked to go back from it
    SYSTEMD_REFUSED = "systemd_refused"  # systemctl failed while the agent was installed
    INTERNAL = "internal"


class FleetError(Exception):
    """A failure with a stable `kind` and a sentence for people.

    `retryable` says whether the same step may succeed later without anybody changing anything.
    `evidence` is small JSON-able detail (last log lines, exit codes), never a secret.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        hint: str = "",
        retryable: bool = False,
        evidence: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.retryable = retryable
        self.evidence = evidence or {}

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class ConfigError(FleetError):
    """The device's configuration cannot be used."""


class ControlPlaneError(FleetError):
    """Supabase could not be reached, refused us, or answered nonsense."""

    def __init__(self, *args: Any, retry_after_s: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.retry_after_s = retry_after_s


class ReleaseError(FleetError):
    """A release could not be fetched, trusted or exported."""


class ValidationError(FleetError):
    """A release must not be started on this device."""


class ContainerError(FleetError):
    """Docker or Compose failed."""


class HealthError(FleetError):
    """A started release did not prove healthy."""


class StateError(FleetError):
    """The agent's own files are unreadable, unwritable or held by another process."""


# The sentences of the kinds that are met most: each stands here once, and docs/usage/errors.md shows it as it
# will be read. `more` is what every FleetError takes: `retryable`, `evidence`.


def config_invalid(
    subject: object, why: str, *, hint: str = "", error: type[FleetError] = ConfigError, **more: Any
) -> FleetError:
    return error(Kind.CONFIG_INVALID, f"{subject} is not valid: {why}.", hint=hint, **more)


def config_missing(
    file: object, why: object, *, hint: str, error: type[FleetError] = ConfigError
) -> FleetError:
    return error(Kind.CONFIG_MISSING, f"Cannot read {file}: {why}.", hint=hint)


def not_enrolled(*, error: type[FleetError] = StateError) -> FleetError:
    return error(Kind.NOT_ENROLLED, "This device is not enrolled.", hint="Run `fleet-agent enroll`.")


def locked(holder: object, *, hint: str = "Wait for it to finish.") -> StateError:
    return StateError(
        Kind.LOCKED,
        f"Another process is updating this device: {holder}.",
        hint=hint,
        retryable=True,
    )


def interrupted(verb: object, what: str) -> StateError:
    return StateError(
        Kind.INTERRUPTED,
        f"The engine ({verb}) {what}.",
        hint="The next check-in will finish the work.",
        retryable=True,
    )


def disk_full(
    what: str, *, hint: str = "Free some disk space.", error: type[FleetError] = StateError, **more: Any
) -> FleetError:
    return error(Kind.DISK_FULL, f"Not enough disk space: {what}.", hint=hint, **more)


def state_unwritable(path: object, why: object, *, hint: str = "") -> StateError:
    hint = hint or "Check that the file system is mounted read-write and that the agent owns the folder."
    return StateError(Kind.STATE_UNWRITABLE, f"Cannot write {path}: {why}.", hint=hint)


def state_corrupt(file: object, why: str, *, hint: str = "") -> StateError:
    return StateError(Kind.STATE_CORRUPT, f"{file} is corrupt: {why}.", hint=hint)


def tool_missing(
    tool: str, package: str, *, needed_for: str = "", error: type[FleetError] = StateError
) -> FleetError:
    why = f", so {needed_for}" if needed_for else ""
    return error(Kind.TOOL_MISSING, f"{tool} is not installed{why}.", hint=f"Install the {package} package.")


def tool_failed(what: str, *, error: type[FleetError] = StateError, **more: Any) -> FleetError:
    hint = "Check the device's memory, its disk and its kernel log; the agent retries."
    return error(Kind.TOOL_FAILED, f"{what}.", hint=hint, retryable=True, **more)


def docker_unavailable(
    what: str = "Docker does not answer",
    *,
    hint: str = "Run `systemctl status docker` on the device.",
    **more: Any,
) -> ContainerError:
    """Nothing is known about the containers, so it is always retryable."""
    return ContainerError(Kind.DOCKER_UNAVAILABLE, f"{what}.", hint=hint, retryable=True, **more)


def bad_answer(function: str, what: str, *, retryable: bool = True) -> ControlPlaneError:
    return ControlPlaneError(
        Kind.BAD_ANSWER,
        f"{function} returned an unexpected response: {what}.",
        hint="The control plane and this agent may have different versions.",
        retryable=retryable,
    )


def compose_invalid(
    why: object,
    *,
    file: str = "The compose file",
    hint: str = "Run `fleetctl role check` in the fleet repository.",
    error: type[FleetError] = ValidationError,
    **more: Any,
) -> FleetError:
    return error(Kind.COMPOSE_INVALID, f"{file} is not valid: {why}.", hint=hint, **more)


def not_our_server(what: str, *, hint: str = "", **more: Any) -> ControlPlaneError:
    return ControlPlaneError(
        Kind.NOT_OUR_SERVER,
        f"Something other than the control plane answered: {what}.",
        hint=hint or "Check api_url, and whether a captive portal or a proxy is in between.",
        retryable=True,
        **more,
    )


def unreachable(why: object) -> ControlPlaneError:
    return ControlPlaneError(
        Kind.UNREACHABLE,
        f"The control plane could not be reached: {why}.",
        hint="Check the network and api_url; the agent retries.",
        retryable=True,
    )


def clock_off(ahead: timedelta) -> StateError:
    day, hour, minute = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
    size = day if abs(ahead) >= 2 * day else hour if abs(ahead) >= 2 * hour else minute
    unit = {day: "days", hour: "hours", minute: "minutes"}[size]
    way = "ahead of" if ahead > timedelta() else "behind"
    return StateError(
        Kind.CLOCK_WRONG,
        f"This device's clock is {abs(ahead) // size} {unit} {way} the control plane's.",
        hint="Set the clock (NTP); the agent uses the control plane's time, TLS and Docker use the device's.",
    )


def internal(what: str, **more: Any) -> StateError:
    return StateError(Kind.INTERNAL, f"Internal error: {what}.", hint="Report it with the log.", **more)
