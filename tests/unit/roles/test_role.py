"""role.yaml: what is accepted, and that everything else is one named error."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from fleet_agent.errors import FleetError, Kind, ReleaseError, ValidationError
from fleet_agent.roles.role import Role
from fleet_agent.roles.schema import HttpCheck, LogCheck, TcpCheck, parse


def write(folder: Path, text: str, *, compose: str | None = "services: {}\n") -> Path:
    role = folder / "kiosk"
    role.mkdir(exist_ok=True)
    (role / "role.yaml").write_text(text)
    if compose is not None:
        (role / "compose.yaml").write_text(compose)
    return role


def refusal(text: str) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        parse(text, "kiosk")
    assert caught.value.kind is Kind.ROLE_INVALID
    return caught.value


FULL = """
description: Everything at once.
variables:
  PORT: {type: port, default: 8080, description: Port.}
  TOKEN: {required: true, secret: true, description: Token.}
health:
  grace_s: 1
  successes: 2
  interval_s: 0.5
  watch_s: 3
  deadline_s: 30
  failure_budget: 1
  checks:
    - {kind: http, url: "http://127.0.0.1:${PORT}/", status: [200, 204], body_is: "${FLEET_RELEASE_VERSION}"}
    - {kind: tcp, port: "${PORT}"}
    - {kind: container, services: [web], completed: [init], max_restarts: 1}
    - {kind: compose}
    - {kind: log, pattern: 'panic|${PORT}$', max_matches: 3, window_s: 10}
    - {kind: command, service: web, command: [test, -e, "/x/${PORT}"]}
    - {kind: file, path: "/data/${PORT}", max_age_s: 5}
