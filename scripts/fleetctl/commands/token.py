"""`fleetctl token`: provisioning tokens, which let machines enroll."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from fleetctl.client.query import Row
from fleetctl.commands import enroll_line
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID, both_clocks, minute
from fleetctl.commands.common.lookup import find_by_id
from fleetctl.commands.common.options import command
from fleetctl.commands.common.parse import duration, pairs_of
from fleetctl.commands.enroll_line import AllowedSigners, GitUrl, PublishableKey, Repository
from fleetctl.console import counted, pairs, print_json

app = typer.Typer(help="Manage provisioning tokens, which let machines enroll.", no_args_is_help=True)


@command(app)
def create(
    context: Context,
    *,
    role: Annotated[str, typer.Option(help="Role of the devices.")],
    segment: Annotated[str, typer.Option(help="Segment of the devices.")] = "stable",
    branch: Annotated[str, typer.Option(help="Branch that the devices follow.")] = "main",
    note: Annotated[str, typer.Option(help="A note for other operators.")] = "",
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label of the devices; repeat it.")
    ] = None,
    uses: Annotated[int, typer.Option(min=1, max=100_000, help="How many devices may enroll with it.")] = 1,
    valid_for: Annotated[str, typer.Option(metavar="DURATION", help="Valid for this long, 60s to 365d.")] = (
        "7d"
    ),
    wait: Annotated[
        bool,
        typer.Option("--wait-for-accept", help="Its devices stay pending until an operator accepts them."),
    ] = False,
    repository: Repository = None,
    git_url: GitUrl = None,
    allowed_signers: AllowedSigners = None,
    publishable_key: PublishableKey = None,
) -> None:
    """Create a token, and print the line that enrolls a device with it. Only its hash is stored."""
    labels = pairs_of(label or ())
    line = enroll_line.prepare(context, repository, git_url, allowed_signers, publishable_key)
    made = context.api.rpc(
        "create_provisioning_token", role=role, segment=segment, branch=branch, note=note, max_uses=uses,
        valid_for_s=int(duration(valid_for).total_seconds()), auto_accept=not wait, labels=labels,
    )  # fmt: skip
    until = both_clocks(datetime.fromisoformat(made["expires_at"]))
    line.show(
        made,
        f"For {counted(uses)} ({role}, {segment}, {branch}), valid until {until}. It is not shown again.",
    )


@command(app, "list")
def list_tokens(context: Context) -> None:
    """List tokens, without the secret part."""
    context.show(
        "Tokens",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "note": lambda row: row["note"],
            "role": lambda row: row["role"],
            "segment": lambda row: row["segment"],
            "branch": lambda row: row["branch"],
            "used": lambda row: f"{row['uses']} of {row['max_uses']}",
            "expires": lambda row: minute(row["expires_at"]),
            "devices": lambda row: _some(row["devices"]),
            "revoked": lambda row: minute(row["revoked_at"]),
        },
        _tokens(context),
        if_none="No tokens.",
    )


@command(app)
def show(
    context: Context, token_id: Annotated[str, typer.Argument(help="Id from fleetctl token list.")]
) -> None:
    """Show one token, without the secret part, and the devices that came with it."""
    token = find_by_id(
        context.api.ask_rows("provisioning_tokens", order="created_at.desc,id"), token_id, "token_unknown"
    )
    if context.as_json:
        print_json(token)
        return
    pairs(
        {
            "id": token["id"], "note": token["note"], "role": token["role"], "segment": token["segment"],
            "branch": token["branch"],
            "labels": ", ".join(f"{name}={value}" for name, value in sorted(token["labels"].items())),
            "used": f"{token['uses']} of {token['max_uses']}",
            "expires": minute(token["expires_at"]), "revoked": minute(token["revoked_at"]),
            "devices": ", ".join(token["devices"]) or "none yet",
        }
    )  # fmt: skip


@command(app)
def revoke(
    context: Context, token_id: Annotated[str, typer.Argument(help="Id from fleetctl token list.")]
) -> None:
    """Revoke a token. Devices that enrolled with it stay enrolled."""
    token = find_by_id(
        context.api.ask_rows("provisioning_tokens", order="created_at.desc,id"), token_id, "token_unknown"
    )
    context.api.rpc("revoke_provisioning_token", token_id=token["id"])
    context.say(f"Revoked token {token['id']}.", {"id": token["id"], "revoked": True})


def _tokens(context: Context) -> list[Row]:
    return context.api.ask_rows("provisioning_tokens", order="created_at.desc,id")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
