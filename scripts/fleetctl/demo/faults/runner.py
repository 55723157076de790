"""`fleetctl demo faults`: run the scenarios one after another, and show how the device got out of each."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.padding import Padding
from rich.status import Status

from fleet_agent.model import Progress
from fleetctl.console import counted, err, out, print_json, print_table
from fleetctl.demo.beacon import BeaconRepo
from fleetctl.demo.docker import docker_missing
from fleetctl.demo.faults.device import FaultDevice
from fleetctl.demo.faults.scenarios import ELSEWHERE, SCENARIOS
from fleetctl.demo.faults.scenarios.base import Result, Scenario, Setup
from fleetctl.errors import FleetctlError


def run(only: Sequence[str], *, simulated: bool, as_json: bool) -> int:
    """Run the scenarios; 0 only if each ended as expected. The folder of a failed run is kept."""
    scenarios = chosen(only)
    why_simulated = "switched off by --simulated" if simulated else docker_missing()
    runtime = "simulated" if why_simulated else "docker"
    if not as_json:
        containers = f"simulated containers ({why_simulated})" if why_simulated else "real containers"
        out.print(f"{counted(scenarios, 'scenario')} on one device with {containers}.\n")
    folder = Path(tempfile.mkdtemp(prefix="fleet-faults-"))
    results: list[Result] = []
    # Standard output is for a program with --json; people watch standard error then.
    with _devices(folder, runtime) as new_device, (err if as_json else out).status("") as status:
        setup = Setup(new_device(), _shower(status), new_device)
        for scenario in scenarios:
            status.update(f"{scenario.name}: {scenario.broken}")
            results.append(_run(scenario, setup))
            if not as_json:
                _show(results[-1])
    ok = all(result.ok for result in results)
    if as_json:
        print_json(
            {"ok": ok, "containers": runtime, "scenarios": [{**asdict(r), "ok": r.ok} for r in results]}
        )
    else:
        _summarize(results)
    if ok:
        shutil.rmtree(folder)
    elif not as_json:
        out.print(f"The device's files are kept in {folder}.")
    return 0 if ok else 1


def chosen(only: Sequence[str]) -> list[Scenario]:
    """The scenarios by name, in their own order; all if none is named. Raises `scenario_unknown`."""
    names = [scenario.name for scenario in SCENARIOS]
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise FleetctlError(
            "scenario_unknown",
            f"There is no scenario {', '.join(unknown)}.",
            hint=f"The scenarios are {', '.join(names)}.",
            exit_code=2,
        )
    return [scenario for scenario in SCENARIOS if not only or scenario.name in only]


@contextmanager
def _devices(folder: Path, runtime: str) -> Iterator[Callable[[], FaultDevice]]:
    """Makes devices that are removed at the end, with one repository for all of them."""
    repo = BeaconRepo.create(folder / "repo")
    project = f"demo-faults-{secrets.token_hex(3)}"
    devices: list[FaultDevice] = []

    def new_device() -> FaultDevice:
        number = len(devices) + 1
        devices.append(FaultDevice(folder / f"d{number}", repo, runtime, f"{project}-{number}"))
        return devices[-1]

    try:
        yield new_device
    finally:
        for device in devices:
            device.remove()


def _run(scenario: Scenario, setup: Setup) -> Result:
    result = Result(scenario.name, scenario.broken)
    if setup.simulated and scenario.needs_docker:
        result.skipped = scenario.needs_docker
        return result
    began = time.monotonic()
    try:
        scenario.run(setup, result)
    except (FleetctlError, RuntimeError, OSError) as error:
        result.problems.append(str(error))
    result.seconds = time.monotonic() - began
    return result


def _shower(status: Status) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        target = f" {progress.target.version}" if progress.target else ""
        status.update(escape(f"{progress.phase}{target} {progress.detail}"))

    return show


def _show(result: Result) -> None:
    """One scenario: what was broken, what the device reported about it, and on what evidence."""
    mark = "[yellow]–[/]" if result.skipped else "[green]✓[/]" if result.ok else "[red]✗[/]"
    out.print(f"{mark} [bold]{result.name}[/]: {result.broken} [dim]({result.seconds:.1f} s)[/]")
    if result.skipped:
        _indented(f"[dim]skipped: {escape(result.skipped)}[/]")
    if result.message:
        kind = f"{result.kind}: " if result.kind else ""
        _indented(escape(kind + result.message))
    for line in result.evidence:
        if line not in result.message:
            _indented(f"[dim]{escape(line)}[/]")
    for problem in result.problems:
        _indented(f"[red]{escape(problem)}[/]")


def _indented(text: str) -> None:
    """Indents every line of a text that takes more than one."""
    out.print(Padding(text, (0, 0, 0, 4), expand=False))


def _summarize(results: Sequence[Result]) -> None:
    print_table(
        "\nSummary",
        ["scenario", "outcome", "failed while", "kind", "recovered after", "outage", "result"],
        [
            (
                result.name,
                result.outcome,
                result.phase,
                result.kind,
                "" if result.recovered_s is None else f"{result.recovered_s:.1f} s",
                "" if result.outage_ms is None else f"{result.outage_ms:.0f} ms",
                "skipped" if result.skipped else "as expected" if result.ok else "WRONG",
            )
            for result in results
        ],
    )
    out.print(
        "[dim]Recovered after: from the engine's verdict until the old release was proven healthy; empty if "
        "it never stopped. Outage: how long a client of the changed service got no answer.[/]"
    )
    for what, where in ELSEWHERE.items():
        out.print(f"[dim]Not in the demo, but tested: {what} ({where}).[/]")
    wrong = [result.name for result in results if not result.ok]
    skipped = sum(bool(result.skipped) for result in results)
    run = len(results) - skipped
    out.print(
        f"{run - len(wrong)} of {counted(run, 'scenario')} ended as expected"
        + (f"; {skipped} skipped" if skipped else "")
        + (f". [red]Wrong: {', '.join(wrong)}.[/]" if wrong else ".")
    )
