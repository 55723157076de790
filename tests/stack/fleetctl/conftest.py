"""Commands, the database behind them, devices and releases of one test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from fleetctl.stack.local_stack import LocalStack
from tests.support.fleetctl_runner import Db, Fleetctl, MakeDevices, device_key


@pytest.fixture(scope="module")
def fleetctl(stack: LocalStack) -> Fleetctl:
    return Fleetctl(stack)


@pytest.fixture(scope="module")
def db(stack: LocalStack) -> Iterator[Db]:
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def site() -> str:
    """A label of this test's devices alone: the stack is shared."""
    return f"site-{uuid4().hex[:8]}"


@pytest.fixture
def devices(db: Db, site: str) -> MakeDevices:
    def make(count: int = 1, **columns: Any) -> list[str]:
        names = []
        for number in range(count):
            name = f"{site}-{number}"
            row = {
                "name": name, "role": "beacon", "state": "active", "public_key": device_key(),
                "labels": json.dumps({"site": site}), **columns,
            }  # fmt: skip
            values = ", ".join(f"%({column})s" for column in row)
            db.execute(f"insert into devices ({', '.join(row)}) values ({values})", row)
            names.append(name)
        return names

    return make


@pytest.fixture
def release(fleetctl: Fleetctl) -> Callable[..., dict[str, Any]]:
    def make(**options: str) -> dict[str, Any]:
        commit = uuid4().hex + "00000000"
        version = f"v-{commit[:10]}"
        extra = [part for name, value in options.items() for part in (f"--{name}", value)]
        # On staging, so that no device of another test is concerned.
        made: dict[str, Any] = fleetctl(
            "release", "add", commit, "--version", version, "--branch", "staging", *extra, "--yes", "--json"
        ).json
        return made

    return make
