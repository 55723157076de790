"""The folders of the embedded stack: its data, and the checkout it serves."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from fleetctl.errors import FleetctlError

DEFAULT_DATA = Path(".fleet")
DEFAULT_PORT = 54321
#: Marks a data folder that the demo made and may delete. `fleetctl up` removes the marker: from then on
#: the folder holds a real fleet.
DEMO_MARKER = "demo-data"


@dataclass(frozen=True)
class DataFolder:
    """One stack's data. Everything below `root` belongs to fleetctl and is made by it."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> DataFolder:
        return cls(path.expanduser().resolve())

    @property
    def keys(self) -> Path:
        return self.root / "keys.json"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    def new_unfinished(self) -> Path:
        """Where one initdb works; the folder takes its real name only when it is complete and synced.

        Another name each time: an initdb of a killed start may still be at it.
        """
        return self.root / f"postgres.new-{secrets.token_hex(4)}"

    def all_unfinished(self) -> list[Path]:
        """What initdbs that were cut off left behind."""
        return list(self.root.glob("postgres.new-*"))

    @property
    def socket(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """Which processes run for this folder, and on which ports. A hint; the lock is the truth."""
        return self.root / "stack.json"

    @property
    def lock(self) -> Path:
        """Held (flock) by the supervisor for as long as the stack runs; its text says who that is."""
        return self.root / "stack.lock"


@dataclass(frozen=True)
class Project:
    """The checkout that the stack serves: migrations, functions, server and dashboard sources."""

    root: Path

    @classmethod
    def find(cls) -> Project:
        """The checkout in `FLEET_PROJECT`, around the current folder, or around this file.

        Raises FleetctlError `project_not_found` if fleetctl was installed without its sources.
        """
        here = Path.cwd().resolve()
        named = os.environ.get("FLEET_PROJECT")
        candidates = [Path(named)] if named else [here, *here.parents, Path(__file__).resolve().parents[3]]
        for candidate in candidates:
            if (candidate / "supabase" / "local" / "server.ts").is_file():
                return cls(candidate.resolve())
        raise FleetctlError(
            "project_not_found",
            "The sources of the control plane (supabase/, migrations/) were not found.",
            hint="Run fleetctl in a checkout of Metrica Fleet, or set FLEET_PROJECT to one.",
            exit_code=2,
        )

    @property
    def migrations(self) -> Path:
        return self.root / "migrations"

    @property
    def local(self) -> Path:
        return self.root / "supabase" / "local"

    @property
    def bootstrap(self) -> Path:
        return self.local / "bootstrap.sql"

    @property
    def seed(self) -> Path:
        return self.root / "supabase" / "seed.sql"

    @property
    def functions(self) -> Path:
        return self.root / "edge_functions"

    @property
    def web(self) -> Path:
        return self.root / "web"
