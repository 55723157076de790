"""What one run of the demo saw: kept as `demo.json`, printed as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

from fleet_agent.engine.phases import Phase
from fleetctl.client.query import Row
from fleetctl.console import out, print_table


@dataclass
class Step:
    """One thing that had to be seen."""

    title: str
    seen: bool = False
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class ReleaseFacts:
    """What a release did, as medians over the devices. Bytes, and milliseconds since its row was made."""

    version: str
    outcomes: list[str]
    devices: int
    attempt_began_ms_median: float
    bytes_fetched_median: float
    phase_ms_median: dict[str, float]

    @classmethod
    def of(cls, release: Row, attempts: Sequence[Row]) -> ReleaseFacts:
        """From the release's row and one row of `update_history` for each device."""
        created = datetime.fromisoformat(release["created_at"])
        durations: list[dict[str, int]] = [row["phase_durations_ms"] or {} for row in attempts]
        # jsonb keeps no order, so in the engine's.
        phases = sorted({phase for spent in durations for phase in spent}, key=_position)
        return cls(
            version=release["version"],
            outcomes=sorted({row["outcome"] for row in attempts}),
            devices=len(attempts),
            attempt_began_ms_median=median(
                (datetime.fromisoformat(row["started_at"]) - created).total_seconds() * 1000
                for row in attempts
            ),
            bytes_fetched_median=median(row["bytes_fetched"] or 0 for row in attempts),
            phase_ms_median={phase: median(spent.get(phase, 0) for spent in durations) for phase in phases},
        )


@dataclass
class Facts:
    """What `demo.json` holds. Times: seconds and milliseconds as named."""

    ok: bool = False
    steps: list[Step] = field(default_factory=list)
    containers: str = "simulated"
    wake_latency_ms: dict[str, float] = field(default_factory=dict)
    releases: list[ReleaseFacts] = field(default_factory=list)
    outage_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    rolled_back: list[dict[str, str]] = field(default_factory=list)
    halted: dict[str, Any] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)


def print_report(facts: Facts) -> None:
    """Tables and sentences for people."""
    out.print()
    _print_releases(facts.releases, facts.wake_latency_ms)
    _print_phases(facts.releases)
    _print_outages(facts.outage_ms)
    print_table(
        "Why devices rolled back from 2.0.0",
        ["device", "kind", "reason"],
        [(row["device"], row["kind"], row["why"]) for row in facts.rolled_back],
    )
    out.print(
        f"The rollout of {facts.halted['version']} was halted automatically: {facts.halted['reason']}",
        markup=False,
    )
    out.print(f"What a spared device is told: {facts.halted['explained']}", markup=False)


def _print_releases(releases: Sequence[ReleaseFacts], wake_latency_ms: Mapping[str, float]) -> None:
    print_table(
        "Releases (medians over all devices; times since the release was published)",
        ["release", "outcome", "devices", "device woken", "update began", "downloaded"],
        [
            (
                release.version,
                ", ".join(release.outcomes),
                release.devices,
                f"{wake_latency_ms[release.version]:.0f} ms",
                f"{release.attempt_began_ms_median:.0f} ms",
                f"{release.bytes_fetched_median / 1024:.1f} KiB",
            )
            for release in releases
        ],
    )


def _print_phases(releases: Sequence[ReleaseFacts]) -> None:
    phases = dict.fromkeys(phase for release in releases for phase in release.phase_ms_median)
    print_table(
        "Time in each phase, in ms",
        ["phase", *(release.version for release in releases)],
        [(phase, *(_cell(release.phase_ms_median.get(phase)) for release in releases)) for phase in phases],
    )


def _print_outages(outage_ms: Mapping[str, Mapping[str, float]]) -> None:
    if not outage_ms:
        out.print("[dim]Outage: not measured, because simulated containers serve nothing.[/]\n")
        return
    print_table(
        "Outage seen by a client of the real containers",
        ["release", "service `web`, changed", "service `clock`, unchanged"],
        [(version, f"{ms['web']:.0f} ms", f"{ms['clock']:.0f} ms") for version, ms in outage_ms.items()],
    )


def _position(phase: str) -> int:
    known = [known.value for known in Phase]
    return known.index(phase) if phase in known else len(known)


def _cell(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.0f}"
