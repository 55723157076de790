"""`fleet-agent run`, `once` and `rollback`: what moves this device."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING

from fleet_agent.cli.context import AddCommand, Context
from fleet_agent.cli.exit_codes import EXIT_FAILED
from fleet_agent.errors import ConfigError, Kind

if TYPE_CHECKING:
    from fleet_agent.control_plane.identity import Identity
    from fleet_agent.daemon.loop import Daemon


def add(command: AddCommand) -> None:
    command("run", help="be the daemon").set_defaults(run=_run)
    command("once", help="converge a single time and end").set_defaults(run=_once)
    rollback = command("rollback", help="go back to the previous release")
    rollback.add_argument("--reason", default="Asked for on the device.", help="for the update history")
    rollback.set_defaults(run=_rollback)


def _run(context: Context, _options: argparse.Namespace) -> int:
    _start_lean()
    daemon = _daemon(context)
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


def _once(context: Context, _options: argparse.Namespace) -> int:
    return int(asyncio.run(_daemon(context).once()))


def _daemon(context: Context) -> Daemon:
    from fleet_agent import log
    from fleet_agent.config import ConfigFile
    from fleet_agent.daemon.loop import Daemon

    file = ConfigFile.open(context.config)
    return Daemon(context.paths, file, _enrolled(context), log.set_up(file.current.log_level))


def _enrolled(context: Context) -> Identity:
    from fleet_agent.control_plane.identity import Identity

    identity = Identity.load(context.paths)
    if identity is None or identity.device_id is None:
        raise ConfigError(
            Kind.NOT_ENROLLED,
            f"The device at {context.paths.root} has no context in a fleet yet.",
            hint="Run fleet-agent enroll first.",
        )
    return identity


def _rollback(context: Context, options: argparse.Namespace) -> int:
    from fleet_agent import config, log
    from fleet_agent.daemon.engine_process import Verb
    from fleet_agent.model import Progress

    device = config.load(context.config)
    log.set_up(device.log_level)

    async def show(progress: Progress) -> None:
        print(f"{progress.phase} {progress.detail}".strip(), file=sys.stderr)

    engine = context.engine(device)
    status = asyncio.run(engine.run(Verb.ROLLBACK, reason=options.reason, on_progress=show))
    print(f"{status.state.value}: runs {status.current.version if status.current else 'nothing'}")
    return 0 if status.error_kind is None else EXIT_FAILED
