"""The files in `migrations/`, as the Supabase CLI reads them: `<digits>_<name>.sql`, in order of name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fleetctl.errors import FleetctlError

_NAME = re.compile(r"^(?P<version>[0-9]+)_(?P<name>.*)\.sql$")


@dataclass(frozen=True)
class Migration:
    """One file."""

    version: str
    name: str
    path: Path

    @property
    def label(self) -> str:
        return self.path.name


def find_migrations(folder: Path) -> list[Migration]:
    """The migrations of a folder in order.

    Raises FleetctlError `migration_name` for a `.sql` file that the CLI would silently skip, and
    `migration_version` for two files of one version.
    """
    found: dict[str, Migration] = {}
    for path in sorted(folder.glob("*.sql"), key=lambda item: item.name):
        match = _NAME.match(path.name)
        if match is None:
            raise FleetctlError(
                "migration_name",
                f"{path.name} is not named <timestamp>_<name>.sql, so the Supabase CLI would skip it.",
                hint="Rename it, e.g. to 20260301120000_add_rollout_stages.sql",
            )
        migration = Migration(match["version"], match["name"], path)
        if migration.version in found:
            raise FleetctlError(
                "migration_version",
                f"{path.name} and {found[migration.version].label} have the same version.",
                hint="Give one of them a different timestamp.",
            )
        found[migration.version] = migration
    return list(found.values())
