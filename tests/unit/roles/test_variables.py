"""A device's .env: read strictly, checked against the declaration all at once, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.errors import FleetError, Kind, ValidationError
from fleet_agent.roles.variables import (
    ENV_LIMIT_BYTES,
    Variable,
    VariableType,
    check,
    environment,
    interpolate,
    read_env,
    redact,
    refuse,
)


def variable(kind: VariableType = VariableType.STRING, **more: object) -> Variable:
    return Variable.model_validate({"type": kind, "description": "What it is.", **more})


def test_the_file_is_read_literally(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# comment\nA=1\nexport B='two words'\nC=\"a#b\" # why\nD=$A ${A}\n\nE=\nF=x=y\n")
    assert read_env(file) == {"A": "1", "B": "two words", "C": "a#b", "D": "$A ${A}", "E": "", "F": "x=y"}


def test_an_absent_file_has_no_values(tmp_path: Path) -> None:
    assert read_env(tmp_path / ".env") == {}


def test_every_bad_line_is_numbered_and_none_is_quoted(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\nhunter2\nB=2\nC='open\n")
    with pytest.raises(ValidationError) as caught:
        read_env(file)
    assert caught.value.kind is Kind.VARIABLE_INVALID
    assert caught.value.evidence == {"lines": [2, 4]}
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"A=\xff\xfe", b"A=1\0", b"A=" + b"x" * ENV_LIMIT_BYTES])
def test_a_file_that_is_no_short_text_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(ValidationError) as caught:
        read_env(file)
    assert caught.value.kind is Kind.VARIABLE_INVALID


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(ValidationError) as caught:
        read_env(tmp_path / ".env")
    assert caught.value.kind is Kind.VARIABLE_INVALID


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (VariableType.INT, ["0", "-7", "+7", "9" * 18], ["1.0", "x", "1 ", "9" * 19, "٣"]),
        (VariableType.PORT, ["1", "65535"], ["0", "65536", "-1", "80a", "٣"]),
        (VariableType.BOOL, ["true", "false"], ["True", "1", "yes"]),
        (
            VariableType.URL,
            ["https://a", "mqtt://u:p@h:1/x"],
            ["a", "//a", "http://", "http://a b", "http://a:x", "http://[", "http://a:0"],
        ),
        (VariableType.PATH, ["/", "/a/b.c"], ["a", "./a", "/a/../b"]),
        (VariableType.STRING, ["anything"], ["a\0b"]),
    ],
)  # fmt: skip
def test_types_are_checked_and_values_not_shown(kind: VariableType, good: list[str], bad: list[str]) -> None:
    declared = {"A": variable(kind)}
    assert [check(declared, {"A": value}) for value in good] == [[]] * len(good)
    for value in bad:
        (problem,) = check(declared, {"A": value})
        assert (problem.kind, problem.variable) == (Kind.VARIABLE_INVALID, "A")
        if len(value) > 3:
            assert value not in problem.message


def test_all_problems_come_at_once() -> None:
    declared = {
        "A": variable(required=True),
        "B": variable(VariableType.PORT),
        "C": variable(),
        "D": variable(required=True),
    }
    problems = check(declared, {"B": "x", "D": "", "UNDECLARED": "1"})
    assert [(problem.variable, problem.kind) for problem in problems] == [
        ("A", Kind.VARIABLE_MISSING), ("B", Kind.VARIABLE_INVALID), ("D", Kind.VARIABLE_MISSING),
    ]  # fmt: skip
    with pytest.raises(ValidationError) as caught:
        refuse(problems)
    assert caught.value.kind is Kind.VARIABLE_MISSING
    assert caught.value.evidence == {"variables": ["A", "B", "D"]}
    refuse([])


def test_only_invalid_values_are_called_invalid() -> None:
    with pytest.raises(ValidationError) as caught:
        refuse(check({"B": variable(VariableType.PORT)}, {"B": "x"}))
    assert caught.value.kind is Kind.VARIABLE_INVALID


def test_compose_gets_each_declared_variable_and_nothing_undeclared() -> None:
    declared = {
        "A": variable(VariableType.PORT, default=80),
        "B": variable(),
        "C": variable(VariableType.BOOL, default=True),
    }
    assert environment(declared, {"A": "81", "SECRET_OF_ANOTHER_ROLE": "x"}, {"FLEET_ROLE": "r"}) == {
        "A": "81", "B": "", "C": "true", "FLEET_ROLE": "r",
    }  # fmt: skip
    assert environment(declared, {"A": ""}, {})["A"] == "80"


def test_what_the_agent_provides_cannot_be_overruled() -> None:
    assert environment({}, {"FLEET_ROLE": "mine"}, {"FLEET_ROLE": "r"}) == {"FLEET_ROLE": "r"}


def test_secrets_leave_no_trace_in_text() -> None:
    declared = {
        "A": variable(secret=True),
        "B": variable(secret=True),
        "C": variable(),
        "D": variable(secret=True),
    }
    values = {"A": "hunter2", "B": "hunter22", "C": "plain", "D": "abc"}
    assert redact(declared, values, "x hunter22 y hunter2 plain abc") == "x *** y *** plain abc"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a${A}b$A", "a1b1"), ("$$A", "$A"), ("${EMPTY:-d}", "d"), ("${EMPTY-d}", "d"), ("${GONE:-d}", "d"),
        ("${GONE:-}", ""), ("${EMPTY}", ""), ("$", "$"), ("${", "${"), ("no", "no"),
    ],
)  # fmt: skip
def test_interpolation_follows_compose(text: str, expected: str) -> None:
    assert interpolate(text, {"A": "1", "EMPTY": ""}) == expected


def test_interpolation_names_what_has_no_value() -> None:
    with pytest.raises(ValidationError) as caught:
        interpolate("x${GONE}", {})
    assert caught.value.kind is Kind.VARIABLE_MISSING


@given(st.binary(max_size=400))
def test_any_file_is_values_or_one_named_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.env"
    file.write_bytes(content)
    try:
        values = read_env(file)
    except FleetError as error:
        assert error.kind is Kind.VARIABLE_INVALID
    else:
        assert all(isinstance(value, str) for value in values.values())


@given(st.dictionaries(st.sampled_from(["A", "B", "C", "D", "E", "F"]), st.text(max_size=30)))
def test_any_values_are_judged_without_an_exception(values: dict[str, str]) -> None:
    declared = {name: variable(kind) for name, kind in zip("ABCDEF", VariableType, strict=True)}
    assert {problem.variable for problem in check(declared, values)} <= set(values)
