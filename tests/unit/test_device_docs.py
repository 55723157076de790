"""The documentation describes every error kind, every key and every command, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from fleet_agent.cli import exit_codes
from fleet_agent.cli import main as cli
from fleet_agent.config import DeviceConfig
from fleet_agent.errors import Kind
from fleet_agent.support import retry

DOCS = Path(__file__).resolve().parents[2] / "docs"


def first_column(text: str) -> list[str]:
    return re.findall(r"^\| `([a-z0-9_]+)` \|", text, re.MULTILINE)


def test_every_error_kind_is_described_once_and_no_other() -> None:
    described = first_column((DOCS / "usage" / "errors.md").read_text())
    assert sorted(described) == sorted(kind.value for kind in Kind)


def test_every_key_of_the_configuration_is_described_once_and_no_other() -> None:
    section = (DOCS / "usage" / "agent.md").read_text().split("## Configuration")[1].split("\n## ")[0]
    assert sorted(first_column(section)) == sorted(DeviceConfig.model_fields)


def test_every_retry_policy_is_in_the_table_as_it_is() -> None:
    section = (DOCS / "usage" / "agent.md").read_text().split("### Retries")[1].split("\n## ")[0]
    rows = re.findall(
        r"^\| `([^`]+)` \| [^|]+ \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", section, re.MULTILINE
    )
    assert [(name, *map(float, numbers)) for name, *numbers in rows] == [
        (policy.name, policy.attempts, policy.base_s, policy.cap_s, policy.budget_s)
        for policy in retry.POLICIES
    ]


def test_every_command_is_in_the_synopsis() -> None:
    synopsis = (DOCS / "usage" / "agent.md").read_text().split("```")[1]
    commands = set(re.findall(r"^fleet-agent ([a-z-]+)", synopsis, re.MULTILINE))
    offered = re.findall(r"^    ([a-z-]+)(?: |$)", cli.parser().format_help(), re.MULTILINE)
    assert commands == set(offered)


def test_every_exit_code_is_in_the_docs() -> None:
    text = (DOCS / "usage" / "errors.md").read_text()
    codes = [value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")]
    assert len(codes) == 6
    for code in codes:
        assert re.search(rf"\b{code} ", text)
