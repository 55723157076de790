"""The REST calls of the agent: one question and three kinds of writes, all idempotent, all retried here.

postgrest-py over one httpx client. HTTP/1.1 on purpose: two small requests every quarter of an hour gain
nothing from HTTP/2, and `h2` costs memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

import httpx
from postgrest import APIError, AsyncPostgrestClient, ReturnMethod
from pydantic import ValidationError as PydanticValidationError

from fleet_agent import __version__
from fleet_agent.config import DeviceConfig
from fleet_agent.control_plane import error_mapping
from fleet_agent.control_plane.identity import Identity
from fleet_agent.control_plane.tokens import Token, Tokens
from fleet_agent.errors import ControlPlaneError, Kind, bad_answer, not_enrolled
from fleet_agent.model import Attempt, CommandKind, Directive
from fleet_agent.support import plain_text, retry
from fleet_agent.support.clock import Clock

Result = TypeVar("Result")

#: A mobile network takes seconds to wake up; a hung server must not hold the loop for minutes.
TIMEOUT = httpx.Timeout(20.0, connect=15.0)
#: One request with its answer: the limits above are between two bytes, which a slow trickle never exceeds.
WHOLE_CALL_S = 90.0
#: Columns that may have more than one line, in any table.
_SEVERAL_LINES = frozenset({"error"})
#: Attempts uploaded in one request.
HISTORY_BATCH = 20


def tls_context() -> ssl.SSLContext:
    """The machine's certificate authorities, so that a fleet may use its own; otherwise certifi's."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).glob("*.0"))):
        return ssl.create_default_context()
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


def http_client(tls: ssl.SSLContext | None) -> httpx.AsyncClient:
    """The HTTP client for REST and functions; `tls` is None for a control plane on this machine (http://).

    Never follows a redirect: Supabase sends none, captive portals do.
    """
    return httpx.AsyncClient(
        timeout=TIMEOUT,
        verify=tls or False,
        follow_redirects=False,
        limits=httpx.Limits(max_connections=4, max_keepalive_connections=2, keepalive_expiry=15),
        headers={"User-Agent": f"fleet-agent/{__version__}", "Accept-Encoding": "gzip"},
    )


class _Bearer(httpx.Auth):
    """Puts the present token on each request (postgrest's own headers are frozen at construction)."""

    def __init__(self) -> None:
        self.token: Token | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self.token is not None:
            request.headers["Authorization"] = f"Bearer {self.token.value}"
        yield request


