"""`fleet-agent enroll`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fleet_agent import __version__
from fleet_agent.cli import configuration
from fleet_agent.cli.context import AddCommand, Context

if TYPE_CHECKING:
    from fleet_agent.config import DeviceConfig
    from fleet_agent.control_plane.edge_functions import Enrollment, EnrollmentRequest
    from fleet_agent.control_plane.identity import Identity
    from fleet_agent.support.clock import Clock

TOKEN_VARIABLE = "FLEET_PROVISIONING_TOKEN"  # noqa: S105 - the name of a variable


def add(command: AddCommand) -> None:
    enroll = command("enroll", help="register this device with the fleet")
    enroll.add_argument(
        "--token",
        help=f"provisioning token; safer in ${TOKEN_VARIABLE} (other users can see a command line). "
        "Without one, the device waits for an operator to accept it.",
    )
    enroll.add_argument("--url", help="address of the control plane, for a device.json that is written here")
    enroll.add_argument("--key", help="the project's publishable key, for device.json")
    enroll.add_argument("--git-url", help="the fleet repository, for device.json")
    enroll.add_argument(
        "--fleet-id", help="the fleet whose releases this device runs, for device.json; others are refused"
    )
    enroll.add_argument(
        "--signer",
        action="append",
        default=[],
        metavar="LINE",
        help="a line of the file allowed_signers next to device.json; repeat it for several",
    )
    enroll.add_argument("--name", help="requested name (default: from the configuration, else the host name)")
    enroll.add_argument("--json", action="store_true", help="print the result as JSON")
    enroll.set_defaults(run=_enroll)


def _enroll(context: Context, options: argparse.Namespace) -> int:
    from fleet_agent import log
    from fleet_agent.control_plane import tokens
    from fleet_agent.control_plane.identity import Identity
    from fleet_agent.support.clock import Clock

    device, to_write = configuration.of(context.config, options)
    log.set_up(device.log_level)
    identity = Identity.load_or_create(context.paths)
    clock = Clock(context.paths.clock_floor)
    token = options.token or os.environ.get(TOKEN_VARIABLE)
    request = _request(options.name or device.name, device.labels, context)
    answer = asyncio.run(_ask(device, identity, request, token, clock))
    clock.observe(answer.server_time)
    # Not before: a line with a wrong key must not leave a file that contradicts the right one.
    configuration.write(to_write)
    if identity.device_id != answer.device_id:
        tokens.forget(identity.folder)
    identity.remember(answer.device_id)
    print(answer.model_dump_json() if options.json else _sentence(answer, identity))
    if to_write:
        written = ", ".join(str(path) for path in to_write)
        print(f"Wrote {written}. Next: fleet-agent install --now (or fleet-agent run).", file=sys.stderr)
    return 0


def _request(name: str | None, labels: Mapping[str, str], context: Context) -> EnrollmentRequest:
    from fleet_agent.control_plane.edge_functions import EnrollmentRequest
    from fleet_agent.host.machine import Machine, host_name
    from fleet_agent.support.plain_text import one_line

    machine = Machine(context.paths.root)
    model = machine.hardware_model()
    return EnrollmentRequest(
        name=name or host_name(),
        hardware_model=one_line(model) if model else None,
        os=one_line(machine.operating_system()),
        agent_version=__version__,
        labels=labels,
    )


async def _ask(
    device: DeviceConfig, identity: Identity, request: EnrollmentRequest, token: str | None, clock: Clock
) -> Enrollment:
    from fleet_agent.control_plane import edge_functions
    from fleet_agent.control_plane.client import http_client, tls_context
    from fleet_agent.support import retry

    async with http_client(tls_context() if device.api_url.startswith("https") else None) as client:

        async def attempt() -> Enrollment:
            return await edge_functions.enroll(client, device, identity, request, token, clock=clock.now)

        return await retry.call(retry.ENROLL, attempt)


def _sentence(answer: Enrollment, identity: Identity) -> str:
    taken = (
        "The requested name belongs to another device. If this machine takes its place, run "
        "`fleetctl device replace NAME` and enroll with that token. "
        if answer.name_taken
        else ""
    )
    return taken + _outcome(answer, identity)


def _outcome(answer: Enrollment, identity: Identity) -> str:
    if answer.kind == "pending":
        return (
            f"{answer.name} requested enrollment ({answer.device_id}) "
            f"and is waiting for an operator to accept it. Its fingerprint is {identity.fingerprint}."
        )
    return f"{answer.name} is enrolled as {answer.device_id}: {answer.role}, {answer.segment}."
