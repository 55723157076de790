"""Whatever is sent or written: the loop never crashes, and what cannot be used has a kind and a sentence."""

from __future__ import annotations

import asyncio
import copy
import json
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import respx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fleet_agent import config
from fleet_agent.control_plane.identity import Identity
from fleet_agent.daemon.engine_process import EngineProcess, LogLine
from fleet_agent.daemon.schedule import Outcome
from fleet_agent.errors import FleetError, Kind
from fleet_agent.log import Log
from fleet_agent.model import EngineStatus
from fleet_agent.paths import Paths
from fleet_agent.roles import role
from tests.support.control import no_patience
from tests.support.device import API, Device, device, log
from tests.support.profiles import amount

__all__ = ["device", "log", "no_patience"]  # fixtures

fuzzed = settings(
    deadline=None,
    max_examples=amount(20, full=150),
    # The device on disk is the same for every example, on purpose: one is never to spoil it for the next.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["", "0", "update", "rollback", "safe_mode", "a" * 40, str(uuid4()), "\x00", "1970-01-01T00:00:00Z",
         "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-26T00:00:00", 2**70, -1, 10**400]
    )
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, itself included."""
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += places(item, (*path, index))
    return found


def changed(whole: Any, path: tuple[Any, ...], to: Any) -> Any:
    """`whole` with `to` at `path`; `Gone` there means without it."""
    if not path:
        return to
    whole = copy.deepcopy(whole)
    inner = whole
    for step in path[:-1]:
        inner = inner[step]
    if to is Gone:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return whole


class Gone:
    pass


GOOD_COMMAND = {"id": str(uuid4()), "kind": "tail_logs", "args": {"lines": 5, "service": "web"}}
GOOD_DIRECTIVE: dict[str, Any] = {
    "action": "update",
    "device": {"id": "", "name": "one", "role": "beacon", "segment": "canary", "branch": "main"},
    "release": {"id": str(uuid4()), "commit_sha": "a" * 40, "version": "1.0.0", "branch": "main"},
    "rollout_id": str(uuid4()),
    "gates": [{"gate": "window", "verdict": "pass", "detail": "open"}],
    "commands": [GOOD_COMMAND, {**GOOD_COMMAND, "id": str(uuid4()), "kind": "self_destruct"}],
    "config": {"poll_interval_s": 60, "labels": {"site": "rome"}},
    "next_poll_s": 900,
    "server_time": "2026-11-26T03:00:00+00:00",
}


@st.composite
def directives(draw: st.DrawFn) -> Any:
    """A good answer with one to three places changed."""
    answer: Any = GOOD_DIRECTIVE
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(answer)))
        answer = changed(answer, path, draw(anything | st.just(Gone) if path else anything))
        if not isinstance(answer, dict):
            break
    return answer


def of(device: Device, answer: Any) -> Any:
    """The good answer is for this device."""
    try:
        if answer["device"]["id"] == "":
            return changed(answer, ("device", "id"), str(device.id))
    except (TypeError, KeyError, IndexError):
        pass
    return answer


async def outcome_of(device: Device, log: Log, body: bytes) -> Outcome:
    """One check-in whose question is answered with `body`."""
    daemon = device.daemon(log)

    async def idle(*_: Any, **__: Any) -> EngineStatus:
        return EngineStatus.model_validate({"state": "healthy", "phase": "steady"})

    daemon.engine.run = idle  # type: ignore[method-assign]
    with respx.mock(base_url=API, assert_all_called=False) as rest:
        answer = httpx.Response(200, content=body, headers={"content-type": "application/json"})
        rest.post("/rest/v1/rpc/desired_state").mock(return_value=answer)
        rest.post("/rest/v1/device_status").respond(201)
        rest.patch("/rest/v1/device_commands").respond(204)
        try:
            outcome = await daemon.check_in("test")
            # What was learnt is used between two check-ins, too.
            assert daemon._next_wait(outcome) >= 0
            assert daemon.clock.now().tzinfo is not None
            daemon.clock.may_be_ahead()
        finally:
            await daemon.connection.close()
    return outcome


@fuzzed
@given(answer=directives())
@example(answer=changed(GOOD_DIRECTIVE, ("commands", 0, "kind"), []))
@example(answer=changed(GOOD_DIRECTIVE, ("server_time",), "0001-01-01T00:00:00+14:00"))
@example(answer=changed(GOOD_DIRECTIVE, ("server_time",), "9999-12-31T23:59:59-14:00"))
@example(answer=changed(GOOD_DIRECTIVE, ("commands", 0, "args"), {"lines": 10**400}))
@example(answer=changed(GOOD_DIRECTIVE, ("config", "labels"), {"site": None}))
@example(answer=[GOOD_DIRECTIVE])
def test_no_directive_crashes_the_loop_and_one_that_cannot_be_used_is_a_bad_answer(
    device: Device, log: Log, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    async def found(_engine: EngineProcess, _lines: int) -> tuple[LogLine, ...]:
        return (LogLine(service="web", text="x"),)

    monkeypatch.setattr(EngineProcess, "logs", found)
    outcome = asyncio.run(outcome_of(device, log, json.dumps(of(device, answer)).encode()))
    if outcome == Outcome.UNREACHABLE:
        assert log.ring.entries()[-1]["message"].startswith(f"{Kind.BAD_ANSWER}: ")
    # Nothing that was answered is remembered for longer than the next good answer.
    assert asyncio.run(outcome_of(device, log, good(device))) != Outcome.UNREACHABLE


def good(device: Device) -> bytes:
    return json.dumps(device.directive()).encode()


@fuzzed
@given(body=st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode()))
@example(body=b"[" * 100_000)
@example(body=b"")
@example(body=b"null")
@example(body=b"1" * 5000)
@example(body=b"\xff\xfe")
def test_no_answer_at_all_crashes_the_loop(device: Device, log: Log, body: bytes) -> None:
    outcome = asyncio.run(outcome_of(device, log, body))
    assert outcome == Outcome.UNREACHABLE
    assert log.ring.entries()[-1]["message"].startswith(f"{Kind.BAD_ANSWER}: ")


GOOD_CONFIG: dict[str, Any] = {
    "api_url": "https://x.supabase.co",
    "publishable_key": "sb_publishable_x",
    "git_url": "https://git.test/fleet.git",
    "allowed_signers": "signers",
    "verify_signatures": True,
    "poll_interval_s": 60,
    "labels": {"site": "rome"},
    "rescue_access": {"authorized_keys": "keys", "port": 2222, "user": "root"},
}


@st.composite
def configs(draw: st.DrawFn) -> bytes:
    path = draw(st.sampled_from(places(GOOD_CONFIG)))
    return json.dumps(changed(GOOD_CONFIG, path, draw(anything))).encode()


@fuzzed
@given(content=configs() | st.binary(max_size=60))
@example(content=b"[" * 100_000)
@example(content=json.dumps({**GOOD_CONFIG, "allowed_signers": "a\x00b"}).encode())
@example(content=json.dumps({**GOOD_CONFIG, "api_url": "http://["}).encode())
@example(content=json.dumps({**GOOD_CONFIG, "api_url": "http://a:99999999"}).encode())
@example(content=json.dumps({**GOOD_CONFIG, "name": "\ud800"}).encode())
def test_no_configuration_crashes_the_loop_and_a_bad_one_keeps_the_old_and_is_named(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "device.json"
    path.write_text(json.dumps(GOOD_CONFIG))
    file = config.ConfigFile.open(path)
    before = file.current
    other = tmp_path / "other.json"
    other.write_bytes(content)
    other.replace(path)
    if not file.reload_if_changed():
        assert file.current == before
    if file.config_error is not None:
        assert file.current == before
        assert file.config_error.kind == Kind.CONFIG_INVALID
        assert str(path) in file.config_error.message
    # What is in force can be worked with.
    Identity.load(Paths(tmp_path))
    httpx.URL(file.current.api_url)


GOOD_ROLE: dict[str, Any] = {
    "description": "Tested.",
    "variables": {"PORT": {"type": "integer", "default": "80", "description": "Where."}},
    "health": {
        "grace_s": 2, "successes": 2, "interval_s": 0.5, "watch_s": 1, "deadline_s": 20,
        "checks": [
            {"kind": "tcp", "port": "${PORT}"},
            {"kind": "http", "url": "http://127.0.0.1:${PORT}/"},
            {"kind": "log", "service": "web", "pattern": "error"},
        ],
    },
}  # fmt: skip


@st.composite
def roles(draw: st.DrawFn) -> bytes:
    path = draw(st.sampled_from(places(GOOD_ROLE)))
    return json.dumps(changed(GOOD_ROLE, path, draw(anything))).encode()


yaml_pieces = st.lists(
    st.sampled_from(
        ["description: x\n", "variables:\n", "  PORT: ", "{type: integer}", "&a ", "*a", "<<: ",
         "? [a]\n: b\n", "!!timestamp x", "!!bool x", "!!int ", "!!omap [a]", "!!float ",
         "2026-13-45", "!!python/object:os.system", "!!binary x", "0o9", "1:60:99", "- ", "[", "{", "\t",
         "|\n", "\x00", "'", "%YAML 9.9\n", "---\n", "=", ".inf", "health: ", "checks: "]
    ),
    max_size=8,
)  # fmt: skip


@fuzzed
@given(content=roles() | yaml_pieces.map(lambda pieces: "".join(pieces).encode()) | st.binary(max_size=60))
@example(content=b"[" * 20_000)
@example(content=b"description: 2026-13-45")
@example(content=b"? {a: b}\n: c")
@example(content=b"description: =")
@example(content=b"!!timestamp x")
@example(content=json.dumps(changed(GOOD_ROLE, ("health", "checks", 2, "pattern"), "(" * 5000)).encode())
def test_no_role_file_crashes_the_engine_and_a_bad_one_is_named(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "tested"
        there.mkdir()
        (there / "role.yaml").write_bytes(content)
        (there / "compose.yaml").write_text("services: {}\n")
        try:
            made = role.Role.load(there)
            values = {"PORT": "80"}
            if not made.problems(values):
                made.checks(made.environment(values, {}))
        except FleetError as error:
            assert error.kind in (Kind.ROLE_INVALID, Kind.VARIABLE_MISSING, Kind.VARIABLE_INVALID)
            assert error.message.strip()
