"""What time it is, on a machine whose clock may have no battery.

The server's time, once heard, is carried forward with the monotonic clock and wins over the local one. Before
that, the time is the later of the local clock and a floor on disk: the last server time written there. The
floor is written rarely (once a day), so an idle device writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loguru import logger

from fleet_agent.errors import StateError, clock_off
from fleet_agent.model import EARLIEST, LATEST, Frozen
from fleet_agent.support import atomic_files

#: How old the floor may grow before it is written again.
FLOOR_REFRESH = timedelta(days=1)
#: A clock that is off by this much is worth a warning: certificates and tokens start to fail.
SKEW_WARNING = timedelta(minutes=2)
#: A clock that is off by this much is reported as a problem of the device.
FAR_OFF = timedelta(days=1)
#: A clock further ahead than this of when the control plane was last heard is suspect, though perhaps right.
FAR_AHEAD = timedelta(days=30)


def boottime() -> float:
    """Seconds since boot, counting time asleep: the right clock for "how long ago did the server say"."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def local_now() -> datetime:
    return datetime.now(UTC)


class Heard(Frozen):
    """The control plane's time, and the seconds since boot at which it was heard: good for every process."""

    server_time: datetime
    boot_s: float


class Clock:
    def __init__(
        self,
        floor_file: Path,
        *,
        local: Callable[[], datetime] = local_now,
        monotonic: Callable[[], float] = boottime,
    ) -> None:
        self._file = floor_file
        self._local = local
        self._monotonic = monotonic
        self._floor = _read(floor_file)
        self._heard: Heard | None = None
        self._warned = False

    def now(self) -> datetime:
        """The best known time, aware, UTC."""
        if self._heard is not None:
            return self._heard.server_time + timedelta(seconds=self._monotonic() - self._heard.boot_s)
        local = self._local()
        return local if self._floor is None else max(local, self._floor)

    def monotonic(self) -> float:
        """Seconds for durations; never set back, counts sleep."""
        return self._monotonic()

    def local(self) -> datetime:
        """The machine's own clock, right or wrong: `device_status.device_time`."""
        return self._local()

    def observe(self, server_time: datetime) -> None:
        """Take the server's time as the truth; warns once if the local clock is far off."""
        if not EARLIEST <= server_time <= LATEST:
            logger.warning("ignoring the control plane's time, {at}: it cannot be right", at=server_time)
            return
        server_time = server_time.astimezone(UTC)
        self._heard = Heard(server_time=server_time, boot_s=self._monotonic())
        skew = self.skew()
        if skew is not None and abs(skew) >= SKEW_WARNING and not self._warned:
            self._warned = True
            logger.warning("{problem}", problem=clock_off(skew))
        elif skew is not None and abs(skew) < SKEW_WARNING:
            self._warned = False
        self._keep(server_time)

    @property
    def heard(self) -> Heard | None:
        """For a child process that should use the same time; see `carry_on`."""
        return self._heard

    def carry_on(self, heard: Heard | None) -> None:
        """Use what the parent process heard since this boot."""
        self._heard = heard

    def skew(self) -> timedelta | None:
        """How far the local clock is ahead of the server's; None before the server was heard."""
        return None if self._heard is None else self._local() - self.now()

    def is_implausible(self) -> bool:
        """Whether the local clock is known to be wrong: behind the floor, or far from the server's time."""
        skew = self.skew()
        if skew is not None:
            return abs(skew) >= SKEW_WARNING
        return self._floor is not None and self._local() < self._floor

    def may_be_ahead(self) -> bool:
        """Whether an expired certificate is probably this clock's fault: far past the last known time."""
        if self._heard is not None or self._floor is None:
            return False
        return self._local() > self._floor + FAR_AHEAD

    def _keep(self, server_time: datetime) -> None:
        if self._floor is not None and server_time < self._floor + FLOOR_REFRESH:
            return
        self._floor = server_time
        try:
            atomic_files.write_atomic(self._file, server_time.isoformat().encode())
        except StateError as error:
            logger.warning("cannot save the last known time: {error}", error=error)


def _read(file: Path) -> datetime | None:
    try:
        floor = datetime.fromisoformat(file.read_text().strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("ignoring {file}, which cannot be read: {error}", file=file, error=error)
        return None
    floor = floor if floor.tzinfo else floor.replace(tzinfo=UTC)
    if not EARLIEST <= floor <= LATEST:
        logger.warning("ignoring {file}: {at} cannot be right", file=file, at=floor)
        return None
    return floor
