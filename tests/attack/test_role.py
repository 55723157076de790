"""Whoever writes a role that gets signed: hostile, or careless. What it may take of a device is one table."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.containers.compose_program import find_compose
from fleet_agent.containers.simulated import SimulatedRuntime
from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.errors import FleetError, Kind
from fleet_agent.roles import compose_source, host_access, host_table, host_uses
from fleet_agent.roles.host_paths import Place
from fleet_agent.roles.host_table import ROWS, Row
from fleetctl.role_check.check import check_role
from tests.support.engine_harness import COMPOSE_YAML, ROLE_YAML, Fleet

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "usage" / "roles.md").read_text()
PLACE = Place("/r/roles/x", ("/r",), given=("/data/films", "/"), agent=("/opt/fleet", "/etc/fleet"))

#: What a service (or, after `top`, the file) says, and what it needs: a word of `access:`, or a class.
TABLE: list[tuple[str, str]] = [
    # devices
    ("devices: [/dev/video0]", "free"),
    ("devices: ['/dev/media1:/dev/media1:rw', /dev/v4l/by-id/usb-cam]", "free"),
    ("devices: [{source: /dev/snd, target: /dev/snd}]", "free"),
    ("devices: [/dev/serial/by-id/usb-FTDI]", "free"),
    ("devices: [/dev/i2c-1]", "free"),
    ("devices: [/dev/gpiochip0, /dev/gpiomem]", "free"),
    ("devices: [/dev/dri/renderD128]", "free"),
    ("devices: [/dev/dma_heap]", "free"),
    ("devices: [nvidia.com/gpu=all]", "free"),
    ("gpus: all", "free"),
    ("deploy: {resources: {reservations: {devices: [{driver: nvidia, capabilities: [gpu]}]}}}", "free"),
    ("deploy: {resources: {reservations: {devices: [{driver: x, capabilities: [tpu]}]}}}", "root"),
    ("deploy: {resources: {reservations: {devices: [{driver: cdi, device_ids: [a/b=c]}]}}}", "root"),
    ("devices: [/dev/sda]", "root"),
    ("devices: ['/dev/nvme0n1p1:/dev/video0']", "root"),
    ("devices: [/dev/dri/../mem]", "root"),
    ("devices: [//dev/sda]", "root"),
    ("devices: [/dev]", "root"),
    ("devices: [/dev/ttyUSB0]", "root"),
    ("devices: [/dev/fuse]", "root"),
    ("devices: [vendor.com/disk=all]", "root"),
    ("device_cgroup_rules: ['b *:* rwm']", "root"),
    # mounts
    ("volumes: ['./page:/page', 'data:/data', /anonymous]", "free"),
    ("volumes: [{type: bind, source: ../common/x, target: /x}]", "free"),
    ("volumes: ['/dev/video0:/dev/video0']", "free"),
    ("volumes: ['/dev/dri:/dev/dri:ro']", "free"),
    ("volumes: ['/dev/v4l:/dev/v4l', '/dev/snd:/dev/snd']", "free"),
    ("volumes: ['/dev/serial/by-id:/s', '/dev/i2c-1:/i', '/dev/gpiochip0:/g', '/dev/dma_heap:/d']", "free"),
    ("volumes: ['/run/udev:/run/udev:ro']", "free"),
    ("volumes: ['/run/udev:/run/udev']", "root"),
    ("volumes: ['/etc/localtime:/etc/localtime:ro', '/etc/timezone:/etc/timezone:ro']", "free"),
    ("volumes: ['/etc/localtime:/etc/localtime']", "root"),
    ("volumes: ['/data/films/new:/films']", "free"),
    ("volumes: ['/data/films/../../data/other:/films']", "root"),
    ("volumes: ['/sys/class/thermal:/t:ro']", "sys"),
    ("volumes: [{type: bind, source: /sys, target: /sys, read_only: true}]", "sys"),
    (
        "volumes: [{type: bind, source: /sys, target: /s, read_only: true, bind: {recursive: writable}}]",
        "root",
    ),
    ("volumes: ['/sys:/sys']", "root"),
    ("volumes: ['/sys/kernel/debug:/d:ro']", "root"),
    ("volumes: ['/proc:/host/proc:ro']", "proc"),
    ("volumes: ['/proc:/host/proc']", "root"),
    ("volumes: ['/proc/1/root:/host:ro']", "root"),
    ("volumes: ['/proc/self/root/etc:/host:ro']", "root"),
    ("volumes: ['/dev:/dev:ro']", "root"),
    ("volumes: ['/dev/sda:/disk:ro']", "root"),
    ("volumes: ['/:/host:ro']", "root"),
    ("volumes: ['/r/../:/host:ro']", "root"),
    ("volumes: ['/etc:/host:ro']", "root"),
    ("volumes: ['/root/.ssh:/keys:ro', '~/.ssh:/more']", "root"),
    ("volumes: ['/usr/bin:/b']", "root"),
    ("volumes: ['/home:/h', '/var/lib/docker/volumes:/v:ro', '/run:/run']", "root"),
    ("volumes: ['/srv/elsewhere:/x']", "root"),
    ("volumes: ['../../../elsewhere:/x']", "root"),
    ("volumes: ['/run/dbus:/run/dbus:ro']", "root"),
    ("volumes: ['/var/run/dbus/system_bus_socket:/bus']", "root"),
    ("volumes: ['/var/run/docker.sock:/s:ro']", "root"),
    ("volumes: ['/run/containerd:/c']", "root"),
    ("volumes: [{type: bind, source: /var/run/../run/docker.sock, target: /s}]", "root"),
    ("volumes: [{type: bind, source: ./page, target: /p, bind: {propagation: rshared}}]", "root"),
    ("volumes: [{type: npipe, source: x, target: /p}]", "root"),
    ("volumes: [{type: image, source: 'busybox:1', target: /i}, {type: tmpfs, target: /t}]", "free"),
    ("use_api_socket: true", "root"),
    ("volumes: ['/opt/fleet/state/identity:/k:ro']", "never"),
    ("volumes: ['/opt/fleet/.env:/e:ro']", "never"),
    ("volumes: ['/opt/fleet:/f']", "never"),
    ("volumes: ['/etc/fleet:/f']", "never"),
    ("secrets: [k]\ntop: {secrets: {k: {file: /opt/fleet/state/identity/key.json}}}", "never"),
    ("secrets: [k]\ntop: {secrets: {k: {file: ./token}}}", "free"),
    ("configs: [{source: k}]\ntop: {configs: {k: {file: /etc/shadow}}}", "root"),
    ("configs: [k]\ntop: {configs: {k: {file: ../../../../etc/x}}}", "root"),
    # volumes
    ("top: {volumes: {d: {driver_opts: {type: tmpfs, device: tmpfs}}}}", "free"),
    ("top: {volumes: {d: {driver: local}}}", "free"),
    ("top: {volumes: {d: {driver_opts: {type: none, o: bind, device: /}}}}", "root"),
    ("top: {volumes: {d: {driver_opts: {type: none, o: 'bind,ro', device: /sys}}}}", "sys"),
    ("top: {volumes: {d: {driver_opts: {o: 'rw,rbind', device: /opt/fleet/state}}}}", "never"),
    ("top: {volumes: {d: {driver_opts: {type: ext4, device: /dev/sda1}}}}", "root"),
    ("top: {volumes: {d: {driver_opts: {type: nfs, o: addr=10.0.0.1, device: ':/x'}}}}", "root"),
    ("top: {volumes: {d: {driver: vieux/sshfs}}}", "root"),
    # capabilities
    ("cap_add: [CHOWN, CAP_NET_RAW]", "free"),
    *((f"cap_add: [{name}]", name) for name in host_table.CAPABILITIES),
    ("cap_add: [cap_net_admin]", "NET_ADMIN"),
    ("cap_add: [ALL]", "root"),
    ("cap_add: [SYS_ADMIN]", "root"),
    ("cap_add: [DAC_READ_SEARCH]", "root"),
    ("cap_add: [SOMETHING_NEW]", "root"),
    ("privileged: true", "root"),
    ("post_start: [{command: x, privileged: true}]", "root"),
    # namespaces and networks
    ("pid: 'service:other'", "free"),
    ("ipc: shareable", "free"),
    ("network_mode: none", "free"),
    ("network_mode: host", "host_network"),
    ("top: {networks: {n: {external: true, name: host}}}", "host_network"),
    ("top: {networks: {host: {external: true}}}", "host_network"),
    ("top: {networks: {n: {external: {name: host}}}}", "host_network"),
    ("top: {networks: {n: {driver: macvlan, driver_opts: {parent: eth0}}}}", "host_network"),
    ("top: {networks: {n: {driver: bridge}, m: {}}}", "free"),
    ("top: {networks: {n: {driver_opts: {com.docker.network.bridge.name: br0}}}}", "host_network"),
    ("top: {networks: {n: {driver: weave}}}", "root"),
    ("pid: host", "root"),
    ("ipc: host", "root"),
    ("uts: host", "root"),
    ("userns_mode: host", "root"),
    ("cgroup: host", "root"),
    ("cgroup_parent: /system.slice", "root"),
    ("network_mode: 'container:db'", "root"),
    ("pid: 'container:db'", "root"),
    ("volumes_from: ['container:db:ro']", "root"),
    ("volumes_from: [other]", "free"),
    # profiles
    ("security_opt: ['no-new-privileges:true', no-new-privileges]", "free"),
    ("runtime: runc", "free"),
    ("sysctls: {net.core.somaxconn: 1024}", "free"),
    ("sysctls: [kernel.core_pattern=x]", "root"),
    ("security_opt: ['seccomp:unconfined']", "root"),
    ("security_opt: [apparmor=unconfined]", "root"),
    ("security_opt: ['seccomp:./profile.json']", "root"),
    ("security_opt: ['label:disable']", "root"),
    ("security_opt: [systempaths=unconfined]", "root"),
    ("security_opt: [writable-cgroups=true]", "root"),
    ("runtime: sysbox", "root"),
    ("annotations: {run.oci.hooks.stdout: /etc/cron.d/x}", "root"),
    ("annotations: ['org.systemd.property.TimeoutStopUSec=1']", "root"),
    ("credential_spec: {file: /etc/shadow}", "root"),
    # ports and logs
    ("ports: ['8080:80', '80', '127.0.0.1:1024:80', {target: 80}]", "free"),
    ("ports: ['80:80']", "low_ports"),
    ("ports: ['[::1]:1023:80']", "low_ports"),
    ("ports: ['127.0.0.1:1000-1100:1000-1100/udp']", "low_ports"),
    ("ports: [{target: 80, published: '443'}]", "low_ports"),
    ("logging: {driver: json-file, options: {max-size: 1m}}", "free"),
    ("logging: {driver: syslog}", "free"),
    ("logging: {driver: syslog, options: {syslog-address: 'unix:///dev/log'}}", "free"),
    ("logging: {driver: fluentd, options: {fluentd-address: 'localhost:24224'}}", "free"),
    ("logging: {driver: syslog, options: {syslog-address: 'tcp://logs.example:514'}}", "logging"),
    ("logging: {driver: gelf, options: {gelf-address: 'udp://127.0.0.1.example:12201'}}", "logging"),
    ("logging: {driver: awslogs}", "logging"),
    ("logging: {driver: splunk, options: {splunk-url: 'https://logs.example'}}", "logging"),
    ("provider: {type: anything}", "never"),
]


def compose(said: str) -> dict[str, Any]:
    node = yaml.compose(said, Loader=yaml.SafeLoader)
    assert node is not None
    service = compose_source.plain(node)
    top = service.pop("top", {})
    return {"services": {"web": {"image": "busybox:stable", **service}}, **top}


@pytest.mark.parametrize(("said", "needs"), TABLE)
def test_each_row_of_the_table(said: str, needs: str) -> None:
    """Refused without its word, taken with it; `root` stands for all but what no role can have."""
    file = compose(said)
    found = host_access.refusals(file, PLACE, {})
    assert bool(found) is (needs != "free")
    for refusal in found:
        assert refusal.where.startswith("compose.yaml (")
        assert needs == "never" or f"access: {{{needs}: " in refusal.hint
    assert bool(host_access.refusals(file, PLACE, {"root": "x"})) is (needs == "never")
    if needs not in ("free", "never"):
        assert host_access.refusals(file, PLACE, {needs: "x"}) == []
        other = "sys" if needs != "sys" else "proc"
        assert host_access.refusals(file, PLACE, {other: "x"}) != []


def test_each_row_was_tried_and_the_page_names_what_can_be_declared() -> None:
    tried: set[Row] = set()
    for said, _ in TABLE:
        tried |= {host_table.row_of(use) for use in host_uses.uses(compose(said), PLACE)}
    assert [row.what for row in ROWS if row not in tried] == []
    words = {row.needs for row in ROWS if row.of_class == "declared"}
    assert words == {*host_table.WORDS, *host_table.CAPABILITIES} - {"root"}
    assert [word for word in words if f"`{word}`" not in PAGE] == []


def test_a_link_of_the_device_is_what_it_leads_to() -> None:
    links = {"/data/films": "/opt/fleet/state", "/data/films/a": "/etc", "/data/films/b": "/mnt/usb/films"}
    place = Place(**{**vars(PLACE), "real": lambda path: links.get(path, path)})

    def refused(path: str, **access: str) -> bool:
        return bool(host_access.refusals(compose(f"volumes: ['{path}:/x']"), place, access))

    assert refused("/data/films") and refused("/data/films", root="x"), "the agent's own: never"
    assert refused("/data/films/a") and not refused("/data/films/a", root="x")
    assert not refused("/data/films/b")


def test_a_mount_that_contains_the_agents_files_has_an_empty_folder_there() -> None:
    file = compose("volumes: [{type: bind, source: /, target: /host}, {type: volume, source: d, target: /d}]")
    file["volumes"] = {"d": {"driver_opts": {"o": "bind", "device": "/opt"}}}
    mounts = host_access.covered(file, PLACE.agent)["services"]["web"]["volumes"][2:]
    assert [(mount["type"], mount["target"]) for mount in mounts] == [
        ("tmpfs", "/host/opt/fleet"), ("tmpfs", "/host/etc/fleet"), ("tmpfs", "/d/fleet"),
    ]  # fmt: skip


#: Files of a role, and the kind of refusal; a device must not let Compose see them.
OUTSIDE: dict[str, tuple[Mapping[str, str], str]] = {
    "git": ({"compose.yaml": "include: ['git://127.0.0.1:9418/other/.git#main']\n"}, "outside_release"),
    "https": ({"compose.yaml": "include: ['https://h.example/x.git']\n"}, "outside_release"),
    "oci": ({"compose.yaml": "include: [{path: ['oci://h.example/x:1']}]\n"}, "outside_release"),
    "ssh": ({"compose.yaml": "include: ['git@h.example:x/y']\n"}, "outside_release"),
    "github": ({"compose.yaml": "include: [github.com/x/y]\n"}, "outside_release"),
    "absolute": ({"compose.yaml": "include: [/etc/compose.yaml]\n"}, "outside_release"),
    "above": ({"compose.yaml": "include: [../../../compose.yaml]\n"}, "outside_release"),
    "variable": ({"compose.yaml": "include: ['${GREETING}']\n"}, "outside_release"),
    "its env": (
        {
            "compose.yaml": "include: [{path: more.yaml, env_file: /root/.env}]\n",
            "more.yaml": "services: {}\n",
        },
        "outside_release",
    ),
    "second": (
        {"compose.yaml": "include: [more.yaml]\n", "more.yaml": "include: ['git://h/x']\nservices: {}\n"},
        "outside_release",
    ),
    "extends": ({"compose.yaml": "SERVICE    extends: {file: /etc/x.yaml, service: a}\n"}, "outside_release"),
    "extends below": (
        {
            "compose.yaml": "SERVICE    extends: {file: more.yaml, service: a}\n",
            "more.yaml": "services: {a: {image: 'busybox:stable', env_file: ~/.env}}\n",
        },
        "outside_release",
    ),
    "env_file": ({"compose.yaml": "SERVICE    env_file: [/root/.env]\n"}, "outside_release"),
    "env_file, long": ({"compose.yaml": "SERVICE    env_file: [{path: /x}]\n"}, "outside_release"),
    "label_file": ({"compose.yaml": "SERVICE    label_file: /etc/hostname\n"}, "outside_release"),
    "build": ({"compose.yaml": "SERVICE    build: {context: 'https://h/x.git'}\n"}, "outside_release"),
    "merged": (
        {"compose.yaml": "x-a: &a {env_file: /root/.env}\nSERVICE    <<: *a\n"}, "outside_release",
    ),
    "models": ({"compose.yaml": "models: {m: {model: ai/x}}\nSERVICE    models: [m]\n"}, "host_program"),
    "env_file's proxy": (
        {"compose.yaml": "SERVICE    env_file: own.env\n", "own.env": "A=b\nexport HTTPS_PROXY\n"},
        "environment_taken",
    ),
    "env_file's reference": (
        {"compose.yaml": "SERVICE    env_file: [{path: own.env}]\n", "own.env": "A=${DOCKER_AUTH_CONFIG}\n"},
        "environment_taken",
    ),
    "label_file's reference": (
        {"compose.yaml": "SERVICE    label_file: own.env\n", "own.env": 'A="$HOME"\n'}, "environment_taken",
    ),
    "an included env_file": (
        {
            "compose.yaml": "include: [{path: more.yaml, env_file: own.env}]\n",
            "more.yaml": "services: {}\n",
            "own.env": "PYTHONPATH\n",
        },
        "environment_taken",
    ),
    "provider": ({"compose.yaml": "SERVICE    provider: {type: sh}\n"}, "host_program"),
    "secret": ({"compose.yaml": "SERVICE    secrets: [k]\nsecrets: {k: {file: /root/x}}\n"}, "host_path"),
    "config": ({"compose.yaml": "SERVICE    configs: [k]\nconfigs: {k: {file: /etc/shadow}}\n"}, "host_path"),
    "mount": ({"compose.yaml": "SERVICE    volumes: ['../../../../etc:/x']\n"}, "host_path"),
    "proxy": ({"compose.yaml": "SERVICE    environment: [HTTP_PROXY]\n"}, "environment_taken"),
    "proxy, mapping": ({"compose.yaml": "SERVICE    environment: {https_proxy: }\n"}, "environment_taken"),
    "default": ({"compose.yaml": "SERVICE    command: '${DOCKER_AUTH_CONFIG:-x}'\n"}, "environment_taken"),
    "home": ({"compose.yaml": "SERVICE    labels: {a: $HOME}\n"}, "environment_taken"),
    "secret of it": (
        {"compose.yaml": "SERVICE    secrets: [k]\nsecrets: {k: {environment: DOCKER_AUTH_CONFIG}}\n"},
        "environment_taken",
    ),
}  # fmt: skip


def test_an_env_file_of_the_release_is_taken_by_the_check_and_the_device(tmp_path: Path) -> None:
    """Its lines are the service's variables; in single quotes a dollar sign is one."""
    folder = tmp_path / "roles" / "x"
    for text in (
        "SERVICE    env_file: own.env\n",
        "SERVICE    env_file: [{path: own.env, required: true}]\n",
    ):
        written({"compose.yaml": text, "own.env": "# A\nA=b\nexport B='$HOME'\nKEY='a\nb'\n"}, folder)
        source = compose_source.read(folder / "compose.yaml", inside=(folder,))
        assert source.refusals([]) == []
    written({"compose.yaml": "SERVICE    env_file: own.env\n", "own.env": "A=b\n"}, folder)
    assert "env_file" not in {finding.kind for finding in check_role(folder).findings}


