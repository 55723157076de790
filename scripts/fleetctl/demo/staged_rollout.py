"""The demo's second act: a staged rollout of a bad release halts itself before it reaches the fleet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from supabase import Client

from fleetctl.errors import FleetctlError

CANARY = "beacon-1"


@dataclass(frozen=True)
class Halted:
    """How a rollout ended itself: its halt's reason, who was hurt, and what an untouched device is told."""

    version: str
    reason: str
    hurt: list[str]
    spared: int
    explained: str


def prepare(client: Client) -> None:
    """One canary, and a branch that offers nothing outside of a rollout: two row edits."""
    client.table("devices").update({"segment": "canary"}).eq("name", CANARY).execute()
    client.table("branches").update({"requires_rollout": True}).eq("name", "main").execute()


def start(client: Client, commit: str, version: str) -> dict[str, Any]:
    """Offer a release to the canary first and to everybody once it did well there; one failure is too many.

    Returns the release's row.
    """
    release = _row(
        client.table("releases")
        .insert({"commit_sha": commit, "branch": "main", "version": version})
        .execute()
        .data
    )
    rollout = _row(
        client.rpc(
            "create_rollout",
            {
                "release_id": release["id"],
                "stages": [{"segment": "canary"}, {}],
                "options": {"halt_max_failures": 1},
            },
        )
        .execute()
        .data
    )
    client.rpc("start_rollout", {"rollout_id": rollout["id"]}).execute()
    return {**release, "rollout_id": rollout["id"]}


def watch_halt(client: Client, release: dict[str, Any], until: Callable[[Callable[[], Any]], Any]) -> Halted:
    """Wait until policy itself has halted the rollout; say who was hurt and what the others are told.

    Raises FleetctlError (`policy_broken`) when more devices tried the release than the canary.
    """
    halt = until(lambda: _open_halt(client, release["rollout_id"]))
    names = {
        row["id"]: row["name"] for row in _rows(client.table("devices").select("id,name").execute().data)
    }
    tried = _rows(
        client.table("update_history").select("device_id").eq("release_id", release["id"]).execute().data
    )
    hurt = sorted({names[row["device_id"]] for row in tried})
    if hurt != [CANARY]:
        raise FleetctlError(
            "policy_broken", f"{release['version']} should have hurt {CANARY} alone, but tried it: {hurt}."
        )
    spared = next(
        device for device, name in sorted(names.items(), key=lambda item: item[1]) if name not in hurt
    )
    answer = client.rpc("explain_device", {"device_id": spared}).execute().data
    gates = answer.get("gates", []) if isinstance(answer, dict) else []
    blocking = [gate for gate in gates if isinstance(gate, dict) and gate.get("verdict") != "pass"]
    if not blocking:
        raise FleetctlError(
            "policy_broken", f"No gate of {names[spared]} stands in the way of a halted rollout."
        )
    return Halted(
        version=release["version"],
        reason=str(halt["reason"]),
        hurt=hurt,
        spared=len(names) - len(hurt),
        explained=f"{names[spared]}: " + " ".join(str(gate.get("detail")) for gate in blocking),
    )


def _open_halt(client: Client, rollout_id: str) -> dict[str, Any] | None:
    found = _rows(
        client.table("halts")
        .select("reason,cause,evidence")
        .eq("scope", "rollout")
        .eq("target", rollout_id)
        .is_("lifted_at", "null")
        .execute()
        .data
    )
    return found[0] if found else None


def _rows(data: object) -> list[dict[str, Any]]:
    return [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []


def _row(data: object) -> dict[str, Any]:
    found = _rows(data) or ([data] if isinstance(data, dict) else [])
    if not found:
        raise FleetctlError("bad_answer", f"Expected one row, got {data!r}.")
    return found[0]
