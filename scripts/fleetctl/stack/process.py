"""Processes that the stack owns: started, logged, stopped, and recognized again after a crash."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, cast

import psutil  # type: ignore[import-untyped]  # ships no types

from fleet_agent.support.processes import surely_ending_with_us

LOG_BYTES = 10_000_000
LOG_KEPT = 4

# Two readings of one process's start may differ by the clock's correction; two processes that share an id
# are at least one whole cycle of ids apart.
_SAME_START_S = 2.0


@dataclass(frozen=True)
class Identity:
    """A process that we started: its id alone may by now belong to a stranger."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of a living process, or None."""
        try:
            return cls(pid, float(psutil.Process(pid).create_time()))
        except psutil.Error:
            return None

    @classmethod
    def parse(cls, value: object) -> Identity | None:
        """From a state file's JSON; None when it is not one."""
        match value:
            case {"pid": int(pid), "started": float(started)}:
                return cls(pid, started)
        return None

    def process(self) -> psutil.Process | None:
        """The same process if it still runs, else None (also when the id went to another one)."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > _SAME_START_S:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.Error:
            return None

    def stop(self, first: signal.Signals, *, timeout_s: float) -> bool:
        """Ask with `first`, then kill. True if it ran. Never touches a process that is not this one."""
        process = self.process()
        if process is None:
            return False
        with contextlib.suppress(psutil.Error):
            process.send_signal(first)
        if not self.wait(timeout_s):
            with contextlib.suppress(psutil.Error):
                process.kill()
            self.wait(10)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until the process has ended; False if it still runs after `timeout_s`.

        One that its parent has not collected yet has ended: psutil's own wait would wait for that parent.
        """
        deadline = time.monotonic() + timeout_s
        while self.process() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


class Child:
    """A running child whose output goes, line by line, into a rotated log file."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        dies_with_us: signal.Signals = signal.SIGTERM,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches only us and we stop things in order.

        `dies_with_us` is what Linux sends the child when this process is killed.
        """
        self.name = name
        self._on_line = on_line
        self._process = subprocess.Popen(
            surely_ending_with_us(argv, dies_with_us, user=user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        self.identity = Identity.of(self._process.pid) or Identity(self._process.pid, 0.0)
        self._pump = threading.Thread(target=self._copy_output, args=(log,), daemon=True, name=f"log-{name}")
        self._pump.start()

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, or None if it still runs after `timeout_s`."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._pump.join(2)
        return code

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def stop(self, first: signal.Signals = signal.SIGTERM, *, timeout_s: float = 20) -> int:
        """Ask with `first`, kill after `timeout_s`; return the exit code."""
        self.send(first)
        code = self.wait(timeout_s)
        if code is None:
            self.send(signal.SIGKILL)
            code = self._process.wait()
        return code

    def _copy_output(self, log: Path) -> None:
        stream = cast("IO[bytes]", self._process.stdout)
        writer = rotating_log(f"fleet.child.{self.name}", log, "%(message)s")
        for line in stream:
            text = line.decode(errors="replace").rstrip("\n")
            writer.info(text)
            if self._on_line is not None:
                self._on_line(text)


def rotating_log(name: str, path: Path, form: str) -> logging.Logger:
    """A logger that writes `path` (mode 0600), at most LOG_KEPT older files of LOG_BYTES beside it."""
    logger = logging.getLogger(f"{name}.{path}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    # A full disk costs log lines, never the stack.
    logging.raiseExceptions = False
    if not logger.handlers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_KEPT, encoding="utf-8")
        handler.setFormatter(logging.Formatter(form))
        logger.addHandler(handler)
    return logger


def last_lines(path: Path, count: int = 12) -> str:
    """The end of a log, for an error's text."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return ""
