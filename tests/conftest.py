"""What a machine lacks is skipped with its reason; what FLEET_REQUIRE names must be there.

FLEET_REQUIRE=docker,browser,postgres15,pgbouncer,supabase turns a skip for a missing part into a failure;
`full` among them asks for the tests and rounds that are too dear for each run. `.ci/run` sets all of them.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.profiles import FULL

# Where Python has GNU readline, the controller's import of it gives each worker a terminal of 80 columns, and
# fleetctl's tables would be cut to that.
for _terminal in ("COLUMNS", "LINES"):
    os.environ.pop(_terminal, None)

# Who is signed in at this machine has nothing to do with the tests.
os.environ["FLEET_SESSION"] = os.devnull + "/no-session"

ROOT = Path(__file__).resolve().parents[1]
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def _docker() -> str | None:
    """Why Docker cannot be used here, or None."""
    if shutil.which("docker") is None:
        return "no docker client"
    try:
        info = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    if info.returncode != 0:
        return "no Docker engine answers"
    return _busybox_image()


def _busybox_image() -> str | None:
    """Make `busybox:stable` from a static busybox on this machine where it is missing."""
    from fleetctl.demo.busybox_image import ensure_busybox

    return ensure_busybox()


def _browser() -> str | None:
    return None if chromium() else "no Chromium on PATH"


def _postgres15() -> str | None:
    return None if (POSTGRES_15 / "postgres").exists() else f"no PostgreSQL 15 in {POSTGRES_15}"


def _pgbouncer() -> str | None:
    from tests.support.pgbouncer import PROGRAM

    return None if PROGRAM.exists() else f"no pgbouncer at {PROGRAM}"


def _supabase() -> str | None:
    from tests.support import supabase_cli

    return supabase_cli.missing()


def _full() -> str | None:
    return None if FULL else "only with FLEET_REQUIRE=full, as .ci/run has it"


PARTS: dict[str, Callable[[], str | None]] = {
    "docker": _docker,
    "browser": _browser,
    "postgres15": _postgres15,
    "pgbouncer": _pgbouncer,
    "supabase": _supabase,
    "full": _full,
}


def chromium() -> str | None:
    """The browser that the tests drive."""
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


@functools.cache
def missing(part: str) -> str | None:
    """Why `part` cannot be tested here, or None."""
    return PARTS[part]()


def required() -> set[str]:
    """The parts that must not be skipped."""
    return {part for part in os.environ.get("FLEET_REQUIRE", "").split(",") if part}


def need(part: str) -> None:
    """Skip the running test where `part` is missing; fail it where FLEET_REQUIRE names the part."""
    reason = missing(part)
    if reason is None:
        return
    if part in required():
        pytest.fail(f"FLEET_REQUIRE names {part}, but: {reason}", pytrace=False)
    pytest.skip(f"{part}: {reason}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for part in PARTS:
        if item.get_closest_marker(part):
            need(part)


def pytest_configure(config: pytest.Config) -> None:
    unknown = required() - set(PARTS)
    if unknown:
        raise pytest.UsageError(f"FLEET_REQUIRE names unknown parts: {', '.join(sorted(unknown))}")


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what a test counted (kills, rounds, seeds): shown after the run, also by workers, failed or not."""

    def say(sentence: str) -> None:
        record_property("counted", sentence)

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for group in terminalreporter.stats.values() for report in group]
    told = [
        (name, value)
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
    ]
    sentences = sorted(value for name, value in told if name == "counted")
    if not sentences:
        return
    terminalreporter.section("counted")
    for sentence in sentences:
        terminalreporter.line(sentence)
    if kills := [value for name, value in told if name == "kills"]:
        terminalreporter.line(f"crash matrix, in all: {sum(kills)} kills in {len(kills)} scenarios")
