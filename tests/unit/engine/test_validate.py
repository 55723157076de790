"""What is refused before anything is touched, one rule at a time."""

from __future__ import annotations

import shutil
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
        "The compose file is not valid: service web has no image, and devices do not build images.",
    )


@pytest.mark.parametrize(
    ("service", "refused"),
    [
        ({"volumes": [{"type": "bind", "source": "/v", "target": "v"}]}, "v as a place"),
        ({"volumes": [{"type": "volume", "source": "v", "target": "./v"}]}, "./v as a place"),
        ({"volumes": ["./x:relative:ro"]}, "relative as a place"),
        ({"volumes": [{"type": "tmpfs", "target": "run"}]}, "run as a place"),
        ({"tmpfs": ["run:size=64m"]}, "run as a place"),
        ({"tmpfs": "run"}, "run as a place"),
        ({"devices": [{"source": "/dev/null", "target": "dev/null"}]}, "dev/null as a place"),
        ({"working_dir": "srv"}, "srv as a place"),
        ({"volumes": [{"type": "volume", "source": "v", "target": "/x/.."}]}, "over the root"),
        ({"volumes": ["a:/x", "b:/x/"]}, "two things at /x"),
        ({"volumes": ["a:/x"], "tmpfs": ["/x"]}, "two things at /x"),
        ({"volumes": ["a:/x", "./y:/y:ro", "/z"], "tmpfs": ["/run:size=64m"], "working_dir": "/x"}, None),
        ({"devices": ["/dev/null:/dev/null:rwm", "vendor.example/gpu=all"]}, None),
    ],
)
def test_places_in_a_container_that_docker_would_refuse_are_refused_before(
    service: dict[str, Any], refused: str | None
) -> None:
    compose = {"services": {"web": {"image": "i:1", **service}}}
    if refused is None:
        compose_file.check_places(compose)
        return
    with pytest.raises(ValidationError) as refusal:
        compose_file.check_places(compose)
    assert refusal.value.kind == "compose_invalid"
    assert refused in refusal.value.message


def _bind(source: Path, **options: Any) -> dict[str, Any]:
    mount = {"type": "bind", "source": str(source), "target": "/x", **options}
    return {"services": {"web": {"image": "i:1", "volumes": [mount]}}}


def _place(resolved: dict[str, Any], service: str = "web") -> Path:
    return Path(resolved["services"][service]["volumes"][0]["source"])


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


def test_changed_copy_is_kept_and_the_content_gets_another_place(tmp_path: Path) -> None:
    source = tmp_path / "release" / "f"
    source.parent.mkdir()
    source.write_text("whole")
    args = (_bind(source, read_only=True), tmp_path / "release", tmp_path / "content")
    kept = _place(content_store.address_content(*args))
    kept.write_text("torn")
    again = content_store.address_content(*args)
    assert (kept.read_text(), _place(again).read_text()) == ("torn", "whole")
    assert content_store.address_content(*args) == again


def test_writable_copy_is_the_service_s_own_and_stays_as_it_left_it(tmp_path: Path) -> None:
    source = tmp_path / "release" / "f"
    source.parent.mkdir()
    source.write_text("whole")
    compose = _bind(source)
    compose["services"]["other"] = compose["services"]["web"]
    compose["services"]["reader"] = _bind(source, read_only=True)["services"]["web"]
    args = (compose, tmp_path / "release", tmp_path / "content")
    web, other, reader = (_place(content_store.address_content(*args), s) for s in compose["services"])
    assert len({web, other, reader}) == 3
    web.write_text("written")
    web.chmod(0o600)
    again = content_store.address_content(*args)
    assert (_place(again), _place(again).read_text()) == (web, "written")
    assert (other.read_text(), reader.read_text()) == ("whole", "whole")
    source.write_text("changed")
    assert _place(content_store.address_content(*args)).read_text() == "changed"
    assert web.read_text() == "written"


def test_stacks_of_older_agents_use_what_their_configs_and_secrets_name(tmp_path: Path) -> None:
    file = str(tmp_path / "content" / "abc" / "token")
    for section in ("configs", "secrets"):
        compose = {**_bind(Path("/elsewhere")), section: {"token": {"file": file}, "other": {"content": "x"}}}
        assert content_store.used_content(compose, tmp_path / "content") == {"abc"}


def test_two_folders_with_the_same_content_are_two_when_written_to(tmp_path: Path) -> None:
    mounts = []
    for parent in ("a", "b"):
        (tmp_path / "release" / parent / "data").mkdir(parents=True)
        mounts += _bind(tmp_path / "release" / parent / "data")["services"]["web"]["volumes"]
    compose = {"services": {"web": {"image": "i:1", "volumes": mounts}}}
    found = content_store.address_content(compose, tmp_path / "release", tmp_path / "content")
    first, second = (mount["source"] for mount in found["services"]["web"]["volumes"])
    assert first != second


