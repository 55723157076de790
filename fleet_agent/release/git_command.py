"""Git as the agent runs it: no prompts, no hooks, no inherited settings, no network unless asked for.

GitPython starts the processes; what it cannot do (end a silent transfer, keep inherited `GIT_*` variables
out, tell Git's own account of a transfer from what the host says) is here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fleet_agent.config import git_url_problem
from fleet_agent.errors import FleetError, Kind, ReleaseError, config_invalid, tool_failed, tool_missing
from fleet_agent.release.limits import ANSWER_SIZE, DEFAULTS, too_large
from fleet_agent.support import processes
from fleet_agent.support.sizes import MIB

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
\tbigFileThreshold = 1m
\tpackedGitWindowSize = 16m
\tpackedGitLimit = 64m
[credential]
\thelper =
[gc]
\tauto = 0
[maintenance]
\tauto = false
[fetch]
\tunpackLimit = 1
\trecurseSubmodules = false
\turiProtocols =
[transfer]
\tbundleURI = false
[pack]
\tthreads = 1
\twindowMemory = 32m
\tdeltaCacheSize = 16m
[http]
\tfollowRedirects = false
[advice]
\tdetachedHead = false
"""
SETTINGS_FILE = "fleet.gitconfig"
_LOCAL_TIMEOUT_S = 300.0
#: How long a command may take to end when it is told no more.
_GOODBYE_S = 1.0
#: How often what a transfer has brought so far is looked at.
_LOOK_S = 0.1
#: Starts a program with limits that hold for all that it starts: KiB of address space, half KiB of a file.
_BOUNDED = 'ulimit -v "$1" 2>/dev/null; ulimit -f "$2" 2>/dev/null; shift 2; exec "$@"'
_COMMAND = re.compile(r"[a-z]+(-[a-z]+)*")
_LINE_END = re.compile(rb"[\r\n]")
OUT_OF_MEMORY = re.compile(r"out of memory|cannot allocate memory|too large to fit", re.IGNORECASE)
#: Before the host's own words.
_HOSTS = re.compile(r"remote:|fatal: remote error:")
#: What a transfer says is kept as evidence: so many lines, and characters of each.
LINES_KEPT = 40
LINE_LIMIT = 500
#: Git's own account of one transfer is a few kilobytes.
_TRACE_LIMIT = 4 * MIB


class GitCrashedError(ReleaseError):
    """Git crashed (`tool_failed`), which it does over damaged files of its repository."""


@dataclass(frozen=True)
class Output:
    """A finished command: exit status, standard output, standard error as text."""

    status: int
    out: bytes
    err: str


@dataclass
class Transfer:
    """A finished network command. `received_bytes` is what came in as packs.

    `overrun` is why it was ended, if it brought more than it may.
    """

    status: int = 0
    lines: list[str] = field(default_factory=list)
    received_bytes: int = 0
    timed_out: bool = False
    overrun: Exception | None = None

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    @property
    def own(self) -> str:
        """Only what our own Git said: what the host lacks, this device may have."""
        return "\n".join(line for line in self.lines if not _HOSTS.match(line))


#: Called with Git's own progress: what it is doing, and percent where known.
OnProgress = Callable[[str, float | None], None]
#: Called while data flows: why the transfer has to end, or None.
Overrun = Callable[[], Exception | None]


