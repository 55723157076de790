"""What a release became on this device: its resolved Compose file, its images, its health checks.

Kept beside the release (`state/stacks/<commit>.<role>/`), so that going back needs neither Git nor the .env
of today: it is exactly what ran before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
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
    #: How many containers each should have; 1 unless it is named.
    replicas: dict[str, int] = Field(default_factory=dict)
    #: Services that are done when they ended well.
    one_shots: tuple[str, ...] = ()
    #: Compose's hash of each service's configuration, once it was started.
    hashes: dict[str, str] = Field(default_factory=dict)
    health: ProbationSettings


class StackStore:
    """Folder of records; the compose file is written first, so a record that reads is complete."""

    def __init__(self, paths: Paths, files: StateFiles) -> None:
        self.folder = paths.state / "stacks"
        #: Where the things are that a stack mounts and the agent keeps.
        self.stores = (paths.content, paths.secrets)
        self._files = files

    def save(self, record: StackRecord, compose: dict[str, Any]) -> None:
        folder = self.folder / record.deployed.key
        self._files.write(folder / "compose.json", compose_file.as_json(compose))
        self.note(record)

    def note(self, record: StackRecord) -> None:
        """Write the record of a stack that is here."""
        file = self.folder / record.deployed.key / "stack.json"
        self._files.write(file, record.model_dump_json(indent=1).encode())

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

    def mounted(self, key: str) -> set[Path]:
        """The places that a stack mounts. Raises StateError if its file cannot be read."""
        return self.places(self.compose(key))

    def places(self, compose: dict[str, Any]) -> set[Path]:
        """The places of ours that a resolved file mounts."""
        return {store / name for store in self.stores for name in content_store.used_content(compose, store)}

    def compose(self, key: str) -> dict[str, Any]:
        """Its resolved file. Raises StateError (`state_corrupt`)."""
        return read_compose(self.folder / key / "compose.json")

    def has_content(self, key: str) -> bool:
        """Whether all that a stack mounts is here. Raises StateError if its file cannot be read."""
        return not self.missing(key)

    def missing(self, key: str) -> set[Path]:
        """The places that a stack mounts and that are not here. Raises StateError if unreadable."""
        return {place for place in self.mounted(key) if not place.is_dir()}

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
        compose = compose_file.from_json(file.read_bytes())
        compose_file.services(compose)
    except Exception as error:
        raise state_corrupt(file, "it cannot be read") from error
    assert isinstance(compose, dict)  # noqa: S101  `services` refuses anything else
    return compose