validate: {timeout_s: 5, network: true}
"""


def test_a_full_role_is_read_and_its_checks_get_their_values(tmp_path: Path) -> None:
    role = Role.load(write(tmp_path, FULL))
    environment = role.environment({"TOKEN": "t"}, {"FLEET_RELEASE_VERSION": "v7"})
    assert environment == {"PORT": "8080", "TOKEN": "t", "FLEET_RELEASE_VERSION": "v7"}
    http, tcp, _, _, log, command, file = role.checks(environment)
    assert isinstance(http, HttpCheck)
    assert (http.url, http.status, http.body_is) == ("http://127.0.0.1:8080/", (200, 204), "v7")
    assert isinstance(tcp, TcpCheck)
    assert tcp.port == 8080
    assert isinstance(log, LogCheck)
    assert log.pattern == "panic|${PORT}$"
    assert command.model_dump()["command"] == ("test", "-e", "/x/8080")
    assert file.model_dump()["path"] == "/data/8080"
    assert (role.validation.timeout_s, role.validation.network) == (5, True)


def test_a_description_is_enough(tmp_path: Path) -> None:
    role = Role.load(write(tmp_path, "description: small\n"))
    assert role.variables == {}
    assert role.health.checks == ()
    assert role.validate_file is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be a mapping"),
        ("[]", "must be a mapping"),
        ("description: [", "expected the node content"),
        ("a: *b", "aliases are not allowed"),
        ("description: x\ndescription: y", "'description' is given twice"),
        ("? [a]\n: b", "a key is not plain text"),
        ("description: ''", "description"),
        ("description: 3", "description"),
        ("description: x\nextra: 1", "extra: Extra inputs are not permitted"),
        ("description: x\nvariables: {port: {description: y}}", "'port' is not a variable name"),
        ("description: x\nvariables: {FLEET_ROLE: {description: y}}", "FLEET_ROLE is reserved"),
        ("description: x\nvariables: {DOCKER_HOST: {description: y}}", "DOCKER_HOST is reserved"),
        ("description: x\nvariables: {PATH: {description: y}}", "PATH is reserved"),
        ("description: x\nvariables: {A: {type: number, description: y}}", "variables.A.type"),
        ("description: x\nvariables: {A: {type: port, default: 70000, description: y}}", "is not a port"),
        ("description: x\nvariables: {A: {required: true, default: 1, description: y}}", "cannot have a"),
        ("description: x\nvariables: {A: {secret: true, default: s, description: y}}", "it would be in Git"),
        ("description: x\nvariables: {A: {required: 'yes', description: y}}", "variables.A.required"),
        ("description: x\nhealth: {checks: [{kind: magic}]}", "health.checks.0"),
        ("description: x\nhealth: {checks: [{kind: http}]}", "health.checks.0.http.url"),
        ("description: x\nhealth: {checks: [{kind: tcp, port: 0}]}", "health.checks.0.tcp.port"),
        ("description: x\nhealth: {checks: [{kind: log, pattern: '('}]}", "not a regular expression"),
        ("description: x\nhealth: {checks: [{kind: http, url: 'http://${NOPE}'}]}", "NOPE, which is not"),
        ("description: x\nhealth: {grace_s: .nan}", "health.grace_s"),
        ("description: x\nhealth: {grace_s: -1}", "health.grace_s"),
        ("description: x\nhealth: {interval_s: 0}", "health.interval_s"),
        ("description: x\nhealth: {successes: 0}", "health.successes"),
        ("description: x\nhealth: {watch_s: 30, deadline_s: 30}", "deadline_s must be more than 30"),
        ("description: x\nvalidate: {timeout_s: 0}", "validate.timeout_s"),
        ("description: !!python/object:os.system x", "could not determine a constructor"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, complaint: str) -> None:
    assert complaint in refusal(text).message


def test_every_wrong_field_is_named_at_once() -> None:
    message = refusal("description: ''\nhealth: {successes: 0}\nsurprise: 1").message
    assert all(name in message for name in ("description", "health.successes", "surprise"))


def test_a_deadline_just_long_enough_is_accepted() -> None:
    parse("description: x\nhealth: {watch_s: 30, deadline_s: 30.1}", "kiosk")


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    levels = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    levels += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    started = time.process_time()
    refusal("description: x\n" + "\n".join(levels))
    assert time.process_time() - started < 5


def test_deep_nesting_is_refused() -> None:
    refusal("description: " + "[" * 5000)


def test_an_absent_role_is_not_an_invalid_one(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError) as caught:
        Role.load(tmp_path / "nobody")
    assert caught.value.kind is Kind.ROLE_MISSING


@pytest.mark.parametrize("name", ["role.yaml", "compose.yaml"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, "description: x\n")
    (folder / name).unlink()
    with pytest.raises(ValidationError) as caught:
        Role.load(folder)
    assert caught.value.kind is Kind.ROLE_INVALID
    assert f"{name} is missing" in caught.value.message


@pytest.mark.parametrize("content", [b"\xff\xfe", b"description: x\n#" + b"y" * 65536])
def test_a_file_that_is_no_short_text_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path, "")
    (folder / "role.yaml").write_bytes(content)
    with pytest.raises(ValidationError) as caught:
        Role.load(folder)
    assert caught.value.kind is Kind.ROLE_INVALID


def test_a_validate_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    role = Role.load(write(tmp_path, "description: x\n"))
    (role.folder / "validate").write_text("#!/bin/sh\n")
    with pytest.raises(ValidationError) as caught:
        _ = role.validate_file
    assert caught.value.kind is Kind.ROLE_INVALID
    (role.folder / "validate").chmod(0o755)
    assert role.validate_file == role.folder / "validate"


def test_a_variable_without_value_in_a_check_is_named(tmp_path: Path) -> None:
    role = Role.load(write(tmp_path, FULL))
    with pytest.raises(ValidationError) as caught:
        role.checks({"PORT": "1"})
    assert caught.value.kind is Kind.VARIABLE_MISSING
    assert "FLEET_RELEASE_VERSION" in caught.value.message


@pytest.mark.parametrize("port", ["0", "65536", "http", ""])
def test_a_tcp_check_needs_a_port(tmp_path: Path, port: str) -> None:
    role = Role.load(write(tmp_path, FULL))
    with pytest.raises(ValidationError) as caught:
        role.checks({"PORT": port, "TOKEN": "", "FLEET_RELEASE_VERSION": "v"})
    assert caught.value.kind is Kind.VARIABLE_INVALID


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
near = st.fixed_dictionaries(
    {"description": st.text(max_size=10)},
    optional={
        "variables": st.dictionaries(st.sampled_from(["A", "B", "PATH", "x"]), plain, max_size=3) | plain,
        "health": st.dictionaries(
            st.sampled_from(["grace_s", "successes", "interval_s", "deadline_s", "checks"]), plain
        )
        | plain,
        "validate": plain,
        "surprise": plain,
    },
)


@given(plain | near)
@example({"description": "\x85"})
def test_any_data_is_a_role_or_one_named_error(data: Any) -> None:
    text = yaml.safe_dump(data, allow_unicode=True)
    try:
        role = parse(text, "kiosk")
    except FleetError as error:
        assert error.kind is Kind.ROLE_INVALID
        assert error.message
    else:
        # As YAML reads it: what it writes for U+0085 comes back as a space.
        assert role.description == yaml.safe_load(text)["description"]


@given(st.text(max_size=300))
def test_any_text_is_a_role_or_one_named_error(text: str) -> None:
    try:
        parse(text, "kiosk")
    except FleetError as error:
        assert error.kind is Kind.ROLE_INVALID
