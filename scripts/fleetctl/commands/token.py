"""`fleetctl token`: provisioning tokens, which let machines enroll."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID, minute
from fleetctl.commands.common.lookup import find_by_id
from fleetctl.commands.common.options import command
from fleetctl.commands.common.parse import duration
from fleetctl.console import counted, err, out, print_json

app = typer.Typer(help="Manage provisioning tokens, which let machines enroll.", no_args_is_help=True)


@command(app)
def create(
    context: Context,
    *,
    role: Annotated[str, typer.Option(help="Role of the devices.")],
    segment: Annotated[str, typer.Option(help="Segment of the devices.")] = "stable",
    branch: Annotated[str, typer.Option(help="Branch that the devices follow.")] = "main",
    label: Annotated[str, typer.Option(help="A note for other operators.")] = "",
    uses: Annotated[int, typer.Option(min=1, max=100_000, help="How many devices may enroll with it.")] = 1,
    valid_for: Annotated[str, typer.Option(metavar="DURATION", help="Valid for this long, 60s to 365d.")] = (
        "7d"
    ),
    wait: Annotated[
        bool,
        typer.Option("--wait-for-accept", help="Its devices stay pending until an operator accepts them."),
    ] = False,
) -> None:
    """Create a token. It is printed to stdout once; only its hash is stored."""
    made = context.api.rpc(
        "create_provisioning_token", role=role, segment=segment, branch=branch, label=label, max_uses=uses,
        valid_for_s=int(duration(valid_for).total_seconds()), auto_accept=not wait,
    )  # fmt: skip
    if context.as_json:
        print_json(made)
        return
    out.print(made["token"], markup=False)
    err.print(
        f"For {counted(uses)} ({role}, {segment}, {branch}), valid until {minute(made['expires_at'])} UTC. "
        "It is not shown again."
    )


@command(app, "list")
def list_tokens(context: Context) -> None:
    """List tokens, without the secret part."""
    context.show(
        "Tokens",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "label": lambda row: row["label"],
            "role": lambda row: row["role"],
            "segment": lambda row: row["segment"],
            "branch": lambda row: row["branch"],
            "used": lambda row: f"{row['uses']} of {row['max_uses']}",
            "expires": lambda row: minute(row["expires_at"]),
            "revoked": lambda row: minute(row["revoked_at"]),
        },
        context.api.rpc("provisioning_tokens"),
        if_none="No tokens.",
    )


@command(app)
def revoke(
    context: Context, token_id: Annotated[str, typer.Argument(help="Id from fleetctl token list.")]
) -> None:
    """Revoke a token. Devices that enrolled with it stay enrolled."""
    token = find_by_id(context.api.rpc("provisioning_tokens"), token_id, "token_unknown")
    context.api.rpc("revoke_provisioning_token", token_id=token["id"])
    context.say(f"Revoked token {token['id']}.", {"id": token["id"], "revoked": True})
