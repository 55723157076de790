"""One client and one subscription, rebuilt together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from fleet_agent.config import DeviceConfig
from fleet_agent.control_plane.client import ControlPlane
from fleet_agent.control_plane.identity import Identity
from fleet_agent.support.clock import Clock

if TYPE_CHECKING:
    from fleet_agent.control_plane.subscription import Subscription, Wake

#: After joining its topics a device asks for what it missed, spread over this.
SUBSCRIBED_SPREAD_S = 2.0

#: Takes a spread in seconds and why: the daemon's schedule.
Hasten = Callable[[float, str], None]


class Connection:
    """What is rebuilt when the address or the key of the control plane changes."""

    def __init__(self, config: DeviceConfig, identity: Identity, clock: Clock, hasten: Hasten) -> None:
        self._identity = identity
        self._clock = clock
        self._hasten = hasten
        self.plane = ControlPlane(config, identity, clock)
        self.subscription: Subscription | None = None
        self.task: asyncio.Task[None] | None = None

    def serves(self, config: DeviceConfig) -> bool:
        """Whether `config` changes nothing about how the control plane is reached."""
        present = self.plane.config
        return (config.api_url, config.publishable_key, config.wake) == (
            present.api_url, present.publishable_key, present.wake,
        )  # fmt: skip

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
        await self.plane.close()

    def listen(self, segment: str) -> None:
        """Keep a subscription for this device and its segment; restart one that died."""
        if self.subscription is None:
            self.subscription = self._subscription()
        self.subscription.move_to(segment)
        if self.task is None or self.task.done():
            if self.task is not None and not self.task.cancelled():
                logger.error("the subscription failed and is restarted: {e}", e=self.task.exception())
            self.task = asyncio.create_task(self.subscription.run())

    def rest(self) -> None:
        """Stop trying to subscribe; a subscription that is up stays."""
        joined = self.subscription is not None and self.subscription.joined
        if self.task is not None and not joined:
            self.task.cancel()

    def woken(self, wake: Wake) -> None:
        logger.info("woken: {reason} (spread {spread:g} s)", reason=wake.reason, spread=wake.spread_s)
        self._hasten(wake.spread_s, f"woken: {wake.reason}")

    def _subscription(self) -> Subscription:
        # Imported late: a device without a subscription does not need the memory.
        from fleet_agent.control_plane.subscription import Subscription

        return Subscription(
            url=self.plane.config.api_url,
            key=self.plane.config.publishable_key,
            device_id=str(self._identity.device_id),
            tokens=self.plane.tokens,
            clock=self._clock,
            tls=self.plane.tls,
            on_wake=self.woken,
            on_subscribed=lambda: self._hasten(SUBSCRIBED_SPREAD_S, "subscribed"),
        )
