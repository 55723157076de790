"""`fleetctl login`, `logout`, `whoami`: act under a person's name instead of the project's secret key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fleetctl.client.query import where
from fleetctl.commands.common.context import Context
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
    email: Annotated[str, typer.Argument(help="The email address you sign in with.")],
    api_url: Annotated[
        str | None,
        typer.Option(
            envvar="FLEET_API_URL", help="URL of the project; without it, the stack on this machine."
        ),
    ] = None,
    publishable_key: Annotated[
        str | None, typer.Option(envvar="FLEET_PUBLISHABLE_KEY", help="The project's publishable key.")
    ] = None,
    password: Annotated[
        str | None, typer.Option(envvar="FLEET_PASSWORD", help="Your password; without it, you are asked.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Data folder of the embedded stack.")] = DEFAULT_DATA,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Sign in. From then on, fleetctl acts under your name and with your rank."""
    from fleetctl.client import session

    if (api_url is None) != (publishable_key is None):
        raise FleetctlError(
            "target_incomplete",
            "A URL needs its publishable key, and a key needs its URL.",
            hint="Give both --api-url and --publishable-key, or neither to use the stack on this machine.",
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


def logout(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Sign out, on this machine and at the control plane."""
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
        out.print("Signed out." if there else "You were not signed in.")


def whoami(context: Context) -> None:
    """Show which account fleetctl uses, at which control plane, and with which rank."""
    target = context.api.target
    rank = "service key: everything" if target.email is None else _rank(context, target.user_id)
    context.say(
        f"{target.email or 'service_role'} at {target.api_url} ({rank}).",
        {"email": target.email, "api_url": target.api_url, "rank": rank},
    )


def _rank(context: Context, user_id: str | None) -> str:
    rows = context.api.rows("operators", where(user_id=user_id), order="email") if user_id else []
    return str(rows[0]["rank"]) if rows else "not an operator: ask an admin to run fleetctl operator add"
