"""Releases from the fleet repository, by way of the release room."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Effects
from fleet_agent.errors import Kind, ReleaseError, StateError, config_missing
from fleet_agent.model import Progress, Release

if TYPE_CHECKING:
    from fleet_agent.release import Limits, Origin


class GitSource:
    """The fleet repository. Heavy imports happen at first use."""

    def __init__(self, config: EngineConfig, effects: Effects) -> None:
        self._config, self._paths, self._effects = config, config.paths, effects

    def fetch(self, release: Release, role: str, report: Callable[[Progress], None]) -> int:
        from fleet_agent import release as git

        limits = self._limits()
        result = self._effects.perform(
            "git fetch",
            lambda: git.fetch(
                self._paths.repository,
                self._config.git_url,
                release.commit_sha,
                role,
                report,
                branch=release.branch,
                limits=limits,
            ),
        )
        return result.bytes_fetched

    def verify(self, release: Release) -> str | None:
        if not self._config.verify_signatures:
            logger.warning("signatures are not verified on this device: verify_signatures is off")
            return None
        signers = self._config.allowed_signers
        if signers is None:
            hint = "Set it there, or turn verify_signatures off there."
            raise config_missing(
                "allowed_signers", "device.json does not set it", hint=hint, error=ReleaseError
            )
        from fleet_agent import release as git

        return self._effects.perform(
            "git verify",
            lambda: git.verify(self._paths.repository, release.commit_sha, signers),
        )

    def origin(self, commit: str) -> Origin:
        from fleet_agent import release as git

        return git.origin(self._paths.repository, commit)

    def export(self, release: Release, role: str) -> None:
        from fleet_agent import release as git

        target = self._paths.release(release.commit_sha)
        self._effects.perform(
            "git export",
            lambda: git.export(
                self._paths.repository, release.commit_sha, role, target, limits=self._limits()
            ),
        )

    def _limits(self) -> Limits:
        from fleet_agent.release import Limits

        return Limits(min_free=self._config.min_free_bytes)

    def check(self, release: Release, role: str) -> None:
        from fleet_agent import release as git

        target = self._paths.release(release.commit_sha)
        git.check_manifest(target)
        if not (target / "roles" / role).is_dir():
            raise ReleaseError(Kind.ROLE_MISSING, f"The exported release has no role {role}.")

    def prune(self, keep: set[str]) -> None:
        from fleet_agent import release as git

        try:
            self._effects.perform(
                "git prune", lambda: git.prune(self._paths.repository, self._paths.releases, keep)
            )
        except (ReleaseError, StateError) as error:
            logger.warning("cannot remove old commits: {error}", error=error)
