"""The command line of a device. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet_agent import __version__
from fleet_agent.errors import ConfigError, ControlPlaneError, FleetError, Kind, StateError
from fleet_agent.paths import DEFAULT_CONFIG, DEFAULT_ROOT, Paths

if TYPE_CHECKING:
    from fleet_agent.config import DeviceConfig, EmergencyAccess
    from fleet_agent.daemon.loop import Daemon
    from fleet_agent.host import emergency_ssh as emergency
    from fleet_agent.model import Attempt

#: Exit codes besides 0: argparse's own 2 is for a wrong command line, so configuration shares it.
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_UNREACHABLE = 3
EXIT_REFUSED = 4
EXIT_LOCKED = 75

_EXITS = {
    Kind.CONFIG_INVALID: EXIT_CONFIG,
    Kind.CONFIG_MISSING: EXIT_CONFIG,
    Kind.NOT_ENROLLED: EXIT_CONFIG,
    Kind.LOCKED: EXIT_LOCKED,
    Kind.UNREACHABLE: EXIT_UNREACHABLE,
    Kind.TIMED_OUT: EXIT_UNREACHABLE,
    Kind.NOT_OUR_SERVER: EXIT_UNREACHABLE,
    Kind.SERVER_ERROR: EXIT_UNREACHABLE,
    Kind.RATE_LIMITED: EXIT_UNREACHABLE,
    Kind.CLOCK_WRONG: EXIT_UNREACHABLE,
}
TOKEN_VARIABLE = "FLEET_PROVISIONING_TOKEN"  # noqa: S105 - the name of a variable


@dataclass(frozen=True)
class Place:
    """Which agent of this machine is meant."""

    paths: Paths
    config: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one sentence with its kind on standard error."""
    options = _parser().parse_args(arguments)
    place = Place(Paths(options.root.absolute()), options.config.absolute())
    try:
        code: int = options.run(place, options)
    except FleetError as error:
        _complain(error)
        return _EXITS.get(error.kind, EXIT_REFUSED if isinstance(error, ControlPlaneError) else EXIT_FAILED)
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleet-agent", description="Keeps this device on the release that its fleet wants it to run."
    )
    parser.add_argument("--version", action="version", version=f"fleet-agent {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--root", type=Path, default=DEFAULT_ROOT, help=f"the agent's folder (default {DEFAULT_ROOT})"
    )
    common.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help=f"its configuration (default {DEFAULT_CONFIG})"
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    enroll = verbs.add_parser("enroll", parents=[common], help="take a place in the fleet")
    enroll.add_argument(
        "--token",
        help=f"provisioning token; better in ${TOKEN_VARIABLE} (other users see a command line). "
        "Without one the device asks and waits to be accepted.",
    )
    enroll.add_argument("--name", help="wished name (default: the configuration's, else the host name)")
    enroll.add_argument("--json", action="store_true", help="print the answer as JSON")
    enroll.set_defaults(run=_enroll)

    run = verbs.add_parser("run", parents=[common], help="be the daemon")
    run.set_defaults(run=_run)

    once = verbs.add_parser("once", parents=[common], help="converge a single time and end")
    once.set_defaults(run=_once)

    status = verbs.add_parser("status", parents=[common], help="what this device runs, and why")
    status.add_argument("--json", action="store_true", help="print it as JSON")
    status.set_defaults(run=_status)

    history = verbs.add_parser("history", parents=[common], help="the last attempts to update this device")
    history.add_argument("--json", action="store_true", help="print them as JSON, with all their evidence")
    history.set_defaults(run=_history)

    validate = verbs.add_parser("validate-config", parents=[common], help="check the configuration")
    validate.set_defaults(run=_validate_config)

    rollback = verbs.add_parser("rollback", parents=[common], help="go back to the previous release")
    rollback.add_argument("--reason", default="Asked for on the device.", help="for the update history")
    rollback.set_defaults(run=_rollback)

    install = verbs.add_parser("install", parents=[common], help="be a service of systemd")
    install.add_argument("--dry-run", action="store_true", help="print the units and change nothing")
    install.add_argument("--no-enable", action="store_true", help="write the units, and leave it at that")
    install.add_argument("--now", action="store_true", help="start the service and the timer, too")
    install.add_argument(
        "--python", type=Path, help="the interpreter that has fleet_agent installed (default: this one)"
    )
    _add_prefix(install)
    install.set_defaults(run=_install)

    uninstall = verbs.add_parser("uninstall", parents=[common], help="stop being a service of systemd")
    _add_prefix(uninstall)
    uninstall.set_defaults(run=_uninstall)
    return parser


