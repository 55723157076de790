"""Everything that can be checked before anything stops. A refusal leaves the running release untouched."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from loguru import logger

from fleet_agent.containers import compose_file, host_needs
from fleet_agent.engine import disk_space, stack_builder
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase
from fleet_agent.engine.release_rules import Rules
from fleet_agent.errors import Kind, ValidationError
from fleet_agent.roles.role import Role
from fleet_agent.support import orphans, processes
from fleet_agent.support.sizes import MIB

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([kmg]?)b?", re.I)
#: What a role's `validate` may use of the device, with all that it starts.
VALIDATE_MEMORY, VALIDATE_OUTPUT = 256 * MIB, 16 * MIB


def run(engine: Engine) -> None:
    target = engine.attempt.target
    engine.source.check(target.release, target.role)
    draft = stack_builder.resolve(engine, target)
    _check_rescue_port(engine, draft.compose)
    _check_ports(engine, draft.compose)
    _check_memory(engine, draft.compose)
    disk_space.need_space(engine)
    _run_validate(engine, draft.role, draft.environment)
    stack_builder.keep(engine, draft)
    _check_host(engine, draft.rules, engine.stacks.compose(target.key))
    engine.move(Phase.PULLING)


def _check_host(engine: Engine, rules: Rules, compose: dict[str, Any]) -> None:
    """What Docker would refuse only when services are stopped already."""
    runtime = engine.runtime
    facts = engine.patiently("look at what the device has", runtime.host)
    rules.judge_volumes(compose, facts.volumes)
    for problem in host_needs.problems(compose, facts, look_at_files=runtime.reachable):
        raise problem


def _check_rescue_port(engine: Engine, compose: dict[str, Any]) -> None:
    """A release must not take the port by which people get in: they would notice only when they need it."""
    access = engine.config.rescue_access
    for service, _, port, protocol in compose_file.published(compose):
        if access is not None and (port, protocol) == (access.port, "tcp"):
            raise ValidationError(
                Kind.PORT_CONFLICT,
                f"Port {port}/tcp, which {service} needs, is reserved for this device's rescue access.",
                hint="Change the service's port in the device's .env, or the rescue port in device.json.",
                evidence={"service": service, "port": port},
            )


def _check_ports(engine: Engine, compose: dict[str, Any]) -> None:
    """Ports must be free or already ours. Simulated containers open none, and thousands share a machine."""
    if not engine.runtime.reachable:
        return
    wanted = compose_file.published(compose)
    if not wanted:
        return
    ours = engine.runtime.published_ports(engine.config.project)
    ours |= engine.runtime.published_ports(engine.config.safe_project)
    seen: dict[tuple[str, int, str], str] = {}
    for service, address, port, protocol in wanted:
        other = seen.setdefault((address, port, protocol), service)
        if other != service:
            raise ValidationError(
                Kind.PORT_CONFLICT,
                f"{other} and {service} both need port {port}/{protocol}.",
                hint="Give one of them another port.",
            )
        replicas = compose_file.replicas(compose_file.services(compose)[service])
        if replicas > 1:
            raise ValidationError(
                Kind.PORT_CONFLICT,
                f"{service} has {replicas} replicas, and only one of them can have port {port}/{protocol}.",
                hint="Publish a range of ports, or put a proxy in front of them.",
            )
        if (port, protocol) not in ours and not _is_free(address, port, protocol):
            raise ValidationError(
                Kind.PORT_CONFLICT,
                f"Port {port}/{protocol}, which {service} needs, is used by another program on this device.",
                hint="Stop that program, or give the service another port in the device's .env.",
                evidence={"service": service, "port": port},
            )


def _is_free(address: str, port: int, protocol: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            # As Docker does: a port that only lingers after a closed connection is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            # An address that this machine does not have is left to Compose to report.
            return error.errno != errno.EADDRINUSE
    return True


def _check_memory(engine: Engine, compose: dict[str, Any]) -> None:
    memory = _meminfo()
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    if total is None or available is None:
        return
    reserved = sum(_reserved(service) for service in compose_file.services(compose).values())
    if reserved > total:
        raise ValidationError(
            Kind.MEMORY_SHORT,
            f"The release reserves {reserved // MIB} MiB and the device has {total // MIB} MiB.",
            hint="Lower the reservations, or do not roll this release out to small devices.",
        )
    if available < engine.config.min_memory_bytes:
        raise ValidationError(
            Kind.MEMORY_SHORT,
            f"Only {available // MIB} MiB of memory are available; an update needs "
            f"{engine.config.min_memory_bytes // MIB} MiB.",
            retryable=True,
        )


def _reserved(service: dict[str, Any]) -> int:
    """Bytes that a service reserves, in either of Compose's two notations."""
    resources = (service.get("deploy") or {}).get("resources") or {}
    said = service.get("mem_reservation") or (resources.get("reservations") or {}).get("memory") or 0
    match = _SIZE.fullmatch(str(said).strip())
    if match is None:
        return 0
    return int(float(match[1]) * 1024 ** " kmg".index(match[2].lower() or " "))


