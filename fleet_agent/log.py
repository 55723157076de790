"""The log, set up once at the entry point: standard error (journald), and a short memory for the dashboard.

Secrets reach neither: every finished line is redacted, wherever the secret came from.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections import deque
from datetime import UTC
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message

#: Warnings and errors that `device_status.log_tail` shows.
RING_SIZE = 20
#: Characters kept of one remembered message; the row is sent with the next change of status.
RING_MESSAGE_LIMIT = 300

_SECRETS = re.compile(
    r"""
      \beyJ[\w-]{8,4000}\.[\w-]{1,9000}\.[\w-]*  # a JWT or a signed assertion
    | \bsb_secret_[\w-]+                      # a service key
    | \bfpt_[\w-]{8,}                         # a provisioning token
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)         # user:password in an address
    | (?i:(?<=bearer\s)[\w.~+/-]{16,}=*)
    """,
    re.VERBOSE,
)
#: journald's priorities (sd-daemon): a line that starts with one is filed under it.
_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


def redact(text: str) -> str:
    """Replace what looks like a secret."""
    return _SECRETS.sub("[redacted]", text)


class Ring:
    """The last warnings and errors, newest last."""

    def __init__(self, size: int = RING_SIZE) -> None:
        self._entries: deque[dict[str, str]] = deque(maxlen=size)

    def __call__(self, message: Message) -> None:
        record = message.record
        text = redact(record["message"])
        self._entries.append(
            {
                "at": record["time"].astimezone(UTC).isoformat(timespec="seconds"),
                "level": record["level"].name.lower(),
                "message": text[:RING_MESSAGE_LIMIT],
            }
        )

    def entries(self) -> list[dict[str, str]]:
        return list(self._entries)


class _ToLoguru(logging.Handler):
    """Libraries log through `logging`; their warnings go to the same stream, redacted."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in _PRIORITY else record.levelno
        logger.opt(exception=record.exc_info).log(level, "{} {}", record.name, record.getMessage())


class Log:
    """The process's log: `ring` for the dashboard, `set_level` for a changed configuration."""

    def __init__(self, level: str) -> None:
        self.ring = Ring()
        self._under_journald = "JOURNAL_STREAM" in os.environ
        self._handler: int | None = None
        self._level = ""
        self.set_level(level)
        logger.add(self.ring, level="WARNING", format="{message}", diagnose=False, backtrace=False)

    def set_level(self, level: str) -> None:
        if level == self._level:
            return
        if self._handler is not None:
            logger.remove(self._handler)
        clock = "" if self._under_journald else "{time:YYYY-MM-DDTHH:mm:ss.SSSZZ} "
        # diagnose prints the values of variables into tracebacks, keys included.
        self._handler = logger.add(
            self._write, level=level, format=clock + "{level: <7} {message}", diagnose=False, backtrace=False
        )
        self._level = level

    def _write(self, message: Message) -> None:
        line = redact(str(message))
        if self._under_journald:
            line = f"<{_PRIORITY.get(message.record['level'].name, 6)}>{line}"
        sys.stderr.write(line)
        sys.stderr.flush()


def set_up(level: str = "INFO") -> Log:
    """Send the log to standard error and remember warnings. Call once a process, at its entry point."""
    logger.remove()
    log = Log(level)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)
    # They log at ERROR what the subscription handles and logs itself, once, with the backoff.
    for noisy in ("realtime", "websockets"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    return log
