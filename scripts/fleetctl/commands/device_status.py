"""Devices together with what they last reported."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from fleetctl.client.query import Row
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.lookup import names_by_id

#: Beyond this many, reading all reports is fewer requests than asking for each batch of ids.
_FEW = 300


def with_status(context: Context, devices: Sequence[Row], now: datetime) -> list[Row]:
    """Each device with its last report as `status` ({} for none), `current_version` and `offline`."""
    ids = [row["id"] for row in devices]
    if len(ids) <= _FEW:
        reports = context.api.rows_of("device_status", "device_id", ids, order="device_id")
    else:
        reports = context.api.rows("device_status", order="device_id")
    by_device = {report["device_id"]: report for report in reports}
    versions = names_by_id(context, "releases", [row["current_release"] for row in reports], "version")
    settings = context.api.settings()

    def joined(device: Row) -> Row:
        status = by_device.get(device["id"], {})
        current = versions.get(status.get("current_release") or "")
        offline = device["state"] == "active" and _is_late(device, status, settings, now)
        return {**device, "status": status, "current_version": current, "offline": offline}

    return [joined(device) for device in devices]


def local_settings(settings: dict[str, Any]) -> list[str]:
    """What a device's own file decides, of the `settings` that it reported: `poll_interval_s=3600`."""
    in_force = {f"labels.{name}": value for name, value in (settings.get("labels") or {}).items()}
    if isinstance(every := settings.get("poll_interval_s"), float | int):
        in_force["poll_interval_s"] = round(every)
    return [f"{name}={in_force[name]}" for name in settings.get("pinned") or [] if name in in_force]


def _is_late(device: Row, status: Row, settings: Row, now: datetime) -> bool:
    """Whether it has missed as many check-ins as make a device offline. One that was never seen has not."""
    seen = status.get("reported_at")
    interval_s = (
        status.get("pinned_poll_interval_s")
        or device["poll_interval_s"]
        or settings["default_poll_interval_s"]
    )
    patience = timedelta(seconds=interval_s * settings["offline_after_intervals"])
    return seen is not None and now - datetime.fromisoformat(seen) > patience
