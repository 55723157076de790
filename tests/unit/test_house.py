"""What the repository promises about itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: What a distribution is called when imported, where that differs from its name.
IMPORT_NAMES = {"GitPython": "git", "pyjwt": "jwt", "python-dotenv": "dotenv", "pyyaml": "yaml"}


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ;]", line)[0] for line in requirements}


def locked(file: str) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / file).read_text(), re.MULTILINE)
    return dict(found)


def imported_names(folder: Path) -> set[str]:
    names = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.add(node.module.split(".")[0])
    return names


def test_agent_imports_only_what_a_device_has() -> None:
    """A device gets fleet_agent and its few dependencies: nothing of the operator's may be imported."""
    allowed = {IMPORT_NAMES.get(name, name) for name in distributions(PROJECT["dependencies"])}
    allowed.add("fleet_agent")
    assert imported_names(ROOT / "fleet_agent") - allowed - sys.stdlib_module_names == set()


def test_agent_lock_has_no_operator_tool() -> None:
    operator = distributions(PROJECT["optional-dependencies"]["operator"])
    assert operator & set(locked("requirements-agent.lock")) == set()


def test_both_locks_agree() -> None:
    everything, agent = locked("requirements.lock"), locked("requirements-agent.lock")
    assert agent, "the agent's lock is empty"
    assert {name: version for name, version in agent.items() if everything.get(name) != version} == {}


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-agent.lock"])
def test_lock_carries_a_hash_for_every_requirement(file: str) -> None:
    blocks = re.split(r"^(?=[a-z0-9._-]+==)", (ROOT / file).read_text(), flags=re.MULTILINE)[1:]
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_every_declared_dependency_is_locked() -> None:
    declared = distributions(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["operator"])
    assert {name.lower() for name in declared} - set(locked("requirements.lock")) == set()


def test_no_file_names_a_registry_host() -> None:
    """The project installs through whatever index its user has set up."""
    hosts = [
        "files." + "pythonhosted.org",
        "pypi." + "org/simple",
        "registry." + "npmjs.org",
        "deb." + "debian.org",
    ]
    found = subprocess.run(
        ["git", "-C", str(ROOT), "grep", "-lIF", *[arg for host in hosts for arg in ("-e", host)]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.split() == []


def test_agent_installs_alone(tmp_path: Path) -> None:
    """From the agent's lock and our wheel, `fleet-agent` runs, and fleetctl says what it lacks."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
    python = str(venv / "bin" / "python")
    install = [*uv, "pip", "install", "-q", "--python", python]
    subprocess.run([*install, "--require-hashes", "-r", str(ROOT / "requirements-agent.lock")], check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    agent = subprocess.run(
        [venv / "bin" / "fleet-agent", "--help"], capture_output=True, text=True, check=False
    )
    assert agent.returncode == 0, agent.stderr
    assert "enroll" in agent.stdout
    fleetctl = subprocess.run([venv / "bin" / "fleetctl", "up"], capture_output=True, text=True, check=False)
    assert fleetctl.returncode == 1
    assert "metrica-fleet[operator]" in fleetctl.stderr
