"""Which fleet a command acts on: what is typed decides, then the environment, then the fleet in use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fleetctl.client import known_fleets
from fleetctl.client.known_fleets import LOCAL, KnownFleets, Session
from fleetctl.client.target import Target, address
from fleetctl.console import err, print_warning
from fleetctl.errors import FleetctlError
from fleetctl.stack.connection import address_of, connect
from fleetctl.stack.layout import DEFAULT_DATA

#: What a fleet is called whose address is in the environment.
ENVIRONMENT = "FLEET_API_URL"


@dataclass(frozen=True)
class Typed:
    """What stands on the command line; None is what does not."""

    data: Path | None = None
    fleet: str | None = None
    api_url: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Around:
    """What is there without being typed."""

    api_url: str | None
    key: str | None
    known: KnownFleets

    @classmethod
    def here(cls) -> Around:
        """Raises FleetctlError: `session_unreadable`, `address_malformed`."""
        api_url = os.environ.get("FLEET_API_URL")
        return cls(
            address(api_url) if api_url else None, os.environ.get("FLEET_KEY") or None, known_fleets.load()
        )


@dataclass(frozen=True)
class AtStack:
    """The embedded stack of a folder, with this key or its own."""

    data: Path
    key: str | None = None


#: What a command is pointed at: a stack, a person's session, or an address with a key.
Aim = AtStack | Session | Target


def choose(typed: Typed, around: Around) -> Aim:
    """What is typed beats what is around, and what contradicts itself is refused.

    Raises FleetctlError: `target_contradictory`, `target_incomplete`, `fleet_unknown`, `fleet_not_chosen`.
    """
    named = [
        option
        for option, value in (
            ("--data", typed.data), ("--fleet", typed.fleet), ("--api-url", typed.api_url),
        )
        if value is not None
    ]  # fmt: skip
    if len(named) > 1:
        raise target_contradictory(named)
    if typed.data is not None:
        return AtStack(typed.data, typed.key)
    if typed.fleet is not None:
        return _by_name(typed.fleet, typed.key, around.known)
    if typed.api_url is not None:
        return _at_address(address(typed.api_url), typed.key, around)
    if around.api_url is not None:
        return _with_key_or_person(around.api_url, typed.key or around.key, around.known, fleet=ENVIRONMENT)
    if typed.key or around.key:
        raise _incomplete("A key needs its URL.")
    if around.known.in_use is not None:
        return _by_name(around.known.in_use, None, around.known)
    if around.known.sessions:
        raise fleet_not_chosen("No fleet is in use.", list(around.known.sessions))
    return AtStack(DEFAULT_DATA)


def target_contradictory(options: list[str]) -> FleetctlError:
    return FleetctlError(
        "target_contradictory",
        f"{' and '.join(options)} each name a fleet.",
        hint="Give one of them.",
        exit_code=2,
    )


def _by_name(fleet: str, key: str | None, known: KnownFleets) -> Aim:
    if fleet == LOCAL and LOCAL not in known.sessions:
        return AtStack(DEFAULT_DATA, key)
    session = known.named(fleet)
    if key is None:
        return session
    return Target(session.api_url, key, fleet=fleet, publishable_key=session.publishable_key)


def _at_address(api_url: str, key: str | None, around: Around) -> Aim:
    # A key in the environment goes nowhere but to the address beside it.
    if key is None and around.key is not None and around.api_url in (None, api_url):
        key = around.key
    if key is None and around.key is not None and not around.known.at(api_url):
        raise FleetctlError(
            "target_contradictory",
            f"FLEET_KEY is the key of {around.api_url}, and --api-url is {api_url}.",
            hint="Add --key, or set FLEET_API_URL and FLEET_KEY together.",
            exit_code=2,
        )
    return _with_key_or_person(api_url, key, around.known, fleet="--api-url")


def _with_key_or_person(api_url: str, key: str | None, known: KnownFleets, *, fleet: str) -> Aim:
    people = known.at(api_url)
    if key is not None:
        publishable = next((one.publishable_key for one in people), None)
        return Target(api_url, key, fleet=fleet, publishable_key=publishable)
    if len(people) > 1:
        names = [one.fleet for one in people]
        raise fleet_not_chosen(f"{len(names)} fleets are known at {api_url}.", names)
    if not people:
        raise _incomplete("A URL needs its secret key.")
    return people[0]


def _incomplete(what: str) -> FleetctlError:
    return FleetctlError(
        "target_incomplete",
        what,
        hint="Use both --api-url and --key, set FLEET_API_URL and FLEET_KEY, or sign in: fleetctl login",
        exit_code=2,
    )


def fleet_not_chosen(what: str, fleets: list[str]) -> FleetctlError:
    return FleetctlError(
        "fleet_not_chosen",
        f"{what} Known: {', '.join(sorted(fleets))}.",
        hint="Add --fleet NAME, or choose one for all commands: fleetctl fleet use NAME",
        exit_code=2,
    )


def resolve(aim: Aim, around: Around) -> Target:
    """The address and key of it; a session is renewed if need be.

    Raises FleetctlError: `not_running`, and what `session.fresh` raises.
    """
    if isinstance(aim, Target):
        return aim
    if isinstance(aim, AtStack):
        return _stack(aim, around.known)
    from fleetctl.client import session

    return _of(session.fresh(aim))


def _of(person: Session) -> Target:
    return Target(
        person.api_url, person.publishable_key, person.access_token, person.email, person.user_id,
        fleet=person.fleet, publishable_key=person.publishable_key,
    )  # fmt: skip


def _stack(aim: AtStack, known: KnownFleets) -> Target:
    stack = connect(aim.data)
    if stack.fault:
        # Whatever else is broken, a fleet can be halted and a device suspended.
        print_warning(
            f"The control plane in {aim.data} runs, with a fault: {stack.fault}.", "See fleetctl status."
        )
    # Another stack may have had this port; the key tells them apart.
    people = [one for one in known.at(stack.api_url) if one.publishable_key == stack.publishable_key]
    if aim.key is None and len(people) == 1:
        from fleetctl.client import session

        return _of(session.fresh(people[0]))
    fleet = LOCAL if aim.data == DEFAULT_DATA else str(aim.data)
    return Target(
        stack.api_url, aim.key or stack.secret_key, fleet=fleet, publishable_key=stack.publishable_key
    )


def say_which(target: Target, around: Around) -> None:
    """Name the fleet on stderr if it could be another one."""
    addresses = {one.api_url for one in around.known.sessions.values()}
    addresses |= {one for one in (target.api_url, around.api_url, address_of(DEFAULT_DATA)) if one}
    if len(addresses) > 1:
        who = f"as {target.email}" if target.email else "with a key"
        said = f"fleet: {target.fleet} ({target.api_url}, {who})"
        err.print(said, markup=False, style="dim", soft_wrap=True)
