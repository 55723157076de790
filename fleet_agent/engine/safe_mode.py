"""The safe-mode stack: a status page from `roles/common/safe-mode`, kept ready while everything is well.

It is resolved, its files are copied and its images fetched before it is needed, so that entering safe mode
needs no network, no Git and no pull. A fleet without one still has safe mode: the device reports it, there
is just no page. Its compose file gets, besides what every role gets, `SAFE_MODE_*` of the .env and

    FLEET_SAFE_MODE_STATE   a folder with `status.json` (reason, kind, since, release), to mount read-only
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

from loguru import logger

from fleet_agent.containers import compose_file
from fleet_agent.containers.base import ComposeStack
from fleet_agent.engine import release_rules, stack_builder
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.engine.release_rules import Rules
from fleet_agent.engine.stack_store import read_compose
from fleet_agent.errors import FleetError, StateError
from fleet_agent.paths import Paths
from fleet_agent.roles.role import COMPOSE_FILE
from fleet_agent.roles.variables import read_env
from fleet_agent.support.atomic_files import make_folder

FOLDER = Path("roles") / "common" / "safe-mode"
#: In the mark of safe mode.
BESIDE = "the release keeps running next to it"


def prepare(engine: Engine, deployed: Deployed, *, unless_there: bool = False) -> None:
    """Keep the release's safe-mode stack ready. Best effort: no release is refused because of it."""
    folder = engine.paths.release(deployed.release.commit_sha) / FOLDER
    file = _compose(engine)
    if not (folder / COMPOSE_FILE).is_file() or (unless_there and file.exists()):
        return
    try:
        _make_public(engine)
        own = {k: v for k, v in read_env(engine.paths.env_file).items() if k.startswith("SAFE_MODE_")}
        environment = {
            **own,
            **stack_builder.provided(engine, deployed),
            "FLEET_SAFE_MODE_STATE": str(_public(engine)),
        }
        # What changes with each release must not change the stack.
        environment |= {"FLEET_RELEASE_VERSION": "safe-mode", "FLEET_RELEASE_COMMIT": ""}
        rules = _rules(engine, deployed, folder)
        rules.read_source(engine.paths.release(deployed.release.commit_sha), environment)
        compose = engine.runtime.config(folder, environment, engine.config.safe_project)
        rules.judge(compose)
        for image in engine.runtime.missing_images(compose_file.images(compose)):
            engine.runtime.pull(image, engine.report_progress)
        addressed = stack_builder.copy_content(engine, compose, deployed, environment)
        fresh = compose_file.as_json(addressed)
        if not file.exists() or file.read_bytes() != fresh:
            engine.files.write(file, fresh)
    except (FleetError, OSError) as error:
        logger.warning(
            "cannot prepare this release's safe-mode page, keeping an older one: {error}", error=error
        )


def _rules(engine: Engine, deployed: Deployed, folder: Path) -> Rules:
    """It declares nothing, and of the agent's files it has the one folder that is made for it."""
    rules = release_rules.rules(engine, deployed, folder, {})
    public = str(_public(engine))
    return replace(rules, place=replace(rules.place, release=(*rules.place.release, public)))


def bring_up(engine: Engine) -> None:
    """Show why. Best effort: being in safe mode does not depend on its page."""
    mode = engine.journal.safe_mode
    current = engine.journal.current
    if mode is None:
        return
    access = engine.config.rescue_access
    said = {
        "reason": mode.reason,
        "kind": mode.kind,
        "since": mode.since.isoformat(),
        "release_runs": mode.release_runs,
        "release": current.release.version if current else None,
        "rescue_access": access.describe() if access is not None else "off",
        "way_out": "Roll out a working release, or send the leave_safe_mode command.",
    }
    try:
        _make_public(engine)
        _write_changed(_public(engine) / "status.json", json.dumps(said, indent=1).encode(), engine)
        if not _compose(engine).exists():
            logger.warning("the fleet repository has no safe-mode page (roles/common/safe-mode)")
            return
        missing = engine.runtime.missing_images(compose_file.images(read_compose(_compose(engine))))
        if missing:
            logger.warning("no safe-mode page: {image} is not on this device", image=missing[0])
            return
        engine.runtime.up(ComposeStack(engine.config.safe_project, _compose(engine)))
    except FleetError as error:
        logger.error("the safe-mode page did not start: {error}", error=error.message)


def _write_changed(file: Path, content: bytes, engine: Engine) -> None:
    """A device at rest writes nothing, not even in safe mode."""
    with contextlib.suppress(OSError):
        if file.read_bytes() == content:
            return
    engine.files.write(file, content, mode=0o644)


def mark(engine: Engine) -> None:
    """Keep the file that tells systemd about safe mode as in the journal.

    Best effort, and repeated at each look: whether a device is in safe mode does not depend on it.
    """
    file, mode = engine.paths.in_safe_mode, engine.journal.safe_mode
    try:
        if mode is None:
            engine.files.remove(file)
            return
        said = f"{mode.since.isoformat()}\n{BESIDE if mode.release_runs else 'no release runs'}\n"
        if not file.exists() or file.read_bytes() != said.encode():
            engine.files.write(file, said.encode())
    except (FleetError, OSError) as error:
        logger.error("rescue access does not follow safe mode yet: {error}", error=error)


def is_marked_beside(paths: Paths) -> bool:
    """Whether the release ran beside the page according to the mark, in case the journal is lost."""
    try:
        return BESIDE in paths.in_safe_mode.read_text(errors="replace")
    except OSError:
        return False


def take_down(engine: Engine) -> None:
    """Stop the status page, if there may be one. Raises ContainerError."""
    if engine.journal.safe_mode is not None or _compose(engine).exists():
        running = engine.patiently(
            "look for safe mode", lambda: engine.runtime.services(engine.config.safe_project)
        )
        if running:
            engine.patiently("leave safe mode", lambda: engine.runtime.down(engine.config.safe_project))


def images(engine: Engine) -> set[str]:
    """What the safe-mode stack needs; kept whatever release runs."""
    try:
        return set(compose_file.images(read_compose(_compose(engine))))
    except FleetError:
        return set()


def mounted(engine: Engine) -> set[Path]:
    """The places of ours that it mounts. Raises StateError if its file cannot be read."""
    if not _compose(engine).exists():
        return set()
    try:
        return engine.stacks.places(read_compose(_compose(engine)))
    except StateError:
        engine.files.remove(_compose(engine))
        raise


def _compose(engine: Engine) -> Path:
    return engine.paths.state / "safe-mode" / "compose.json"


def _make_public(engine: Engine) -> None:
    """The folder is mounted into the page's container, which reads it as another user."""
    folder = _public(engine)
    if not folder.is_dir():
        make_folder(folder)
        folder.chmod(0o755)


def _public(engine: Engine) -> Path:
    return engine.paths.state / "safe-mode" / "public"
