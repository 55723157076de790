"""What may be damaged on a device's disk while the engine is dead."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from fleet_agent.containers.simulated import World


def _garbage(name: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for file in (root / "state").rglob(name):
            file.write_bytes(b"\0" * 100)

    return damage


def _gone(name: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for found in list(root.glob(name)):
            shutil.rmtree(found)

    return damage


def _image_store(root: Path) -> None:
    file = root / "state" / "simulated.json"
    if file.exists():
        world = World.model_validate_json(file.read_bytes())
        world.images.clear()
        file.write_text(world.model_dump_json())


def _damaged_images(root: Path) -> None:
    file = root / "state" / "simulated.json"
    if file.exists():
        world = World.model_validate_json(file.read_bytes())
        world.damaged_images |= world.images
        file.write_text(world.model_dump_json())


def _torn_exports(root: Path) -> None:
    """Every file of every exported release: the disk gives back zeros."""
    for file in (root / "releases").rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.write_bytes(b"\0" * file.stat().st_size)


#: What may be damaged while the engine is dead.
DAMAGES: dict[str, Callable[[Path], None]] = {
    "corrupt journal": _garbage("journal.json"),
    "corrupt memory": _garbage("known_bad.json"),
    "corrupt copy of the attempt": _garbage("attempt.json"),
    "corrupt stacks": _garbage("stack.json"),
    "corrupt compose files": _garbage("compose.json"),
    "vanished release folders": _gone("releases/*"),
    "vanished content": _gone("content/*"),
    "corrupt exports": _torn_exports,
    "empty image store": _image_store,
    "corrupt image store entries": _damaged_images,
}