def _add_prefix(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prefix", type=Path, default=Path("/"), help="the tree of an image being built (default /)"
    )


def _enroll(place: Place, options: argparse.Namespace) -> int:
    from fleet_agent import config, log
    from fleet_agent.control_plane import edge_functions as enrollment
    from fleet_agent.control_plane import tokens
    from fleet_agent.control_plane.client import http_client, tls_context
    from fleet_agent.control_plane.identity import Identity
    from fleet_agent.host.machine import Machine, host_name
    from fleet_agent.support import retry
    from fleet_agent.support.clock import Clock

    device = config.load(place.config)
    log.set_up(device.log_level)
    identity = Identity.load_or_create(place.paths)
    clock = Clock(place.paths.clock_floor)
    machine = Machine(place.paths.root)
    facts = enrollment.Facts(
        name=options.name or device.name or host_name(),
        hardware_model=machine.hardware_model(),
        os=machine.operating_system(),
        agent_version=__version__,
    )

    async def ask() -> enrollment.Enrollment:
        tls = tls_context() if device.api_url.startswith("https") else None
        async with http_client(tls) as client:

            async def attempt() -> enrollment.Enrollment:
                token = options.token or os.environ.get(TOKEN_VARIABLE)
                return await enrollment.enroll(client, device, identity, facts, token, clock=clock.now)

            return await retry.call(retry.ENROLL, attempt)

    answer = asyncio.run(ask())
    clock.observe(answer.server_time)
    if identity.device_id != answer.device_id:
        tokens.forget(identity.folder)
    identity.remember(answer.device_id)
    if options.json:
        print(answer.model_dump_json())
    elif answer.kind == "pending":
        print(
            f"{answer.name} asked for a place ({answer.device_id}) and waits to be accepted by an operator."
        )
    else:
        print(f"{answer.name} is enrolled as {answer.device_id}: {answer.role}, {answer.segment}.")
    return 0


def _run(place: Place, _options: argparse.Namespace) -> int:
    _start_lean()
    daemon = _daemon(place)
    from fleet_agent.host import process_memory as footprint

    footprint.settle()
    asyncio.run(daemon.run())
    return 0


def _start_lean() -> None:
    """Begin again, in the same process, with what a daemon does not need left out of memory (about 3 MiB)."""
    if sys.flags.optimize < 2:
        # Docstrings, asserts and the columns of tracebacks stay out.
        flags = ["-OO", "-X", "no_debug_ranges"]
        os.execv(sys.executable, [sys.executable, *flags, "-m", "fleet_agent", *sys.argv[1:]])  # noqa: S606
    # httpcore loads HTTP/2 wherever it is installed (postgrest asks for it); this client speaks HTTP/1.1.
    sys.modules.setdefault("h2", None)  # type: ignore[arg-type]


def _once(place: Place, _options: argparse.Namespace) -> int:
    return int(asyncio.run(_daemon(place).once()))


def _daemon(place: Place) -> Daemon:
    from fleet_agent import log
    from fleet_agent.config import ConfigFile
    from fleet_agent.daemon.loop import Daemon

    file = ConfigFile.open(place.config)
    return Daemon(place.paths, file, _enrolled(place), log.set_up(file.current.log_level))


def _enrolled(place: Place) -> Any:
    from fleet_agent.control_plane.identity import Identity

    identity = Identity.load(place.paths)
    if identity is None or identity.device_id is None:
        raise ConfigError(
            Kind.NOT_ENROLLED,
            f"The device at {place.paths.root} has no place in a fleet yet.",
            hint="Run fleet-agent enroll first.",
        )
    return identity


