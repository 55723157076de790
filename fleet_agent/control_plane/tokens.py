"""The device's JWT: fetched with a signed assertion, kept on disk, renewed before it ends.

Saved (mode 0600, next to the key that could get another one) so that a restart does not cost a function call;
written about twice a day. Its lifetime is counted with the monotonic clock from when it was received, so a
wrong or jumping clock does not end it early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
from loguru import logger
from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.config import DeviceConfig
from fleet_agent.control_plane import edge_functions, error_mapping
from fleet_agent.control_plane.identity import Identity
from fleet_agent.errors import ControlPlaneError, StateError
from fleet_agent.support import atomic_files, retry
from fleet_agent.support.clock import Clock

#: A token is renewed when this share of its life is over, give or take a fleet's spread.
RENEW_AT = (0.75, 0.9)
#: One fetch as a whole: signing in a child, a second try with the corrected time, a slow server.
WHOLE_FETCH_S = 120.0
#: A token with less than this left is not used for a request.
MARGIN_S = 60.0


@dataclass(frozen=True)
class Token:
    """`ends` and `renew` are on the clock's monotonic scale."""

    value: str = field(repr=False)
    ends: float
    renew: float


class _Kept(BaseModel):
    model_config = ConfigDict(extra="ignore")

    device_id: str
    api_url: str
    access_token: str
    issued_at: AwareDatetime
    expires_at: AwareDatetime


class Tokens:
    """Returns a valid token, fetching a new one if needed; concurrent callers share one fetch."""

    def __init__(
        self,
        http: Callable[[], httpx.AsyncClient],
        identity: Identity,
        clock: Clock,
        config: Callable[[], DeviceConfig],
        *,
        uniform: Callable[[float, float], float] = retry.uniform,
    ) -> None:
        self._http = http
        self._identity = identity
        self._clock = clock
        self._config = config
        self._uniform = uniform
        self._file = identity.folder / "token.json"
        self._lock = asyncio.Lock()
        self._token: Token | None = self._read()

    async def get(self) -> Token:
        """A token with life left. Raises ControlPlaneError, StateError."""
        async with self._lock:
            token = self._token
            if token is None or token.ends - self._clock.monotonic() <= MARGIN_S:
                token = await self._fetch()
            return token

    async def renew(self) -> Token:
        """A new token if it is time for one, else the present one. Raises ControlPlaneError, StateError."""
        async with self._lock:
            token = self._token
            if token is None or token.renew <= self._clock.monotonic():
                token = await self._fetch()
            return token

    def reject(self, token: Token) -> None:
        """The control plane refused `token`: the next `get` fetches another."""
        if self._token is token:
            self._token = None

    async def _fetch(self) -> Token:
        async def attempt() -> edge_functions.DeviceToken:
            # Twice a day: a client kept for this would only cost memory.
            async with self._http() as http:
                try:
                    async with asyncio.timeout(WHOLE_FETCH_S):
                        return await edge_functions.fetch_token(
                            http, self._config(), self._identity, clock=self._clock.now, in_child=True
                        )
                except TimeoutError as error:
                    raise error_mapping.from_transport(error) from error
                except ControlPlaneError as error:
                    if error_mapping.refuses_this_device(error):
                        # Until a person acts; the next poll is soon enough to find out.
                        error.retryable = False
                    if isinstance(error.__cause__, httpx.HTTPError):
                        # Only here is it known whether this device's clock caused the error.
                        raise error_mapping.from_transport(error.__cause__, self._clock) from error
                    raise

        fresh = await retry.call(retry.TOKEN, attempt)
        self._clock.observe(fresh.server_time)
        self._token = self._timed(timedelta(seconds=fresh.expires_in_s), timedelta(), fresh.access_token)
        self._keep(fresh)
        logger.debug("new device token, valid until {until}", until=fresh.expires_at.isoformat())
        return self._token

    def _timed(self, life: timedelta, age: timedelta, value: str) -> Token:
        now = self._clock.monotonic()
        return Token(
            value=value,
            ends=now + (life - age).total_seconds(),
            renew=now + (life * self._uniform(*RENEW_AT) - age).total_seconds(),
        )

    def _keep(self, fresh: edge_functions.DeviceToken) -> None:
        kept = _Kept(
            device_id=str(self._identity.device_id),
            api_url=self._config().api_url,
            access_token=fresh.access_token,
            issued_at=fresh.server_time,
            expires_at=fresh.expires_at,
        )
        try:
            atomic_files.write_atomic(self._file, kept.model_dump_json().encode(), mode=0o600)
        except StateError as error:
            logger.warning("the device token could not be saved for a restart: {error}", error=error)

    def _read(self) -> Token | None:
        try:
            kept = _Kept.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, PydanticValidationError):
            logger.warning("{file} cannot be read; fetching a new token", file=self._file)
            return None
        age = self._clock.now() - kept.issued_at
        ours = kept.device_id == str(self._identity.device_id) and kept.api_url == self._config().api_url
        # A clock before the token was issued is wrong: how much time is left is not known.
        if not ours or age < timedelta():
            return None
        return self._timed(kept.expires_at - kept.issued_at, age, kept.access_token)


def forget(folder: Path) -> None:
    """Drop a kept token (after enrolling again)."""
    atomic_files.remove(folder / "token.json")
