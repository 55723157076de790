"""What is refused before anything is touched, one rule at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet_agent.config import RescueAccess
from fleet_agent.containers import compose_file, content_store
from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.steps.validate import network_wall
from fleet_agent.errors import ValidationError
from tests.support.engine_harness import COMPOSE_YAML, ROLE_YAML, Fleet, rows


@pytest.mark.parametrize(
    ("image", "ok"),
    [
        ("busybox:stable", True),
        ("registry.example:5000/team/app:1.2", True),
        ("app@sha256:" + "0" * 64, True),
        ("app:latest@sha256:" + "0" * 64, True),
        ("busybox", False),
        ("busybox:latest", False),
        ("registry.example:5000/team/app", False),
    ],
)
def test_images_must_be_pinned(image: str, ok: bool) -> None:
    assert compose_file.is_pinned(image) is ok


def test_service_that_must_be_built_is_refused() -> None:
    with pytest.raises(ValidationError) as refusal:
        compose_file.images({"services": {"web": {"build": "."}}})
    assert (refusal.value.kind, refusal.value.message) == (
        "compose_invalid",
        "Service web has no image, and devices do not build images.",
    )


def _bind(source: Path) -> dict[str, Any]:
    return {
        "services": {
            "web": {"image": "i:1", "volumes": [{"type": "bind", "source": str(source), "target": "/x"}]}
        }
    }


def test_same_content_in_two_releases_has_one_path(tmp_path: Path) -> None:
    mounts = []
    for release in ("one", "two"):
        folder = tmp_path / release / "page"
        folder.mkdir(parents=True)
        (folder / "index").write_text("same")
        resolved = content_store.address_content(_bind(folder), tmp_path / release, tmp_path / "content")
        mounts.append(resolved["services"]["web"]["volumes"][0]["source"])
    assert mounts[0] == mounts[1]
    assert (Path(mounts[0]) / "index").read_text() == "same"


@pytest.mark.parametrize("change", ["content", "mode", "name"])
def test_changed_content_has_another_path(tmp_path: Path, change: str) -> None:
    file = tmp_path / "release" / "f"
    file.parent.mkdir()
    file.write_text("a")
    before = content_store.fingerprint(file)
    match change:
        case "content":
            file.write_text("b")
        case "mode":
            file.chmod(0o700)
        case "name":
            file = file.rename(file.with_name("g"))
    assert content_store.fingerprint(file) != before


def test_damaged_copy_is_made_again(tmp_path: Path) -> None:
    source = tmp_path / "release" / "f"
    source.parent.mkdir()
    source.write_text("whole")
    args = (_bind(source), tmp_path / "release", tmp_path / "content")
    kept = Path(content_store.address_content(*args)["services"]["web"]["volumes"][0]["source"])
    kept.write_text("torn")
    content_store.address_content(*args)
    assert kept.read_text() == "whole"


def test_mount_that_leads_out_of_the_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "out").symlink_to("/etc")
    with pytest.raises(ValidationError) as refusal:
        content_store.address_content(
            _bind(tmp_path / "release" / "out"), tmp_path / "release", tmp_path / "c"
        )
    assert refusal.value.message == "web mounts out, which leads out of the release."


def test_paths_of_the_device_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    compose = _bind(Path("/var/run/thing"))
    assert content_store.address_content(compose, tmp_path / "release", tmp_path / "c") == compose


@pytest.mark.parametrize(
    ("edits", "kind", "sentence"),
    [
        (
            {"compose.yaml": COMPOSE_YAML.format(behavior="").replace("busybox:stable", "busybox", 1)},
            "image_unpinned",
            "Service web uses busybox, a tag that can change.",
        ),
        (
            {"role.yaml": ROLE_YAML.replace("type: string, default: hello", "type: port, required: true")},
            "variable_missing",
            "GREETING is not set (What the page says).",
        ),
        (
            {"compose.yaml": COMPOSE_YAML.format(behavior="") + "    mem_reservation: 4000g\n"},
            "memory_short",
            None,
        ),
        (
            {"validate": "#!/bin/sh\nsleep 60\n", "role.yaml": ROLE_YAML + "validate: {timeout_s: 0.3}\n"},
            "validate_failed",
            "The role's validate did not finish within 0.3 s.",
        ),
        ({"compose.yaml": "services: []\n"}, "compose_invalid", None),
        ({"role.yaml": "description: x\nunknown: 1\n"}, "role_invalid", None),
    ],
)
def test_refusals_leave_the_running_release_alone(  # noqa: PLR0917  fixtures
    fleet: Fleet,
    root: Path,
    dependencies: Dependencies,
    edits: dict[str, str],
    kind: str,
    sentence: str | None,
) -> None:
    config, v1 = fleet.config(root), fleet.release("v1")
    api.converge(config, fleet.directive(v1), dependencies=dependencies)
    before = (root / "state" / "simulated.json").read_bytes()
    release = fleet.release(f"refused-{kind}-{len(str(edits))}", edits=edits)
    status = api.converge(config, fleet.directive(release), dependencies=dependencies)
    assert (status.error_kind, status.current, status.phase) == (kind, v1, "steady")
    if sentence is not None:
        assert status.error == sentence
    assert (root / "state" / "simulated.json").read_bytes() == before


def test_validate_has_no_network(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    if network_wall() is None:
        pytest.skip("this machine lets nobody take the network away (unshare --net)")
    config = fleet.config(root)
    script = "#!/bin/sh\nn=$(tail -n +3 /proc/net/dev | grep -vc ' lo:')\n[ $n = 0 ] || exit 1\n"
    status = api.converge(
        config, fleet.directive(fleet.release("alone", edits={"validate": script})), dependencies=dependencies
    )
    assert status.error is None


@pytest.mark.parametrize(("port", "outcome"), [(2222, "failed"), (2223, "succeeded")])
def test_a_release_cannot_take_the_port_of_rescue_access(
    fleet: Fleet, root: Path, dependencies: Dependencies, port: int, outcome: str
) -> None:
    config = fleet.config(root, rescue_access=RescueAccess(authorized_keys=Path("/etc/keys")))
    compose = COMPOSE_YAML.format(behavior="").replace(
        "    init: true", f"    ports: ['{port}:80']\n    init: true", 1
    )
    api.converge(
        config,
        fleet.directive(fleet.release(f"p{port}", edits={"compose.yaml": compose})),
        dependencies=dependencies,
    )
    (row,) = rows(config)
    assert row.outcome == outcome
    if outcome == "failed":
        assert row.error_kind == "port_conflict"
        assert "reserved for this device's rescue access" in (row.error or "")
