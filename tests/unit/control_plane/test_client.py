"""The control-plane client: what it sends, and the kind of everything that can go wrong."""

from __future__ import annotations

import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import respx

from fleet_agent.control_plane import error_mapping
from fleet_agent.errors import ControlPlaneError, Kind
from fleet_agent.model import Action, Attempt, Outcome
from fleet_agent.support import retry
from fleet_agent.support.clock import Clock
from tests.support.device import Device, json_answer

ASK = "/rest/v1/rpc/desired_state"


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt a call: what is retried is test_retry's subject."""
    for name in ("CHECK_IN", "REPORT", "HISTORY", "ANSWER", "TOKEN"):
        policy = getattr(retry, name)
        monkeypatch.setattr(retry, name, retry.Policy(policy.name, 1, 0.001, 0.001, 1))


async def ask(device: Device) -> ControlPlaneError:
    plane = device.plane()
    try:
        with pytest.raises(ControlPlaneError) as caught:
            await plane.desired_state()
    finally:
        await plane.close()
    return caught.value


async def test_the_question_carries_the_key_and_the_devices_token(
    device: Device, rest: respx.MockRouter
) -> None:
    route = rest.post(ASK).mock(return_value=json_answer(device.directive()))
    plane = device.plane()
    directive = await plane.desired_state()
    await plane.close()
    assert directive.action == Action.RUN
    sent = route.calls.last.request
    assert sent.headers["apikey"] == "sb_publishable_x"
    assert sent.headers["authorization"] == "Bearer token-1"
    assert json.loads(sent.content) == {}


async def test_the_servers_time_is_taken_over(device: Device, rest: respx.MockRouter) -> None:
    server = datetime.now(UTC) + timedelta(days=400)
    rest.post(ASK).mock(return_value=json_answer(device.directive(server_time=server.isoformat())))
    plane = device.plane()
    await plane.desired_state()
    await plane.close()
    assert abs(plane.clock.now() - server) < timedelta(minutes=1)


async def test_an_answer_for_another_device_is_refused(device: Device, rest: respx.MockRouter) -> None:
    answer = device.directive()
    answer["device"]["id"] = str(uuid4())
    rest.post(ASK).mock(return_value=json_answer(answer))
    assert (await ask(device)).kind == Kind.BAD_ANSWER


async def test_an_answer_of_another_shape_names_the_fields(device: Device, rest: respx.MockRouter) -> None:
    rest.post(ASK).mock(return_value=json_answer(device.directive(action="dance", next_poll_s=0)))
    error = await ask(device)
    assert error.kind == Kind.BAD_ANSWER
    assert "action, next_poll_s" in error.message


PORTAL = httpx.Response(200, html="<html>Please accept our terms</html>")
REFUSED = {"code": "PT403", "message": "This device is suspended.", "hint": "Ask an operator."}


