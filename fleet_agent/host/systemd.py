"""The agent as a systemd service: renders the units in `fleet_agent/host/units/` and installs them."""

from __future__ import annotations

import compileall
import contextlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fleet_agent.errors import ConfigError, Kind, StateError, config_invalid, state_unwritable
from fleet_agent.host import rescue_ssh
from fleet_agent.paths import UNIT_FOLDER
from fleet_agent.support import atomic_files

SERVICE = "fleet-agent.service"
ONCE_SERVICE = "fleet-agent-once.service"
ONCE_TIMER = "fleet-agent-once.timer"
UNITS = (SERVICE, ONCE_SERVICE, ONCE_TIMER)
#: What starts with the machine; the once-service is the timer's.
ENABLED = (SERVICE, ONCE_TIMER)
#: Exists exactly if the machine was booted with systemd (sd_booted(3)).
BOOTED = Path("/run/systemd/system")
#: The first version that can wait longer after each crash.
GROWING_RESTART_VERSION = 254
SYSTEMCTL_LIMIT_S = 90

_RESTART_GROWING = """\
# After a crash: 2 s, then longer each time, up to five minutes, without end.
RestartSec=2
RestartSteps=8
RestartMaxDelaySec=5min"""
_RESTART_CONSTANT = """\
# Longer after each crash would need systemd 254; this is rare enough to do no harm, without end.
RestartSec=10"""

_PLAIN = re.compile(r"[\w./@+:,=-]+", re.ASCII)
_PLACEHOLDER = re.compile(r"@([A-Z_]+)@")


@dataclass(frozen=True)
class Agent:
    """What the units start. `python` is the interpreter that has fleet_agent installed."""

    root: Path
    config: Path
    python: Path

    def check(self) -> None:
        """Raise ConfigError (`config_invalid`) if a service could not work with these paths."""
        for path in (self.root, self.config, self.python):
            if "$" in str(path) or not str(path).isprintable():
                raise config_invalid(repr(str(path)), "a systemd unit cannot hold its characters")
            if path.is_relative_to("/tmp") or path.is_relative_to("/var/tmp"):  # noqa: S108
                raise config_invalid(
                    path,
                    "the service does not see folders for temporary files",
                    hint="Choose --root, --config and the installation elsewhere.",
                )
        if self.root == Path("/"):
            raise config_invalid("--root", "it cannot be the whole machine", hint="Choose a folder.")


def render(
    agent: Agent, *, systemd_version: int | None = None, access: rescue_ssh.Setup | None = None
) -> dict[str, str]:
    """Return the units' text by name. Without a version: what every systemd since 247 understands.

    With `access` the files of rescue access, too.
    """
    growing = systemd_version is not None and systemd_version >= GROWING_RESTART_VERSION
    values = {
        "SANDBOX": _template("sandbox.inc").rstrip(),
        "RESTART": _RESTART_GROWING if growing else _RESTART_CONSTANT,
        "PYTHON": _word(agent.python),
        "ROOT": _word(agent.root),
        "CONFIG": _word(agent.config),
    }
    units = {name: _filled(_template(name), values) for name in UNITS}
    if access is not None:
        units |= {name: _filled(_template(name), access.values()) for name in rescue_ssh.FILES}
    return units


def enabled(access: rescue_ssh.Setup | None) -> tuple[str, ...]:
    """What starts with the machine."""
    return ENABLED if access is None else (*ENABLED, rescue_ssh.PATH_UNIT)


def calls_after_writing(
    changed: Sequence[str], *, access: rescue_ssh.Setup | None, enable: bool, now: bool, here: bool
) -> list[tuple[str, ...]]:
    """What systemctl is told once the files are written, in order; `here` is this machine, not an image."""
    starting = enabled(access)
    calls: list[tuple[str, ...]] = []
    if here and (enable or now):
        calls.append(("daemon-reload",))
    if enable:
        calls.append(("enable", *starting))
    if here and now:
        calls += [("restart" if name in changed else "start", name) for name in starting]
    rescue_changed = access is not None and not set(changed).isdisjoint(rescue_ssh.FILES)
    if here and rescue_changed and (enable or now):
        # It may be open at this moment, by the old configuration.
        calls.append(("try-restart", rescue_ssh.SERVICE))
    return calls


def _template(name: str) -> str:
    return (resources.files("fleet_agent.host") / "units" / name).read_text()


