"""The two calls that a device makes to the edge functions: `enroll` once, `device-token` about twice a day.

Both prove possession of the device's key with a fresh assertion. A device whose clock is wrong is told the
server's time, corrects itself and tries once more; what the correction was is in the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

from pydantic import AwareDatetime, Field, ValidationError

from fleet_agent.control_plane.identity import ENROLL_AUDIENCE, TOKEN_AUDIENCE, Identity
from fleet_agent.errors import ControlPlaneError
from fleet_agent.model import EARLIEST, LATEST, Frozen

if TYPE_CHECKING:
    import httpx

#: Enough for a cold function behind a bad mobile link; the caller's own deadline may be shorter.
REQUEST_TIMEOUT_S = 30.0

Clock = Callable[[], datetime]
#: Makes an assertion: `(audience, now) -> compact JWS`.
Sign = Callable[[str, datetime], Awaitable[str]]


class Endpoint(Protocol):
    """The part of the device's configuration that these calls need."""

    @property
    def api_url(self) -> str: ...
    @property
    def publishable_key(self) -> str: ...


@dataclass(frozen=True)
class EnrollmentRequest:
    """What a device says about itself when it enrolls. The answer may have another `name`."""

    name: str
    hardware_model: str | None = None
    os: str | None = None
    agent_version: str | None = None
    labels: Mapping[str, str] | None = None


class Enrollment(Frozen):
    """What the control plane registered this device as.

    `kind` is `pending` until an operator accepts the device; enroll again later to learn that they did.
    """

    kind: Literal["enrolled", "pending"]
    device_id: UUID
    name: str
    role: str
    segment: str
    branch: str
    state: str
    name_taken: bool = False
    server_time: datetime


@dataclass(frozen=True)
class DeviceToken:
    """A JWT for REST and Realtime.

    `expires_at` is server time. `clock_offset_s` is what must be added to the device's clock to get the
    server's (to about the length of the request). The token is not in `repr`, so a log line cannot leak it.
    """

    access_token: str = field(repr=False)
    expires_at: datetime
    expires_in_s: int
    server_time: datetime
    clock_offset_s: float


class _TokenAnswer(Frozen):
    access_token: str
    expires_at: AwareDatetime
    expires_in: int = Field(ge=1, le=366 * 86400)
    server_time: AwareDatetime = Field(ge=EARLIEST, le=LATEST)


def utc_now() -> datetime:
    return datetime.now(UTC)


async def enroll(
    client: httpx.AsyncClient,
    endpoint: Endpoint,
    identity: Identity,
    request: EnrollmentRequest,
    provisioning_token: str | None = None,
    *,
    clock: Clock = utc_now,
) -> Enrollment:
    """Register with the fleet. Idempotent: the same key always gets the same device.

    The caller keeps the id with `identity.remember(enrollment.device_id)`. Raises ControlPlaneError, of kind
    `token_invalid` when the provisioning token is wrong, expired or used up, `clock_wrong` when even the
    server's own time did not help.
    """
    body: dict[str, Any] = {
        "name": request.name,
        "hardware_model": request.hardware_model,
        "os": request.os,
        "agent_version": request.agent_version,
        "labels": dict(request.labels) if request.labels else None,
        "provisioning_token": provisioning_token,
    }
    body = {key: value for key, value in body.items() if value is not None}

    async def sign(audience: str, now: datetime) -> str:
        return identity.assertion(audience, now)

    call = _Call(client, endpoint, "enroll", "proof", ENROLL_AUDIENCE)
    answer, _ = await _perform(call, body, sign, clock)
    try:
        return Enrollment.model_validate(answer)
    except ValidationError as error:
        raise _unexpected("enroll", error) from error


async def fetch_token(
    client: httpx.AsyncClient,
    endpoint: Endpoint,
    identity: Identity,
    *,
    clock: Clock = utc_now,
    in_child: bool = False,
) -> DeviceToken:
    """Get a fresh device JWT; a stale assertion is signed again, once, with the server's time.

    With `in_child` the assertion is signed in a short-lived process, which keeps about 9 MiB of crypto
    libraries out of this one. Raises ControlPlaneError: `device_pending`, `device_suspended`,
    `device_retired`, `device_replaced`, `unauthorized`, `clock_wrong`, `rate_limited` (with
    `retry_after_s`), `unreachable`, `timed_out`, `not_our_server`, `server_error`,
    `bad_answer`; and StateError from signing.
    """

    async def sign(audience: str, now: datetime) -> str:
        if in_child:
            return await identity.assertion_from_child(audience, now)
        return identity.assertion(audience, now)

    call = _Call(client, endpoint, "device-token", "assertion", TOKEN_AUDIENCE)
    answer, asked_at = await _perform(call, {}, sign, clock)
    try:
        parsed = _TokenAnswer.model_validate(answer)
    except ValidationError as error:
        raise _unexpected("device-token", error) from error
    return DeviceToken(
        access_token=parsed.access_token,
        expires_at=parsed.expires_at,
        expires_in_s=parsed.expires_in,
        server_time=parsed.server_time,
        clock_offset_s=(parsed.server_time - asked_at).total_seconds(),
    )


@dataclass(frozen=True)
class _Call:
    """Which function is called where, and in which field it expects the assertion."""

    client: httpx.AsyncClient
    endpoint: Endpoint
    function: str
    proof_field: str
    audience: str


async def _perform(
    call: _Call, body: dict[str, Any], sign: Sign, clock: Clock
) -> tuple[dict[str, Any], datetime]:
    """Call with a fresh proof; returns the answer and this device's own, uncorrected time of asking."""
    correction = timedelta()
    while True:
        proof = await sign(call.audience, clock() + correction)
        asked_at = clock()
        answer, error = await _post(call, {**body, call.proof_field: proof})
        if error is None:
            return answer, asked_at
        server_time = _time(answer.get("server_time"))
        if answer.get("kind") == "assertion_stale" and server_time is not None and not correction:
            correction = server_time - asked_at
            if correction:
                continue
        raise error


async def _post(call: _Call, body: dict[str, Any]) -> tuple[dict[str, Any], ControlPlaneError | None]:
    """POST and parse; a refusal is returned with its error; anything that is not an answer is raised."""
    import httpx

    from fleet_agent.control_plane import error_mapping

    try:
        response = await call.client.post(
            f"{call.endpoint.api_url.rstrip('/')}/functions/v1/{call.function}",
            json=body,
            headers={"apikey": call.endpoint.publishable_key},
            timeout=REQUEST_TIMEOUT_S,
            follow_redirects=False,
        )
    except httpx.HTTPError as error:
        raise error_mapping.from_transport(error) from error
    refused = error_mapping.from_response(
        response.status_code, response.headers, response.content, function=call.function
    )
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer, refused
    raise refused or error_mapping.not_ours(response.status_code, response.headers)


def _unexpected(function: str, error: ValidationError) -> ControlPlaneError:
    from fleet_agent.control_plane import error_mapping

    return error_mapping.unexpected_answer(function, error, retryable=True)


def _time(value: object) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return parsed if parsed.tzinfo and EARLIEST <= parsed <= LATEST else None
