"""Variables: declared if used, used if declared, with one default."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_agent.roles.compose_source import is_the_agents
from fleet_agent.roles.references import found
from fleet_agent.roles.variables import PROVIDED
from fleetctl.role_check.findings import Finding, error, warning
from fleetctl.role_check.subject import Subject, references


def variables_are_declared(subject: Subject) -> Iterator[Finding]:
    for name in sorted(subject.used - subject.role.variables.keys() - set(PROVIDED)):
        # validate is a shell script: what it sets itself is its own business.
        if name in set(references(subject.raw)) and not is_the_agents(name):
            yield error("variable_undeclared", f"{name} is used but not declared in role.yaml.")


def variables_are_used(subject: Subject) -> Iterator[Finding]:
    for name in sorted(subject.role.variables.keys() - subject.used):
        yield error("variable_unused", f"{name} is declared but not used.")


def defaults_agree(subject: Subject) -> Iterator[Finding]:
    """The device always gets role.yaml's default; another one in compose.yaml would mislead a reader."""
    for one in found(subject.text):
        variable = subject.role.variables.get(one.name or "")
        if variable is None or one.default is None:
            continue
        if one.default != variable.default_text:
            yield warning(
                "default_differs",
                f"{one.name}: compose.yaml says {one.default!r}, role.yaml {variable.default_text!r}.",
            )


def releases_restart_little(subject: Subject) -> Iterator[Finding]:
    changing = {"FLEET_RELEASE_VERSION", "FLEET_RELEASE_COMMIT"}
    raw = subject.raw["services"]
    using = [name for name, service in raw.items() if changing & set(references(service))]
    if len(raw) > 1 and len(using) == len(raw):
        yield warning(
            "all_restart", "Every service uses the release's version, so every release restarts all of them."
        )
