"""How long tests wait for what has to happen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

#: Ends a test only if something hangs, however busy the machine is.
PATIENCE_S = 300.0


@contextmanager
def patient_http() -> Iterator[None]:
    """httpx gives up after 5 seconds if it is not told otherwise: too early for a busy machine."""
    from httpx import _config

    default = _config.DEFAULT_TIMEOUT_CONFIG
    before = default.as_dict()
    for name in before:
        setattr(default, name, PATIENCE_S)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(default, name, value)