@pytest.mark.parametrize(
    ("answer", "kind", "retryable"),
    [
        pytest.param(PORTAL, Kind.NOT_OUR_SERVER, True, id="captive portal"),
        pytest.param(
            httpx.Response(302, headers={"location": "http://portal.example/"}),
            Kind.NOT_OUR_SERVER, True, id="redirect to a portal",
        ),
        pytest.param(httpx.Response(404, html="<h1>none</h1>"), Kind.NOT_OUR_SERVER, True, id="foreign 404"),
        pytest.param(
            json_answer({**REFUSED, "details": "device_suspended"}, 403), Kind.DEVICE_SUSPENDED, False,
            id="suspended",
        ),
        pytest.param(
            json_answer({**REFUSED, "details": "device_retired"}, 403), Kind.DEVICE_RETIRED, False,
            id="retired",
        ),
        pytest.param(
            json_answer({**REFUSED, "details": "device_replaced"}, 403), Kind.DEVICE_REPLACED, False,
            id="replaced",
        ),
        pytest.param(
            json_answer({**REFUSED, "details": "device_pending"}, 403), Kind.DEVICE_PENDING, False,
            id="pending",
        ),
        pytest.param(
            json_answer({"code": "42501", "message": "permission denied", "details": None}, 403),
            Kind.REFUSED, False, id="row-level security",
        ),
        pytest.param(json_answer({"code": "PGRST202", "message": "no function"}, 404), Kind.BAD_ANSWER, False,
                     id="no such function"),
        pytest.param(json_answer({"message": "slow down"}, 429), Kind.RATE_LIMITED, True, id="rate limit"),
        pytest.param(httpx.Response(429), Kind.RATE_LIMITED, True, id="rate limit of a proxy"),
        pytest.param(json_answer({"code": "57014", "message": "timeout"}, 500), Kind.SERVER_ERROR, True,
                     id="database timeout"),
        *(
            pytest.param(json_answer({"code": code}, status), Kind.SERVER_ERROR, True, id=code)
            for code, status in (("PGRST000", 503), ("PGRST001", 503), ("PGRST002", 503), ("PGRST003", 504))
        ),
        pytest.param(httpx.Response(503, html="<h1>soon</h1>"), Kind.SERVER_ERROR, True, id="maintenance"),
        pytest.param(
            httpx.Response(200, content=b"{", headers={"content-type": "application/json"}),
            Kind.BAD_ANSWER, True, id="cut off",
        ),
    ],
)  # fmt: skip
async def test_an_answer_becomes_a_kind(
    device: Device, rest: respx.MockRouter, answer: httpx.Response, kind: Kind, retryable: bool
) -> None:
    rest.post(ASK).mock(return_value=answer)
    error = await ask(device)
    assert (error.kind, error.retryable) == (kind, retryable)


async def test_a_refusal_keeps_the_servers_sentence_and_hint(device: Device, rest: respx.MockRouter) -> None:
    rest.post(ASK).mock(return_value=json_answer({**REFUSED, "details": "device_suspended"}, 403))
    error = await ask(device)
    assert (error.message, error.hint) == ("This device is suspended.", "Ask an operator.")


def _caused(error: httpx.ConnectError, cause: Exception) -> httpx.ConnectError:
    error.__cause__ = cause
    return error


def _certificate(message: str, code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_message, error.verify_code = message, code
    return error


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        pytest.param(httpx.ConnectTimeout("x"), Kind.TIMED_OUT, id="connect timeout"),
        pytest.param(httpx.ReadTimeout("x"), Kind.TIMED_OUT, id="half-open"),
        pytest.param(httpx.ConnectError("refused"), Kind.UNREACHABLE, id="refused"),
        pytest.param(httpx.RemoteProtocolError("cut"), Kind.UNREACHABLE, id="cut"),
    ],
)  # fmt: skip
async def test_no_answer_becomes_a_retryable_kind(
    device: Device, rest: respx.MockRouter, raised: Exception, kind: Kind
) -> None:
    rest.post(ASK).mock(side_effect=raised)
    error = await ask(device)
    assert error.kind == kind
    assert error.retryable


@pytest.mark.parametrize(
    ("cause", "kind", "word"),
    [
        (socket.gaierror(-3, "Temporary failure in name resolution"), Kind.UNREACHABLE, "DNS"),
        (_certificate("certificate is not yet valid", 9), Kind.CLOCK_WRONG, "clock"),
        (_certificate("self-signed certificate", 18), Kind.NOT_OUR_SERVER, "self-signed"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), Kind.NOT_OUR_SERVER, "TLS"),
    ],
)
def test_the_cause_of_a_failed_connection_decides_its_kind(cause: Exception, kind: Kind, word: str) -> None:
    error = error_mapping.from_transport(_caused(httpx.ConnectError("x"), cause))
    assert (error.kind, error.retryable) == (kind, True)
    assert word in error.message


def test_a_circle_of_causes_ends() -> None:
    one, two = httpx.ConnectError("one"), OSError("two")
    one.__context__, two.__context__ = two, one
    assert error_mapping.from_transport(one).kind == Kind.UNREACHABLE


