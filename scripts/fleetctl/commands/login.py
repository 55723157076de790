"""`fleetctl login`, `logout`, `whoami`: act under a person's name instead of the project's secret key."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fleetctl.client import known_fleets
from fleetctl.client.known_fleets import LOCAL, Session, check_name, name_for
from fleetctl.client.query import where
from fleetctl.client.target import address
from fleetctl.commands.common.aim import Around, fleet_not_chosen, target_contradictory
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.options import Json, StackData, command
from fleetctl.console import out, print_json
from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import DEFAULT_DATA


def add_to(app: typer.Typer) -> None:
    app.command()(login)
    app.command()(logout)
    command(app)(whoami)


def login(
    *,
    email: Annotated[str, typer.Argument(help="The email address you sign in with.")],
    fleet: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to call this fleet here; by default, its project or host."),
    ] = None,
    api_url: Annotated[
        str | None,
        typer.Option(help="URL of the project, or set FLEET_API_URL; by default, the stack on this machine."),
    ] = None,
    publishable_key: Annotated[
        str | None, typer.Option(help="The project's publishable key; or set FLEET_PUBLISHABLE_KEY.")
    ] = None,
    password: Annotated[
        str | None, typer.Option(envvar="FLEET_PASSWORD", help="Your password; without it, you are asked.")
    ] = None,
    data: StackData = None,
    as_json: Json = False,
) -> None:
    """Sign in. From then on, fleetctl acts on this fleet, under your name and with your rank."""
    from fleetctl.client import session

    project = _project(Around.here(), fleet, data, api_url, publishable_key)
    if password is None:
        if not sys.stdin.isatty():
            raise FleetctlError(
                "password_missing", "No password was given.", hint="Set FLEET_PASSWORD.", exit_code=2
            )
        password = typer.prompt("Password", hide_input=True)
    signed_in = session.sign_in(project.fleet, project.api_url, project.publishable_key, email, password)
    known_fleets.remember(signed_in, use=True)
    if as_json:
        print_json({"email": signed_in.email, "api_url": signed_in.api_url, "fleet": signed_in.fleet})
    else:
        out.print(
            f"Signed in as {signed_in.email} at {signed_in.api_url}. This fleet is {signed_in.fleet} here.",
            markup=False,
        )


def logout(
    fleet: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this fleet; by default, of the one in use.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign out, on this machine and at the control plane."""
    found = _signed_in(fleet)
    if found is not None:
        from fleetctl.client import session

        session.sign_out(found)
        known_fleets.forget(found.fleet)
        left = known_fleets.load().sessions
        said = f"Signed out of {found.fleet}."
        if left:
            said += f" Still signed in to {', '.join(sorted(left))}: choose one with fleetctl fleet use."
    else:
        said = "You were not signed in."
    if as_json:
        print_json({"signed_out": found is not None, "fleet": found.fleet if found else None})
    else:
        out.print(said, markup=False)


def _signed_in(fleet: str | None) -> Session | None:
    """Whose session ends. An unreadable file is removed: it names nobody who could be told."""
    try:
        known = known_fleets.load()
    except FleetctlError:
        known_fleets.forget_all()
        return None
    if fleet is not None:
        return known.named(fleet)
    if known.in_use is not None:
        return known.sessions.get(known.in_use)
    if known.sessions:
        raise fleet_not_chosen("No fleet is in use.", list(known.sessions))
    return None


@dataclass(frozen=True)
class _Project:
    """Where somebody signs in."""

    fleet: str
    api_url: str
    publishable_key: str


def _project(
    around: Around, fleet: str | None, data: Path | None, api_url: str | None, publishable_key: str | None
) -> _Project:
    """What is typed, else the fleet of that name, else the environment, else the stack on this machine."""
    if data is not None and (api_url or publishable_key):
        raise target_contradictory(["--data", "--api-url" if api_url else "--publishable-key"])
    if fleet is not None:
        check_name(fleet)
    known = around.known.sessions.get(fleet or "")
    key = publishable_key or os.environ.get("FLEET_PUBLISHABLE_KEY")
    if api_url is not None:
        at = address(api_url)
        if publishable_key is None and around.api_url not in (None, at):
            key = None
    elif data is not None or fleet == LOCAL:
        return _stack(data or DEFAULT_DATA, fleet, around)
    elif known is not None:
        at, key = known.api_url, publishable_key or known.publishable_key
    elif around.api_url is not None or key is not None:
        at = around.api_url or ""
    else:
        return _stack(DEFAULT_DATA, fleet, around)
    if not (at and key):
        raise FleetctlError(
            "target_incomplete",
            "A URL needs its publishable key, and a key needs its URL.",
            hint="Give both --api-url and --publishable-key, or neither to use the stack on this machine.",
            exit_code=2,
        )
    return _Project(_free_name(fleet, at, around), at, key)


def _stack(data: Path, fleet: str | None, around: Around) -> _Project:
    from fleetctl.stack.local_stack import LocalStack

    stack = LocalStack.find(data)
    if fleet is None and data == DEFAULT_DATA:
        fleet = LOCAL
    return _Project(_free_name(fleet, stack.api_url, around), stack.api_url, stack.publishable_key)


def _free_name(fleet: str | None, api_url: str, around: Around) -> str:
    """The name for a fleet at this address. Raises FleetctlError `fleet_name_taken`."""
    if fleet is None:
        before = around.known.at(api_url)
        return before[0].fleet if before else name_for(api_url)
    taken = around.known.sessions.get(fleet)
    # The stack in `.fleet` may have another port each time.
    if taken is not None and taken.api_url != api_url and fleet != LOCAL:
        raise FleetctlError(
            "fleet_name_taken",
            f"{fleet} is the fleet at {taken.api_url}, not at {api_url}.",
            hint=f"Choose another --fleet, or give it up: fleetctl logout --fleet {fleet}",
            exit_code=2,
        )
    return fleet


def whoami(context: Context) -> None:
    """Show which account fleetctl uses, at which control plane, and with which rank."""
    target = context.api.target
    rank = "service key: everything" if target.email is None else _rank(context, target.user_id)
    context.say(
        f"{target.email or 'service_role'} at {target.api_url} ({rank}).",
        {"email": target.email, "api_url": target.api_url, "rank": rank},
    )


def _rank(context: Context, user_id: str | None) -> str:
    try:
        rows = context.api.rows("operators", where(user_id=user_id), order="email")
    except FleetctlError as error:
        if error.kind != "not_an_operator":
            raise
        return "not an operator: ask an admin to run fleetctl operator add"
    return str(rows[0]["rank"])
