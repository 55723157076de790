"""What this machine reports about itself, from /proc and /sys. Missing facts are left out, never guessed."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5


@dataclass
class Machine:
    """Reads the kernel's files; `disk` is the folder whose file system is reported.

    `cpu_percent` is the share over the time since the previous call, so the first call leaves it out.
    """

    disk: Path
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")
    _cpu: tuple[int, int] | None = None

    def resources(self) -> dict[str, Any]:
        """`device_status.resources`: bytes, percent, degrees Celsius, seconds."""
        facts: dict[str, Any] = {}
        facts |= self._memory()
        facts |= self._disk()
        cpu = self._cpu_percent()
        if cpu is not None:
            facts["cpu_percent"] = cpu
        load = self._read(self.proc / "loadavg")
        if load:
            facts["load_1m"] = float(load.split()[0])
        temperature = self._temperature()
        if temperature is not None:
            facts["temperature_c"] = temperature
        uptime = self.uptime_s()
        if uptime is not None:
            facts["uptime_s"] = int(uptime)
        return facts

    def uptime_s(self) -> float | None:
        text = self._read(self.proc / "uptime")
        return float(text.split()[0]) if text else None

    def boot_id(self) -> UUID | None:
        """Which start of this installation it is: another after each boot, and in each copy of `disk`.

        The folder counts because containers and copies on one machine share the kernel's boot.
        """
        try:
            boot = UUID(self._read(self.proc / "sys/kernel/random/boot_id").strip())
            folder = self.disk.stat()
        except (OSError, ValueError):
            return None
        return uuid5(boot, f"{folder.st_dev}:{folder.st_ino}")

    def hardware_model(self) -> str | None:
        """Board or machine name: device tree first (Raspberry Pi), then DMI."""
        for file in (
            self.proc / "device-tree/model",
            self.sys / "class/dmi/id/product_name",
        ):
            if text := self._read(file).strip(" \0\n"):
                return text[:120]
        return None

    def operating_system(self) -> str:
        for line in self._read(self.etc / "os-release").splitlines():
            key, _, value = line.partition("=")
            if key == "PRETTY_NAME":
                return value.strip().strip('"')[:120]
        return platform.system()

    def _memory(self) -> dict[str, int]:
        kilobytes = {}
        for line in self._read(self.proc / "meminfo").splitlines():
            key, _, value = line.partition(":")
            if key in ("MemTotal", "MemAvailable"):
                kilobytes[key] = int(value.split()[0])
        if len(kilobytes) < 2:
            return {}
        return {
            "memory_total_bytes": kilobytes["MemTotal"] * 1024,
            "memory_used_bytes": (kilobytes["MemTotal"] - kilobytes["MemAvailable"]) * 1024,
        }

    def _disk(self) -> dict[str, int]:
        try:
            seen = os.statvfs(self.disk)
        except OSError:
            return {}
        return {
            "disk_free_bytes": seen.f_bavail * seen.f_frsize,
            "disk_total_bytes": seen.f_blocks * seen.f_frsize,
        }

    def _cpu_percent(self) -> float | None:
        first = self._read(self.proc / "stat").partition("\n")[0].split()
        if len(first) < 6:
            return None
        ticks = [int(value) for value in first[1:9]]
        idle, total = ticks[3] + ticks[4], sum(ticks)
        previous, self._cpu = self._cpu, (idle, total)
        if previous is None or total <= previous[1]:
            return None
        return round(100.0 * (1 - (idle - previous[0]) / (total - previous[1])), 1)

    def _temperature(self) -> float | None:
        """The hottest thermal zone: what throttles first."""
        found = []
        for file in (self.sys / "class/thermal").glob("thermal_zone*/temp"):
            text = self._read(file).strip()
            if text.lstrip("-").isdigit():
                found.append(int(text) / 1000)
        return round(max(found), 1) if found else None

    @staticmethod
    def _read(file: Path) -> str:
        try:
            return file.read_text(errors="replace")
        except OSError:
            return ""


def host_name() -> str:
    """The host name, as the default name of the device."""
    return socket.gethostname().split(".")[0] or "device"
