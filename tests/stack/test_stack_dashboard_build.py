"""When the dashboard is built, and what is said when it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetctl.errors import FleetctlError
from fleetctl.stack.dashboard import build, needs_build
from fleetctl.stack.deno import find_deno
from fleetctl.stack.layout import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A dashboard whose build copies its one source file."""
    (tmp_path / "web" / "src").mkdir(parents=True)
    (tmp_path / "web" / "src" / "page.html").write_text("first")
    (tmp_path / "web" / "deno.json").write_text(
        '{"tasks": {"build": "mkdir -p dist && cp src/page.html dist/index.html && echo built it"}}'
    )
    return Project(tmp_path)


def run(project: Project) -> list[str]:
    lines: list[str] = []
    build(project, find_deno(), project.root / "build.log", lines.append)
    return lines


def test_built_once_and_again_only_when_a_source_changes(project: Project) -> None:
    index = project.web / "dist" / "index.html"
    assert needs_build(project)
    assert "built it" in run(project)
    assert index.read_text() == "first"
    assert not needs_build(project)
    assert run(project) == []
    (project.web / "src" / "page.html").write_text("second")
    assert needs_build(project)
    run(project)
    assert index.read_text() == "second"


def test_dist_of_unknown_origin_is_built_anew(project: Project) -> None:
    (project.web / "dist").mkdir()
    assert needs_build(project)


def test_checkout_without_dashboard_sources_builds_nothing(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    assert not needs_build(Project(tmp_path))


def test_failed_build_shows_the_end_of_its_log_and_is_tried_again(project: Project) -> None:
    (project.web / "deno.json").write_text('{"tasks": {"build": "echo no such chart && exit 3"}}')
    with pytest.raises(FleetctlError, match="no such chart") as caught:
        run(project)
    assert caught.value.kind == "dashboard_build_failed"
    assert needs_build(project)