def test_place_that_was_lost_is_not_filled_again(tmp_path: Path) -> None:
    """A container may still have what was there: the content gets another place, and so another container."""
    source = tmp_path / "release" / "f"
    source.parent.mkdir()
    source.write_text("whole")
    for read_only in (True, False):
        args = (_bind(source, read_only=read_only), tmp_path / "release", tmp_path / "content")
        kept = _place(content_store.address_content(*args))
        shutil.rmtree(kept.parent)
        again = _place(content_store.address_content(*args, avoid={kept.parent.name}))
        assert (again != kept, again.read_text()) == (True, "whole")


def test_links_mean_their_content(tmp_path: Path) -> None:
    release = tmp_path / "release"
    (release / "sites" / "prod").mkdir(parents=True)
    page = release / "sites" / "prod" / "index"
    page.write_text("one")
    (release / "shared").write_text("by all")
    (release / "sites" / "prod" / "inner").symlink_to("../../shared")
    (release / "site").symlink_to("sites/prod")
    args = (_bind(release / "site", read_only=True), release, tmp_path / "content")
    first = _place(content_store.address_content(*args))
    assert first.name == "site"
    assert not any(path.is_symlink() for path in (first, *first.rglob("*")))
    assert ((first / "index").read_text(), (first / "inner").read_text()) == ("one", "by all")
    assert _place(content_store.address_content(*args)) == first
    (release / "shared").write_text("changed")
    second = _place(content_store.address_content(*args))
    assert (second != first, (second / "inner").read_text()) == (True, "changed")
    assert (first / "inner").read_text() == "by all"


@pytest.mark.parametrize(
    ("links", "sentence"),
    [
        ({"site": "nowhere"}, "a link that leads to nowhere, which is not in the release"),
        ({"site": "site"}, "a link that leads in a circle"),
        (
            {"site": "real", "real/x": "nowhere"},
            "in which the link site/x leads to nowhere, which is not in the",
        ),
        ({"site": "real", "real/x": "../../out"}, "in which the link site/x leads out of the release"),
        (
            {"site": "real", "real/x": "../real"},
            "in which the link site/x leads to a folder that contains it",
        ),
    ],
)
def test_links_that_have_no_content_are_refused(tmp_path: Path, links: dict[str, str], sentence: str) -> None:
    release = tmp_path / "release"
    (release / "real").mkdir(parents=True)
    (tmp_path / "out").write_text("not ours")
    for name, target in links.items():
        (release / name).symlink_to(target)
    with pytest.raises(ValidationError) as refusal:
        content_store.address_content(_bind(release / "site"), release, tmp_path / "c")
    assert refusal.value.kind == "compose_invalid"
    assert refusal.value.message.startswith(f"The compose file is not valid: web mounts site, {sentence}")


def test_links_do_not_multiply_a_release_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_store, "COPY_FILES_LIMIT", 50)
    release = tmp_path / "release"
    for level in range(8):
        folder = release / f"level{level}"
        folder.mkdir(parents=True)
        for copy in ("a", "b", "c"):
            (folder / copy).symlink_to(f"../level{level + 1}")
    (release / "level8").write_text("x")
    with pytest.raises(ValidationError, match="more than 50 files"):
        content_store.address_content(_bind(release / "level0"), release, tmp_path / "c")


def test_volume_that_is_a_folder_of_the_release_is_refused(tmp_path: Path) -> None:
    """It would be removed with the release's folder, under a container."""
    compose = {**_bind(Path("/elsewhere")), "volumes": {"data": None}}
    for device in ("./data", str(tmp_path / "release" / "data")):
        compose["volumes"] = {"data": {"driver_opts": {"type": "none", "o": "bind", "device": device}}}
        with pytest.raises(ValidationError) as refusal:
            content_store.address_content(compose, tmp_path / "release", tmp_path / "c")
        assert refusal.value.message == (
            f"The compose file is not valid: the volume data is bound to {device}, a folder of the release."
        )


def test_mount_that_leads_out_of_the_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "out").symlink_to("/etc")
    with pytest.raises(ValidationError) as refusal:
        content_store.address_content(
            _bind(tmp_path / "release" / "out"), tmp_path / "release", tmp_path / "c"
        )
    assert (
        refusal.value.message
        == "The compose file is not valid: web mounts out, which leads out of the release."
    )


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
            "validate_endless",
            "The role's validate did not finish within 0.3 s.",
        ),
        (
            {"compose.yaml": COMPOSE_YAML.format(behavior="") + "    volumes: ['./page:page']\n"},
            "compose_invalid",
            "The compose file is not valid: "
            "clock has page as a place in its container, which is not an absolute path.",
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
    fleet.on_v1(config, dependencies)
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
