"""Search lines for a regular expression that a release declares, within bounds.

Python's own search of a pattern such as `(a+)+$` can take longer than the universe has, holds the interpreter
meanwhile, and can fill the memory; so it happens in a process of its own.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence

from fleet_agent.support import pattern_matcher, processes
from fleet_agent.support.sizes import MIB

#: Seconds of processor time for all lines of one look, and of waiting for it on a busy machine.
TIME_S, PATIENCE_S = 5, 120
MEMORY = 128 * MIB


class PatternTooSlowError(Exception):
    """The pattern was not done with these lines within its bounds."""


def matching(pattern: str, lines: Sequence[str]) -> list[int]:
    """The numbers of the lines in which `pattern` is found. Raises PatternTooSlowError, or OSError."""
    if not lines:
        return []
    command = [sys.executable, "-I", "-S", pattern_matcher.__file__, str(TIME_S)]
    asked = json.dumps({"pattern": pattern, "lines": list(lines)}).encode()
    try:
        done = processes.run(command, bounds=processes.Bounds(PATIENCE_S, MEMORY, 4 * MIB), stdin=asked)
    except processes.StoppedError as error:
        raise PatternTooSlowError(error.why) from error
    if done.killed_by == signal.SIGXCPU:
        raise PatternTooSlowError(f"was not done after {TIME_S} s of processor time")
    if done.exit_code != 0:
        # Killed for lack of memory, for example: another time it may do.
        raise OSError(0, f"the search ended with exit code {done.exit_code}")
    found: list[int] = json.loads(done.stdout)
    return found
