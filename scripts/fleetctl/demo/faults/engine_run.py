"""The update engine as the process that devices run, watched from outside, and killed on request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fleet_agent.engine.config import EngineConfig
from fleet_agent.model import Directive, EngineStatus, Progress

CHECKOUT = Path(__file__).resolve().parents[4]
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Line:
    """One line of the engine's, and when it was read (monotonic seconds)."""

    at: float
    phase: str
    detail: str = ""


@dataclass
class EngineRun:
    """One run of the engine. `status` is None if it was killed or failed."""

    began: float
    ended: float = 0.0
    exit_code: int | None = None
    status: EngineStatus | None = None
    error: str = ""
    progress: list[Line] = field(default_factory=list)
    log: list[Line] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def killed(self) -> bool:
        return self.exit_code == -signal.SIGKILL

    def entered(self, phase: str) -> float | None:
        """When it first reported `phase`."""
        return next((line.at for line in self.progress if line.phase == phase), None)

    def left(self, phase: str) -> float | None:
        """When it first reported another phase after `phase`."""
        since = self.entered(phase)
        if since is None:
            return None
        return next((line.at for line in self.progress if line.at > since and line.phase != phase), None)

    def logged(self, text: str) -> float | None:
        """When its log first had `text`."""
        return next((line.at for line in self.log if text in line.detail), None)

    def spent_in(self, phase: str) -> float | None:
        """Seconds in `phase`, or None if it was not seen to begin and end."""
        since, until = self.entered(phase), self.left(phase)
        return None if since is None or until is None else until - since


def run_engine(
    config: EngineConfig,
    directive: Directive | None = None,
    *,
    kill_in: str | None = None,
    environment: Mapping[str, str] | None = None,
    on_progress: OnProgress = lambda progress: None,
    started: Callable[[int], None] = lambda pid: None,
    before_reaping: Callable[[int], None] = lambda pid: None,
) -> EngineRun:
    """Run it to its end: `converge` with a directive, else `recover`.

    `kill_in` sends SIGKILL as soon as it reports that phase. `started` and `before_reaping` are given its
    process id, the latter when it has ended and its figures in /proc are still there.
    """
    run = EngineRun(began=time.monotonic())
    process, stdin, stdout, stderr = _start(environment or {})
    started(process.pid)
    log = threading.Thread(target=_read_log, args=(stderr, run.log), daemon=True)
    log.start()
    stdin.write(json.dumps(_request(config, directive)).encode() + b"\n")
    stdin.close()
    if _read_answers(stdout, run, on_progress, until=kill_in):
        process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    run.ended = time.monotonic()
    before_reaping(process.pid)
    run.exit_code = process.wait()
    # A child of a killed engine may hold the pipe a moment longer; nothing in it matters any more.
    log.join(timeout=2)
    stdout.close()
    return run


def _start(
    environment: Mapping[str, str],
) -> tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes], IO[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet_agent.engine"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=CHECKOUT, env={**os.environ, **environment},
    )  # fmt: skip
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise RuntimeError("Popen was asked for three pipes")
    return process, process.stdin, process.stdout, process.stderr


def _request(config: EngineConfig, directive: Directive | None) -> dict[str, object]:
    return {
        "verb": "converge" if directive else "recover",
        "config": config.model_dump(mode="json"),
        "directive": directive.model_dump(mode="json") if directive else None,
    }


def _read_answers(pipe: IO[bytes], run: EngineRun, on_progress: OnProgress, *, until: str | None) -> bool:
    """Fill `run` until the engine closes its output; True at once when it reports the phase `until`."""
    for raw in pipe:
        line = json.loads(raw)
        if "done" in line:
            run.status = EngineStatus.model_validate(line["done"])
        elif "error" in line:
            run.error = f"{line['error']['kind']}: {line['error']['message']}"
        else:
            progress = Progress.model_validate(line)
            run.progress.append(Line(time.monotonic(), progress.phase, progress.detail))
            on_progress(progress)
            if progress.phase == until:
                return True
    return False


def _read_log(pipe: IO[bytes], log: list[Line]) -> None:
    for raw in pipe:
        log.append(Line(time.monotonic(), "", raw.decode(errors="replace").rstrip()))
