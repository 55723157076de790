"""From what Docker and Compose print to the errors that the device reports."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleet_agent.errors import ContainerError, FleetError, Kind, disk_full, docker_unavailable
from fleet_agent.support import processes

_NO_ENGINE = re.compile(
    r"cannot connect to the docker daemon|error during connect|is the docker daemon running"
    r"|docker\.sock: connect|connection reset by peer|error from daemon.*shutting down|unexpected EOF"
    r"|context deadline exceeded|request canceled",
    re.I,
)
#: What the device has too little of now: memory, processes, open files. Not a container's own limit.
_NO_ROOM = re.compile(
    r"fatal error: .*(out of memory|cannot allocate)|cannot allocate memory"
    r"|resource temporarily unavailable|failed to create new OS thread|too many open files",
    re.I,
)
_OWN_LIMIT = re.compile(r"memory limit too low|OOM-killed", re.I)
_PORT_TAKEN = re.compile(r"port is already allocated|address already in use|bind for \S+ failed", re.I)
_IMAGE_ABSENT = re.compile(
    r"no such image|manifest (for \S+ not found|unknown)|pull access denied|repository does not exist", re.I
)
#: How Docker reports an image whose files are not what its index lists.
_DAMAGED = re.compile(
    r"no such file or directory|not a directory|layer does not exist|input/output error"
    r"|structure needs cleaning|unexpected end of JSON|invalid character",
    re.I,
)
_REGISTRY_AWAY = re.compile(
    r"dial tcp|connection re(fused|set)|no such host|server misbehaving|no route to host"
    r"|network is unreachable|timeout|deadline exceeded|request canceled|\bEOF\b"
    r"|HTTP( status:)? (5\d\d|429)|toomanyrequests",
    re.I,
)


@contextlib.contextmanager
def translated(*, pass_refusals: bool = False) -> Iterator[None]:
    """Every way in which the SDK can fail, as a ContainerError.

    With `pass_refusals` the caller translates what Docker itself refuses, like its report on a registry.
    """
    import requests.exceptions
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        if pass_refusals:
            raise
        said = str(error.explanation).rstrip(".")
        if error.is_client_error():
            # Docker is well, and what was asked about is gone or wrong.
            raise ContainerError(Kind.COMPOSE_FAILED, f"Docker refused: {said}.") from error
        raise docker_unavailable(f"Docker failed: {said}") from error
    except (DockerException, requests.exceptions.RequestException, OSError) as error:
        raise docker_unavailable(evidence={"cause": str(error)[:300]}) from error


def is_damage(text: str) -> bool:
    """Whether Docker's complaint is that an image's files are not what its index lists."""
    return _DAMAGED.search(text) is not None


def compose_failed(doing: str, done: processes.CompletedProcess) -> ContainerError:
    """Why Compose could not do it: `docker_unavailable`, `disk_full`, `port_conflict`, …

    A `port_conflict` is retryable if Docker itself holds the port: that passes, and is no fault of a release.
    """
    said = done.stderr
    if (passes := passing(doing, done)) is not None:
        return passes
    if _NO_ENGINE.search(said):
        return docker_unavailable(_what(doing, done), evidence=_evidence(done))
    if _PORT_TAKEN.search(said):
        return _could_not(doing, done, Kind.PORT_CONFLICT, retryable=_docker_holds_the_port(said))
    if _IMAGE_ABSENT.search(said):
        return _could_not(doing, done, Kind.IMAGE_MISSING, retryable=True)
    return _could_not(doing, done, Kind.COMPOSE_FAILED)


def passing(doing: str, done: processes.CompletedProcess) -> ContainerError | None:
    """Why Compose could not do it, if the device is the reason and not what it was given."""
    if _NO_ENGINE.search(done.stderr):
        return None
    if processes.NO_SPACE.search(done.stderr):
        return _could_not(doing, done, Kind.DISK_FULL, retryable=True)
    if _NO_ROOM.search(done.stderr) and not _OWN_LIMIT.search(done.stderr):
        # As if the kernel had killed it.
        return _could_not(doing, done, Kind.COMPOSE_KILLED, retryable=True)
    return None


def _could_not(
    doing: str, done: processes.CompletedProcess, kind: Kind, *, retryable: bool = False
) -> ContainerError:
    return ContainerError(
        kind,
        f"{_what(doing, done)}.",
        retryable=retryable,
        evidence=_evidence(done),
    )


def _what(doing: str, done: processes.CompletedProcess) -> str:
    return f"Compose could not {doing}: {telling_line(done)}"


def _evidence(done: processes.CompletedProcess) -> dict[str, Any]:
    return {"exit_code": done.exit_code, "output": done.tail}


def _docker_holds_the_port(said: str) -> bool:
    """Whether the port that is taken is held by Docker itself, as for a while after its restart."""
    if "port is already allocated" in said:
        return True
    ports = set(re.findall(r":(\d+)", said))
    return any(_proxied_port(process) in ports for process in Path("/proc").glob("[0-9]*"))


def _proxied_port(process: Path) -> str | None:
    """The port of this machine that a `docker-proxy` passes on; None for another program."""
    try:
        arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if not arguments[0].endswith("docker-proxy") or "-host-port" not in arguments:
        return None
    return arguments[arguments.index("-host-port") + 1]


def pull_failed(image: str, why: str, damage: str | None) -> FleetError:
    why = why.strip().rstrip(".")
    if processes.NO_SPACE.search(why):
        return disk_full(f"cannot load {image}", error=ContainerError, retryable=True)
    if damage is None and re.search("failed to register layer", why, re.I) and _DAMAGED.search(why):
        # A layer that it shares with another image.
        damage = why
    if damage is not None:
        return ContainerError(
            Kind.IMAGE_DAMAGED,
            f"{image} is damaged on this device and could not be replaced: {why}.",
            hint="Check the disk; stop what uses the image and remove it by hand.",
            retryable=True,
            evidence={"damage": damage[:300]},
        )
    if _REGISTRY_AWAY.search(why):
        return ContainerError(
            Kind.REGISTRY_UNREACHABLE,
            f"{image} is not on this device and its registry does not answer: {why}.",
            hint="Check that the device can reach the registry.",
            retryable=True,
        )
    # An image may be pushed a minute after its release: worth another try later.
    return ContainerError(
        Kind.IMAGE_MISSING,
        f"{image} is not on this device and cannot be pulled: {why}.",
        hint="Check the image's name, and that it was pushed.",
        retryable=True,
    )


def telling_line(done: processes.CompletedProcess) -> str:
    """The line of Compose's output that tells what is wrong, else its last."""
    lines = [line.strip() for line in done.tail]
    telling = [line for line in lines if re.search(r"error|invalid|failed|cannot|required|not ", line, re.I)]
    return ((telling or lines or [f"exit code {done.exit_code}"])[-1]).rstrip(".")[:500]
