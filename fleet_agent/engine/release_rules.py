"""What a release may take of this device: judged before Compose runs, and again as Compose reads it.

The rules are `roles/compose_source.py` and `roles/host_access.py`; here they meet this device's paths.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_agent.containers import compose_file
from fleet_agent.containers.base import VolumeFacts
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.paths import DEFAULT_CONFIG
from fleet_agent.roles import compose_source, host_access, host_uses
from fleet_agent.roles.host_paths import Place
from fleet_agent.roles.refusal import refuse


@dataclass(frozen=True)
class Rules:
    """The rules for one compose file. `access` is what its role declares."""

    folder: Path
    place: Place
    access: Mapping[str, str]

    def read_source(self, release: Path, environment: Mapping[str, str]) -> None:
        """Judge the file as it was signed. Raises ValidationError for what must not reach Compose."""
        common = release / "roles" / "common"
        source = compose_source.read(self.folder / "compose.yaml", inside=(self.folder, common))
        refuse(source.refusals(environment.keys()))
        content = compose_source.filled(source.content, environment)
        if isinstance(content, dict):
            compose_file.check_ranges(content)
            refuse(host_access.refusals(content, self.place, self.access))

    def judge(self, compose: dict[str, Any]) -> None:
        """Judge the file as Compose reads it. Raises ValidationError."""
        compose_file.check_size(compose)
        compose_file.check_places(compose)
        refuse(host_access.refusals(compose, self.place, self.access))

    def judge_volumes(self, compose: dict[str, Any], volumes: Mapping[str, VolumeFacts]) -> None:
        """Judge volumes that are on the device already, by what they are there. Raises ValidationError."""
        for key, entry in (compose.get("volumes") or {}).items():
            known = volumes.get(str((entry or {}).get("name") or key))
            if known is not None:
                used = host_uses.volume_uses(key, known.driver, known.options)
                refuse(host_access.refused(used, self.place, self.access))


def rules(
    engine: Engine,
    deployed: Deployed,
    folder: Path,
    access: Mapping[str, str],
    given: tuple[str, ...] = (),
) -> Rules:
    """The rules on this device for the compose file in `folder`."""
    release = engine.paths.release(deployed.release.commit_sha)
    # Simulated devices share a machine that is not theirs.
    real = os.path.realpath if engine.runtime.reachable else str
    place = Place(
        folder=str(folder),
        release=(str(release), os.path.realpath(release)),
        given=given,
        agent=agent_folders(engine),
        real=real,
    )
    return Rules(folder, place, access)


def agent_folders(engine: Engine) -> tuple[str, ...]:
    """What of this device is the agent's own: its key, its state, what it trusts, the device's values."""
    signers = engine.config.allowed_signers
    places = [engine.paths.root, DEFAULT_CONFIG.parent, *([signers] if signers else [])]
    return tuple(
        dict.fromkeys(path for one in places for path in (str(one.absolute()), os.path.realpath(one)))
    )


def covered(engine: Engine, compose: dict[str, Any]) -> dict[str, Any]:
    """`compose` so that a mount that contains the agent's folders has them empty."""
    return host_access.covered(compose, [path for path in agent_folders(engine) if Path(path).is_dir()])
