"""`fleetctl token`: provisioning tokens, with which machines enroll by themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.commands.common.options import SHORT_ID, Fleet, command, duration, find_by_id
from fleetctl.console import err, out, print_json

app = typer.Typer(help="Provisioning tokens, with which machines enroll.", no_args_is_help=True)


@command(app)
def create(
    fleet: Fleet,
    *,
    role: Annotated[str, typer.Option(help="What the devices will be for.")],
    segment: Annotated[str, typer.Option(help="Their deployment ring.")] = "stable",
    branch: Annotated[str, typer.Option(help="The branch they track.")] = "main",
    label: Annotated[str, typer.Option(help="A note for people.")] = "",
    uses: Annotated[int, typer.Option(min=1, max=100_000, help="So many devices may use it.")] = 1,
    valid_for: Annotated[str, typer.Option(metavar="DURATION", help="60s to 365d.")] = "7d",
    wait: Annotated[
        bool, typer.Option("--wait-for-accept", help="Its devices still wait for an operator.")
    ] = False,
) -> None:
    """Make a token. It is printed once, alone on stdout; only its hash is kept."""
    made = fleet.api.rpc(
        "create_provisioning_token", role=role, segment=segment, branch=branch, label=label, max_uses=uses,
        valid_for_s=int(duration(valid_for).total_seconds()), auto_accept=not wait,
    )  # fmt: skip
    if fleet.as_json:
        print_json(made)
        return
    out.print(made["token"], markup=False)
    devices = "one device" if uses == 1 else f"{uses} devices"
    err.print(
        f"For {devices}: {role}, {segment}, {branch}; until {made['expires_at']}. It is not shown again."
    )


@command(app, "list")
def list_tokens(fleet: Fleet) -> None:
    """List tokens, without their secret."""
    fleet.show(
        "Tokens",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "label": lambda row: row["label"],
            "role": lambda row: row["role"],
            "segment": lambda row: row["segment"],
            "branch": lambda row: row["branch"],
            "used": lambda row: f"{row['uses']} of {row['max_uses']}",
            "expires": lambda row: row["expires_at"][:16].replace("T", " "),
            "revoked": lambda row: (row["revoked_at"] or "")[:16].replace("T", " "),
        },
        fleet.api.rpc("provisioning_tokens"),
    )


@command(app)
def revoke(
    fleet: Fleet, token_id: Annotated[str, typer.Argument(help="The id from fleetctl token list.")]
) -> None:
    """Make a token useless; devices that came in with it stay."""
    token = find_by_id(fleet.api.rpc("provisioning_tokens"), token_id, "token")
    fleet.api.rpc("revoke_provisioning_token", token_id=token["id"])
    fleet.say(f"Token {token['id']} is revoked.", {"id": token["id"], "revoked": True})
