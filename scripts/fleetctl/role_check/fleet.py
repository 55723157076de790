"""Checks what all roles of a fleet repository share: the fleet that they are for."""

from __future__ import annotations

from pathlib import Path

from fleet_agent.model import FLEET_FILE, FleetFile
from fleetctl.role_check.findings import Finding, error, warning


def check_fleet(roles: Path) -> list[Finding]:
    """What is wrong with the `fleet.json` of the folder `roles`."""
    try:
        FleetFile.model_validate_json(roles.joinpath(*Path(FLEET_FILE).parts[1:]).read_bytes())
    except FileNotFoundError:
        missing = (
            f"There is no {FLEET_FILE}, so a device cannot tell releases of this fleet from those of another "
            "one with the same signing key. Write it: fleetctl repo init --adopt ."
        )
        return [warning("fleet_id_missing", missing)]
    except (OSError, ValueError):
        return [error("fleet_id_invalid", f'{FLEET_FILE} must contain {{"fleet_id": "<uuid>"}}.')]
    return []
