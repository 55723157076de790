"""Where things live under one agent root (`/opt/fleet` on a device, any folder in tests)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_ROOT = Path("/opt/fleet")
DEFAULT_CONFIG = Path("/etc/fleet/device.json")
UNIT_FOLDER = Path("/etc/systemd/system")


@dataclass(frozen=True)
class Paths:
    root: Path

    @property
    def releases(self) -> Path:
        """One exported folder per commit: `releases/<commit>/`."""
        return self.root / "releases"

    def release(self, commit: str) -> Path:
        return self.releases / commit

    @property
    def current(self) -> Path:
        return self.root / "app_current"

    @property
    def previous(self) -> Path:
        return self.root / "app_prev"

    @property
    def next(self) -> Path:
        return self.root / "app_next"

    @property
    def repository(self) -> Path:
        """The bare Git repository that releases are fetched into."""
        return self.root / "git"

    @property
    def env_file(self) -> Path:
        """This device's own values for the variables that its role declares (mode 0600)."""
        return self.root / ".env"

    @property
    def agent(self) -> Path:
        return self.root / "agent"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def journal(self) -> Path:
        return self.state / "journal.json"

    @property
    def known_bad(self) -> Path:
        """What the engine remembers of releases that failed here."""
        return self.state / "known_bad.json"

    @property
    def outbox(self) -> Path:
        return self.state / "outbox"

    @property
    def history(self) -> Path:
        """The last attempts that the control plane has."""
        return self.state / "history"

    @property
    def clock_floor(self) -> Path:
        """The control plane's time, no older than a day while it is heard: it was never earlier than that."""
        return self.state / "clock_floor"

    @property
    def command_journal(self) -> Path:
        """There while a command was begun and its answer has not got through."""
        return self.state / "commands.json"

    @property
    def isolated(self) -> Path:
        """There while this device is without the control plane for long."""
        return self.state / "isolated.json"

    @property
    def in_safe_mode(self) -> Path:
        """There while this device is in safe mode: systemd opens the rescue access by it."""
        return self.state / "in_safe_mode"

    @property
    def host_key(self) -> Path:
        """What the rescue access proves itself by; the public half is beside it (`.pub`)."""
        return self.state / "rescue" / "host_key"

    @property
    def lock(self) -> Path:
        """Held with flock by whoever converges: daemon, timer or a hand-run command."""
        return self.state / "converge.lock"

    @property
    def children(self) -> Path:
        """Open in every program that the engine started, so that none is overlooked (`leftovers`)."""
        return self.state / "children.lock"

    @property
    def identity(self) -> Path:
        """The device's key pair and id (folder mode 0700)."""
        return self.state / "identity"
