"""The control plane of one device, at its HTTP edge, and a daemon that talks to it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
import respx

from fleet_agent.log import Log
from fleet_agent.model import Attempt
from fleet_agent.model import Outcome as AttemptOutcome
from fleet_agent.support import retry
from tests.support.device import Device, json_answer


@dataclass
class Control:
    """The control plane of one device: what it asks for, and what it was told."""

    device: Device
    asks: dict[str, Any] = field(default_factory=dict)
    status: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Answers instead of the good one, by table or function, used up one a request.
    broken: dict[str, list[httpx.Response | Exception]] = field(default_factory=dict)
    questions: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    async def reports_phase(self, phase: str) -> None:
        while self.status[-1:] == [] or self.status[-1].get("phase") != phase:
            self._told.clear()
            await self._told.wait()

    def route(self, router: respx.MockRouter) -> None:
        router.post("/rest/v1/rpc/desired_state").mock(side_effect=self._desired_state)
        router.post("/rest/v1/device_status").mock(side_effect=self._status)
        router.post("/rest/v1/update_history").mock(side_effect=self._history)
        router.patch("/rest/v1/device_commands").mock(side_effect=self._answer)

    def _broken(self, what: str) -> httpx.Response | None:
        waiting = self.broken.get(what)
        if not waiting:
            return None
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _desired_state(self, _request: httpx.Request) -> httpx.Response:
        self.questions += 1
        self.asked.set()
        return self._broken("desired_state") or json_answer(self.device.directive(**self.asks))

    def _status(self, request: httpx.Request) -> httpx.Response:
        if broken := self._broken("device_status"):
            return broken
        self.status.append(json.loads(request.content))
        self._told.set()
        return httpx.Response(200)

    def _history(self, request: httpx.Request) -> httpx.Response:
        if broken := self._broken("update_history"):
            return broken
        self.history += json.loads(request.content)
        return httpx.Response(201)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if broken := self._broken("device_commands"):
            return broken
        self.answers[request.url.params["id"].removeprefix("eq.")] = json.loads(request.content)
        return httpx.Response(204)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHECK_IN", "REPORT", "HISTORY", "ANSWER", "TOKEN"):
        policy = getattr(retry, name)
        monkeypatch.setattr(retry, name, retry.Policy(policy.name, 1, 0.001, 0.001, 1))


@pytest.fixture
def control(device: Device, rest: respx.MockRouter) -> Control:
    made = Control(device)
    made.route(rest)
    return made


@pytest.fixture
async def daemon(device: Device, log: Log, control: Control) -> Any:
    made = device.daemon(log)
    yield made
    await made.engine.stop()
    await made.connection.close()


def release(version: str) -> dict[str, Any]:
    return {"id": str(uuid4()), "commit_sha": uuid4().hex + "0" * 8, "version": version, "branch": "main"}


def update_to(control: Control, version: str) -> dict[str, Any]:
    wanted = release(version)
    control.asks.update(action="update", release=wanted)
    return wanted


def send_command(control: Control, kind: str, **args: Any) -> str:
    command_id = str(uuid4())
    control.asks["commands"] = [{"id": command_id, "kind": kind, "args": args}]
    return command_id


def plan(device: Device, **what: Any) -> None:
    (device.paths.state / "fake_plan.json").write_text(json.dumps(what))


def requests(device: Device) -> list[str]:
    file = device.paths.state / "fake_requests.jsonl"
    return [json.loads(line)["verb"] for line in file.read_text().splitlines()]


def attempt() -> Attempt:
    now = datetime.now(UTC)
    return Attempt(
        id=uuid4(), release_id=None, rollout_id=None, from_commit=None, to_commit="a" * 40,
        outcome=AttemptOutcome.SUCCEEDED, started_at=now, finished_at=now, agent_version="1",
    )  # fmt: skip
