"""`fleetctl demo faults`: a person watches each way to fail on one device, and how the device gets out."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.padding import Padding
from rich.status import Status

from fleet_agent.model import Progress
from fleetctl.console import err, out, print_json, print_table
from fleetctl.demo.beacon import BeaconRepo
from fleetctl.demo.docker import docker_missing
from fleetctl.demo.faults.device import FaultDevice
from fleetctl.demo.faults.scenarios import ELSEWHERE, SCENARIOS
from fleetctl.demo.faults.scenarios.base import Result, Scenario, Setup
from fleetctl.errors import FleetctlError


def chosen(only: Sequence[str]) -> list[Scenario]:
    """The scenarios by name, in their own order; all where none is named. Raises `scenario_unknown`."""
    names = [scenario.name for scenario in SCENARIOS]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise FleetctlError(
            "scenario_unknown",
            f"There is no scenario {', '.join(unknown)}.",
            hint=f"Known: {', '.join(names)}.",
            exit_code=2,
        )
    return [scenario for scenario in SCENARIOS if not only or scenario.name in only]


def run(only: Sequence[str], *, simulated: bool, as_json: bool) -> int:
    """Play the scenarios; 0 only where each ended as it should. The folder of a failed run is kept."""
    scenarios = chosen(only)
    why_simulated = "switched off by --simulated" if simulated else docker_missing()
    runtime = "simulated" if why_simulated else "docker"
    folder = Path(tempfile.mkdtemp(prefix="fleet-faults-"))
    project = f"demo-faults-{secrets.token_hex(3)}"
    repo = BeaconRepo.create(folder / "repo")
    devices: list[FaultDevice] = []

    def new_device() -> FaultDevice:
        number = len(devices) + 1
        devices.append(FaultDevice(folder / f"d{number}", repo, runtime, f"{project}-{number}"))
        return devices[-1]

    if not as_json:
        where = f"simulated containers ({why_simulated})" if why_simulated else "real containers"
        out.print(f"{len(scenarios)} scenarios on one device with {where}.\n")
    results: list[Result] = []
    # People watch standard error where standard output is for a program.
    console = err if as_json else out
    try:
        with console.status("") as status:
            setup = Setup(new_device(), _shower(status), new_device)
            for scenario in scenarios:
                status.update(f"{scenario.name}: {scenario.broken}")
                results.append(_play(scenario, setup))
                if not as_json:
                    _tell(results[-1])
    finally:
        for device in devices:
            device.remove()
        ok = len(results) == len(scenarios) and all(result.ok for result in results)
        if ok:
            shutil.rmtree(folder)
    if as_json:
        print_json(
            {"ok": ok, "containers": runtime, "scenarios": [{**asdict(r), "ok": r.ok} for r in results]}
        )
    else:
        _table(results)
        if not ok:
            out.print(f"The device's files are kept in {folder}.")
    return 0 if ok else 1


def _play(scenario: Scenario, setup: Setup) -> Result:
    result = Result(scenario.name, scenario.broken)
    if setup.simulated and scenario.needs_docker:
        result.skipped = scenario.needs_docker
        return result
    began = time.monotonic()
    try:
        scenario.play(setup, result)
    except (FleetctlError, RuntimeError, OSError) as error:
        result.problems.append(str(error))
    result.seconds = time.monotonic() - began
    return result


def _shower(status: Status) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        target = f" {progress.target.version}" if progress.target else ""
        status.update(escape(f"{progress.phase}{target} {progress.detail}"))

    return show


def _tell(result: Result) -> None:
    """One scenario as it ended: what was broken, what the device said about it, how it came back."""
    mark = "[yellow]–[/]" if result.skipped else "[green]✓[/]" if result.ok else "[red]✗[/]"
    out.print(f"{mark} [bold]{result.name}[/]: {result.broken} [dim]({result.seconds:.1f} s)[/]")
    if result.skipped:
        out.print(f"    [dim]not played: {result.skipped}[/]")
    if result.said:
        # In brackets of its own kind, so that Rich does not take it for markup.
        kind = f"{result.kind}: " if result.kind else ""
        _indented(escape(kind + result.said))
    for line in result.evidence:
        if line not in result.said:
            _indented(f"[dim]{escape(line)}[/]")
    for problem in result.problems:
        _indented(f"[red]{escape(problem)}[/]")


def _indented(text: str) -> None:
    """Also where it takes more than one line."""
    out.print(Padding(text, (0, 0, 0, 4), expand=False))


def _table(results: Sequence[Result]) -> None:
    print_table(
        "\nHow each ended",
        ["scenario", "outcome", "failed in", "kind", "healthy again after", "outage of a client", "verdict"],
        [
            (
                result.name,
                result.outcome,
                result.phase,
                result.kind,
                "" if result.proven_s is None else f"{result.proven_s:.1f} s",
                "" if result.outage_ms is None else f"{result.outage_ms:.0f} ms",
                "not played" if result.skipped else "as it should" if result.ok else "WRONG",
            )
            for result in results
        ],
    )
    wrong = [result.name for result in results if not result.ok]
    skipped = sum(bool(result.skipped) for result in results)
    played = len(results) - skipped
    out.print(
        f"{played - len(wrong)} of {played} ended as they should"
        + (f", {skipped} not played" if skipped else "")
        + (f". [red]Not: {', '.join(wrong)}.[/]" if wrong else ".")
    )
    for what, where in ELSEWHERE.items():
        out.print(f"[dim]Not in the demo: {what} ({where}).[/]")
    out.print(
        "[dim]Healthy again: from the engine's verdict to the old release proven; empty: it never stopped.[/]"
    )