def _filled(text: str, values: Mapping[str, str]) -> str:
    # The sandbox has placeholders of its own. Paths go in last and at once: one may look like a placeholder.
    for key in ("SANDBOX", "RESTART"):
        text = text.replace(f"@{key}@", values.get(key, ""))
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def _word(path: Path) -> str:
    """One word of a unit file: specifiers, variables and quotes mean themselves."""
    text = str(path)
    if _PLAIN.fullmatch(text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def _systemctl(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, timeout=SYSTEMCTL_LIMIT_S, check=False
    )


@dataclass(frozen=True)
class Installer:
    """Puts the units of one agent under `prefix`: this machine's `/`, or the tree of an image being built.

    Only on `/` is the running systemd told about it.
    """

    prefix: Path = Path("/")
    booted: Path = BOOTED
    run: Run = _systemctl

    @property
    def folder(self) -> Path:
        return self._under(UNIT_FOLDER)

    @property
    def is_here(self) -> bool:
        return self.prefix == Path("/")

    def systemd_version(self) -> int | None:
        """Of this machine; None for an image, or if it is not known."""
        if not self.is_here or shutil.which("systemctl") is None:
            return None
        said = re.match(r"systemd (\d+)", self.run(["--version"]).stdout)
        return int(said[1]) if said else None

    def install(
        self,
        agent: Agent,
        *,
        enable: bool = True,
        now: bool = False,
        access: rescue_ssh.Setup | None = None,
    ) -> list[str]:
        """Write the units durably and enable them; return the names of those that changed.

        `now` starts them too, and restarts what runs by a unit that changed. Doing it twice changes nothing.
        Without `access`, rescue access that was installed before is closed and removed immediately.
        Raises ConfigError for paths that a service cannot use and if sshd refuses its configuration,
        StateError `not_supported` without systemd, `state_unwritable` without the right, `systemd_refused`.
        """
        agent.check()
        self._need_systemd(talks=enable or now)
        units = render(agent, systemd_version=self.systemd_version(), access=access)
        self._make_root(agent.root)
        removed = [] if access is not None else self._remove(rescue_ssh.FILES)
        changed = [name for name, text in units.items() if self._write(self.folder / name, text)]
        if access is not None and self.is_here:
            self._try_out(access)
        for call in calls_after_writing(changed, access=access, enable=enable, now=now, here=self.is_here):
            self._tell(*call)
        return changed + removed

    def uninstall(self) -> list[str]:
        """Stop, disable and remove the units; return those that were there. The root folder stays."""
        return self._remove((*UNITS, *rescue_ssh.FILES))

    def _remove(self, names: Sequence[str]) -> list[str]:
        present = [name for name in names if (self.folder / name).exists()]
        if not present:
            return []
        self._need_systemd(talks=True)
        known = [name for name in (*ENABLED, rescue_ssh.PATH_UNIT) if name in present]
        if known:
            self._tell("disable", *(["--now"] if self.is_here else []), *known)
        if self.is_here and rescue_ssh.SERVICE in present:
            # After the path unit, which would start it again.
            self._tell("stop", rescue_ssh.SERVICE)
        for name in present:
            atomic_files.remove(self.folder / name)
        if self.is_here:
            self._tell("daemon-reload")
        return present

    def _try_out(self, access: rescue_ssh.Setup) -> None:
        rescue_ssh.make_host_key(access)
        try:
            rescue_ssh.try_out(access)
        except ConfigError:
            # A reboot must not start what this machine's sshd cannot read.
            self._remove(rescue_ssh.FILES)
            raise

    def _need_systemd(self, *, talks: bool) -> None:
        if self.is_here and not self.booted.is_dir():
            raise StateError(
                Kind.NOT_SUPPORTED,
                "This machine does not use systemd.",
                hint="Start `fleet-agent run` from its service manager, or give an image with --prefix.",
            )
        if self.is_here and os.geteuid() != 0:
            raise state_unwritable(
                self.folder, "only root may", hint="Run it with sudo, or give another tree with --prefix."
            )
        if talks and shutil.which("systemctl") is None:
            raise StateError(
                Kind.NOT_SUPPORTED,
                "This machine has no systemctl to enable the units with.",
                hint="Use --no-enable.",
            )

    def _make_root(self, root: Path) -> None:
        """The sandbox opens this folder for writing; it must be there for the service to start."""
        folder = self._under(root)
        try:
            atomic_files.make_folder(folder)
        except OSError as error:
            raise atomic_files.unwritable(folder, error) from error

    def _write(self, path: Path, text: str) -> bool:
        """Write a unit unless it has that text already; returns whether it was written."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if path.read_text() == text:
                return False
        atomic_files.write_atomic(path, text.encode())
        return True

    def _tell(self, verb: str, *units: str) -> None:
        arguments = [verb, *units] if self.is_here else [f"--root={self.prefix}", verb, *units]
        try:
            done = self.run(arguments)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StateError(
                Kind.SYSTEMD_REFUSED, f"systemctl {verb} could not be run: {error}.", retryable=True
            ) from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise StateError(
                Kind.SYSTEMD_REFUSED,
                f"systemctl {verb} failed ({done.returncode}): {said[-1] if said else 'no output'}",
                hint=f"See `systemctl status {units[0]}` and `journalctl -u {units[0]}`." if units else "",
            )

    def _under(self, path: Path) -> Path:
        return self.prefix / path.relative_to("/")


def compile_installation() -> None:
    """Compile the interpreter's packages now: in its sandbox the service never can.

    Without this each start of the engine, every few minutes, would compile all it imports again.
    """
    packages = sysconfig.get_path("purelib")
    if os.access(packages, os.W_OK):
        # The engine runs as Python does by itself, the daemon without docstrings (-OO).
        for level in (0, 2):
            compileall.compile_dir(packages, quiet=2, optimize=level)
