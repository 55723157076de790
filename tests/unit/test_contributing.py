"""What contributors rely on: one version, typed packages, hooks and jobs that call what `make lint` calls."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import yaml

import fleet_agent
from fleet_agent.health import base
from fleet_agent.roles import schema as roles_schema

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def lint_targets() -> set[str]:
    (line,) = re.findall(r"^lint: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(line.split())


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"] == {"path": "fleet_agent/__init__.py"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", fleet_agent.__version__)


def test_the_wheel_has_that_version_and_says_that_it_is_typed(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"metrica_fleet-{fleet_agent.__version__}-")
    assert {"fleet_agent/py.typed", "fleetctl/py.typed"} <= set(zipfile.ZipFile(wheel).namelist())


def test_each_part_of_make_lint_is_a_hook_and_no_other() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"].split()[-1] for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert sorted(hooks) == sorted(lint_targets())


def test_each_action_is_pinned_to_a_commit_and_names_its_version() -> None:
    used = [line for file in WORKFLOWS for line in re.findall(r"uses: (.+)", file.read_text())]
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_jobs_may_read_the_repository_and_nothing_else() -> None:
    for file in WORKFLOWS:
        workflow = yaml.safe_load(file.read_text())
        assert workflow["permissions"] == {}
        assert {str(job["permissions"]) for job in workflow["jobs"].values()} == {"{'contents': 'read'}"}


def test_each_make_target_of_the_jobs_exists() -> None:
    rules = re.findall(r"^([a-z0-9 -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    called = {
        name
        for file in WORKFLOWS
        for name in re.findall(r'(?:run: |PATH" )make ([a-z0-9-]+)', file.read_text())
    }
    assert called - targets == set()
    assert "lint" in called


def test_each_issue_form_has_what_the_code_host_asks_for() -> None:
    forms = [file for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if file.stem != "config"]
    assert forms
    for file in forms:
        form = yaml.safe_load(file.read_text())
        assert {"name", "description", "body"} <= set(form)
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0
        assert all(field["attributes"] for field in form["body"])


def test_the_check_that_the_guide_walks_through_works(tmp_path: Path) -> None:
    """Its snippets are run as they stand, on the names that they use."""
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, schema, check = re.findall(r"^```python\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {**vars(base), **vars(roles_schema), "shutil": shutil}
    exec(f"{schema}\n\n{check}", names)  # noqa: S102  our own page
    for needed, outcome in [(0, base.CheckOutcome.PASS), (1 << 60, base.CheckOutcome.FAIL)]:
        declared = names["DiskCheck"](kind="disk", path=str(tmp_path), min_free_bytes=needed)
        assert names["DiskHasSpace"](declared).look(None).outcome is outcome
