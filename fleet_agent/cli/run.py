"""`fleet-agent run`, `once` and `rollback`: what moves this device."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING

from fleet_agent.cli.context import AddCommand, Context
from fleet_agent.cli.exit_codes import EXIT_FAILED
from fleet_agent.errors import ConfigError, not_enrolled

if TYPE_CHECKING:
    from fleet_agent.control_plane.identity import Identity
    from fleet_agent.daemon.loop import Daemon


def add(command: AddCommand) -> None:
    command("run", help="run the agent in the foreground (what systemd starts)").set_defaults(run=_run)
    command("once", help="check in once, apply what is due, and exit").set_defaults(run=_once)
    rollback = command("rollback", help="go back to the previous release")
    rollback.add_argument("--reason", default="Requested on the device.", help="for the update history")
    rollback.set_defaults(run=_rollback)


def _run(context: Context, _options: argparse.Namespace) -> int:
    _start_lean()
    daemon = _daemon(context)
    from fleet_agent.host import process_memory

    process_memory.keep_small()
    asyncio.run(daemon.run())
    return 0


def _start_lean() -> None:
    """Begin again, in the same process, with what a daemon does not need left out of memory (about 3 MiB)."""
    if sys.flags.optimize < 2:
        # Docstrings, asserts and the columns of tracebacks stay out.
        flags = ["-OO", "-X", "no_debug_ranges"]
        os.execv(sys.executable, [sys.executable, *flags, "-m", "fleet_agent", *sys.argv[1:]])  # noqa: S606
    from fleet_agent.host import process_memory

    process_memory.leave_out()


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
        raise not_enrolled(error=ConfigError)
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
