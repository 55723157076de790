"""Git as the agent runs it: no prompts, no hooks, no inherited settings, no network unless asked for.

GitPython starts the processes and reads their progress; what it cannot do (end a silent transfer, keep
inherited `GIT_*` variables out) is here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from fleet_agent.errors import FleetError, Kind, ReleaseError, config_invalid, tool_missing
from fleet_agent.support import processes

if TYPE_CHECKING:
    import git

#: Git's own settings for everything the agent runs; a file, because a local upload-pack drops `-c` options.
SETTINGS = """\
# Written by fleet-agent before each use.
[safe]
\tdirectory = *
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\taskPass =
\tattributesFile = /dev/null
\tdeltaBaseCacheLimit = 16m
[credential]
\thelper =
[gc]
\tauto = 0
[maintenance]
\tauto = false
[fetch]
\tunpackLimit = 1
\trecurseSubmodules = false
[pack]
\tthreads = 1
\twindowMemory = 32m
[http]
\tfollowRedirects = initial
[advice]
\tdetachedHead = false
"""
SETTINGS_FILE = "fleet.gitconfig"
_LOCAL_TIMEOUT_S = 300.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_LINE_END = re.compile(rb"[\r\n]")


@dataclass(frozen=True)
class Output:
    """A finished command: exit status, standard output, standard error as text."""

    status: int
    out: bytes
    err: str


@dataclass
class Transfer:
    """A finished network command. `received_bytes` is what came in as packs."""

    status: int = 0
    lines: list[str] = field(default_factory=list)
    received_bytes: int = 0
    timed_out: bool = False

    @property
    def said(self) -> str:
        return "\n".join(self.lines)


#: Called with Git's own progress: what it is doing, and percent where known.
OnProgress = Callable[[str, float | None], None]


class GitCommand:
    """Runs git in one bare repository."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self._git = _git_module().Git(repository)
        _forget_inherited_settings()

    def local(self, *arguments: str, stdin: bytes = b"", timeout_s: float = _LOCAL_TIMEOUT_S) -> Output:
        """Run a command that must not touch the network. Raises ReleaseError (`timed_out`)."""
        handle = self._start(arguments, network=False)
        process = handle.proc
        assert process is not None  # noqa: S101  a fresh handle always has its process
        try:
            out, err = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            processes.kill(process)
            raise ReleaseError(
                Kind.TIMED_OUT, f"git {arguments[0]} did not finish in {timeout_s:g} s.", retryable=True
            ) from error
        return Output(process.returncode, out, err.decode(errors="replace"))

    @contextmanager
    def batch(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A long-running local command to talk with over its pipes; ended with the block."""
        handle = self._start(arguments, network=False)
        process = handle.proc
        assert process is not None  # noqa: S101
        try:
            yield process
        finally:
            processes.kill(process)

    def network(
        self,
        *arguments: str,
        stdin: bytes = b"",
        idle_s: float,
        total_s: float,
        on_progress: OnProgress,
    ) -> Transfer:
        """Run a command that talks to the host; ended when silent for `idle_s` or older than `total_s`."""
        handle = self._start(arguments, network=True)
        process = handle.proc
        assert process is not None  # noqa: S101
        watch = _Watch(on_progress)
        try:
            _feed(process, stdin)
            transfer = watch.follow(process, idle_s, total_s)
        finally:
            if process.poll() is None:
                _end(process)
        transfer.status = process.wait()
        return transfer

    def _start(self, arguments: Sequence[str], *, network: bool) -> git.Git.AutoInterrupt:
        try:
            command = processes.ending_with_us(["git", f"--git-dir={self.repository}", *arguments])
        except FileNotFoundError as error:
            raise git_missing() from error
        handle: git.Git.AutoInterrupt = self._git.execute(
            command,
            istream=subprocess.PIPE,
            as_process=True,
            with_stdout=not network,
            env=self._environment(network=network),
            **processes.bound_to_us(),
        )
        return handle

    def _environment(self, *, network: bool) -> dict[str, str]:
        base = {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self.repository / SETTINGS_FILE),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "SSH_ASKPASS_REQUIRE": "never",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            # A partial clone would otherwise fetch what it misses in the middle of reading.
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ALLOW_PROTOCOL": "none",
        }
        if network:
            base |= {
                "GIT_ALLOW_PROTOCOL": "file:https:http:ssh:git",
                "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=20 -oServerAliveInterval=15"
                " -oServerAliveCountMax=3 -oStrictHostKeyChecking=accept-new",
                # Exact byte counts; they arrive on standard error between the progress lines.
                "GIT_TRACE2_EVENT": "2",
            }
        return base


class _Watch:
    """Reads what a transfer says on standard error: progress, counts, complaints."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._progress = _progress_parser(on_progress)
        self._names: dict[str, str] = {}
        self._transfer = Transfer()
        self._rest = b""

    def follow(self, process: subprocess.Popen[bytes], idle_s: float, total_s: float) -> Transfer:
        assert process.stderr is not None  # noqa: S101
        end = time.monotonic() + total_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            while True:
                patience = min(idle_s, end - time.monotonic())
                if patience <= 0 or not selector.select(patience):
                    self._transfer.timed_out = True
                    break
                chunk = os.read(process.stderr.fileno(), 65536)
                if not chunk:
                    break
                self._take(chunk)
        if self._rest:
            self._line(self._rest)
        return self._transfer

    def _take(self, chunk: bytes) -> None:
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._line(line)

    def _line(self, raw: bytes) -> None:
        text = raw.decode(errors="replace").strip()
        start = text.find('{"event":')
        if start != -1 and text.endswith("}"):
            self._event(text[start:])
            text = text[:start].strip()
        if not text:
            return
        before = len(self._progress.other_lines) + len(self._progress.error_lines)
        self._progress.new_message_handler()(text)
        if before < len(self._progress.other_lines) + len(self._progress.error_lines):
            self._transfer.lines = [*self._transfer.lines[-40:], text]

    def _event(self, text: str) -> None:
        try:
            event: dict[str, Any] = json.loads(text)
        except ValueError:
            return
        if event["event"] == "cmd_name":
            self._names[event["sid"]] = event["name"]
        elif event.get("key") == "total_bytes" and self._names.get(event["sid"]) in (
            "index-pack",
            "unpack-objects",
        ):
            self._transfer.received_bytes += int(event["value"])


def check_url(url: str) -> None:
    """Refuse what the agent does not fetch from. Raises ReleaseError (`config_invalid`).

    Plain http only to this machine: content is signed, but which release one is offered would be readable.
    """
    scp_like = re.fullmatch(r"[\w.-]+@[\w.-]+:[^:].*", url) is not None
    parts = urlsplit(url)
    allowed = scp_like or url.startswith("/") or parts.scheme in ("file", "https", "ssh", "git")
    if not allowed and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise config_invalid(
            "git_url",
            f"releases cannot be fetched from {without_secrets(url)!r}",
            hint="Use https://, ssh://, git:// or file:// in device.json.",
            error=ReleaseError,
        )
    if any(character in url for character in '\n\r\0"\\'):
        raise config_invalid("git_url", "it contains characters that are not allowed", error=ReleaseError)


def without_secrets(text: str) -> str:
    """`text` with the user and password of every URL in it left out."""

    def hide(match: re.Match[str]) -> str:
        parts = urlsplit(match[0])
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, parts.query, parts.fragment))

    return re.sub(r"\w+://[^\s'\"]*@[^\s'\"]+", hide, text)


