"""The whole daemon, loop and all, over real sockets that lie, stall and break.

Whatever the network does: the loop goes on, what runs is left alone and looked after, the trouble has its
kind in the journal, and once the network is good again the device converges by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from loguru import logger

from fleet_agent.control_plane import client, tokens
from fleet_agent.daemon import check_in, decide
from fleet_agent.daemon.loop import Daemon
from fleet_agent.errors import Kind
from fleet_agent.log import Log
from fleet_agent.support import retry
from tests.support.device import Device, device, log
from tests.support.patience import PATIENCE_S
from tests.support.proxy import SIGN_IN, Fault, Proxy, http_answer

__all__ = ["device", "log"]  # fixtures

QUESTION = "/rest/v1/rpc/desired_state"
JSON = {"Content_Type": "application/json"}


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and limits that a loaded machine still keeps apart."""
    for name in ("CHECK_IN", "REPORT", "HISTORY", "ANSWER", "TOKEN"):
        monkeypatch.setattr(retry, name, retry.Policy(name, 2, 0.001, 0.001, 60))
    monkeypatch.setattr(client, "TIMEOUT", httpx.Timeout(1.0, connect=10.0))
    monkeypatch.setattr(client, "WHOLE_CALL_S", 2.0)
    monkeypatch.setattr(tokens, "WHOLE_FETCH_S", 10.0)
    monkeypatch.setattr(decide, "FAILURE_BASE_S", 0.05)
    # Each check-in looks after what runs.
    monkeypatch.setattr(check_in, "LOOK_AT_CONTAINERS_S", 0.0)


@pytest.fixture
def kinds() -> Iterator[list[str]]:
    """The kinds of trouble as the journal shows them."""
    seen: list[str] = []
    handler = logger.add(
        lambda message: seen.append(message.record["message"].partition(":")[0]), level="INFO"
    )
    yield seen
    logger.remove(handler)


@pytest.fixture
async def proxy(device: Device) -> AsyncIterator[Proxy]:
    answers = {
        "/rest/v1/device_status": http_answer(201, b""),
        "/rest/v1/update_history": http_answer(201, b""),
    }
    async with Proxy(answers) as made:
        offer(made, device, "1.0.0")
        yield made


def offer(proxy: Proxy, device: Device, version: str) -> None:
    release = {"id": str(uuid4()), "commit_sha": uuid4().hex + "0" * 8, "version": version, "branch": "main"}
    answer = device.directive(action="update", release=release)
    proxy.answers[QUESTION] = http_answer(200, json.dumps(answer).encode(), **JSON)


async def until_runs(daemon: Daemon, version: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while runs(daemon) != version:  # noqa: ASYNC110 - the loop's own state has no event
            await asyncio.sleep(0.02)


def runs(daemon: Daemon) -> str | None:
    engine = daemon.turn.engine_status
    return engine.current.version if engine is not None and engine.current is not None else None


def canned(status: int, body: bytes = b"{}", **headers: str) -> dict[str, Any]:
    return {"fault": Fault.CANNED, "answer": http_answer(status, body, **headers)}


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        pytest.param({"fault": Fault.HALF_OPEN}, Kind.TIMED_OUT, id="half-open connection"),
        pytest.param({"fault": Fault.SLOW_LORIS}, Kind.TIMED_OUT, id="dripping answer"),
        pytest.param({"fault": Fault.RESET}, Kind.UNREACHABLE, id="reset"),
        pytest.param({"fault": Fault.CUT_OFF}, Kind.UNREACHABLE, id="cut off"),
        pytest.param(canned(200, SIGN_IN, Content_Type="text/html"), Kind.NOT_OUR_SERVER, id="portal"),
        pytest.param(canned(302, b"", Location="http://portal.test/"), Kind.NOT_OUR_SERVER, id="redirect"),
        pytest.param(canned(200, b'{"action": 7}', **JSON), Kind.BAD_ANSWER, id="another answer"),
        pytest.param(canned(401, b'{"message": "no"}', **JSON), Kind.UNAUTHORIZED, id="401"),
        pytest.param(canned(403, b'{"message": "no"}', **JSON), Kind.REFUSED, id="403"),
        pytest.param(
            canned(429, b'{"message": "slow"}', Retry_After="0.01", **JSON), Kind.RATE_LIMITED, id="429"
        ),
        pytest.param(canned(500, b"oops", Content_Type="text/plain"), Kind.SERVER_ERROR, id="500"),
        pytest.param(canned(503, b"<html>", Content_Type="text/html"), Kind.SERVER_ERROR, id="503"),
    ],
)
async def test_the_loop_outlasts_it_leaves_what_runs_alone_and_converges_afterwards(  # noqa: PLR0917
    device: Device, log: Log, proxy: Proxy, kinds: list[str], trouble: dict[str, Any], kind: Kind
) -> None:
    device.configure(api_url=proxy.url, poll_interval_s=1)
    device.keep_token()
    forge_token(device, proxy.url)
    daemon = device.daemon(log)
    running = asyncio.create_task(daemon.run())
    await until_runs(daemon, "1.0.0")

    # The fault first: no check-in in between may hear of 2.0.0.
    proxy.fault, proxy.canned = trouble["fault"], [trouble.get("answer", b"")]
    offer(proxy, device, "2.0.0")
    async with asyncio.timeout(PATIENCE_S):
        before = len(requests(device))
        while kind.value not in kinds or len(requests(device)) < before + 2:  # noqa: ASYNC110 - a log line
            await asyncio.sleep(0.02)
    assert runs(daemon) == "1.0.0"
    assert set(requests(device)[before:]) == {"recover"}
    assert not running.done()

    proxy.fault = Fault.NONE
    forge_token(device, proxy.url)
    proxy.answers["/functions/v1/device-token"] = granted(device)
    await until_runs(daemon, "2.0.0")
    daemon.stop()
    await running


async def test_a_name_that_is_gone_is_outlasted_and_the_next_good_one_is_used(
    device: Device, log: Log, proxy: Proxy, kinds: list[str]
) -> None:
    device.configure(api_url="http://gone.invalid", poll_interval_s=1)
    device.keep_token()
    forge_token(device, "http://gone.invalid")
    daemon = device.daemon(log, look_s=0.02)
    running = asyncio.create_task(daemon.run())
    async with asyncio.timeout(PATIENCE_S):
        while Kind.UNREACHABLE.value not in kinds:  # noqa: ASYNC110 - a log line
            await asyncio.sleep(0.02)
    assert runs(daemon) is None
    forge_token(device, proxy.url)
    device.configure(api_url=proxy.url, poll_interval_s=1)
    await until_runs(daemon, "1.0.0")
    daemon.stop()
    await running


def forge_token(device: Device, url: str) -> None:
    """A token that is good for `url`, so that most of these need no function."""
    device.keep_token()
    file = device.identity.folder / "token.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "api_url": url}))


def granted(device: Device) -> bytes:
    """What the function device-token answers."""
    kept = json.loads((device.identity.folder / "token.json").read_text())
    answer = {
        "access_token": "token-2",
        "token_type": "bearer",
        "expires_in": 43200,
        "expires_at": kept["expires_at"],
        "server_time": kept["issued_at"],
    }
    return http_answer(200, json.dumps(answer).encode(), **JSON)


def requests(device: Device) -> list[str]:
    file = device.paths.state / "fake_requests.jsonl"
    # A line that is being written is not there yet.
    whole = file.read_text().rpartition("\n")[0].splitlines()
    return [json.loads(line)["verb"] for line in whole]
