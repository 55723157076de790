"""`fleetctl role check`: everything about a role folder that can be known before a device sees it.

A check is a small function that yields findings; add one beside its siblings and to `CHECKS`. Compose itself
reads the file where it is installed (no engine is needed); elsewhere the YAML is read plainly, and the answer
says so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml

from fleet_agent.errors import FleetError
from fleet_agent.roles.role import Role
from fleet_agent.roles.schema import CommandCheck, ComposeCheck, ContainerCheck, LogCheck
from fleet_agent.roles.variables import PROVIDED, VariableType
from fleetctl.console import out, print_json, print_table
from fleetctl.errors import FleetctlError

ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
#: Places of the device that a role may mount as they are; any other needs a declared variable of type `path`.
HOST_PATHS = ("/dev", "/sys", "/proc", "/run/udev", "/run/dbus", "/etc/localtime", "/etc/timezone")
SAMPLE_PATH = "/fleet-role-check"
_REFERENCE = re.compile(r"\$(?:\$|(?P<bare>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?P<rest>[^}]*)\})")
#: Where only the names matter: also inside the default of another.
_NAMES = re.compile(r"\$(?:\$|\{?([A-Za-z_]\w*))")
_SAMPLES = {
    VariableType.STRING: "sample",
    VariableType.INT: "1",
    VariableType.PORT: "40000",
    VariableType.BOOL: "true",
    VariableType.URL: "https://sample.invalid/",
    VariableType.PATH: SAMPLE_PATH,
}


@dataclass(frozen=True)
class Finding:
    """One thing to correct (`error`: devices would refuse or suffer) or to think about (`warning`)."""

    level: Literal["error", "warning"]
    kind: str
    message: str
    service: str | None = None


@dataclass(frozen=True)
class Report:
    """What was found in one role folder. `compose` is false where Compose itself could not be asked."""

    role: str
    folder: str
    compose: bool
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        return not any(finding.level == "error" for finding in self.findings)


@dataclass
class Subject:
    """What the checks look at: the parsed role, its compose file as written (`raw`) and as resolved."""

    role: Role
    raw: dict[str, Any]
    resolved: dict[str, Any]
    text: str = field(repr=False, default="")

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        found = self.resolved.get("services") or {}
        return {name: service for name, service in found.items() if isinstance(service, dict)}

    @cached_property
    def one_shot(self) -> set[str]:
        """Services that are meant to end."""
        checks = self.role.health.checks
        return {name for check in checks if isinstance(check, ContainerCheck) for name in check.completed}

    @cached_property
    def used(self) -> set[str]:
        """Variables that the compose file, the health checks or `validate` use."""
        names = set(references(self.raw))
        for check in self.role.health.checks:
            if not isinstance(check, LogCheck):
                names |= set(references(check.model_dump()))
        validate = self.role.folder / "validate"
        if validate.is_file():
            names |= set(references(validate.read_text(errors="replace")))
        return names


Check = Callable[[Subject], Iterator[Finding]]


def check_role(folder: Path) -> Report:
    """Check one role folder."""
    folder = folder.absolute()
    report = Report(folder.name, str(folder), compose=compose_command() is not None)
    if not ROLE_NAME.fullmatch(folder.name):
        return _with(
            report, _error("name_invalid", f"{folder.name} is no role name: small letters, digits and -.")
        )
    try:
        role = Role.load(folder)
    except FleetError as error:
        return _with(report, _error(error.kind.value, error.message))
    text = role.compose_file.read_text(encoding="utf-8", errors="replace")
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return _with(report, _error("compose_invalid", f"compose.yaml is not YAML: {_first_line(error)}"))
    if not isinstance(raw, dict) or not isinstance(raw.get("services"), dict) or not raw["services"]:
        return _with(report, _error("compose_invalid", "compose.yaml has no services."))
    try:
        resolved = resolve(role, raw)
    except FleetctlError as error:
        return _with(report, _error("compose_invalid", error.message))
    subject = Subject(role, raw, resolved, text)
    findings = [finding for check in CHECKS for finding in check(subject)]
    return _with(
        report, *sorted(findings, key=lambda finding: (finding.level, finding.kind, finding.service or ""))
    )


def resolve(role: Role, raw: dict[str, Any]) -> dict[str, Any]:
    """The compose file with every variable filled in: the declared default, else a sample of its type.

    Raises FleetctlError (`compose_invalid`) with what Compose says.
    """
    values = {
        name: variable.default_text or _SAMPLES[variable.type] for name, variable in role.variables.items()
    }
    values |= dict.fromkeys(PROVIDED, "sample")
    command = compose_command()
    if command is None:
        filled: dict[str, Any] = _fill(raw, values)
        return filled
    done = subprocess.run(
        [*command, "--project-name", "fleet", "--file", str(role.compose_file), "--env-file", os.devnull,
         "config", "--format", "json"],
        env={"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), **values},
        cwd=role.folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if done.returncode != 0:
        raise FleetctlError("compose_invalid", f"Compose refuses it: {_last_line(done.stderr)}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def compose_command() -> list[str] | None:
    """How to call Compose here, or None. Only `config` is used, which needs no engine."""
    from fleet_agent.containers.compose_program import find_compose

    return find_compose()


def references(value: object) -> Iterator[str]:
    """Every variable used anywhere in a parsed file, pass-through environment entries included."""
    if isinstance(value, str):
        yield from (name for name in _NAMES.findall(value) if name)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "environment":
                yield from _passed_through(item)
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def images_are_pinned(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        image = str(service.get("image") or "")
        if not image:
            if "build" not in service:
                yield _error("image_missing", f"{name} names no image.", name)
            continue
        last = image.rpartition("/")[2]
        digest, tag = "@sha256:" in image, last.partition("@")[0].partition(":")[2]
        if not digest and not tag:
            yield _error(
                "image_unpinned", f"{name}: {image} has neither tag nor digest, so it means latest.", name
            )
        elif tag == "latest" and not digest:
            yield _error("image_unpinned", f"{name}: {image} changes without a release.", name)


def nothing_is_built(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        if "build" in service:
            yield _error("build_used", f"{name} would be built on the device; name an image instead.", name)


def services_have_healthchecks(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        check = service.get("healthcheck")
        absent = not isinstance(check, dict) or check.get("disable") or check.get("test") in (["NONE"], None)
        if absent and name not in subject.one_shot:
            yield _error(
                "healthcheck_missing", f"{name} has no healthcheck, so nobody can say that it is well.", name
            )


def services_restart(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        if service.get("restart", "no") == "no" and name not in subject.one_shot:
            yield _warning("restart_missing", f"{name} stays down after a crash: no restart policy.", name)


def variables_are_declared(subject: Subject) -> Iterator[Finding]:
    for name in sorted(subject.used - subject.role.variables.keys() - set(PROVIDED)):
        # validate is a shell script: what it sets itself is its own business.
        if name in set(references(subject.raw)):
            yield _error("variable_undeclared", f"{name} is used and not declared in role.yaml.")


def variables_are_used(subject: Subject) -> Iterator[Finding]:
    for name in sorted(subject.role.variables.keys() - subject.used):
        yield _error("variable_unused", f"{name} is declared and not used.")


def defaults_agree(subject: Subject) -> Iterator[Finding]:
    """The device always gets role.yaml's default; another one in compose.yaml would mislead a reader."""
    for match in _REFERENCE.finditer(subject.text):
        variable = subject.role.variables.get(match["name"] or "")
        default = re.fullmatch(r":?-(.*)", match["rest"] or "")
        if variable is None or default is None:
            continue
        if default[1] != variable.default_text:
            yield _warning(
                "default_differs",
                f"{match['name']}: compose.yaml says {default[1]!r}, role.yaml {variable.default_text!r}.",
            )


