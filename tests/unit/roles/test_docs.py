"""docs/usage/roles.md and docs/usage/releases.md name everything a reader can meet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from fleet_agent.errors import Kind
from fleet_agent.roles import schema
from fleet_agent.roles.schema import ProbationSettings
from fleet_agent.roles.variables import PROVIDED, VariableType

ROOT = Path(__file__).resolve().parents[3]
ROLES = (ROOT / "docs" / "usage" / "roles.md").read_text()
RELEASES = (ROOT / "docs" / "usage" / "releases.md").read_text()
CHECK_MODELS = get_args(get_args(schema.Check)[0])


def literal_kinds() -> set[str]:
    texts = "\n".join(file.read_text() for file in (ROOT / "scripts/fleetctl/role_check").rglob("*.py"))
    return set(re.findall(r'\b(?:error|warning)\(\s*"(\w+)"', texts))


@pytest.mark.parametrize("model", CHECK_MODELS, ids=lambda model: model.__name__)
def test_each_health_check_is_described_with_its_keys(model: type[schema.Strict]) -> None:
    kind = model.model_fields["kind"].annotation
    (row,) = [line for line in ROLES.splitlines() if line.startswith(f"| `{get_args(kind)[0]}` |")]
    assert [key for key in model.model_fields if key != "kind" and f"`{key}`" not in row] == []


@pytest.mark.parametrize("key", [key for key in ProbationSettings.model_fields if key != "checks"])
def test_each_probation_setting_is_described_with_its_default(key: str) -> None:
    default = ProbationSettings.model_fields[key].default
    assert f"| `{key}` | {default:g} |" in ROLES


@pytest.mark.parametrize("name", [*PROVIDED, *VariableType])
def test_each_variable_type_and_provided_variable_is_named(name: str) -> None:
    assert f"`{name}`" in ROLES


@pytest.mark.parametrize("kind", sorted(literal_kinds()))
def test_each_finding_of_role_check_is_named(kind: str) -> None:
    assert f"`{kind}`" in ROLES


@pytest.mark.parametrize(
    "kind",
    sorted(
        {
            name
            for file in (ROOT / "fleet_agent" / "release").glob("*.py")
            for name in re.findall(r"Kind\.([A-Z_]+)", file.read_text())
        }
    ),
)
def test_each_kind_that_the_release_part_raises_is_named(kind: str) -> None:
    named = {"MANIFEST_MISMATCH": "differs is written again"}
    assert named.get(kind, f"`{Kind[kind].value}`") in RELEASES
