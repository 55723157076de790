"""Whoever writes a role that hangs or fills what reads it: the check on a desk, or the engine of a device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from fleet_agent.containers import compose_file
from fleet_agent.containers.base import LogLine
from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.steps import validate
from fleet_agent.errors import FleetError
from fleet_agent.health.base import CheckContext, CheckOutcome
from fleet_agent.health.log import LogIsQuiet
from fleet_agent.roles import compose_source, variables
from fleet_agent.roles.schema import LogCheck, parse
from fleet_agent.support import patterns
from fleetctl.role_check import compose
from fleetctl.role_check.check import check_role
from tests.support.engine_harness import ROLE_YAML, Fleet
from tests.support.patience import PATIENCE_S

SERVICE = "services: {web: {image: 'busybox:stable', restart: always, healthcheck: {test: [CMD, 'true']}}}\n"
ALIASES = "x-a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"x-{chr(98 + level)}: &{chr(98 + level)} [{', '.join([f'*{chr(97 + level)}'] * 9)}]\n"
    for level in range(8)
)
MERGES = "x-a: &a {a: b}\n" + "".join(
    f"x-a{level}: &a{level} {{b: [{', '.join([f'*a{level - 1}' if level else '*a'] * 9)}]}}\n"
    for level in range(8)
)
COSTLY = {
    "nested aliases": ALIASES + SERVICE,
    "nested aliases in mappings": MERGES + SERVICE,
    "an alias in itself": "x-a: &a {b: *a}\n" + SERVICE,
    "levels": "x-a: " + "[" * 5000 + "]" * 5000 + "\n" + SERVICE,
    "levels of mappings": "x-a: " + "{a: " * 100 + "b" + "}" * 100 + "\n" + SERVICE,
    "a large file": "x-a: " + "x" * 300_000 + "\n" + SERVICE,
}


@pytest.mark.parametrize("what", COSTLY)
def test_a_compose_file_that_expands_without_end(what: str, tmp_path: Path) -> None:
    """Half a kilobyte of aliases kept Compose busy for half an hour."""
    folder = tmp_path / "roles" / "x"
    folder.mkdir(parents=True)
    (folder / "role.yaml").write_text("description: x\n")
    (folder / "compose.yaml").write_text(COSTLY[what])
    assert [finding.kind for finding in check_role(folder).findings] == ["compose_too_costly"]
    with pytest.raises(FleetError) as refused:
        compose_source.read(folder / "compose.yaml", inside=(folder,))
    assert refused.value.kind == "compose_too_costly"


REFERENCES = {
    "braces that never close": "${a" * 60_000,
    "defaults in defaults": "${A:-" * 40_000 + "}" * 40_000,
    "dollars": "$" * 200_001,
}


@pytest.mark.parametrize("what", REFERENCES)
def test_references_that_never_end_are_read_in_time_that_grows_with_their_length(what: str) -> None:
    """Nine minutes for 180 kB of `${a`, and seconds to find that out for each way in which it is read."""
    text, before = REFERENCES[what], process_time()
    compose_source.filled({"x": text}, {"A": "b"})
    compose._fill({"x": text}, {"A": "b"})
    variables.references(text)
    with suppress(FleetError):
        variables.interpolate(text, {"A": "b"})
    assert process_time() - before < 10


def test_a_path_of_at_signs_and_brackets_without_end_are_a_refusal_at_once(tmp_path: Path) -> None:
    before = process_time()
    (tmp_path / "compose.yaml").write_text(
        f"services: {{web: {{image: 'a:1', env_file: '{'@' * 150_000}'}}}}\n"
    )
    assert compose_source.read(tmp_path / "compose.yaml", inside=(tmp_path,)).refusals([]) == []
    with pytest.raises(FleetError) as refused:
        parse("description: " + "[" * 60_000, "x")
    assert refused.value.kind == "role_invalid"
    assert process_time() - before < 10


@pytest.mark.parametrize(
    "said",
    [
        "scale: 1000000000",
        "deploy: {replicas: 99999999}",
        "ports: ['1-65535:1-65535', '1-65535:1-65535/udp']",
    ],
)
def test_numbers_that_no_device_can_start(said: str, tmp_path: Path) -> None:
    folder = tmp_path / "roles" / "x"
    folder.mkdir(parents=True)
    (folder / "role.yaml").write_text("description: x\naccess: {low_ports: x}\n")
    (folder / "compose.yaml").write_text(f"services:\n  web:\n    image: busybox:stable\n    {said}\n")
    errors = {finding.kind for finding in check_role(folder).findings if finding.level == "error"}
    assert "compose_too_costly" in errors


@pytest.mark.parametrize("number", ["9" * 5000, "1e999", "x", "-1", None, True])
def test_numbers_that_are_none_are_a_refusal(number: object) -> None:
    compose = {"services": {"web": {"image": "a:1", "scale": number, "mem_reservation": "9" * 400 + "g"}}}
    assert validate._reserved(compose["services"]["web"]) == 0
    if number is None:
        return
    with pytest.raises(FleetError) as refused:
        compose_file.check_size(compose)
    assert refused.value.kind == "compose_invalid"


@pytest.mark.parametrize(
    "said",
    [
        "{kind: container, max_restarts: 0x" + "f" * 20_000 + "}",
        "{kind: log, pattern: x, max_matches: " + "9" * 4000 + "}",
        "{kind: file, path: /x, max_age_s: .inf}",
        "{kind: http, url: 'http://x', max_latency_ms: 1e400}",
        "{kind: log, pattern: '(?i)[\\0-\\U0010ffff]'}",
        ", ".join(["{kind: container}"] * 51),
    ],
)
def test_huge_numbers_in_role_yaml_are_a_refusal(said: str) -> None:
    with pytest.raises(FleetError) as refused:
        parse(f"description: x\nhealth: {{checks: [{said}]}}\n", "x")
    assert (refused.value.kind, len(refused.value.message) < 1000) == ("role_invalid", True)


class Spoken:
    """A runtime whose services said one line."""

    def __init__(self, text: str) -> None:
        self.text = text

    def logs(self, *_: object, **__: object) -> list[LogLine]:
        return [LogLine("web", self.text)]


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(?:a?){200000000}b"], ids=["time", "memory"])
def test_a_log_pattern_that_never_ends(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine would hang in it, deaf to every limit; the check finds it before."""
    monkeypatch.setattr(patterns, "TIME_S", 1)
    now = datetime(2026, 11, 28, tzinfo=UTC)
    runtime: Any = Spoken("a" * 60 + "!")
    look = LogIsQuiet(LogCheck(kind="log", pattern=pattern)).look
    found = look(CheckContext((), (), runtime, "p", now, now, lambda: 0.0))
    assert (found.outcome, found.kind) == (CheckOutcome.FATAL, "pattern_too_slow")
    folder = tmp_path / "roles" / "x"
    folder.mkdir(parents=True)
    (folder / "role.yaml").write_text(
        f"description: x\nhealth: {{checks: [{{kind: log, pattern: '{pattern}'}}]}}\n"
    )
    (folder / "compose.yaml").write_text(SERVICE)
    assert [finding.kind for finding in check_role(folder).findings] == ["pattern_too_slow"]