def releases_restart_little(subject: Subject) -> Iterator[Finding]:
    changing = {"FLEET_RELEASE_VERSION", "FLEET_RELEASE_COMMIT"}
    raw = subject.raw["services"]
    using = [name for name, service in raw.items() if changing & set(references(service))]
    if len(raw) > 1 and len(using) == len(raw):
        yield _warning(
            "all_restart", "Every service uses the release's version, so each release restarts them all."
        )


def mounts_stay_inside(subject: Subject) -> Iterator[Finding]:
    roles = subject.role.folder.parent
    for name, source in _bind_sources(subject):
        place = Path(os.path.normpath(source))
        if "docker.sock" in place.name:
            yield _error(
                "docker_socket", f"{name} mounts the Docker socket, which is root on the device.", name
            )
        elif place.is_relative_to(roles):
            shared = place.is_relative_to(roles / "common")
            if not shared and not place.is_relative_to(subject.role.folder):
                yield _error("host_path", f"{name} mounts {source}, which belongs to another role.", name)
            elif not place.exists():
                yield _error(
                    "mount_missing", f"{name} mounts {place.relative_to(roles)}, which is not there.", name
                )
        elif not any(place.is_relative_to(allowed) for allowed in (*HOST_PATHS, SAMPLE_PATH)):
            yield _error(
                "host_path",
                f"{name} mounts {source}; declare a variable of type path or use a named volume.",
                name,
            )


