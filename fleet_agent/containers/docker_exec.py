"""Run a command inside a container, limited in time and in output."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fleet_agent.containers.base import CommandResult
from fleet_agent.support import processes
from fleet_agent.support.deadline import limited

if TYPE_CHECKING:
    import socket

    from docker import DockerClient


def run(client: DockerClient, container: str, command: Sequence[str], timeout_s: float) -> CommandResult:
    """Over the bare connection: the SDK waits for output forever, and keeps all of it."""
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
        return CommandResult(124, f"not finished within {timeout_s:g} s")
    code = _exit_code(client, made)
    text = said.decode(errors="replace")
    return (
        CommandResult(125, f"{text}\nDocker did not report an exit code")
        if code is None
        else CommandResult(code, text)
    )


def _exit_code(client: DockerClient, made: str) -> int | None:
    """Docker knows it an instant after the output has ended."""
    for _ in range(20):
        code: int | None = client.api.exec_inspect(made)["ExitCode"]
        if code is not None:
            return code
        time.sleep(0.05)
    return None


def _end(client: DockerClient, made: str, container: str) -> None:
    """Kill a program that Docker itself cannot stop, and its children: else each check would add more.

    Best effort, and only if it is surely in that container: its process id is one of this machine.
    """
    pid = client.api.exec_inspect(made).get("Pid")
    with contextlib.suppress(OSError):
        if pid and container in Path(f"/proc/{pid}/cgroup").read_text():
            # Docker gives each command a session of its own.
            (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)
