"""docs/usage/fleetctl.md and docs/usage/enrollment.md name everything that the code can say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from fleetctl.commands import register

ROOT = Path(__file__).resolve().parents[2]
FLEETCTL = (ROOT / "docs" / "usage" / "fleetctl.md").read_text()
ENROLLMENT = (ROOT / "docs" / "usage" / "enrollment.md").read_text()


def command_names() -> list[str]:
    names = []
    app = typer.Typer()
    register(app)
    for name, command in sorted(get_command(app).commands.items()):  # type: ignore[attr-defined]
        for below in sorted(getattr(command, "commands", {"": None})):
            names.append(f"{name} {below}".strip())
    return names


def kinds(*patterns: str, files: list[Path]) -> list[str]:
    """What the first group of any pattern finds; each file set must have some."""
    texts = [file.read_text() for file in files]
    found = {
        kind for text in texts for pattern in patterns for kind in re.findall(pattern, text, re.MULTILINE)
    }
    assert len(found) > 5, files
    return sorted(found)


COMMANDS = ROOT / "scripts/fleetctl/commands"
#: stack.md has the errors of stack.py; the others work on folders, not on a fleet.
ELSEWHERE = ("stack.py", "demo.py", "role.py", "repo.py")
OF_FLEETCTL = kinds(
    r'FleetctlError\(\s*"([a-z_]+)"',
    r'^    "[^"]+": \("([a-z_]+)", \d\),$',
    r'"([a-z_]+_unknown)"',
    files=[
        *(path for path in COMMANDS.rglob("*.py") if path.name not in ELSEWHERE),
        *(ROOT / "scripts/fleetctl/client").glob("*.py"),
    ],
)
OF_FUNCTIONS = kinds(
    r'Refusal\(\s*\d+,\s*"([a-z_]+)"',
    r"^  ([a-z_]+): \[",
    files=list((ROOT / "edge_functions").glob("*/*.ts")),
)
SETTINGS = "".join(file.read_text() for file in (ROOT / "migrations").glob("*_fleet_settings.sql"))
RATIONS = re.findall(r"^  (\w+_per_\w+_per_\w+|device_\w+_per_hour|\w*pending_\w+) ", SETTINGS, re.MULTILINE)
assert len(RATIONS) == 7, RATIONS


@pytest.mark.parametrize("name", command_names())
def test_each_command_is_described(name: str) -> None:
    assert re.search(rf"`{name}[ `]", FLEETCTL)


@pytest.mark.parametrize("kind", OF_FLEETCTL)
def test_each_error_of_fleetctl_is_described(kind: str) -> None:
    assert f"`{kind}`" in FLEETCTL


def test_each_described_error_can_happen() -> None:
    """As a text in the code of fleetctl, or as the SQL functions make it of a word."""
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| \d", FLEETCTL, re.MULTILINE)
    described = {kind for row in rows for kind in re.findall(r"`([a-z_]+)`", row)}
    sources = "".join(file.read_text() for file in (ROOT / "scripts/fleetctl").rglob("*.py"))
    functions = "".join(file.read_text() for file in (ROOT / "migrations").glob("*.sql"))
    said = set(re.findall(r"[\"']([a-z_]+)[\"']", sources))
    said |= {f"{word}_unknown" for word in re.findall(r"refuse_unknown\('([a-z_]+)'", functions)}
    said |= set(re.findall(r"refuse\('([a-z_]+)'", functions))
    assert len(described) > 50
    assert described <= said


@pytest.mark.parametrize("kind", OF_FUNCTIONS)
def test_each_refusal_of_the_functions_is_described(kind: str) -> None:
    # pending_full is how the database says it; callers are told rate_limited.
    assert f"`{'rate_limited' if kind == 'pending_full' else kind}`" in ENROLLMENT


@pytest.mark.parametrize("setting", RATIONS)
def test_each_setting_of_the_rations_is_described(setting: str) -> None:
    assert f"`{setting}`" in ENROLLMENT
