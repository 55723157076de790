"""The Compose program: it resolves a compose file, and starts and stops what the file says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from fleet_agent import errors
from fleet_agent.containers import compose_file
from fleet_agent.containers.base import ComposeStack
from fleet_agent.containers.compose_program import find_compose
from fleet_agent.containers.docker_errors import compose_failed, passing, telling_line
from fleet_agent.errors import ContainerError, Kind, docker_unavailable
from fleet_agent.support import processes
from fleet_agent.support.sizes import MIB

#: What Compose needs of our own environment to reach Docker.
_PASSED = re.compile(r"PATH|USER|TMPDIR|XDG_RUNTIME_DIR|SSL_CERT_(FILE|DIR)|DOCKER_.*", re.I)
#: And to read a release: as good as nothing, or what is around would decide what runs.
PASSED_TO_READ = re.compile(r"PATH|TMPDIR")
#: A signed file means the same at every time: nothing of it is fetched from anywhere.
NO_REMOTE_FILES = {"COMPOSE_EXPERIMENTAL_GIT_REMOTE": "false", "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "false"}
#: What Compose may use of memory and print when it only reads: of the engine's own 512 MiB.
READ_MEMORY, READ_OUTPUT = 256 * MIB, 4 * MIB
_UNSET = re.compile(r'The \\?"(\w+)\\?" variable is not set')


class ComposeCli:
    """`program` is the Compose command, looked for unless it is given; limits are seconds.

    `home` is Compose's own home and cache; it need not exist.
    """

    def __init__(
        self, program: Sequence[str] | None, *, home: Path, look_limit_s: float, up_limit_s: float
    ) -> None:
        self._program = list(program) if program else None
        self._home = home
        self._look_limit_s = look_limit_s
        self._up_limit_s = up_limit_s

    def config(self, folder: Path, environment: Mapping[str, str], project: str) -> dict[str, Any]:
        bounds = processes.Bounds(self._look_limit_s * 3, READ_MEMORY, READ_OUTPUT)
        try:
            done = self._run(
                read_command(self.program, folder, project),
                bounds,
                {**self._own(PASSED_TO_READ), **environment},
            )
        except processes.StoppedError as error:
            raise too_costly(error.why, retryable=error.bound == "time") from error
        if done.exit_code != 0:
            raise passing("resolve the compose file", done) or errors.compose_invalid(
                telling_line(done), error=ContainerError, evidence={"output": done.tail}
            )
        unset = sorted(set(_UNSET.findall(done.stderr)))
        if unset:
            # Compose would continue with an empty value; a device must not.
            raise ContainerError(
                Kind.VARIABLE_MISSING,
                f"The compose file uses {', '.join(unset)}, which the role does not declare.",
                hint="Declare it in role.yaml, or write $$ for a dollar sign.",
            )
        try:
            resolved = compose_file.from_json(done.stdout.encode())
        except ValueError as error:
            raise ContainerError(
                Kind.COMPOSE_FAILED, "Compose returned something that is not JSON."
            ) from error
        if not isinstance(resolved, dict):
            raise ContainerError(Kind.COMPOSE_FAILED, "Compose returned something that is not a project.")
        return resolved

    def up(self, stack: ComposeStack) -> None:
        arguments = ["up", "--detach", "--no-build", "--pull", "never", "--remove-orphans"]
        if stack.done:
            # Compose starts again whatever has ended, unless it is not named.
            arguments += ["--no-deps", *_not_done(stack)]
        done = self._on(stack, arguments)
        if done.exit_code != 0:
            raise compose_failed("start the services", done)

    def hashes(self, stack: ComposeStack) -> dict[str, str]:
        done = self._on(stack, ["config", "--hash", "*"])
        if done.exit_code != 0:
            raise compose_failed("read the stack", done)
        return {
            service: found for service, _, found in (line.partition(" ") for line in done.stdout.splitlines())
        }

    def recreate(self, stack: ComposeStack, services: Sequence[str]) -> None:
        done = self._on(
            stack,
            ["up", "--detach", "--no-build", "--pull", "never", "--no-deps", "--force-recreate", *services],
        )
        if done.exit_code != 0:
            raise compose_failed("replace the containers", done)

    def down(self, project: str) -> None:
        done = self._compose(
            ["--project-name", project, "down", "--remove-orphans"], limit_s=self._up_limit_s
        )
        if done.exit_code != 0:
            raise compose_failed("stop the services", done)

    def restart(self, stack: ComposeStack) -> None:
        done = self._on(stack, ["restart", *(["--no-deps", *_not_done(stack)] if stack.done else [])])
        if done.exit_code != 0:
            raise compose_failed("restart the services", done)

    def _on(self, stack: ComposeStack, arguments: list[str]) -> processes.CompletedProcess:
        return self._compose(
            ["--project-name", stack.project, "--file", stack.file, "--env-file", os.devnull, *arguments],
            limit_s=self._up_limit_s,
        )

    def _compose(self, arguments: Sequence[str | Path], *, limit_s: float) -> processes.CompletedProcess:
        try:
            return self._run([*self.program, *arguments], processes.Bounds(limit_s), self._own(_PASSED))
        except processes.StoppedError as error:
            raise ContainerError(
                Kind.COMPOSE_HUNG,
                f"Compose did not finish within {limit_s:g} s and was killed.",
                hint="Check `docker info` and the device's kernel log.",
                retryable=True,
                evidence={"output": error.output.splitlines()[-20:]},
            ) from error

    def _own(self, passed: re.Pattern[str]) -> dict[str, str]:
        """Of our environment what Compose gets, and a home and a cache of its own."""
        ours = {key: value for key, value in os.environ.items() if passed.fullmatch(key)}
        return {**ours, "HOME": str(self._home), "XDG_CACHE_HOME": str(self._home / "cache")}

    def _run(
        self, command: Sequence[str | Path], bounds: processes.Bounds, environment: Mapping[str, str]
    ) -> processes.CompletedProcess:
        try:
            done = processes.run(
                command,
                bounds=bounds,
                environment={**environment, **NO_REMOTE_FILES, "COMPOSE_ANSI": "never"},
            )
        except OSError as error:
            raise docker_unavailable(
                f"Cannot start Compose: {error.strerror}",
                hint="Install the docker-compose-plugin package again.",
            ) from error
        if (phrase := processes.killed("Compose", done.killed_by)) is not None:
            raise ContainerError(
                Kind.COMPOSE_KILLED,
                f"{phrase}.",
                hint="Check the device's kernel log and its memory.",
                retryable=True,
                evidence={"output": done.tail},
            )
        return done

    @cached_property
    def program(self) -> list[str]:
        """The Compose command. Raises ContainerError (`docker_unavailable`) if there is none."""
        if self._program:
            return self._program
        found = find_compose()
        if found is None:
            raise docker_unavailable(
                "Docker Compose is not installed on this device",
                hint="Install the docker-compose-plugin package.",
            )
        return found


def read_command(program: Sequence[str], folder: Path, project: str) -> list[str | Path]:
    """The command that resolves the compose file in `folder`; it needs no engine."""
    return [
        *program, "--project-name", project, "--project-directory", folder, "--file", folder / "compose.yaml",
        "--env-file", os.devnull, "config", "--format", "json",
    ]  # fmt: skip


def too_costly(why: str, *, retryable: bool = False) -> ContainerError:
    return ContainerError(
        Kind.COMPOSE_TOO_COSTLY,
        f"compose.yaml cannot be read: Compose {why}.",
        hint="Make it smaller: fewer aliases, ports and services.",
        retryable=retryable,
    )


def _not_done(stack: ComposeStack) -> list[str]:
    compose = compose_file.from_json(stack.file.read_bytes())
    return sorted(compose_file.services(compose).keys() - set(stack.done))
