"""Checks one role folder.

If Compose is installed, it reads the file itself (no engine is needed); otherwise the YAML is read plainly,
and the report says so.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from fleet_agent.errors import FleetError
from fleet_agent.roles.role import Role
from fleetctl.errors import FleetctlError
from fleetctl.role_check import compose
from fleetctl.role_check.checks import CHECKS
from fleetctl.role_check.findings import Finding, Report, error
from fleetctl.role_check.subject import Subject

ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def check_role(folder: Path) -> Report:
    """Check one role folder."""
    folder = folder.absolute()
    report = Report(folder.name, str(folder), compose=compose.compose_command() is not None)
    if not ROLE_NAME.fullmatch(folder.name):
        return _with(
            report, error("name_invalid", f"{folder.name} is not a valid role name: use a-z, 0-9 and -.")
        )
    try:
        role = Role.load(folder)
    except FleetError as refused:
        return _with(report, error(refused.kind.value, refused.message))
    text = role.compose_file.read_text(encoding="utf-8", errors="replace")
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as refused:
        return _with(report, error("compose_invalid", f"compose.yaml is not YAML: {_first_line(refused)}"))
    if not isinstance(raw, dict) or not isinstance(raw.get("services"), dict) or not raw["services"]:
        return _with(report, error("compose_invalid", "compose.yaml has no services."))
    try:
        resolved = compose.resolve(role, raw)
    except FleetctlError as refused:
        return _with(report, error("compose_invalid", refused.message))
    subject = Subject(role, raw, resolved, text)
    findings = [finding for check in CHECKS for finding in check(subject)]
    return _with(
        report, *sorted(findings, key=lambda finding: (finding.level, finding.kind, finding.service or ""))
    )


def _with(report: Report, *findings: Finding) -> Report:
    return Report(report.role, report.folder, report.compose, findings)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