def nothing_is_privileged(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        for key, bad in (("privileged", True), ("network_mode", "host"), ("pid", "host"), ("ipc", "host")):
            if service.get(key) == bad:
                yield _warning("privileged", f"{name} uses {key}: {str(bad).lower()}.", name)


def names_are_left_to_compose(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        if "container_name" in service:
            yield _error(
                "container_name", f"{name} fixes container_name, which collides during an update.", name
            )
        if "env_file" in (subject.raw["services"].get(name) or {}):
            yield _error(
                "env_file", f"{name} reads an env_file; declare its variables in role.yaml instead.", name
            )


def checked_services_exist(subject: Subject) -> Iterator[Finding]:
    for check in subject.role.health.checks:
        named: tuple[str, ...] = ()
        if isinstance(check, ContainerCheck):
            named = (*check.services, *check.completed)
        elif isinstance(check, ComposeCheck | LogCheck):
            named = check.services
        elif isinstance(check, CommandCheck):
            named = (check.service,)
        for name in named:
            if name not in subject.services:
                yield _error(
                    "service_unknown", f"A {check.kind} check names {name}, which compose.yaml has not."
                )


def health_is_declared(subject: Subject) -> Iterator[Finding]:
    if not subject.role.health.checks:
        yield _warning(
            "checks_missing", "role.yaml declares no health checks: weaker evidence after an update."
        )


def validate_can_run(subject: Subject) -> Iterator[Finding]:
    try:
        file = subject.role.validate_file
    except FleetError as error:
        yield _error("validate_not_executable", error.message)
        return
    if file is not None:
        with file.open("rb") as handle:
            start = handle.read(4)
        if not start.startswith(b"#!") and start != b"\x7fELF":
            yield _error("validate_not_executable", "validate is neither a script with #! nor a program.")


CHECKS: tuple[Check, ...] = (
    images_are_pinned,
    nothing_is_built,
    services_have_healthchecks,
    services_restart,
    variables_are_declared,
    variables_are_used,
    defaults_agree,
    releases_restart_little,
    mounts_stay_inside,
    nothing_is_privileged,
    names_are_left_to_compose,
    checked_services_exist,
    health_is_declared,
    validate_can_run,
)


def _bind_sources(subject: Subject) -> Iterator[tuple[str, str]]:
    """Service and absolute source of each bind mount, in the long form and in the short."""
    for name, service in subject.services.items():
        for volume in service.get("volumes") or []:
            if isinstance(volume, dict):
                source = str(volume.get("source") or "") if volume.get("type") == "bind" else ""
            else:
                source = str(volume).split(":", 1)[0] if ":" in str(volume) else ""
            if source.startswith(("/", ".", "~")):
                yield name, str(subject.role.folder / source)


def _passed_through(environment: object) -> Iterator[str]:
    if isinstance(environment, dict):
        yield from (str(name) for name, value in environment.items() if value is None)
    elif isinstance(environment, list):
        yield from (str(item) for item in environment if "=" not in str(item))


def _fill(value: Any, values: dict[str, str]) -> Any:
    """Plain interpolation for where Compose is not installed."""

    def replace(match: re.Match[str]) -> str:
        name = match["bare"] or match["name"]
        return "$" if name is None else values.get(name, "")

    if isinstance(value, str):
        return _REFERENCE.sub(replace, value)
    if isinstance(value, dict):
        return {key: _fill(item, values) for key, item in value.items()}
    return [_fill(item, values) for item in value] if isinstance(value, list) else value


def _error(kind: str, message: str, service: str | None = None) -> Finding:
    return Finding("error", kind, message, service)


def _warning(kind: str, message: str, service: str | None = None) -> Finding:
    return Finding("warning", kind, message, service)


def _with(report: Report, *findings: Finding) -> Report:
    return Report(report.role, report.folder, report.compose, findings)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it does not say why"


app = typer.Typer(name="role", help="Role folders: what devices are for.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `role check` a command of its own while it is the only one."""


@app.command()
def check(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Role folders; all of roles/ without any.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Check role folders before any device sees them. Exit code 1 where one has an error.

    Example: fleetctl role check roles/beacon
    """
    chosen = folders or _all_roles(Path("roles"))
    reports = [check_role(folder) for folder in chosen]
    if as_json:
        print_json(
            {"ok": all(report.ok for report in reports), "roles": [_document(report) for report in reports]}
        )
    else:
        _show(reports)
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def _all_roles(roles: Path) -> list[Path]:
    if not roles.is_dir():
        raise FleetctlError(
            "roles_missing", "There is no folder roles/ here.",
            hint="Go to the root of the fleet repository, or name a role's folder.", exit_code=2,
        )  # fmt: skip
    found = sorted(folder for folder in roles.iterdir() if folder.is_dir() and folder.name != "common")
    if not found:
        raise FleetctlError("roles_missing", "roles/ has no role in it.", exit_code=2)
    return found


def _document(report: Report) -> dict[str, Any]:
    return {**asdict(report), "ok": report.ok}


def _show(reports: list[Report]) -> None:
    rows = [
        (report.role, finding.level, finding.kind, finding.message)
        for report in reports
        for finding in report.findings
    ]
    if rows:
        print_table("", ("role", "level", "kind", "finding"), rows)
    good = [report.role for report in reports if report.ok]
    out.print(
        f"{len(good)} of {len(reports)} roles can be released" + (f": {', '.join(good)}" if good else "")
    )
    if not all(report.compose for report in reports):
        out.print("[yellow]Compose is not installed here, so compose files were only read, not resolved.[/]")
