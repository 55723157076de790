"""`fleet-agent install`, `uninstall` and `validate-config`: this agent as a part of its machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fleet_agent.cli.context import AddCommand, Context, complain
from fleet_agent.cli.exit_codes import EXIT_FAILED
from fleet_agent.errors import ConfigError, FleetError, Kind, StateError

if TYPE_CHECKING:
    from fleet_agent.config import EmergencyAccess
    from fleet_agent.host import emergency_ssh as emergency


def add(command: AddCommand) -> None:
    command("validate-config", help="check the configuration").set_defaults(run=_validate_config)

    install = command("install", help="be a service of systemd")
    install.add_argument("--dry-run", action="store_true", help="print the units and change nothing")
    install.add_argument("--no-enable", action="store_true", help="write the units, and leave it at that")
    install.add_argument("--now", action="store_true", help="start the service and the timer, too")
    install.add_argument(
        "--python", type=Path, help="the interpreter that has fleet_agent installed (default: this one)"
    )
    install.set_defaults(run=_install)

    uninstall = command("uninstall", help="stop being a service of systemd")
    uninstall.set_defaults(run=_uninstall)

    for parser in (install, uninstall):
        parser.add_argument(
            "--prefix", type=Path, default=Path("/"), help="the tree of an image being built (default /)"
        )


def _validate_config(context: Context, _options: argparse.Namespace) -> int:
    from fleet_agent import config

    device = config.load(context.config)
    if device.allowed_signers is not None and not device.allowed_signers.is_file():
        raise ConfigError(
            Kind.CONFIG_INVALID,
            f"`allowed_signers` names {device.allowed_signers}, which is not a file.",
            hint="Put the fleet's allowed_signers file there.",
        )
    print(f"{context.config} is good.")
    if not device.verify_signatures:
        print("Note: verify_signatures is false; whoever can push to the repository runs code here.")
    for note in _notes_on_emergency_access(context, device.emergency_access):
        print(f"Note: {note}")
    return 0


def _notes_on_emergency_access(context: Context, wanted: EmergencyAccess | None) -> Iterator[str]:
    """Why it is not as `device.json` says. Raises ConfigError where it never could be."""
    from fleet_agent.host import emergency_ssh as emergency

    if wanted is not None:
        emergency.check(wanted, context.paths)
        try:
            emergency.tools()
        except StateError as error:
            yield f"{error.kind.value}: {error}"
            return
    if emergency.in_effect() != wanted:
        yield "emergency_access is not in effect as it says here; run `fleet-agent install`."


def _install(context: Context, options: argparse.Namespace) -> int:
    from fleet_agent.host import emergency_ssh as emergency
    from fleet_agent.host import systemd

    installer = systemd.Installer(options.prefix.absolute())
    # Not resolved: the interpreter of a virtual environment is a link, and what it is called matters.
    python = options.python or Path(sys.executable)
    agent = systemd.Agent(context.paths.root, context.config, python.absolute())
    access, lacking = _emergency_access(context, installer.prefix)
    if options.dry_run:
        agent.check()
        units = systemd.render(agent, systemd_version=installer.systemd_version(), access=access)
        for name, text in units.items():
            print(f"# {installer.folder / name}\n{text}")
        return _after(lacking)
    changed = installer.install(agent, enable=not options.no_enable, now=options.now, access=access)
    if installer.is_here:
        systemd.compile_installation()
    for name in (*systemd.UNITS, *emergency.FILES):
        if (installer.folder / name).exists():
            print(f"{installer.folder / name} {'written' if name in changed else 'unchanged'}")
        elif name in changed:
            print(f"{installer.folder / name} removed")
    if access is not None:
        print(f"Emergency access while in safe mode: ssh on {access.access}.")
        if installer.is_here:
            print(f"Its host key: {emergency.fingerprint(context.paths)}")
    if installer.is_here and not options.now:
        print(f"Start it with: systemctl start {' '.join(systemd.enabled(access))}")
    return _after(lacking)


def _after(lacking: FleetError | None) -> int:
    """All the rest was done; what could not be is said last, where it is seen."""
    if lacking is None:
        return 0
    complain(lacking)
    return EXIT_FAILED


def _emergency_access(context: Context, tree: Path) -> tuple[emergency.Setup | None, FleetError | None]:
    """What `device.json` asks for, ready to install; and why it cannot be had although it asks."""
    from fleet_agent import config
    from fleet_agent.host import emergency_ssh as emergency

    try:
        device = config.load(tree / context.config.relative_to("/"))
    except ConfigError as error:
        if error.kind is Kind.CONFIG_MISSING:
            # The agent may be installed before it is configured.
            return None, None
        raise
    wanted = device.emergency_access
    if wanted is None:
        return None, None
    if wanted.authorized_keys.is_relative_to(tree):
        # Given beside device.json; on the machine that starts from this tree it has no such prefix.
        keys = Path("/") / wanted.authorized_keys.relative_to(tree)
        wanted = wanted.model_copy(update={"authorized_keys": keys})
    try:
        return emergency.set_up(wanted, context.paths, tree=tree), None
    except StateError as error:
        return None, error


def _uninstall(_context: Context, options: argparse.Namespace) -> int:
    from fleet_agent.host import systemd

    installer = systemd.Installer(options.prefix.absolute())
    for name in installer.uninstall():
        print(f"{installer.folder / name} removed")
    return 0