class GitCommand:
    """Runs git in one bare repository."""

    def __init__(self, repository: Path, *, memory: int = DEFAULTS.memory) -> None:
        self.repository = repository
        self._memory = memory
        self._git = _git_module().Git(repository)
        _forget_inherited_settings()

    def local(self, *arguments: str, stdin: bytes = b"", timeout_s: float = _LOCAL_TIMEOUT_S) -> Output:
        """Run a command that must not touch the network.

        Raises ReleaseError: `timed_out`; `release_too_large` if it needs more memory or answers more than a
        release may take; `tool_failed` if it was killed and so has said nothing, GitCrashedError if that was
        its own fault.
        """
        handle = self._start(arguments)
        process = handle.proc
        assert process is not None  # noqa: S101  a fresh handle always has its process
        output, bounds = processes.Output(ANSWER_SIZE), processes.Bounds(timeout_s, output=ANSWER_SIZE)
        try:
            exceeded = processes.follow(process, output, bounds, stdin)
        finally:
            if process.poll() is None:
                processes.kill(process)
        if exceeded == "time":
            sentence = f"git {arguments[0]} did not finish in {timeout_s:g} s."
            raise ReleaseError(Kind.TIMED_OUT, sentence, retryable=True)
        if exceeded is not None:
            raise too_large(f"the list of what it contains is longer than {ANSWER_SIZE // MIB} MiB")
        said = output.text("stderr")
        if process.returncode != 0 and OUT_OF_MEMORY.search(said):
            raise out_of_memory(self._memory, said)
        what = f"git {next((word for word in arguments if _COMMAND.fullmatch(word)), '')}".strip()
        by = processes.signal_of(process.returncode)
        phrase = processes.killed(what, by)
        if phrase is not None:
            kind = GitCrashedError if processes.crashed(by) else ReleaseError
            raise tool_failed(phrase, error=kind, evidence={"git": said.splitlines()[-4:]})
        return Output(process.returncode, output.whole("stdout"), said)

    @contextmanager
    def batch(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A long-running local command to talk with over its pipes; ended with the block."""
        handle = self._start(arguments)
        process = handle.proc
        assert process is not None  # noqa: S101
        try:
            yield process
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                # Nothing more is asked of it, so it ends by itself. To kill it takes a look at all processes.
                processes.close(process)
                process.wait(_GOODBYE_S)
        finally:
            if process.poll() is None:
                processes.kill(process)
            processes.close(process)

    def network(
        self,
        *arguments: str,
        transport: str,
        stdin: bytes = b"",
        idle_s: float,
        total_s: float,
        on_progress: OnProgress,
        file_size: int,
        overrun: Overrun,
    ) -> Transfer:
        """Run a command that talks to the host; ended when silent for `idle_s` or older than `total_s`.

        It uses `transport` only, also where it is redirected. No file that it writes gets larger than
        `file_size`; `overrun` is asked while it runs.
        """
        with _trace() as trace:
            # Git follows a redirect to any host: over https that is where the address may go anyway.
            follow = "initial" if transport == "https" else "false"
            command = ("-c", f"http.followRedirects={follow}", *arguments)
            handle = self._start(command, transport=transport, trace=trace, file_size=file_size)
            process = handle.proc
            assert process is not None  # noqa: S101
            watch = _Watch(on_progress, overrun)
            try:
                _feed(process, stdin)
                transfer = watch.follow(process, idle_s, total_s)
            finally:
                if process.poll() is None:
                    _end(process)
            transfer.status = process.wait()
            transfer.received_bytes = _received_bytes(trace)
        return transfer

    def _start(
        self,
        arguments: Sequence[str],
        *,
        transport: str | None = None,
        trace: int | None = None,
        file_size: int | None = None,
    ) -> git.Git.AutoInterrupt:
        program = shutil.which("git")
        if program is None:
            raise git_missing()
        # In blocks of 512 bytes.
        blocks = "unlimited" if file_size is None else str(max(file_size, 4096) // 512)
        bounds = ["/bin/sh", "-c", _BOUNDED, "sh", str(self._memory // 1024), blocks]
        try:
            command = processes.ending_with_us([*bounds, program, f"--git-dir={self.repository}", *arguments])
        except OSError as error:
            raise tool_failed(f"git cannot be started: {error.strerror}", error=ReleaseError) from error
        options = processes.bound_to_us()
        environment = self._environment(transport)
        if trace is not None:
            options["pass_fds"] = (*options["pass_fds"], trace)
            environment["GIT_TRACE2_EVENT"] = f"/proc/self/fd/{trace}"
        handle: git.Git.AutoInterrupt = self._git.execute(
            command,
            istream=subprocess.PIPE,
            as_process=True,
            with_stdout=transport is None,
            env=environment,
            **options,
        )
        return handle

    def _environment(self, transport: str | None) -> dict[str, str]:
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
            "GIT_ALLOW_PROTOCOL": transport or "none",
        }
        if transport is not None:
            base |= {
                "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=20 -oServerAliveInterval=15"
                " -oServerAliveCountMax=3 -oStrictHostKeyChecking=accept-new",
            }
        return base


class _Watch:
    """Reads what a transfer says on standard error: progress and complaints, the host's among them.

    All of it is words for people: none of it is counted, and what is kept of it is bounded.
    """

    def __init__(self, on_progress: OnProgress, overrun: Overrun) -> None:
        self._progress = _Progress(on_progress)
        self._overrun = overrun
        self._transfer = Transfer()
        self._rest = b""

    def follow(self, process: subprocess.Popen[bytes], idle_s: float, total_s: float) -> Transfer:
        assert process.stderr is not None  # noqa: S101
        started = heard = looked = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            while True:
                readable = selector.select(_LOOK_S)
                now = time.monotonic()
                if readable:
                    heard = now
                    chunk = os.read(process.stderr.fileno(), 65536)
                    if not chunk:
                        break
                    self._take(chunk)
                if now - looked >= _LOOK_S:
                    looked = now
                    self._transfer.overrun = self._overrun()
                    if self._transfer.overrun is not None:
                        break
                if now - heard >= idle_s or now - started >= total_s:
                    self._transfer.timed_out = True
                    break
        self._line(self._rest)
        return self._transfer

    def _take(self, chunk: bytes) -> None:
        *lines, rest = _LINE_END.split(self._rest + chunk)
        self._rest = rest[: 4 * LINE_LIMIT]
        for line in lines:
            self._line(line)

    def _line(self, raw: bytes) -> None:
        text = "".join(filter(str.isprintable, raw[: 4 * LINE_LIMIT].decode(errors="replace")))
        text = text.strip()[:LINE_LIMIT]
        if text and not self._progress.take(text):
            self._transfer.lines = [*self._transfer.lines[-LINES_KEPT + 1 :], text]


@contextmanager
def _trace() -> Iterator[int]:
    """Where Git writes its own account of a transfer: memory that only what we start has open.

    The host's words never get there but as a string inside an event, so they cannot look like one.
    """
    handle = os.memfd_create("git-trace")
    try:
        yield handle
    finally:
        os.close(handle)


def _received_bytes(trace: int) -> int:
    """The sizes of the packs that came in, as Git's own processes report them."""
    names: dict[str, str] = {}
    received = 0
    for line in os.pread(trace, _TRACE_LIMIT, 0).splitlines():
        try:
            event = json.loads(line)
            if event["event"] == "cmd_name":
                names[event["sid"]] = event["name"]
            elif event.get("key") == "total_bytes" and names.get(event["sid"]) in (
                "index-pack",
                "unpack-objects",
            ):
                received += int(event["value"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a line that was cut off; the count is for people
    return received


def out_of_memory(limit: int, said: str) -> ReleaseError:
    """The error for a Git process that reached its limit of memory."""
    return too_large(
        f"Git would need more than {limit // MIB} MiB of memory for it",
        evidence={"git": [line for line in said.splitlines() if line][-5:]},
    )


def check_url(url: str) -> None:
    """Refuse what the agent does not fetch from. Raises ReleaseError (`config_invalid`)."""
    problem = git_url_problem(url)
    if problem is not None:
        hint = "Use https://, ssh://, git:// or file:// in device.json."
        raise config_invalid("git_url", problem, hint=hint, error=ReleaseError)


def protocol(url: str) -> str:
    """What Git calls the transport of an address that `check_url` accepted."""
    if url.startswith("/"):
        return "file"
    return url.partition("://")[0] if "://" in url else "ssh"


def without_secrets(text: str) -> str:
    """`text` with the user and password of every URL in it left out."""

    return re.sub(r"://[^\s'\"/]*@", "://", text)


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


class _Progress:
    """Git's progress, for people. The host's own may say anything, so it only moves forward."""

    _LINE = re.compile(
        r"(?:remote: )?(Enumerating|Counting|Compressing|Receiving|Resolving) (?:objects|deltas): +"
        r"(?:\d{1,18}|(\d{1,3})% \(\d{1,18}/\d{1,18}\))"
        r"(?:, (\d{1,6}(?:\.\d{1,6})? \w{3,5}(?: \| \d{1,6}(?:\.\d{1,6})? \w{3,5}/s)?))?(?:, done)?[.,]?"
    )
    _NAMES: ClassVar = {
        "Enumerating": "counting objects",
        "Counting": "counting objects",
        "Compressing": "compressing objects",
        "Receiving": "receiving objects",
        "Resolving": "resolving deltas",
    }

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._furthest = (-1, -1)

    def take(self, text: str) -> bool:
        """Report it if it is progress, and further than before; False if it is not progress."""
        found = self._LINE.fullmatch(text)
        if found is None:
            return False
        word, percent, amount = found.groups()
        known = None if percent is None else min(int(percent), 100)
        now = (list(self._NAMES).index(word), -1 if known is None else known)
        if now > self._furthest:
            self._furthest = now
            self._on_progress(f"{self._NAMES[word]} {amount or ''}".strip(), known)
        return True


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