ENDLESS = {
    "prints": ("exec yes", "The role's validate did not stop printing: more than 1 MiB."),
    "fills the memory": (
        f"exec {sys.executable} -S -c 'x = bytearray(200 << 20); import time; time.sleep(600)'",
        "The role's validate used more than 64 MiB of memory.",
    ),
    "waits": ("exec sleep 600", "The role's validate did not finish within 1 s."),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_validate_that_never_ends(
    what: str, fleet: Fleet, root: Path, dependencies: Dependencies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`yes` took 2.7 GiB of the engine's memory in 25 s."""
    monkeypatch.setattr(validate, "VALIDATE_OUTPUT", 1 << 20)
    monkeypatch.setattr(validate, "VALIDATE_MEMORY", 64 << 20)
    script, sentence = ENDLESS[what]
    limit = 1 if what == "waits" else PATIENCE_S
    edits = {
        "validate": f"#!/bin/sh\n{script}\n",
        "role.yaml": ROLE_YAML + f"validate: {{timeout_s: {limit}}}\n",
    }
    release = fleet.release(f"endless {what}", edits=edits)
    status = api.converge(fleet.config(root), fleet.directive(release), dependencies=dependencies)
    assert (status.error_kind, status.error) == ("validate_endless", sentence)


def test_what_validate_detached_does_not_outlive_it(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    """A daemon of its own: another session, another parent, no file open."""
    mark = f"{9_000 + os.getpid() / 1e7:.7f}"
    detached = f"setsid sh -c 'exec sleep {mark} <&- >&- 2>&- 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-' &"
    edits = {"validate": f"#!/bin/sh\n({detached})\nsleep 0.2\nexit 0\n", "role.yaml": ROLE_YAML}
    release = fleet.release("detached", edits=edits)
    status = api.converge(fleet.config(root), fleet.directive(release), dependencies=dependencies)
    assert status.error is None
    assert _running(mark) == []


def test_a_killed_check_leaves_no_compose_behind(tmp_path: Path) -> None:
    folder = tmp_path / "roles" / "x"
    folder.mkdir(parents=True)
    (folder / "role.yaml").write_text("description: x\n")
    (folder / "compose.yaml").write_text(SERVICE)
    program = tmp_path / "compose"
    program.write_text(f"#!/bin/sh\necho started > {tmp_path}/started\nexec sleep 600\n")
    program.chmod(0o755)
    code = (
        "import sys; from pathlib import Path; from fleetctl.role_check import check, compose\n"
        f"compose.compose_command = lambda: [{str(program)!r}]\n"
        f"check.check_role(Path({str(folder)!r}))"
    )
    os.mkfifo(tmp_path / "started")
    checking = subprocess.Popen([sys.executable, "-c", code])
    with (tmp_path / "started").open() as started:
        assert started.read() == "started\n"
    found = [pid for pid in _running("600") if _parent(pid) == checking.pid]
    assert len(found) == 1
    compose = os.pidfd_open(found[0])
    checking.send_signal(signal.SIGKILL)
    checking.wait()
    import select

    assert select.select([compose], [], [], PATIENCE_S)[0]
    os.close(compose)


def _running(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_what_is_large_and_good_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    services = "".join(
        f"  w{number}:\n    <<: *a\n    environment: {{A: b, C: '{number}'}}\n" for number in range(100)
    )
    (folder / "compose.yaml").write_text(
        "x-a: &a {image: 'busybox:stable', restart: always, healthcheck: {test: [CMD, 'true']}}\n"
        f"services:\n{services}"
    )
    source = compose_source.read(folder / "compose.yaml", inside=(folder,))
    assert source.refusals(()) == []
    assert source.content["services"]["w7"]["image"] == "busybox:stable"
