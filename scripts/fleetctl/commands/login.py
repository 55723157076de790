"""`fleetctl login`, `logout`, `whoami`: act under a person's name instead of the project's secret key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.options import command
from fleetctl.console import out, print_json
from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import DEFAULT_DATA


def add_to(app: typer.Typer) -> None:
    app.command()(login)
    app.command()(logout)
    command(app)(whoami)


def login(
    *,
    email: Annotated[str, typer.Argument(help="The address you sign in with.")],
    api_url: Annotated[
        str | None, typer.Option(envvar="FLEET_API_URL", help="The project; else the stack that runs here.")
    ] = None,
    publishable_key: Annotated[
        str | None, typer.Option(envvar="FLEET_PUBLISHABLE_KEY", help="The project's public key.")
    ] = None,
    password: Annotated[
        str | None, typer.Option(envvar="FLEET_PASSWORD", help="Asked for where it is not given.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of the embedded stack.")] = DEFAULT_DATA,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sign in: from now on fleetctl acts in your name, as far as your rank goes."""
    from fleetctl.client import session

    if (api_url is None) != (publishable_key is None):
        raise FleetctlError(
            "target_incomplete",
            "An address needs its publishable key, and a key its address.",
            hint="Give --api-url and --publishable-key, or neither for the stack that runs here.",
            exit_code=2,
        )
    if api_url is None or publishable_key is None:
        from fleetctl.stack.local_stack import LocalStack

        stack = LocalStack.find(data)
        api_url, publishable_key = stack.api_url, stack.publishable_key
    if password is None:
        if not sys.stdin.isatty():
            raise FleetctlError(
                "password_missing", "No password was given.", hint="Set FLEET_PASSWORD.", exit_code=2
            )
        password = typer.prompt("Password", hide_input=True)
    signed_in = session.sign_in(api_url.rstrip("/"), publishable_key, email, password)
    session.save(signed_in)
    if as_json:
        print_json({"email": signed_in.email, "api_url": signed_in.api_url})
    else:
        out.print(f"Signed in as {signed_in.email} at {signed_in.api_url}.", markup=False)


def logout(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Forget who is signed in, here and at Auth."""
    from fleetctl.client import session

    try:
        found = session.load()
    except FleetctlError:
        # Unreadable, so there is nothing to tell Auth; it goes all the same.
        found = None
    if found is not None:
        session.sign_out(found)
    there = session.forget()
    if as_json:
        print_json({"signed_out": there})
    else:
        out.print("Signed out." if there else "Nobody was signed in.")


def whoami(fleet: Fleet) -> None:
    """Who fleetctl acts as, where, and what that may do."""
    target = fleet.api.target
    rank = "service key: everything" if target.email is None else _rank(fleet, target.user_id)
    fleet.say(
        f"{target.email or 'service_role'} at {target.api_url} ({rank}).",
        {"email": target.email, "api_url": target.api_url, "rank": rank},
    )


def _rank(fleet: Fleet, user_id: str | None) -> str:
    rows = fleet.api.rows("operators", lambda query: query.eq("user_id", user_id), order="email")
    return str(rows[0]["rank"]) if rows else "no operator: an admin must let you in"
