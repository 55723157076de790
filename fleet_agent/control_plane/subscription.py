"""The Realtime subscription that lets a device act before its next poll.

`realtime`'s own reconnecting gives up for good after five tries, never rejoins a channel that the server
closed (an expired token, a rate limit) and has no jitter. So its part here ends with the first error: one
client, one session; when anything is wrong the session is torn down and, after a full-jitter backoff, a new
one is built. A wake is a hint: nothing is lost when this does not work, the poll finds everything.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from pydantic import ConfigDict, Field
from pydantic import ValidationError as PydanticValidationError
from realtime import RealtimeSubscribeStates

from fleet_agent.control_plane.realtime_client import Lost, RealtimeClient, Timing, lost_by
from fleet_agent.control_plane.tokens import Token, Tokens
from fleet_agent.errors import FleetError
from fleet_agent.model import Frozen
from fleet_agent.support import retry
from fleet_agent.support.clock import Clock

#: A malformed wake still wakes, spread over this.
DEFAULT_SPREAD_S = 30.0
SPREAD_LIMIT_S = 3600.0
REMEMBERED_IDS = 64
_EVENT = "wake"


class Wake(Frozen):
    """What the server sends on `device:<id>` and `segment:<name>`; the device waits `U(0, spread_s)`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: str = Field(default="", max_length=200)
    spread_s: float = Field(default=DEFAULT_SPREAD_S, ge=0, le=SPREAD_LIMIT_S)


@dataclass
class Subscription:
    """Keeps one subscription alive until canceled: `run()` never returns by itself.

    `on_wake` is called for each new wake, `on_subscribed` each time the device's own topic is joined: what
    was sent before that was missed, so the loop should ask.
    """

    url: str
    key: str
    device_id: str
    tokens: Tokens
    clock: Clock
    on_wake: Callable[[Wake], None]
    on_subscribed: Callable[[], None]
    tls: ssl.SSLContext | None = None
    timing: Timing = field(default_factory=Timing)
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    uniform: Callable[[float, float], float] = retry.uniform
    joined: bool = False
    last_problem: str | None = None
    _segment: str | None = None
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _seen: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED_IDS))

    def move_to(self, segment: str | None) -> None:
        """Listen to this segment's topic from now on."""
        if segment != self._segment:
            self._segment = segment
            self._moved.set()

    async def run(self) -> None:
        failures = 0
        while True:
            started = self.clock.monotonic()
            base_s = self.timing.backoff_base
            try:
                await self._session()
                failures = 0
                continue  # a planned new session: the device moved to another segment
            except Lost as lost:
                problem = str(lost)
                base_s = max(base_s, lost.base_s) if lost.base_s > retry.WAKE_BASE_S else base_s
            except FleetError as error:  # no token: suspended, or the control plane is away
                problem = f"{error.kind}: {error}"
            finally:
                self.joined = False
            stable = self.clock.monotonic() - started >= self.timing.stable
            failures = 1 if stable else failures + 1
            self.last_problem = problem
            wait = retry.full_jitter(
                failures, base_s=base_s, cap_s=self.timing.backoff_cap, uniform=self.uniform
            )
            logger.info(
                "realtime is not connected ({reason}); try {n} in {wait:.1f} s; polling continues",
                reason=problem, n=failures + 1, wait=wait,
            )  # fmt: skip
            await self.sleep(wait)

    async def _session(self) -> None:
        """One connection's life. Returns when the topics changed, raises Lost for everything else."""
        self._moved.clear()
        token = await self.tokens.get()
        client = RealtimeClient(f"{self.url}/realtime/v1", self.key, self.timing, self.tls)
        try:
            await client.connect()
            await client.set_auth(token.value)
            lost: asyncio.Future[Lost] = asyncio.get_running_loop().create_future()
            await self._join(client, f"device:{self.device_id}", lost, required=True)
            if self._segment is not None:
                await self._join(client, f"segment:{self._segment}", lost, required=False)
            self.joined, self.last_problem = True, None
            logger.info(
                "realtime subscribed{segment}", segment=f" ({self._segment})" if self._segment else ""
            )
            self.on_subscribed()
            await self._stay(client, token, lost)
        except Lost as error:
            if error.token_refused:
                self.tokens.reject(token)
            raise
        finally:
            self.joined = False
            await client.tear_down()

    async def _join(
        self, client: RealtimeClient, topic: str, lost: asyncio.Future[Lost], *, required: bool
    ) -> None:
        channel = client.channel(
            topic,
            {
                "config": {
                    "private": True,
                    "broadcast": {"ack": False, "self": False},
                    "presence": {"key": "", "enabled": False},
                }
            },
        )
        joining = True
        outcome: Lost | None = None

        def on_status(state: RealtimeSubscribeStates, error: Exception | None) -> None:
            nonlocal outcome
            if state == RealtimeSubscribeStates.SUBSCRIBED:
                return
            trouble = lost_by(topic, state, error, self.timing)
            if joining:
                outcome = outcome or trouble
            elif not lost.done():
                lost.set_result(trouble)

        channel.on_broadcast(_EVENT, self._on_broadcast)
        await channel.subscribe(on_status)
        joining = False
        if outcome is None:
            return
        # The library would rejoin by itself, forever and without jitter.
        channel.rejoin_timer.reset()
        if required or "Unauthorized" not in str(outcome):
            raise outcome
        logger.warning("joining the topic {topic} was refused: {reason}", topic=topic, reason=outcome)

    async def _stay(self, client: RealtimeClient, token: Token, lost: asyncio.Future[Lost]) -> None:
        """Wait for the end of the session, renewing the token when it is due."""
        listening = client.listening
        moved = asyncio.create_task(self._moved.wait())
        try:
            while True:
                due = max(token.renew - self.clock.monotonic(), 0.0)
                ends: set[asyncio.Future[Any]] = {lost, moved}
                if listening is not None:
                    ends.add(listening)
                await asyncio.wait(ends, timeout=due, return_when=asyncio.FIRST_COMPLETED)
                if lost.done():
                    raise lost.result()
                if moved.done():
                    return
                if listening is not None and listening.done():
                    raise Lost("the connection ended")
                token = await self._renewed(client, token)
        finally:
            moved.cancel()

    async def _renewed(self, client: RealtimeClient, token: Token) -> Token:
        try:
            fresh = await self.tokens.renew()
        except FleetError as error:
            remaining = token.ends - self.clock.monotonic()
            if remaining <= 0:
                raise
            logger.info("the token could not be renewed yet: {error}", error=error)
            # The current one still works; try again after a tenth of what is left of it.
            return Token(token.value, token.ends, self.clock.monotonic() + max(remaining / 10, 1.0))
        if fresh.value != token.value:
            await client.set_auth(fresh.value)
        return fresh

    def _on_broadcast(self, message: Mapping[str, Any]) -> None:
        meta = message.get("meta")
        message_id = str(meta.get("id") or "") if isinstance(meta, Mapping) else ""
        if message_id:
            if message_id in self._seen:
                logger.debug("wake {id} is a duplicate, ignored", id=message_id)
                return
            self._seen.append(message_id)
        try:
            wake = Wake.model_validate(message.get("payload"))
        except PydanticValidationError:
            logger.debug("a wake that cannot be read")
            wake = Wake(reason="unreadable wake")
        self.on_wake(wake)