@pytest.mark.parametrize(
    ("said", "code", "days", "kind"),
    [
        ("certificate has expired", 10, -1, Kind.CLOCK_WRONG),
        ("certificate has expired", 10, 0, Kind.NOT_OUR_SERVER),
        ("certificate has expired", 10, 30, Kind.NOT_OUR_SERVER),
        ("certificate has expired", 10, 31, Kind.CLOCK_WRONG),
        ("certificate has expired", 10, 365, Kind.CLOCK_WRONG),
        ("certificate is not yet valid", 9, 0, Kind.CLOCK_WRONG),
        # A portal's certificate is not excused by a wrong clock.
        ("self-signed certificate", 18, -1, Kind.NOT_OUR_SERVER),
        ("self-signed certificate", 18, 365, Kind.NOT_OUR_SERVER),
    ],
)
def test_a_certificate_is_blamed_on_the_clock_only_where_that_is_likely(
    tmp_path: Path, said: str, code: int, days: int, kind: Kind
) -> None:
    """`days` is how far the machine's clock is ahead of the last known time of the control plane."""
    floor = datetime(2026, 11, 23, 12, tzinfo=UTC)
    (tmp_path / "floor").write_text(floor.isoformat())
    clock = Clock(tmp_path / "floor", local=lambda: floor + timedelta(days=days))
    error = error_mapping.from_transport(_caused(httpx.ConnectError("x"), _certificate(said, code)), clock)
    assert error.kind == kind
    assert (f"{clock.local():%Y-%m-%d}" in error.message) is (kind == Kind.CLOCK_WRONG)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "999999"}, error_mapping.RETRY_AFTER_LIMIT_S),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, error_mapping.RETRY_AFTER_LIMIT_S),
        ({"retry-after": "Sun, 6 Nov 1994 08:49:37 -0000"}, 0.0),
        ({}, None),
        (
            {"retry-after": "Mon, 23 Nov 2026 20:00:30 GMT", "date": "Mon, 23 Nov 2026 20:00:00 GMT"},
            30.0,
        ),
    ],
)
def test_retry_after_is_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert error_mapping.retry_after(httpx.Headers(headers)) == seconds


def token_function(device: Device, rest: respx.MockRouter, value: str = "token-2") -> respx.Route:
    now = datetime.now(UTC)
    return rest.post("/functions/v1/device-token").mock(
        return_value=json_answer(
            {
                "access_token": value,
                "expires_at": (now + timedelta(hours=12)).isoformat(),
                "expires_in": 43200,
                "server_time": now.isoformat(),
            }
        )
    )


async def test_a_refused_token_is_replaced_once_and_the_question_asked_again(
    device: Device, rest: respx.MockRouter
) -> None:
    expired = json_answer({"code": "PGRST303", "message": "JWT expired"}, 401)
    route = rest.post(ASK).mock(side_effect=[expired, json_answer(device.directive())])
    fetch = token_function(device, rest)
    plane = device.plane()
    await plane.desired_state()
    await plane.close()
    assert fetch.call_count == 1
    assert [call.request.headers["authorization"] for call in route.calls] == [
        "Bearer token-1",
        "Bearer token-2",
    ]


async def test_a_new_token_that_is_refused_too_is_an_error(device: Device, rest: respx.MockRouter) -> None:
    rest.post(ASK).mock(return_value=json_answer({"code": "PGRST301", "message": "bad signature"}, 401))
    fetch = token_function(device, rest)
    error = await ask(device)
    assert error.kind == Kind.UNAUTHORIZED
    assert "bad signature" in error.message
    assert fetch.call_count == 1


async def test_a_device_refused_a_token_hears_why(device: Device, rest: respx.MockRouter) -> None:
    (device.identity.folder / "token.json").unlink()
    rest.post("/functions/v1/device-token").mock(
        return_value=json_answer({"kind": "device_suspended", "message": "Suspended.", "hint": "Ask."}, 403)
    )
    assert (await ask(device)).kind == Kind.DEVICE_SUSPENDED


