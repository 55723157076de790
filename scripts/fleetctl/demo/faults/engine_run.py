"""The update engine as the process that devices run, watched from outside, and killed where asked."""

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
Say = Callable[[Progress], None]


@dataclass(frozen=True)
class Told:
    """One line, and when it was read (monotonic seconds)."""

    at: float
    phase: str
    detail: str = ""


@dataclass
class EngineRun:
    """One run of the engine. `status` is None where it was killed or ended with an error."""

    began: float
    ended: float = 0.0
    exit_code: int | None = None
    status: EngineStatus | None = None
    problem: str = ""
    told: list[Told] = field(default_factory=list)
    log: list[Told] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def killed(self) -> bool:
        return self.exit_code == -signal.SIGKILL

    def entered(self, phase: str) -> float | None:
        """When it first said that it is in `phase`."""
        return next((line.at for line in self.told if line.phase == phase), None)

    def left(self, phase: str) -> float | None:
        """When it first said to be in another phase after `phase`."""
        since = self.entered(phase)
        if since is None:
            return None
        return next((line.at for line in self.told if line.at > since and line.phase != phase), None)

    def logged(self, text: str) -> float | None:
        """When its log first had `text`."""
        return next((line.at for line in self.log if text in line.detail), None)

    def spent_in(self, phase: str) -> float | None:
        """Seconds in `phase`, or None where it was never seen to begin and end."""
        since, until = self.entered(phase), self.left(phase)
        return None if since is None or until is None else until - since


def run_engine(
    config: EngineConfig,
    directive: Directive | None = None,
    *,
    kill_in: str | None = None,
    environment: Mapping[str, str] | None = None,
    say: Say | None = None,
    started: Callable[[int], None] | None = None,
    before_reaping: Callable[[int], None] | None = None,
) -> EngineRun:
    """Run it to its end: `converge` with a directive, else `recover`.

    `kill_in` sends SIGKILL as soon as it says that it is in that phase. `started` and `before_reaping` are
    given its process id, the latter when it has ended and its figures in /proc are still there.
    """
    request = {
        "verb": "converge" if directive else "recover",
        "config": config.model_dump(mode="json"),
        "directive": directive.model_dump(mode="json") if directive else None,
    }
    run = EngineRun(began=time.monotonic())
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet_agent.engine"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=CHECKOUT, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise RuntimeError("Popen was asked for three pipes")
    if started is not None:
        started(process.pid)
    listener = threading.Thread(target=_listen, args=(stderr, run.log), daemon=True)
    listener.start()
    stdin.write(json.dumps(request).encode() + b"\n")
    stdin.close()
    for raw in stdout:
        line = json.loads(raw)
        if "done" in line:
            run.status = EngineStatus.model_validate(line["done"])
        elif "error" in line:
            run.problem = f"{line['error']['kind']}: {line['error']['message']}"
        else:
            progress = Progress.model_validate(line)
            run.told.append(Told(time.monotonic(), progress.phase, progress.detail))
            if say is not None:
                say(progress)
            if progress.phase == kill_in:
                process.kill()
                break
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    run.ended = time.monotonic()
    if before_reaping is not None:
        before_reaping(process.pid)
    run.exit_code = process.wait()
    # A child of a killed engine may hold the pipe a moment longer; what it says is of no interest.
    listener.join(timeout=2)
    stdout.close()
    return run


def _listen(pipe: IO[bytes], log: list[Told]) -> None:
    for raw in pipe:
        log.append(Told(time.monotonic(), "", raw.decode(errors="replace").rstrip()))
