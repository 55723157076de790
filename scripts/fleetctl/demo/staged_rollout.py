"""The demo's second half: a staged rollout of a bad release halts itself before it reaches the fleet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleetctl.client.api import Api
from fleetctl.client.query import Row, all_of, is_empty, where
from fleetctl.errors import FleetctlError

CANARY = "beacon-1"


@dataclass(frozen=True)
class Halted:
    """How a rollout halted: the reason, who had tried the release, and what another device is told."""

    version: str
    reason: str
    hurt: list[str]
    spared: int
    explained: str


def release_to_all(api: Api, commit: str, version: str) -> Row:
    """Give a release to every device at once, with no rule that would spare some of them."""
    added = api.rpc(
        "add_release",
        commit_sha=commit,
        version=version,
        stages=[{}],
        options={"halt_failure_ratio": None, "halt_consecutive_failures": None},
    )
    return dict(added["release"])


def make_canary(api: Api) -> None:
    """Make one device the canary."""
    api.update("devices", {"segment": "canary"}, where(name=CANARY))


def start_rollout(api: Api, commit: str, version: str) -> Row:
    """Give a release to the canary, then to everyone; a single failure halts it. Returns both rows."""
    added = api.rpc(
        "add_release",
        commit_sha=commit,
        version=version,
        stages=[{"segment": "canary"}, {}],
        options={"halt_max_failures": 1},
    )
    return {**added["release"], "rollout_id": added["rollout_id"]}


def watch_halt(api: Api, release: Row, until: Callable[[Callable[[], Any]], Any]) -> Halted:
    """Wait until policy itself has halted the rollout.

    Raises FleetctlError (`policy_broken`) if any device but the canary tried the release.
    """
    halt = until(lambda: _open_halt(api, release["rollout_id"]))
    names = {row["id"]: row["name"] for row in api.rows("devices", select="id,name", order="name")}
    tried = api.rows("update_history", where(release_id=release["id"]), select="device_id", order="id")
    hurt = sorted({names[row["device_id"]] for row in tried})
    if hurt != [CANARY]:
        raise FleetctlError(
            "policy_broken",
            f"Only {CANARY} should have tried {release['version']}, but these did: {', '.join(hurt)}.",
        )
    spared = next(device for device, name in names.items() if name not in hurt)
    gates = api.rpc("explain_device", device_id=spared)["gates"]
    blocking = [gate for gate in gates if gate["verdict"] != "pass"]
    if not blocking:
        raise FleetctlError(
            "policy_broken", f"Nothing stops {names[spared]} from installing {release['version']}."
        )
    return Halted(
        version=release["version"],
        reason=str(halt["reason"]),
        hurt=hurt,
        spared=len(names) - len(hurt),
        explained=f"{names[spared]}: " + " ".join(str(gate["detail"]) for gate in blocking),
    )


def _open_halt(api: Api, rollout_id: str) -> Row | None:
    narrow = all_of(where(scope="rollout", target=rollout_id), is_empty("lifted_at"))
    return next(iter(api.rows("halts", narrow, select="reason", order="opened_at")), None)
