"""Images on this machine: what is missing or damaged, and bringing it here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from fleet_agent.containers import docker_errors
from fleet_agent.containers.base import OnProgress

if TYPE_CHECKING:
    from docker import DockerClient

#: Label of a container that tries an image: the process that made it. Not a name: agents may share Docker.
TRIES = "fleet-agent.tries"


#: What a machine runs besides images of its own architecture.
_RUNS_TOO = {"amd64": {"386"}, "arm64": {"arm"}}
#: A kernel that has one of these runs images of any architecture.
_EMULATORS = Path("/proc/sys/fs/binfmt_misc")


class PullError(Exception):
    """What Docker reports in the middle of its answer."""


def missing(client: DockerClient, images: Sequence[str], *, thoroughly: bool) -> list[str]:
    """Those of `images` that are not here, or damaged."""
    return [image for image in images if _is_missing(client, image, thoroughly=thoroughly)]


def foreign(client: DockerClient, images: Sequence[str]) -> dict[str, str]:
    """Those of `images` that are for another platform than this engine's, and for which one."""
    own = str(client.version().get("Arch") or "")
    if not own or any(_EMULATORS.glob("qemu-*")):
        return {}
    found = {}
    for image in images:
        attributes = client.images.get(image).attrs
        architecture = str(attributes.get("Architecture") or "")
        if architecture not in ("", own, *_RUNS_TOO.get(own, ())):
            found[image] = f"{attributes.get('Os') or 'linux'}/{architecture}"
    return found


def _is_missing(client: DockerClient, image: str, *, thoroughly: bool) -> bool:
    from docker.errors import APIError

    try:
        damage = find_damage(client, image, thoroughly=thoroughly)
    except APIError as error:
        if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
            raise
        # Not here, or not a name that an image can have: pulling it tells which.
        return True
    if damage is not None:
        logger.warning("{image} is damaged on this device: {damage}", image=image, damage=damage)
    return damage is not None


def pull(client: DockerClient, image: str, on_progress: OnProgress) -> None:
    """Bring `image` here by the engine's own API: progress comes line by line, no Compose file is needed.

    Raises ContainerError, see `docker_errors.pull_failed`.
    """
    from docker.errors import APIError, ImageNotFound

    damage = None
    try:
        with contextlib.suppress(ImageNotFound):
            damage = find_damage(client, image, thoroughly=True)
        _download(client, image, on_progress)
        if kept := find_damage(client, image, thoroughly=True):
            damage = kept
            _replace(client, image, on_progress)
    except PullError as error:
        raise docker_errors.pull_failed(image, str(error), damage) from error
    except APIError as error:
        raise docker_errors.pull_failed(image, str(error.explanation), damage) from error


def _replace(client: DockerClient, image: str, on_progress: OnProgress) -> None:
    """Remove a damaged image and pull it again: Docker trusts its index and downloaded nothing.

    Only after a first download: while the registry is unreachable, removing what is left gains nothing.
    """
    from docker.errors import APIError

    with contextlib.suppress(APIError):
        client.images.remove(image, force=True)
    _download(client, image, on_progress)
    if find_damage(client, image, thoroughly=True):
        raise PullError("Docker kept the damaged image")


def _download(client: DockerClient, image: str, on_progress: OnProgress) -> None:
    repository, tag = _split(image)
    for line in client.api.pull(repository, tag=tag, stream=True, decode=True):
        if "error" in line:
            raise PullError(str(line["error"]))
        if line.get("status") in ("Downloading", "Extracting"):
            on_progress(f"{image}: {line['status'].lower()} {line.get('progress', '')}".rstrip())


def find_damage(client: DockerClient, image: str, *, thoroughly: bool) -> str | None:
    """What is wrong with an image that is here, or None. Raises APIError.

    A quick look sees whether the top layer is there; `thoroughly` has Docker stack all of them, for a
    container that is never started. Damage within a file is not found.
    """
    from docker.errors import APIError

    try:
        client.images.get(image)
        if thoroughly:
            _try(client, image)
    except APIError as error:
        said = str(error.explanation).strip().rstrip(".")
        if error.is_server_error() and docker_errors.is_damage(said):
            return said
        raise
    return None


def _try(client: DockerClient, image: str) -> None:
    from docker.errors import APIError

    container = client.api.create_container(
        image, ["true"],
        labels={TRIES: str(os.getpid())},
        host_config=client.api.create_host_config(network_mode="none"),
    )  # fmt: skip
    with contextlib.suppress(APIError):
        client.api.remove_container(container["Id"], v=True, force=True)
    _remove_tries(client)


def _remove_tries(client: DockerClient) -> None:
    """Remove what engines left that were killed in a try: it would keep the image in use."""
    from docker.errors import APIError

    for left in client.api.containers(all=True, filters={"label": TRIES}):
        if not Path(f"/proc/{left['Labels'].get(TRIES)}").exists():
            with contextlib.suppress(APIError):
                client.api.remove_container(left["Id"], v=True, force=True)


def _split(image: str) -> tuple[str, str | None]:
    if "@" in image:
        name, _, digest = image.partition("@")
        return name, digest
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag or None
