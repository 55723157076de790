"""What is in effect on this device: its own file over what the control plane sends, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet_agent.config import DeviceConfig
from fleet_agent.model import Directive

#: Before the control plane was ever heard: the fleet's usual interval.
DEFAULT_POLL_INTERVAL_S = 900.0


@dataclass(frozen=True)
class Settings:
    """`pinned` names what the device's own file decides, like `labels.site`."""

    poll_interval_s: float
    labels: Mapping[str, str]
    pinned: tuple[str, ...]


def in_effect(config: DeviceConfig, directive: Directive | None) -> Settings:
    sent_interval = directive.next_poll_s if directive is not None else None
    sent_labels = directive.config.labels if directive is not None else {}
    pinned = [f"labels.{name}" for name in sorted(config.labels)]
    if config.poll_interval_s is not None:
        pinned.insert(0, "poll_interval_s")
    return Settings(
        poll_interval_s=float(config.poll_interval_s or sent_interval or DEFAULT_POLL_INTERVAL_S),
        labels={**sent_labels, **config.labels},
        pinned=tuple(pinned),
    )