def git_missing() -> FleetError:
    return tool_missing("git", "git", error=ReleaseError)


def _git_module() -> Any:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import git

    if not git.Git.GIT_PYTHON_GIT_EXECUTABLE:
        raise git_missing()
    return git


def _forget_inherited_settings() -> None:
    """A GIT_DIR or GIT_CONFIG_* from a surrounding shell or hook must not redirect the agent's Git."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        if not name.startswith("GIT_PYTHON_"):
            del os.environ[name]


def _progress_parser(on_progress: OnProgress) -> git.RemoteProgress:
    from git import RemoteProgress

    names = {
        RemoteProgress.COUNTING: "counting objects",
        RemoteProgress.COMPRESSING: "compressing objects",
        RemoteProgress.RECEIVING: "receiving objects",
        RemoteProgress.RESOLVING: "resolving deltas",
    }

    class Parser(RemoteProgress):
        seen = ("", -1)

        def update(
            self,
            op_code: int,
            cur_count: str | float,
            max_count: str | float | None = None,
            message: str = "",
        ) -> None:
            name = names.get(op_code & self.OP_MASK, "working")
            percent = 100 * float(cur_count) / float(max_count) if max_count else None
            now = (name, -1 if percent is None else int(percent))
            if now != self.seen:
                self.seen = now
                on_progress(f"{name} {message}".strip(), percent)

    return Parser()


def _feed(process: subprocess.Popen[bytes], stdin: bytes) -> None:
    assert process.stdin is not None  # noqa: S101
    try:
        process.stdin.write(stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended early; standard error tells why


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask git to stop, so that it removes its temporary files; then insist, and end its helpers."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    processes.kill(process)
