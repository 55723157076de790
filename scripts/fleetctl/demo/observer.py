"""What the demo's steps wait for, read from the tables that an operator has."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from fleetctl.client.api import Api
from fleetctl.client.query import Row, where
from fleetctl.demo.device import DemoDevice
from fleetctl.demo.probe import Probe
from fleetctl.errors import FleetctlError

T = TypeVar("T")

#: A step that is not seen within this many seconds has failed. Generous: a Raspberry Pi runs the demo too.
STEP_TIMEOUT_S = 180.0


class Observer:
    """Looks at the fleet of `devices` until something is true. Every look makes sure that all agents run."""

    def __init__(self, api: Api, devices: Sequence[DemoDevice], *, logs: str) -> None:
        """`logs` names the folders to look into when a step is not seen."""
        self._api = api
        self._devices = devices
        self._logs = logs

    def until(self, look: Callable[[], T | None]) -> T:
        """What `look` finds, once it finds something. Raises FleetctlError: `not_seen`, `agent_died`."""
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while time.monotonic() < deadline:
            self.require_agents()
            if seen := look():
                return seen
            time.sleep(0.2)
        raise FleetctlError(
            "not_seen",
            f"This step did not finish within {STEP_TIMEOUT_S:.0f} s.",
            hint=f"Read the logs in {self._logs}.",
        )

    def require_agents(self) -> None:
        """Raise FleetctlError `agent_died` if an agent that was started has ended."""
        for device in self._devices:
            if device.process is not None and not device.alive():
                raise FleetctlError(
                    "agent_died",
                    f"The agent of {device.name} exited: {device.last_log_line()}",
                    hint=f"Read {device.log_file}.",
                )

    def all_listen(self) -> bool:
        """Every device has checked in, and its own log says that its subscription is up."""
        reports = self._api.rows("device_status", select="device_id", order="device_id")
        return len(reports) == len(self._devices) and all(
            b"subscribed" in device.log_file.read_bytes() for device in self._devices
        )

    def attempts(self, release_id: str) -> list[Row] | None:
        """What every device reported of its attempt at a release; None until all have."""
        found = self._api.rows("update_history", where(release_id=release_id), order="id")
        return found if len({row["device_id"] for row in found}) == len(self._devices) else None

    def all_run(self, version: str, state: str) -> bool:
        """Every device reports `version` and `state`."""
        rows = self._api.rows(
            "device_status",
            select="state,releases!device_status_current_release_fkey(version)",
            order="device_id",
        )
        return len(rows) == len(self._devices) and all(
            row["state"] == state and (row["releases"] or {}).get("version") == version for row in rows
        )

    def serves(self, probes: Mapping[str, Probe], version: str) -> bool:
        """A client of the changed service is given `version`; true if nothing is probed."""
        return not probes or bool(probes["web"].answers and probes["web"].answers[-1].body == version)

    def names(self) -> dict[str, str]:
        """Each device's name by its id."""
        return {row["id"]: row["name"] for row in self._api.rows("devices", select="id,name", order="name")}