def _status(place: Place, options: argparse.Namespace) -> int:
    """Read from this device alone: works without a network and beside a running daemon."""
    from fleet_agent import config
    from fleet_agent.attempts.outbox import Outbox
    from fleet_agent.control_plane.identity import Identity
    from fleet_agent.daemon import isolation
    from fleet_agent.engine.lock import holder
    from fleet_agent.model import ReportState

    device = config.load(place.config)
    _quiet()
    identity = Identity.load(place.paths)
    engine = _engine_status(place, device)
    facts: dict[str, Any] = {
        "device_id": str(identity.device_id) if identity and identity.device_id else None,
        "control_plane": device.api_url,
        "agent_version": __version__,
        "converging": holder(place.paths.lock),
        "outbox": len(Outbox(place.paths.outbox).pending()),
        "isolated_since": None,
        **engine,
    }
    facts["emergency_access"] = _emergency_facts(place, device)
    mark = isolation.read(place.paths.isolated)
    if mark is not None:
        facts["isolated_since"] = mark.since.isoformat()
        if facts["state"] in (ReportState.HEALTHY, ReportState.ROLLED_BACK):
            # Worse states of what runs are not hidden by it.
            facts |= {"state": ReportState.ISOLATED.value, "reason": mark.error}
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    current, previous = facts.get("current"), facts.get("previous")
    print(f"device      {facts['device_id'] or 'not enrolled'}  (control plane {facts['control_plane']})")
    print(
        f"state       {facts['state']} ({facts['phase']}){': ' + facts['reason'] if facts['reason'] else ''}"
    )
    print(f"runs        {_release(current)}, before it {_release(previous)}")
    if mark is not None:
        print(f"isolated    since {facts['isolated_since']}: {mark.error_kind}: {mark.error}")
    if facts["error"]:
        print(f"last error  {facts['error_kind']}: {facts['error']}")
    if facts["converging"]:
        print(f"converging  {facts['converging']}")
    for service in facts["services"]:
        print(f"service     {service['service']}: {service['state']}, {service.get('health') or 'no check'}")
    print(f"emergency   {_emergency_line(facts['emergency_access'])}")
    if facts["outbox"]:
        print(f"outbox      {facts['outbox']} attempts not yet shipped")
    return 0


def _history(place: Place, options: argparse.Namespace) -> int:
    """Newest last; from this device alone, like `status`."""
    from fleet_agent.attempts.history import History
    from fleet_agent.attempts.outbox import Outbox

    _quiet()
    shipped, waiting = History(place.paths.history).attempts(), Outbox(place.paths.outbox).pending()
    here = {attempt.id: (attempt, True) for attempt in shipped} | {
        attempt.id: (attempt, False) for attempt in waiting
    }
    found = sorted(here.values(), key=lambda one: one[0].started_at.timestamp())
    if options.json:
        rows = [{**attempt.model_dump(mode="json"), "shipped": sent} for attempt, sent in found]
        print(json.dumps(rows, indent=2))
        return 0
    for attempt, sent in found:
        print(_told(attempt) + ("" if sent else ", not yet shipped"))
    if not found:
        print("No attempt yet.")
    return 0


def _told(attempt: Attempt) -> str:
    """One attempt in one line."""
    seconds = (attempt.finished_at - attempt.started_at).total_seconds()
    before = (attempt.from_commit or "nothing")[:10]
    line = (
        f"{attempt.started_at:%Y-%m-%d %H:%M} UTC  {before} to {attempt.to_commit[:10]}  "
        f"{attempt.outcome.value} in {seconds:.0f} s, {attempt.bytes_fetched} bytes"
    )
    return f"{line}, {attempt.error_kind}: {attempt.error}" if attempt.error_kind else line


def _emergency_facts(place: Place, device: DeviceConfig) -> dict[str, Any]:
    """What is installed, and whether that is what the configuration wants."""
    from fleet_agent.host import emergency_ssh as emergency

    access = emergency.in_effect()
    return {
        "access": access.model_dump(mode="json") if access is not None else None,
        "open": access is not None and place.paths.in_safe_mode.exists(),
        "host_key": emergency.fingerprint(place.paths) if access is not None else None,
        "as_configured": access == device.emergency_access,
    }


def _emergency_line(facts: dict[str, Any]) -> str:
    access = facts["access"]
    if access is None:
        line = "off"
    else:
        when = "open" if facts["open"] else "in safe mode"
        line = (
            f"{when}: ssh on port {access['port']} for {access['user']}, keys in {access['authorized_keys']}"
        )
        if facts["host_key"]:
            line += f", host key {facts['host_key']}"
    return line if facts["as_configured"] else f"{line} (not as configured: run fleet-agent install)"


