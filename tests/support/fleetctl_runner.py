"""Runs the operator's commands in this process, and makes what they are about."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import uuid4

import psycopg
import typer
import typer.testing
from typer.main import get_command
from typer.testing import CliRunner

from fleetctl.commands import register
from fleetctl.errors import FleetctlError
from fleetctl.stack.local_stack import LocalStack

# Each call would make every command again, which takes longer than most calls themselves.
vars(typer.testing)["_get_command"] = cache(get_command)

Db = psycopg.Connection[dict[str, Any]]


@dataclass
class Answer:
    """What a command printed, and how it ended."""

    output: str
    error: FleetctlError | None
    exit_code: int

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def refusal(self) -> tuple[str, int]:
        assert self.error is not None, self.output
        return self.error.kind, self.error.exit_code


class Fleetctl:
    """Runs commands in this process; what is not a FleetctlError fails the test."""

    def __init__(self, stack: LocalStack) -> None:
        self.app = typer.Typer()
        register(self.app)
        self.environment = {"FLEET_API_URL": stack.api_url, "FLEET_KEY": stack.secret_key, "COLUMNS": "200"}

    def __call__(self, *args: str, stdin: str | None = None) -> Answer:
        result = CliRunner().invoke(self.app, list(args), env=self.environment, input=stdin)
        if result.exception is not None and not isinstance(result.exception, FleetctlError | SystemExit):
            raise result.exception
        error = result.exception if isinstance(result.exception, FleetctlError) else None
        return Answer(result.stdout, error, result.exit_code)


MakeDevices = Callable[..., list[str]]


def device_key() -> str:
    return (uuid4().hex + uuid4().hex)[:43]


def of(db: Db, name: str) -> dict[str, Any]:
    row = db.execute("select * from devices where name = %s", [name]).fetchone()
    assert row is not None
    return row
