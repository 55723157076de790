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
    def content(self) -> Path:
        """What services mount of their releases, by its content (see `containers.content_store`)."""
        return self.root / "content"

    @property
    def secrets(self) -> Path:
        """Files that services mount and no release has (mode 0700, see `containers.secret_files`)."""
        return self.root / "secrets"

    @property
    def env_file(self) -> Path:
        """This device's own values for the variables that its role declares (mode 0600)."""
        return self.root / ".env"

    @property
    def compose_home(self) -> Path:
        """Home and cache of the Compose program; made when it writes there, which it has no reason to."""
        return self.state / "compose"

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
        """What the engine remembers about releases that failed here."""
        return self.state / "known_bad.json"

    @property
    def membership(self) -> Path:
        """The fleet that this device belongs to, and the commits that it has run."""
        return self.state / "membership.json"

    @property
    def outbox(self) -> Path:
        return self.state / "outbox"

    @property
    def history(self) -> Path:
        """The last attempts that were uploaded."""
        return self.state / "history"

    @property
    def clock_floor(self) -> Path:
        """The control plane's time, at most a day old while it answers: the true time is never earlier."""
        return self.state / "clock_floor"

    @property
    def command_journal(self) -> Path:
        """Exists while a command has begun and its answer has not been sent."""
        return self.state / "commands.json"

    @property
    def isolated(self) -> Path:
        """Exists while this device is isolated."""
        return self.state / "isolated.json"

    @property
    def in_safe_mode(self) -> Path:
        """Exists while this device is in safe mode; systemd opens rescue access when it appears."""
        return self.state / "in_safe_mode"

    @property
    def host_key(self) -> Path:
        """Rescue access's own host key; the public key is next to it (`.pub`)."""
        return self.state / "rescue" / "host_key"

    @property
    def lock(self) -> Path:
        """Held with flock by the process that updates the device: daemon, timer or a command run by hand."""
        return self.state / "converge.lock"

    @property
    def children(self) -> Path:
        """Open in every program that the engine started, so that none is missed (`support/orphans.py`)."""
        return self.state / "children.lock"

    @property
    def identity(self) -> Path:
        """The device's key pair and id (folder mode 0700)."""
        return self.state / "identity"
