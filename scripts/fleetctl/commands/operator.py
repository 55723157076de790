"""`fleetctl operator`: the people who may see and run the fleet."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer

from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.options import command
from fleetctl.console import err
from fleetctl.errors import FleetctlError

app = typer.Typer(help="The people who run the fleet.", no_args_is_help=True)


class Rank(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


_Email = Annotated[str, typer.Argument(help="The address they sign in with.")]


@command(app)
def add(
    fleet: Fleet,
    email: _Email,
    rank: Annotated[
        Rank, typer.Option(help="viewer reads, operator runs the fleet, admin manages people.")
    ] = Rank.VIEWER,
    password: Annotated[
        str | None,
        typer.Option(envvar="FLEET_OPERATOR_PASSWORD", help="Theirs; a random one is made and shown once."),
    ] = None,
    user_id: Annotated[
        str | None, typer.Option(help="The id of a user that Auth has already; no user is made.")
    ] = None,
) -> None:
    """Let somebody in: makes their Auth user and gives it a rank."""
    if fleet.api.rows("operators", _is(email), order="email"):
        raise FleetctlError(
            "operator_exists",
            f"{email} is an operator already.",
            hint="Change it with fleetctl operator rank.",
        )
    shown = None
    if user_id is not None:
        user = _user_id(user_id)
    else:
        shown = None if password else secrets.token_urlsafe(12)
        user = fleet.api.make_user(email, password or shown or "")
    made = fleet.api.insert("operators", {"user_id": str(user), "email": email, "rank": rank.value})
    fleet.say(f"{email} is {rank.value} now.", {**made, **({"password": shown} if shown else {})})
    if shown and not fleet.as_json:
        err.print(f"Password, shown once: [bold]{shown}[/]", highlight=False)


@command(app, "list")
def list_operators(fleet: Fleet) -> None:
    """List operators with their ranks."""
    fleet.show(
        "Operators",
        {
            "email": lambda row: row["email"],
            "rank": lambda row: row["rank"],
            "since": lambda row: row["created_at"][:10],
            "user id": lambda row: row["user_id"],
        },
        fleet.api.rows("operators", order="email"),
    )


@command(app)
def rank(fleet: Fleet, email: _Email, to: Annotated[Rank, typer.Argument(help="The new rank.")]) -> None:
    """Change somebody's rank; it takes effect on their next request."""
    changed = fleet.api.update("operators", {"rank": to.value}, _is(email))
    _known(email, changed)
    fleet.say(f"{email} is {to.value} now.", changed)


@command(app)
def remove(fleet: Fleet, email: _Email) -> None:
    """Take somebody's rights away at once. Their Auth user stays and may do nothing."""
    removed = fleet.api.delete("operators", _is(email))
    _known(email, removed)
    fleet.say(f"{email} is no operator any more.", removed)


def _is(email: str) -> Any:
    return lambda query: query.eq("email", email)


def _known(email: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        raise FleetctlError(
            "operator_unknown", f"{email} is no operator.", hint="See fleetctl operator list.", exit_code=5
        )


def _user_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise FleetctlError("user_id_malformed", f"{text} is no user id.", exit_code=2) from error
