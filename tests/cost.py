"""What a command costs: seconds on the wall, and processor seconds of it and of all that it started.

    python -m tests.cost COMMAND ...             # one command, here
    python -m tests.cost --base COMMIT make unit # in a checkout of COMMIT, then here: the two in one sitting

Orphans count, too: this process adopts them. What a daemon does on request does not (containers of Docker).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    exit_code: int
    wall_s: float
    processor_s: float

    def __str__(self) -> str:
        failed = f", exit code {self.exit_code}" if self.exit_code else ""
        return f"{self.wall_s:.1f} s on the wall, {self.processor_s:.1f} processor seconds{failed}"


def measure(command: list[str], folder: Path = ROOT) -> Cost:
    """Run `command` to its end. What it leaves running is counted up to now, and stays."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began, before = time.monotonic(), _reaped_s()
    process = subprocess.Popen(command, cwd=folder)
    # Ctrl-C is the command's to handle.
    handled = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = _wait_for(process.pid)
    finally:
        signal.signal(signal.SIGINT, handled)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - began
    return Cost(process.returncode, wall_s, _reaped_s() - before + _running_s())


def _wait_for(pid: int) -> int:
    """Wait for every child, adopted ones too, until `pid` has ended and no other has."""
    found = 0
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            found = status
            break
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    return found


def _reaped_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _running_s() -> float:
    """What our living descendants, and those that they waited for, have used."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        seconds[pid] = sum(int(ticks) for ticks in fields[11:15]) / _TICKS

    def is_ours(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == os.getpid():
                return True
        return False

    return sum(used for pid, used in seconds.items() if is_ours(pid))


def compare(base: str, command: list[str]) -> tuple[Cost, Cost]:
    """`command` in a checkout of `base` with an environment of its own, then here."""
    with tempfile.TemporaryDirectory(prefix="fleet-base-") as parent:
        checkout = Path(parent) / "checkout"
        _git("worktree", "add", "--quiet", "--detach", str(checkout), base)
        try:
            # As root, tests run PostgreSQL as another user.
            Path(parent).chmod(0o755)
            for folder in (checkout, ROOT):
                subprocess.run(["make", "setup"], cwd=folder, check=True)
            return measure(command, checkout), measure(command)
        finally:
            _git("worktree", "remove", "--force", str(checkout))


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cost", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--base", metavar="COMMIT", help="run it in a checkout of this commit, too, and first"
    )
    parser.add_argument(
        "--at-most", type=float, metavar="RATIO", help="fail if it is dearer than base by more"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document as the last line")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("name a command")
    if options.base is None:
        here = measure(options.command)
        print(json.dumps(vars(here)) if options.json else f"cost: {here}")
        return here.exit_code
    base, here = compare(options.base, options.command)
    ratio = here.processor_s / base.processor_s if base.processor_s else 1.0
    if options.json:
        print(json.dumps({"base": vars(base), "here": vars(here), "ratio": ratio}))
    else:
        print(f"cost of {options.base}: {base}\ncost here: {here}\nhere / {options.base}: {ratio:.2f}")
    if options.at_most is not None and ratio > options.at_most:
        print(f"cost: dearer than allowed, {ratio:.2f} > {options.at_most}")
        return 1
    return here.exit_code


if __name__ == "__main__":
    sys.exit(main())