@pytest.mark.parametrize("kind", ["device_pending", "device_suspended", "device_retired", "device_replaced"])
async def test_a_refused_device_does_not_hurry_for_a_token(
    device: Device, rest: respx.MockRouter, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(retry, "TOKEN", retry.Policy("device-token", 4, 0.001, 0.001, 60))
    (device.identity.folder / "token.json").unlink()
    asked = rest.post("/functions/v1/device-token").mock(
        return_value=json_answer({"kind": kind, "message": "No.", "hint": "Ask."}, 403)
    )
    assert (await ask(device)).kind == kind
    assert asked.call_count == 1


async def test_a_fetched_token_survives_a_restart(device: Device, rest: respx.MockRouter) -> None:
    (device.identity.folder / "token.json").unlink()
    rest.post(ASK).mock(return_value=json_answer(device.directive()))
    fetch = token_function(device, rest)
    for _ in range(2):
        plane = device.plane()
        await plane.desired_state()
        await plane.close()
    assert fetch.call_count == 1
    assert (device.identity.folder / "token.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", [timedelta(seconds=50), timedelta(seconds=-1)])
async def test_a_token_at_its_end_is_not_used(
    device: Device, rest: respx.MockRouter, left: timedelta
) -> None:
    device.keep_token("old", life=timedelta(minutes=1) + left)
    route = rest.post(ASK).mock(return_value=json_answer(device.directive()))
    token_function(device, rest)
    plane = device.plane()
    await plane.desired_state()
    await plane.close()
    assert route.calls.last.request.headers["authorization"] == "Bearer token-2"


async def test_another_devices_kept_token_is_not_used(device: Device, rest: respx.MockRouter) -> None:
    device.identity = device.identity.remember(uuid4())
    route = rest.post(ASK).mock(return_value=json_answer(device.directive()))
    token_function(device, rest)
    plane = device.plane()
    await plane.desired_state()
    await plane.close()
    assert route.calls.last.request.headers["authorization"] == "Bearer token-2"


async def test_a_report_is_a_merging_upsert_of_the_devices_own_row(
    device: Device, rest: respx.MockRouter
) -> None:
    route = rest.post("/rest/v1/device_status").mock(return_value=httpx.Response(201))
    plane = device.plane()
    await plane.report({"state": "healthy"})
    await plane.close()
    sent = route.calls.last.request
    assert json.loads(sent.content) == {"device_id": str(device.id), "state": "healthy"}
    assert "resolution=merge-duplicates" in sent.headers["prefer"]
    assert "return=minimal" in sent.headers["prefer"]
    assert sent.url.params["on_conflict"] == "device_id"


async def test_history_is_inserted_so_that_repeating_is_harmless(
    device: Device, rest: respx.MockRouter
) -> None:
    route = rest.post("/rest/v1/update_history").mock(return_value=httpx.Response(201))
    now = datetime.now(UTC)
    attempt = Attempt(
        id=uuid4(), release_id=None, rollout_id=None, from_commit=None, to_commit="a" * 40,
        outcome=Outcome.SUCCEEDED, started_at=now, finished_at=now, agent_version="1",
    )  # fmt: skip
    plane = device.plane()
    await plane.record([attempt])
    await plane.close()
    sent = route.calls.last.request
    assert "resolution=ignore-duplicates" in sent.headers["prefer"]
    assert sent.url.params["on_conflict"] == "id,started_at"
    (row,) = json.loads(sent.content)
    assert row["device_id"] == str(device.id)
    assert row["outcome"] == "succeeded"


async def test_only_a_queued_command_is_answered(device: Device, rest: respx.MockRouter) -> None:
    route = rest.patch("/rest/v1/device_commands").mock(return_value=httpx.Response(204))
    plane = device.plane()
    command = uuid4()
    await plane.answer(command, "succeeded", {"ok": True})
    await plane.close()
    sent = route.calls.last.request
    assert sent.url.params["id"] == f"eq.{command}"
    assert sent.url.params["state"] == "eq.queued"
    assert json.loads(sent.content) == {"state": "succeeded", "result": {"ok": True}}


def test_the_clock_of_a_fresh_device_is_not_called_wrong(device: Device) -> None:
    clock = Clock(device.paths.state / "none")
    assert clock.is_implausible() is False
