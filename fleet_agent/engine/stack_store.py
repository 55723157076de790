"""What a release became on this device: its resolved Compose file, its images, its health checks.

Kept beside the release (`state/stacks/<commit>.<role>/`), so that going back needs neither Git nor the .env
of today: it is exactly what ran before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError as PydanticValidationError

from fleet_agent.containers import compose_file, content_store
from fleet_agent.containers.base import ComposeStack
from fleet_agent.engine.journal import Deployed
from fleet_agent.engine.state_files import StateFiles
from fleet_agent.errors import StateError, state_corrupt
from fleet_agent.model import Frozen
from fleet_agent.paths import Paths
from fleet_agent.roles.schema import ProbationSettings


class StackRecord(Frozen):
    """`health` holds the role's checks with every variable filled in."""

    deployed: Deployed
    images: tuple[str, ...]
    services: tuple[str, ...]
    health: ProbationSettings


class StackStore:
    """Folder of records; the compose file is written first, so a record that reads is complete."""

    def __init__(self, paths: Paths, files: StateFiles) -> None:
        self.folder = paths.state / "stacks"
        self.content = paths.root / "content"
        self._files = files

    def save(self, record: StackRecord, compose: dict[str, Any]) -> None:
        folder = self.folder / record.deployed.key
        self._files.write(folder / "compose.json", json.dumps(compose, indent=1, sort_keys=True).encode())
        self._files.write(folder / "stack.json", record.model_dump_json(indent=1).encode())

    def load(self, deployed: Deployed) -> StackRecord:
        """Raises StateError (`state_corrupt`) if it is absent or cannot be read."""
        return self._read(self.folder / deployed.key)

    def stack(self, deployed: Deployed, project: str) -> ComposeStack:
        return ComposeStack(project, self.folder / deployed.key / "compose.json")

    def of_commit(self, commit: str) -> StackRecord | None:
        """The record of a commit whose role is not known, as when only the links are left."""
        for folder in sorted(self.folder.glob(f"{commit}.*")):
            try:
                return self._read(folder)
            except StateError:
                continue
        return None

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(folder.name for folder in self.folder.iterdir() if not folder.name.startswith("."))

    def images(self, key: str) -> set[str]:
        try:
            return set(self._read(self.folder / key).images)
        except StateError:
            return set()

    def content_of(self, key: str) -> set[str]:
        """The content folders that a stack mounts. Raises StateError if its file cannot be read."""
        return content_store.used_content(read_compose(self.folder / key / "compose.json"), self.content)

    def has_content(self, key: str) -> bool:
        """Whether all that a stack mounts is here. Raises StateError if its file cannot be read."""
        return all((self.content / name).is_dir() for name in self.content_of(key))

    def remove(self, key: str) -> None:
        self._files.remove_tree(self.folder / key)

    def _read(self, folder: Path) -> StackRecord:
        try:
            record = StackRecord.model_validate_json((folder / "stack.json").read_bytes())
        except (OSError, PydanticValidationError) as error:
            raise state_corrupt(folder / "stack.json", "it cannot be read") from error
        read_compose(folder / "compose.json")
        return record


def read_compose(file: Path) -> dict[str, Any]:
    """A resolved compose file. Raises StateError (`state_corrupt`)."""
    try:
        compose = json.loads(file.read_bytes())
        compose_file.services(compose)
    except Exception as error:
        raise state_corrupt(file, "it cannot be read") from error
    assert isinstance(compose, dict)  # noqa: S101  `services` refuses anything else
    return compose
