"""How the daemon keeps its memory small (the figures are in docs/usage/agent.md)."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys


def leave_out() -> None:
    """Call before anything heavy is imported: libraries load these wherever they are installed.

    httpcore loads HTTP/2 (postgrest asks for it; this client speaks HTTP/1.1), httpx its own command line.
    """
    for name in ("h2", "click"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def keep_small() -> None:
    """Call when everything is imported: one malloc arena, and what stays forever is not collected again."""
    with contextlib.suppress(OSError, AttributeError):
        arena_max, keep_free = -8, -1
        library = ctypes.CDLL(None)
        library.mallopt(arena_max, 1)
        library.mallopt(keep_free, 64 * 1024)
    gc.collect()
    gc.freeze()
    trim()


def trim() -> None:
    """Return unused memory: a process that idles for an hour should not keep its peak."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
