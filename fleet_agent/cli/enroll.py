"""`fleet-agent enroll`."""

from __future__ import annotations

import argparse
import asyncio
import os

from fleet_agent import __version__
from fleet_agent.cli.context import AddCommand, Context

TOKEN_VARIABLE = "FLEET_PROVISIONING_TOKEN"  # noqa: S105 - the name of a variable


def add(command: AddCommand) -> None:
    enroll = command("enroll", help="take a place in the fleet")
    enroll.add_argument(
        "--token",
        help=f"provisioning token; better in ${TOKEN_VARIABLE} (other users see a command line). "
        "Without one the device asks and waits to be accepted.",
    )
    enroll.add_argument("--name", help="wished name (default: the configuration's, else the host name)")
    enroll.add_argument("--json", action="store_true", help="print the answer as JSON")
    enroll.set_defaults(run=_enroll)


def _enroll(context: Context, options: argparse.Namespace) -> int:
    from fleet_agent import config, log
    from fleet_agent.control_plane import edge_functions as enrollment
    from fleet_agent.control_plane import tokens
    from fleet_agent.control_plane.client import http_client, tls_context
    from fleet_agent.control_plane.identity import Identity
    from fleet_agent.host.machine import Machine, host_name
    from fleet_agent.support import retry
    from fleet_agent.support.clock import Clock

    device = config.load(context.config)
    log.set_up(device.log_level)
    identity = Identity.load_or_create(context.paths)
    clock = Clock(context.paths.clock_floor)
    machine = Machine(context.paths.root)
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
            f"{answer.name} asked for a context ({answer.device_id}) and waits to be accepted by an operator."
        )
    else:
        print(f"{answer.name} is enrolled as {answer.device_id}: {answer.role}, {answer.segment}.")
    return 0
