"""Checks one role folder.

If Compose is installed, it reads the file itself (no engine is needed); otherwise the YAML is read plainly,
and the report says so.
"""

from __future__ import annotations

import re
from pathlib import Path

from fleet_agent.errors import FleetError, Kind
from fleet_agent.roles import compose_source
from fleet_agent.roles.compose_source import Source
from fleet_agent.roles.role import Role
from fleetctl.errors import FleetctlError
from fleetctl.role_check import compose
from fleetctl.role_check.checks import CHECKS
from fleetctl.role_check.findings import Finding, Report, error, refusal
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
        source = compose_source.read(role.compose_file, inside=(folder, folder.parent / "common"))
    except FleetError as refused:
        return _with(report, error(refused.kind.value, refused.message))
    return _with(report, *_findings(role, source))


def _findings(role: Role, source: Source) -> list[Finding]:
    raw = source.content
    if not isinstance(raw, dict) or not isinstance(raw.get("services"), dict) or not raw["services"]:
        return [error("compose_invalid", "compose.yaml has no services.")]
    # Of an undeclared variable the checks tell more.
    refused = [one for one in source.refusals(role.variables) if one.kind is not Kind.VARIABLE_MISSING]
    found = [refusal(one) for one in refused]
    if any(one.kind is not Kind.ENVIRONMENT_TAKEN for one in refused):
        # Compose would follow it.
        return found
    try:
        resolved = compose.resolve(role, raw)
    except FleetctlError as rejected:
        return [*found, error(rejected.kind, rejected.message)]
    subject = Subject(role, raw, resolved, source.text)
    found += [finding for check in CHECKS for finding in check(subject)]
    return sorted(found, key=lambda finding: (finding.level, finding.kind, finding.service or ""))


def _with(report: Report, *findings: Finding) -> Report:
    return Report(report.role, report.folder, report.compose, findings)