def _engine_status(place: Place, device: Any) -> dict[str, Any]:
    from fleet_agent.daemon.engine_process import Verb, Worker, engine_settings

    status = asyncio.run(Worker(lambda: engine_settings(place.paths, device)).run(Verb.STATUS))
    return status.model_dump(mode="json")


def _release(release: dict[str, Any] | None) -> str:
    return f"{release['version']} ({release['commit_sha'][:10]})" if release else "nothing"


def _validate_config(place: Place, _options: argparse.Namespace) -> int:
    from fleet_agent import config

    device = config.load(place.config)
    if device.allowed_signers is not None and not device.allowed_signers.is_file():
        raise ConfigError(
            Kind.CONFIG_INVALID,
            f"`allowed_signers` names {device.allowed_signers}, which is not a file.",
            hint="Put the fleet's allowed_signers file there.",
        )
    print(f"{place.config} is good.")
    if not device.verify_signatures:
        print("Note: verify_signatures is false; whoever can push to the repository runs code here.")
    for note in _notes_on_emergency_access(place, device.emergency_access):
        print(f"Note: {note}")
    return 0


def _notes_on_emergency_access(place: Place, wanted: EmergencyAccess | None) -> Iterator[str]:
    """Why it is not as `device.json` says. Raises ConfigError where it never could be."""
    from fleet_agent.host import emergency_ssh as emergency

    if wanted is not None:
        emergency.check(wanted, place.paths)
        try:
            emergency.tools()
        except StateError as error:
            yield f"{error.kind.value}: {error}"
            return
    if emergency.in_effect() != wanted:
        yield "emergency_access is not in effect as it says here; run `fleet-agent install`."


def _rollback(place: Place, options: argparse.Namespace) -> int:
    from fleet_agent import config, log
    from fleet_agent.daemon.engine_process import Verb, Worker, engine_settings
    from fleet_agent.model import Progress

    device = config.load(place.config)
    log.set_up(device.log_level)

    async def show(progress: Progress) -> None:
        print(f"{progress.phase} {progress.detail}".strip(), file=sys.stderr)

    worker = Worker(lambda: engine_settings(place.paths, device))
    status = asyncio.run(worker.run(Verb.ROLLBACK, reason=options.reason, on_progress=show))
    print(f"{status.state.value}: runs {status.current.version if status.current else 'nothing'}")
    return 0 if status.error_kind is None else EXIT_FAILED


def _install(place: Place, options: argparse.Namespace) -> int:
    from fleet_agent.host import emergency_ssh as emergency
    from fleet_agent.host import systemd

    installer = systemd.Installer(options.prefix.absolute())
    # Not resolved: the interpreter of a virtual environment is a link, and what it is called matters.
    python = options.python or Path(sys.executable)
    agent = systemd.Agent(place.paths.root, place.config, python.absolute())
    access, lacking = _emergency_access(place, installer.prefix)
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
            print(f"Its host key: {emergency.fingerprint(place.paths)}")
    if installer.is_here and not options.now:
        print(f"Start it with: systemctl start {' '.join(systemd.enabled(access))}")
    return _after(lacking)


def _after(lacking: FleetError | None) -> int:
    """All the rest was done; what could not be is said last, where it is seen."""
    if lacking is None:
        return 0
    _complain(lacking)
    return EXIT_FAILED


def _emergency_access(place: Place, tree: Path) -> tuple[emergency.Setup | None, FleetError | None]:
    """What `device.json` asks for, ready to install; and why it cannot be had although it asks."""
    from fleet_agent import config
    from fleet_agent.host import emergency_ssh as emergency

    try:
        device = config.load(tree / place.config.relative_to("/"))
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
        return emergency.set_up(wanted, place.paths, tree=tree), None
    except StateError as error:
        return None, error


def _uninstall(_place: Place, options: argparse.Namespace) -> int:
    from fleet_agent.host import systemd

    installer = systemd.Installer(options.prefix.absolute())
    for name in installer.uninstall():
        print(f"{installer.folder / name} removed")
    return 0


def _quiet() -> None:
    from fleet_agent import log

    log.set_up("WARNING")


def _complain(error: FleetError) -> None:
    from fleet_agent.log import redact

    print(redact(f"fleet-agent: {error.kind.value}: {error}"), file=sys.stderr)
