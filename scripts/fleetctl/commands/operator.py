"""`fleetctl operator`: the people who may see and run the fleet."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer

from fleetctl.client.query import where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.options import command
from fleetctl.console import err
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Manage the people who may see or run the fleet.", no_args_is_help=True)


class Rank(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


_Email = Annotated[str, typer.Argument(help="The email address they sign in with.")]


@command(app)
def add(
    context: Context,
    email: _Email,
    rank: Annotated[
        Rank, typer.Option(help="viewer reads, operator runs the fleet, admin also manages people.")
    ] = Rank.VIEWER,
    password: Annotated[
        str | None,
        typer.Option(
            envvar="FLEET_OPERATOR_PASSWORD",
            help="Their password; without it, a random one is generated and shown once.",
        ),
    ] = None,
    user_id: Annotated[
        str | None, typer.Option(help="Id of a user that Auth has already; no user is created.")
    ] = None,
) -> None:
    """Add a person: create their Auth user and give it a rank."""
    if context.api.rows("operators", where(email=email), order="email"):
        raise FleetctlError(
            "operator_exists",
            f"{email} is already an operator.",
            hint="Change the rank with: fleetctl operator rank",
        )
    shown = None
    if user_id is not None:
        user = _user_id(user_id)
    else:
        # Not a user of Auth first, and then the refusal.
        context.api.require_rank_to_write("operators", "user_id")
        shown = None if password else secrets.token_urlsafe(12)
        user = context.api.make_user(email, password or shown or "")
    made = context.api.insert("operators", {"user_id": str(user), "email": email, "rank": rank.value})
    context.say(f"{email} is now {rank.value}.", {**made, **({"password": shown} if shown else {})})
    if shown and not context.as_json:
        err.print(f"Password, shown only once: [bold]{shown}[/]", highlight=False)


@command(app, "list")
def list_operators(context: Context) -> None:
    """List people with their ranks."""
    context.show(
        "Operators",
        {
            "email": lambda row: row["email"],
            "rank": lambda row: row["rank"],
            "since": lambda row: row["created_at"][:10],
            "user id": lambda row: row["user_id"],
        },
        context.api.rows("operators", order="email"),
        if_none="No operators.",
    )


@command(app)
def rank(context: Context, email: _Email, to: Annotated[Rank, typer.Argument(help="The new rank.")]) -> None:
    """Change a person's rank. It takes effect with their next request."""
    _require_known(context, email)
    changed = context.api.update("operators", {"rank": to.value}, where(email=email))
    context.say(f"{email} is now {to.value}.", changed)


@command(app)
def remove(context: Context, email: _Email) -> None:
    """Revoke a person's access at once. Their Auth user stays, without any rights here."""
    _require_known(context, email)
    removed = context.api.delete("operators", where(email=email))
    context.say(f"{email} is no longer an operator.", removed)


def _require_known(context: Context, email: str) -> None:
    if not context.api.rows("operators", where(email=email), order="email"):
        raise FleetctlError(
            "operator_unknown",
            f"{email} is not an operator.",
            hint="See: fleetctl operator list",
            exit_code=5,
        )


def _user_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise FleetctlError("user_id_malformed", f"{text} is not a user id.", exit_code=2) from error
