"""`fleet-agent install`, `uninstall` and `validate-config`: this agent as a part of its machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fleet_agent.cli.context import AddCommand, Context, complain
from fleet_agent.cli.exit_codes import EXIT_FAILED
from fleet_agent.errors import ConfigError, FleetError, Kind, StateError, config_invalid

if TYPE_CHECKING:
    from fleet_agent.config import RescueAccess
    from fleet_agent.host import rescue_ssh


def add(command: AddCommand) -> None:
    command("validate-config", help="check the configuration").set_defaults(run=_validate_config)

    install = command("install", help="install and enable the systemd units")
    install.add_argument("--dry-run", action="store_true", help="print the units without changing anything")
    install.add_argument("--no-enable", action="store_true", help="write the units but do not enable them")
    install.add_argument("--now", action="store_true", help="also start the service and the timer")
    install.add_argument(
        "--python", type=Path, help="Python interpreter that has fleet_agent installed (default: this one)"
    )
    install.set_defaults(run=_install)

    uninstall = command("uninstall", help="stop and remove the systemd units")
    uninstall.set_defaults(run=_uninstall)

    for parser in (install, uninstall):
        parser.add_argument(
            "--prefix", type=Path, default=Path("/"), help="root of an image being built (default /)"
        )


def _validate_config(context: Context, _options: argparse.Namespace) -> int:
    from fleet_agent import config

    device = config.load(context.config)
    if device.allowed_signers is not None and not device.allowed_signers.is_file():
        why = f"allowed_signers names {device.allowed_signers}, which is not a file"
        raise config_invalid(context.config, why, hint="Put the fleet's allowed_signers file there.")
    print(f"{context.config} is valid.")
    if not device.verify_signatures:
        print("Note: verify_signatures is false, so anyone who can push to the repository can run code here.")
    for note in _notes_on_rescue_access(context, device.rescue_access):
        print(f"Note: {note}")
    return 0


def _notes_on_rescue_access(context: Context, wanted: RescueAccess | None) -> Iterator[str]:
    """Why it differs from `device.json`. Raises ConfigError if it can never work."""
    from fleet_agent.host import rescue_ssh

    if wanted is not None:
        rescue_ssh.check(wanted, context.paths)
        try:
            rescue_ssh.tools()
        except StateError as error:
            yield f"{error.kind.value}: {error}"
            return
    if rescue_ssh.in_effect() != wanted:
        yield "rescue_access in this file is not what is installed; run `fleet-agent install`."


def _install(context: Context, options: argparse.Namespace) -> int:
    from fleet_agent.host import rescue_ssh, systemd

    installer = systemd.Installer(options.prefix.absolute())
    # Not resolved: the interpreter of a virtual environment is a link, and what it is called matters.
    python = options.python or Path(sys.executable)
    agent = systemd.Agent(context.paths.root, context.config, python.absolute())
    access, lacking = _rescue_access(context, installer.prefix)
    if options.dry_run:
        agent.check()
        units = systemd.render(agent, systemd_version=installer.systemd_version(), access=access)
        for name, text in units.items():
            print(f"# {installer.folder / name}\n{text}")
        return _after(lacking)
    changed = installer.install(agent, enable=not options.no_enable, now=options.now, access=access)
    if installer.is_here:
        systemd.compile_installation()
    for name in (*systemd.UNITS, *rescue_ssh.FILES):
        if (installer.folder / name).exists():
            print(f"{installer.folder / name} {'written' if name in changed else 'unchanged'}")
        elif name in changed:
            print(f"{installer.folder / name} removed")
    if access is not None:
        print(f"Rescue access (in safe mode only): ssh on {access.access}.")
        if installer.is_here:
            print(f"Its host key: {rescue_ssh.fingerprint(context.paths)}")
    if installer.is_here and not options.now:
        print(f"Start it with: systemctl start {' '.join(systemd.enabled(access))}")
    return _after(lacking)


def _after(lacking: FleetError | None) -> int:
    """Everything else was done; what could not be done comes last, so that it is noticed."""
    if lacking is None:
        return 0
    complain(lacking)
    return EXIT_FAILED


def _rescue_access(context: Context, tree: Path) -> tuple[rescue_ssh.Setup | None, FleetError | None]:
    """What `device.json` configures, ready to install; or why it cannot be installed."""
    from fleet_agent import config
    from fleet_agent.host import rescue_ssh

    try:
        device = config.load(tree / context.config.relative_to("/"))
    except ConfigError as error:
        if error.kind is Kind.CONFIG_MISSING:
            # The agent may be installed before it is configured.
            return None, None
        raise
    wanted = device.rescue_access
    if wanted is None:
        return None, None
    if wanted.authorized_keys.is_relative_to(tree):
        # Given relative to device.json; on the machine that boots from this tree there is no such prefix.
        keys = Path("/") / wanted.authorized_keys.relative_to(tree)
        wanted = wanted.model_copy(update={"authorized_keys": keys})
    try:
        return rescue_ssh.set_up(wanted, context.paths, tree=tree), None
    except StateError as error:
        return None, error


def _uninstall(_context: Context, options: argparse.Namespace) -> int:
    from fleet_agent.host import systemd

    installer = systemd.Installer(options.prefix.absolute())
    for name in installer.uninstall():
        print(f"{installer.folder / name} removed")
    return 0