class ControlPlane:
    """Supabase as one device sees it. Every method raises ControlPlaneError (or StateError from signing)."""

    def __init__(self, config: DeviceConfig, identity: Identity, clock: Clock) -> None:
        if identity.device_id is None:
            raise not_enrolled(error=ControlPlaneError)
        self.config = config
        self.device_id: UUID = identity.device_id
        self.clock = clock
        #: Ids of the commands in the last answer that this agent does not know.
        self.unknown_commands: list[UUID] = []
        self._bearer = _Bearer()
        # Without TLS there is no certificate to check, and loading the authorities would cost 3 MiB.
        self.tls = tls_context() if config.api_url.startswith("https") else None
        self._http = http_client(self.tls)
        self._http.event_hooks = {"response": [_refuse_bad_answers]}
        self._http.auth = self._bearer
        self.tokens = Tokens(lambda: http_client(self.tls), identity, clock, lambda: self.config)
        self._rest = AsyncPostgrestClient(
            f"{config.api_url}/rest/v1",
            # The default X-Client-Info is 130 bytes on every request.
            headers={"apikey": config.publishable_key, "X-Client-Info": f"fleet-agent/{__version__}"},
            http_client=self._http,
            retry_enabled=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def desired_state(self) -> Directive:
        """Ask what this device should run; takes the server's time from the answer."""
        answer = await self._call(retry.CHECK_IN, lambda: self._rest.rpc("desired_state", {}).execute())
        try:
            directive = Directive.model_validate(self._without_unknown_commands(answer.data))
        except PydanticValidationError as error:
            raise error_mapping.unexpected_answer("desired_state()", error, retryable=False) from error
        if directive.device.id != self.device_id:
            raise bad_answer("desired_state()", "it is for another device", retryable=False)
        self.clock.observe(directive.server_time)
        return directive

    async def report(self, row: dict[str, Any]) -> None:
        """Upsert this device's row of `device_status`; columns left out keep their value."""
        body = plain_text.row({"device_id": str(self.device_id), **row}, several_lines=_SEVERAL_LINES)
        await self._call(
            retry.REPORT,
            lambda: (
                self._rest.from_("device_status")
                .upsert(body, on_conflict="device_id", returning=ReturnMethod.minimal)
                .execute()
            ),
        )

    async def record(self, attempts: Sequence[Attempt]) -> None:
        """Insert rows of `update_history`; rows already there are left alone: repeating is safe."""
        rows = [
            plain_text.row(
                {**attempt.model_dump(mode="json"), "device_id": str(self.device_id)},
                several_lines=_SEVERAL_LINES,
            )
            for attempt in attempts
        ]
        await self._call(
            retry.HISTORY,
            lambda: (
                self._rest.from_("update_history")
                .upsert(
                    rows, on_conflict="id,started_at", ignore_duplicates=True, returning=ReturnMethod.minimal
                )
                .execute()
            ),
        )

    async def answer(
        self, command_id: UUID, state: Literal["succeeded", "failed"], result: dict[str, Any]
    ) -> None:
        """Answer a queued command; one answered already keeps its first answer."""
        body = plain_text.row({"state": state, "result": result}, several_lines=())
        await self._call(
            retry.ANSWER,
            lambda: (
                self._rest.from_("device_commands")
                .update(body, returning=ReturnMethod.minimal)
                .eq("id", str(command_id))
                .eq("state", "queued")
                .execute()
            ),
        )

    def _without_unknown_commands(self, data: Any) -> Any:
        """Set aside commands of a kind that this agent does not know: they must not hide the rest."""
        self.unknown_commands = []
        if not isinstance(data, dict) or not isinstance(data.get("commands"), list):
            return data
        known = []
        for command in data["commands"]:
            kind = command.get("kind") if isinstance(command, dict) else ""
            if isinstance(command, dict) and not (isinstance(kind, str) and kind in set(CommandKind)):
                with contextlib.suppress(ValueError):
                    self.unknown_commands.append(UUID(str(command.get("id"))))
            else:
                known.append(command)
        return {**data, "commands": known}

    async def _call(self, policy: retry.Policy, request: Callable[[], Awaitable[Result]]) -> Result:
        """Run `request` under `policy`, once more with a new token when the token was refused."""

        async def attempt() -> Result:
            self._bearer.token = await self.tokens.get()
            return await self._translated(request)

        try:
            return await retry.call(policy, attempt)
        except ControlPlaneError as error:
            refused = self._bearer.token
            if error.kind != Kind.UNAUTHORIZED or refused is None or "function" in error.evidence:
                raise
            self.tokens.reject(refused)
            return await retry.call(policy, attempt)

    async def _translated(self, request: Callable[[], Awaitable[Result]]) -> Result:
        try:
            async with asyncio.timeout(WHOLE_CALL_S):
                return await request()
        except (httpx.HTTPError, OSError) as error:
            raise error_mapping.from_transport(error, self.clock) from error
        except (APIError, PydanticValidationError, ValueError) as error:
            raise bad_answer("The control plane", f"it cannot be read ({type(error).__name__})") from error


async def _refuse_bad_answers(response: httpx.Response) -> None:
    """Look at every answer before postgrest does: it drops the status and the headers of a refusal."""
    content = await response.aread()
    error = error_mapping.from_response(response.status_code, response.headers, content)
    if error is not None:
        raise error