def asked(*_: object) -> None:
    pytest.fail("Compose was asked")


SERVICE = "services:\n  web:\n    image: busybox:stable\n"


def written(files: Mapping[str, str], folder: Path) -> dict[str, str]:
    made = {}
    for name, said in files.items():
        text = said.replace("SERVICE", SERVICE)
        if name == "compose.yaml" and "services:" not in text:
            text = f"{text}{SERVICE}"
        made[name] = text
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "role.yaml").write_text(ROLE_YAML)
    return made


@pytest.mark.parametrize("what", OUTSIDE)
def test_only_what_was_signed_reaches_compose(what: str, tmp_path: Path) -> None:
    """Found by the check, and by what the device looks at before it starts Compose."""
    files, kind = OUTSIDE[what]
    folder = tmp_path / "roles" / "x"
    written(files, folder)
    source = compose_source.read(folder / "compose.yaml", inside=(folder, tmp_path / "roles" / "common"))
    found = source.refusals({"GREETING", "PASSWORD"})
    found += host_access.refusals(source.content, Place(str(folder), (str(tmp_path),)), {})
    assert {one.kind for one in found} == {kind}
    assert re.match(r"(compose.yaml|more.yaml|own.env)(, line \d+)?( \(|$)", found[0].where)


@pytest.mark.parametrize("what", ["git", "proxy", "secret", "extends below"])
def test_role_check_finds_it_without_compose(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, kind = OUTSIDE[what]
    folder = tmp_path / "roles" / "x"
    written(files, folder)
    if kind == "outside_release":
        monkeypatch.setattr(
            "fleetctl.role_check.compose.resolve", lambda *_: pytest.fail("Compose was asked")
        )
    assert kind in {finding.kind for finding in check_role(folder).findings if finding.level == "error"}


def test_role_check_judges_what_no_service_uses_as_devices_do(tmp_path: Path) -> None:
    """Compose leaves such a volume out of what it resolves."""
    folder = tmp_path / "roles" / "x"
    bound = "volumes: {data: {driver_opts: {type: none, o: bind, device: /}}}\n"
    written({"compose.yaml": f"SERVICE{bound}"}, folder)
    found = [finding.service for finding in check_role(folder).findings if finding.kind == "host_path"]
    assert found == ["volumes, data"]


@pytest.mark.parametrize("what", ["git", "secret", "home"])
def test_a_device_refuses_it_before_compose_runs(  # noqa: PLR0917  fixtures
    what: str,
    tmp_path: Path,
    root: Path,
    fleet: Fleet,
    dependencies: Dependencies,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, kind = OUTSIDE[what]
    release = fleet.release(f"outside {what}", edits=written(files, tmp_path / "x"))
    monkeypatch.setattr(SimulatedRuntime, "config", asked)
    status = api.converge(fleet.config(root), fleet.directive(release), dependencies=dependencies)
    assert status.error_kind == kind
    assert "compose.yaml" in (status.error or "")


def test_compose_itself_would_not_follow_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If our look misses one, it is switched off, and Compose has neither our home nor our proxy."""
    if find_compose() is None:
        pytest.fail("docker-compose is a dependency of fleetctl and is not installed")
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy")
    file = tmp_path / "compose.yaml"
    file.write_text(SERVICE + "    command: '${HTTP_PROXY:-none} ${DOCKER_AUTH_CONFIG:-none}'\n")
    runtime = ComposeRuntime(home=tmp_path / "home")
    assert runtime.config(tmp_path, {}, "x")["services"]["web"]["command"] == ["none", "none"]
    file.write_text("include: ['git://127.0.0.1:1/x.git']\n" + SERVICE)
    with pytest.raises(FleetError) as refused:
        runtime.config(tmp_path, {}, "x")
    assert refused.value.kind == Kind.COMPOSE_INVALID
    assert "disabled" in str(refused.value.evidence)
    shutil.rmtree(tmp_path / "home", ignore_errors=True)


def test_what_stays_inside_is_taken(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    files = {
        "compose.yaml": COMPOSE_YAML.format(behavior="")
        + "    env_file: [own.env]\n    ports: ['80:80']\n    volumes: ['/sys:/sys:ro']\n",
        "own.env": "A=b\n",
        "role.yaml": ROLE_YAML + "access: {low_ports: x, sys: y}\n",
    }
    release = fleet.release("inside", edits=files)
    status = api.converge(fleet.config(root), fleet.directive(release), dependencies=dependencies)
    assert (status.error, status.current) == (None, release)
