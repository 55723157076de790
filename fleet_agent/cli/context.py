"""What every command is given, and how it complains."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fleet_agent.errors import FleetError
from fleet_agent.paths import Paths

if TYPE_CHECKING:
    from fleet_agent.config import DeviceConfig
    from fleet_agent.daemon.engine_process import Worker


@dataclass(frozen=True)
class Context:
    """Which agent of this machine a command is for."""

    paths: Paths
    config: Path

    def engine(self, device: DeviceConfig) -> Worker:
        from fleet_agent.daemon.engine_process import Worker, engine_settings

        return Worker(lambda: engine_settings(self.paths, device))


class AddCommand(Protocol):
    """Add a subcommand, with the options that every command takes."""

    def __call__(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


def quiet() -> None:
    """Log warnings only: standard output is the answer."""
    from fleet_agent import log

    log.set_up("WARNING")


def complain(error: FleetError) -> None:
    from fleet_agent.log import redact

    print(redact(f"fleet-agent: {error.kind.value}: {error}"), file=sys.stderr)
