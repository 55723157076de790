"""Every command, as the parser has it, given wrong words and interrupted: a sentence, in our words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
import typer
from typer.main import get_command

from fleetctl.commands import register
from fleetctl.errors import FleetctlError
from fleetctl.stack.local_stack import LocalStack
from tests.support.fleetctl_runner import Fleetctl, device_key
from tests.support.stack import running_stack

#: They run other programs, or look at more than a fleet.
ELSEWHERE = ("hosted", "doctor", "dashboard")
#: How PostgreSQL and PostgREST talk.
RAW = re.compile(
    r"violates|invalid input|relation \"|duplicate key|null value in|PGRST\d|schema cache|syntax error|"
    r"does not exist in|operator does not|Traceback|could not (?:open|find)|key \(\w+\)=",
    re.IGNORECASE,
)
#: They wait, or choose the fleet: test_aim.py tries those, and each command treats them alike.
NOT_VARIED = ("--wait", "--fleet", "--data", "--api-url", "--key")
WORDS = ("nonsense", "99999999999999999999", "a=b", "'; \"x\\")


def commands() -> dict[str, Any]:
    app = typer.Typer()
    register(app)
    found: dict[str, Any] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", {})
        found |= {f"{name} {one}": made for one, made in below.items()} if below else {name: command}
    return {name: command for name, command in found.items() if name.split()[0] not in ELSEWHERE}


COMMANDS = commands()


@pytest.fixture(scope="module")
def own_stack() -> Iterator[LocalStack]:
    """What a wrong word happens to do, such as to halt the fleet for no reason, is seen by nobody else."""
    with running_stack(table_editor=False) as running:
        with psycopg.connect(running.db_url, autocommit=True) as db:
            for number in range(150):
                db.execute(
                    "insert into public.devices (name, role, state, public_key)"
                    " values (%s, 'beacon', 'active', %s)",
                    (f"wrong-{number:03}", device_key()),
                )
        yield running


@pytest.fixture(scope="module")
def fleetctl(own_stack: LocalStack) -> Fleetctl:
    made = Fleetctl(own_stack)
    made.environment |= {"FLEET_PASSWORD": "x", "FLEET_PUBLISHABLE_KEY": own_stack.publishable_key}
    return made


def calls(command: Any, word: str) -> Iterator[list[str]]:
    """What is required, wrong; then each further option, wrong, too."""
    required: list[str] = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            required.append(word)
        elif parameter.required:
            required += [parameter.opts[0], word]
    yield required
    for parameter in command.params:
        wanted = not getattr(parameter, "is_flag", False) and not parameter.required
        if parameter.param_type_name == "option" and wanted and parameter.opts[0] not in NOT_VARIED:
            yield [*required, parameter.opts[0], word]


def check(error: FleetctlError | None, called: object) -> None:
    if error is not None:
        assert not RAW.search(f"{error.message} {error.hint}"), (called, error.message)
        assert error.message.endswith((".", "…")), (called, error.message)


@pytest.mark.full
@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_words_are_answered_in_ours(fleetctl: Fleetctl, name: str) -> None:
    """Anything but a FleetctlError or an exit of the parser fails: that would be a traceback."""
    for word in WORDS:
        for call in calls(COMMANDS[name], word):
            check(fleetctl(*name.split(), *call).error, (name, call))


@pytest.mark.full
@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupted_command_says_so(
    fleetctl: Fleetctl, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def interrupt(*ignored: object, **also: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(httpx.Client, "request", interrupt)
    call = next(calls(COMMANDS[name], "nonsense"))
    answer = fleetctl(*name.split(), *call)
    if answer.error is not None and answer.error.kind == "interrupted":
        assert answer.error.exit_code == 130
        assert answer.error.message.startswith("Interrupted")
    check(answer.error, name)


def test_a_bulk_change_says_what_may_have_been_done(
    fleetctl: Fleetctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, writes = httpx.Client.request, []

    def second_write(self: httpx.Client, method: str, *rest: Any, **more: Any) -> httpx.Response:
        writes.extend([method] if method == "PATCH" else [])
        if len(writes) == 2:
            raise KeyboardInterrupt
        return send(self, method, *rest, **more)

    monkeypatch.setattr(httpx.Client, "request", second_write)
    answer = fleetctl("hold", "set", "--all", "--reason", "tried", "--yes")
    assert answer.refusal == ("interrupted", 130)
    assert answer.error is not None
    assert answer.error.message == (
        "Interrupted. 100 rows had been changed, and the change that was being made may have been made, too."
    )


def test_unknown_values_list_the_known_ones(fleetctl: Fleetctl) -> None:
    for call, known in (
        (("device", "list", "--segment", "nowhere"), "There is no segment nowhere. Known: "),
        (("device", "show", "wrong-9999"), "Similar: wrong-"),
    ):
        answer = fleetctl(*call)
        assert answer.error is not None, call
        assert known in answer.error.message, answer.error.message
    assert fleetctl("history", "--outcome", "gone").exit_code == 2