def _meminfo() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(":") for line in lines)
        if rest.split() and rest.split()[0].isdigit()
    }


def _run_validate(engine: Engine, role: Role, environment: Mapping[str, str]) -> None:
    """The role's own check: own process group, limited in time, no network unless it asks for it."""
    program = role.validate_file
    if program is None:
        return
    command: list[str] = [str(program)]
    if not role.validation.network:
        wall = network_wall()
        if wall is None:
            logger.warning(
                "cannot isolate the role's validate from the network; running it with network access"
            )
        command = [*(wall or []), *command]
    path = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(role.folder), "LANG": "C.UTF-8"}
    try:
        done = engine.effects.perform(
            "role validate",
            lambda: processes.run(
                command,
                bounds=processes.Bounds(
                    role.validation.timeout_s, VALIDATE_MEMORY, VALIDATE_OUTPUT, processes.OUTPUT_LIMIT
                ),
                environment={**path, **environment},
                folder=role.folder,
                leave_nothing=True,
            ),
        )
    except processes.StoppedError as error:
        raise ValidationError(
            Kind.VALIDATE_ENDLESS,
            f"The role's validate {error.why}.",
            hint="Let it print little and end; give it more time in role.yaml (validate: timeout_s).",
            # What ends in time elsewhere may have met a busy device.
            retryable=error.bound == "time",
            evidence={"output": engine.redact(error.output).splitlines()[-20:]},
        ) from error
    except OSError as error:
        raise ValidationError(
            Kind.VALIDATE_FAILED,
            f"Cannot start the role's validate: {error.strerror}.",
            # Only this is about the file itself; the rest is a lack of memory, processes or the like.
            retryable=error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOEXEC),
        ) from error
    finally:
        # A script that put something into the background is not left running.
        orphans.end_descendants()
    if (phrase := processes.killed("The role's validate", done.killed_by)) is not None:
        raise ValidationError(Kind.VALIDATE_FAILED, f"{phrase}.", retryable=True)
    if done.exit_code != 0:
        output = engine.redact(f"{done.stdout}\n{done.stderr}")
        said = [line for line in output.splitlines() if line.strip()]
        why = said[-1].strip().rstrip(".") if said else "it printed no reason"
        raise ValidationError(
            Kind.VALIDATE_FAILED,
            f"The role's validate refused the release (exit code {done.exit_code}): {why[:300]}.",
            evidence={"exit_code": done.exit_code, "output": said[-20:]},
        )


@cache
def network_wall() -> list[str] | None:
    """A command prefix that removes network access, or None if this machine does not allow it."""
    for prefix in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        try:
            if processes.run([*prefix, "true"], timeout_s=10).exit_code == 0:
                return prefix
        except (OSError, processes.StoppedError):
            continue
    return None
