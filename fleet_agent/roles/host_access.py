"""What a release takes of the device beyond its own files, and what of that a role must declare.

`ROWS` is the one table. Each row has a class:

    free       as it is
    declared   needs its own word under `access:` in role.yaml, with a reason
    root       whoever has it is root on the device, as good as: needs `access: root`, with a reason
    never      the agent's own files: no role gets them

The first row that fits decides. What fits none (a device, capability, namespace, profile, or mount from
outside the release) is root. docs/usage/roles.md shows the table; `tests/attack/test_role.py` tries each row.

Pure: it looks at a compose file, resolved by Compose or as it was written, and at no disk.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleet_agent.errors import Kind
from fleet_agent.roles.refusal import Refusal


class Subject(StrEnum):
    """What a row is about. Paths are followed by ` (read-only)` or nothing."""

    DEVICE = "device"
    MOUNT = "mount"
    CAPABILITY = "capability"
    NAMESPACE = "namespace"
    PROFILE = "profile"
    NETWORK = "network"
    PORT = "port"
    LOGGING = "logging"
    PROGRAM = "program"


FREE, ROOT, NEVER = "free", "root", "never"
#: The words of `access:` besides the names of capabilities.
HOST_NETWORK, LOW_PORTS, SYS, PROC, LOGGING = "host_network", "low_ports", "sys", "proc", "logging"
WORDS = (HOST_NETWORK, LOW_PORTS, SYS, PROC, LOGGING, ROOT)
#: Capabilities that can be declared one by one; each reaches less than the whole device.
CAPABILITIES = (
    "AUDIT_READ", "BLOCK_SUSPEND", "IPC_LOCK", "IPC_OWNER", "LEASE", "LINUX_IMMUTABLE", "NET_ADMIN",
    "NET_BROADCAST", "SYSLOG", "SYS_NICE", "SYS_PACCT", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG",
    "WAKE_ALARM",
)  # fmt: skip
#: What every container has that does not drop it.
_DOCKERS_OWN = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the table: what fits `pattern` is of class `needs` (or of the word that declares it)."""

    subject: Subject
    pattern: str
    needs: str
    kind: Kind
    what: str

    @property
    def of_class(self) -> str:
        return self.needs if self.needs in (FREE, ROOT, NEVER) else "declared"


_RO = r" \(read-only\)"
_ANY = rf"({_RO})?"
_FREE_DEVICES = (
    r"/dev/(video|media|v4l-subdev)\d+|/dev/v4l(/.*)?",
    r"/dev/snd(/.*)?",
    r"/dev/serial/by-id(/.*)?",
    r"/dev/i2c-\d+",
    r"/dev/gpio(chip|mem)\d*",
    r"/dev/dri(/.*)?",
    r"/dev/dma_heap(/.*)?",
)
_FREE_NAMES = ("video and media", "sound", "serial by id", "i2c", "gpio", "graphics", "buffers for video")
_BLOCK_AND_MEMORY = (
    r"/dev/((sd|hd|vd|xvd|nvme|mmcblk|loop|dm-|md|sr|ram|zram|nbd|mtd|ubi|mapper/|disk/|block/).*"
    r"|mem|kmem|port|kmsg|cpu(/.*)?|watchdog.*)"
)
_SOCKETS = (
    r"(.*/)?(docker|containerd|podman|crio|buildkitd)[^/]*\.sock",
    r"/run/(docker|containerd|podman|crio|buildkit)(/.*)?",
)

ROWS: tuple[Row, ...] = (
    # mounts, and the files of secrets and configs
    *(
        Row(Subject.MOUNT, f"({pattern}){_ANY}", ROOT, Kind.DOCKER_SOCKET, "the socket of a container engine")
        for pattern in _SOCKETS
    ),
    Row(Subject.MOUNT, rf"/run/dbus(/.*)?{_ANY}|.*/system_bus_socket{_ANY}", ROOT, Kind.HOST_PATH, "D-Bus"),
    Row(Subject.MOUNT, rf"/run/udev(/.*)?{_RO}", FREE, Kind.HOST_PATH, "/run/udev, read-only"),
    Row(Subject.MOUNT, rf"/etc/(localtime|timezone){_RO}", FREE, Kind.HOST_PATH, "the time zone, read-only"),
    *(
        Row(Subject.MOUNT, f"({pattern}){_ANY}", FREE, Kind.HOST_PATH, f"devices: {name}")
        for pattern, name in zip(_FREE_DEVICES, _FREE_NAMES, strict=True)
    ),
    Row(
        Subject.MOUNT,
        rf"/proc/(\d+|self|thread-self|kcore|kallsyms|sysrq-trigger|keys|key-users)(/.*)?{_ANY}",
        ROOT, Kind.HOST_PATH, "other processes and the kernel, through /proc",
    ),
    Row(
        Subject.MOUNT, rf"/sys/(kernel/(debug|tracing|security)|firmware/efi)(/.*)?{_ANY}",
        ROOT, Kind.HOST_PATH, "the kernel's own doors, in /sys",
    ),
    Row(Subject.MOUNT, rf"/sys(/.*)?{_RO}", SYS, Kind.HOST_PATH, "/sys, read-only"),
    Row(Subject.MOUNT, rf"/proc(/.*)?{_RO}", PROC, Kind.HOST_PATH, "/proc, read-only"),
    Row(Subject.MOUNT, r"/(sys|proc)(/.*)?", ROOT, Kind.HOST_PATH, "/sys and /proc, writable"),
    Row(Subject.MOUNT, rf"/dev(/.*)?{_ANY}", ROOT, Kind.HOST_DEVICE, "/dev, whole, and other devices"),
    Row(
        Subject.MOUNT,
        rf"/|/ .*|/(etc|root|boot|bin|sbin|lib|lib32|lib64|libx32|usr)(/.*)?{_ANY}",
        ROOT, Kind.HOST_PATH, "the system itself: /, /etc, /root, /boot, programs",
    ),
    Row(
        Subject.MOUNT,
        rf"/(home|opt|run|var|var/lib|var/log|var/spool){_ANY}"
        rf"|/run/systemd(/.*)?{_ANY}|/var/(lib/(docker|containerd|containers|kubelet|systemd|dpkg|apt)"
        rf"|spool/cron)(/.*)?{_ANY}",
        ROOT, Kind.HOST_PATH, "folders of all programs, and those of the system's own",
    ),
    # devices
    *(
        Row(Subject.DEVICE, pattern, FREE, Kind.HOST_DEVICE, f"devices: {name}")
        for pattern, name in zip(_FREE_DEVICES, _FREE_NAMES, strict=True)
    ),
    Row(Subject.DEVICE, r"gpu|[\w.-]+/gpu=.*", FREE, Kind.HOST_DEVICE, "graphics cards of a driver"),
    Row(Subject.DEVICE, _BLOCK_AND_MEMORY, ROOT, Kind.HOST_DEVICE, "block and memory devices"),
    Row(Subject.DEVICE, r"/dev", ROOT, Kind.HOST_DEVICE, "/dev, whole"),
    Row(Subject.DEVICE, r"rule .*", ROOT, Kind.HOST_DEVICE, "device_cgroup_rules"),
    # capabilities
    Row(
        Subject.CAPABILITY, "|".join(_DOCKERS_OWN), FREE, Kind.CAPABILITY,
        "capabilities that every container has",
    ),
    *(Row(Subject.CAPABILITY, name, name, Kind.CAPABILITY, f"CAP_{name}") for name in CAPABILITIES),
    Row(
        Subject.CAPABILITY,
        "ALL|SYS_ADMIN|SYS_MODULE|SYS_PTRACE|SYS_RAWIO|SYS_BOOT|DAC_READ_SEARCH|BPF|PERFMON|MAC_ADMIN|MAC_OVERRIDE"
        "|AUDIT_CONTROL|CHECKPOINT_RESTORE",
        ROOT, Kind.CAPABILITY, "CAP_SYS_ADMIN and its like",
    ),
    Row(Subject.CAPABILITY, "privileged", ROOT, Kind.PRIVILEGED, "privileged"),
    # namespaces
    Row(
        Subject.NAMESPACE, r"\w+: (service:.*|none|private|shareable|)|network_mode: (bridge|default)",
        FREE, Kind.HOST_NAMESPACE, "namespaces of its own, or of its own services",
    ),
    Row(Subject.NAMESPACE, "network_mode: host", HOST_NETWORK, Kind.HOST_NETWORK, "the host's network"),
    Row(
        Subject.NAMESPACE, r"\w+: container:.*", ROOT, Kind.HOST_NAMESPACE,
        "namespaces of foreign containers",
    ),
    Row(
        Subject.NAMESPACE, "(pid|ipc|uts|userns_mode|cgroup|cgroup_parent): .*", ROOT, Kind.HOST_NAMESPACE,
        "the host's namespaces",
    ),
    # networks
    Row(Subject.NETWORK, "(bridge|overlay|none|)", FREE, Kind.HOST_NETWORK, "networks of its own"),
    Row(
        Subject.NETWORK, "host|macvlan.*|ipvlan.*", HOST_NETWORK, Kind.HOST_NETWORK,
        "networks that are the host's",
    ),
    Row(
        Subject.PORT, r"[1-9]\d{0,2}|10[01]\d|102[0-3]", LOW_PORTS, Kind.LOW_PORT, "ports below 1024",
    ),
    Row(Subject.PORT, r"\d+", FREE, Kind.LOW_PORT, "ports from 1024"),
    # profiles
    Row(
        Subject.PROFILE,
        r"no-new-privileges([:=]true)?|apparmor[:=]docker-default|seccomp[:=]builtin"
        r"|runtime: (runc|crun|io\.containerd\.runc\.v2|nvidia)"
        r"|sysctl: (net\..*|kernel\.(shm|msg|sem).*|fs\.mqueue\..*)",
        FREE, Kind.UNCONFINED, "Docker's own profiles, and stricter ones",
    ),
    Row(
        Subject.PROFILE, r".*unconfined.*|label[:=]disable|no-new-privileges[:=]false|systempaths.*",
        ROOT, Kind.UNCONFINED, "unconfined",
    ),
    Row(
        Subject.PROFILE, r"(runtime|sysctl|seccomp|apparmor|label).*", ROOT, Kind.UNCONFINED,
        "other profiles",
    ),
    # logs and programs
    Row(
        Subject.LOGGING,
        r"(json-file|local|journald|none|)|\S+ ((localhost|127\.[0-9.]+|\[::1\])(:\d+)?|/.*|)",
        FREE, Kind.FOREIGN_LOGGING, "logs that stay on the device",
    ),
    Row(Subject.LOGGING, r".*", LOGGING, Kind.FOREIGN_LOGGING, "logs that leave the device"),
    Row(Subject.PROGRAM, r".*", NEVER, Kind.HOST_PROGRAM, "programs of the device that Compose would start"),
)  # fmt: skip

_DEFAULT_KINDS = {
    Subject.DEVICE: Kind.HOST_DEVICE,
    Subject.MOUNT: Kind.HOST_PATH,
    Subject.CAPABILITY: Kind.CAPABILITY,
    Subject.NAMESPACE: Kind.HOST_NAMESPACE,
    Subject.PROFILE: Kind.UNCONFINED,
    Subject.NETWORK: Kind.HOST_NETWORK,
    Subject.PORT: Kind.LOW_PORT,
}
#: Drivers of logs that send somewhere, and the option with the address. `-`: to a service on the network.
_LOG_ADDRESSES = {"syslog": "syslog-address", "gelf": "gelf-address", "fluentd": "fluentd-address"}
_LOG_DRIVERS = ("", "json-file", "local", "journald", "none")


@dataclass(frozen=True)
class Use:
    """One thing that a service takes of the device: `value` of `key`, for example `/dev/sda` of `devices`."""

    subject: Subject
    service: str
    key: str
    value: str
    read_only: bool = False

    @property
    def fits(self) -> str:
        return f"{self.value} (read-only)" if self.read_only else self.value


@dataclass(frozen=True)
class Place:
    """Where a role's files are, and what paths mean there.

    `given`: the values of the device for variables of type `path`, which its owner chose. `agent`: the
    agent's own folders. `real` follows links on the device; without a device a path is what it says.
    """

    folder: str
    release: tuple[str, ...]
    given: tuple[str, ...] = ()
    agent: tuple[str, ...] = ()
    real: Callable[[str], str] = str


def row_of(use: Use) -> Row:
    """The row that decides."""
    for row in ROWS:
        if row.subject is use.subject and re.fullmatch(row.pattern, use.fits, re.S):
            return row
    return Row(use.subject, "", ROOT, _DEFAULT_KINDS[use.subject], "what is in no other row")


def refusals(
    compose: Mapping[str, Any],
    place: Place,
    access: Mapping[str, str],
    *,
    file: str = "compose.yaml",
) -> list[Refusal]:
    """What the file takes that the role neither declares nor can have."""
    return refused(uses(compose, place), place, access, file=file)


def refused(
    used: Iterable[Use], place: Place, access: Mapping[str, str], *, file: str = "compose.yaml"
) -> list[Refusal]:
    """What of these the role neither declares nor can have, each once."""
    found: dict[tuple[str, str, str], Refusal] = {}
    for use in used:
        row = _worst(use, place)
        if row.needs == FREE or row.needs in access or (ROOT in access and row.needs != NEVER):
            continue
        found.setdefault((use.service, use.key, use.value), _refusal(use, row, file))
    return list(found.values())


def needed(compose: Mapping[str, Any], place: Place) -> set[str]:
    """The words of `access:` that the file needs."""
    return {_worst(use, place).needs for use in uses(compose, place)} - {FREE, NEVER}


def uses(compose: Mapping[str, Any], place: Place) -> Iterator[Use]:
    """Everything that the services take of the device, in the short forms of a file and in the long."""
    for name, service in _mapping(compose.get("services")).items():
        if isinstance(service, Mapping):
            yield from _service(str(name), service, compose, place)
    for name, network in _mapping(compose.get("networks")).items():
        entry = _mapping(network)
        external = entry.get("external")
        full = str(_mapping(external).get("name") or entry.get("name") or name)
        is_hosts = full == "host" and (isinstance(external, Mapping) or _true(external))
        driver = "host" if is_hosts else str(entry.get("driver") or "")
        yield Use(Subject.NETWORK, f"networks, {name}", "driver", driver)
    for name, volume in _mapping(compose.get("volumes")).items():
        yield from volume_uses(
            str(name),
            str(_mapping(volume).get("driver") or ""),
            _mapping(_mapping(volume).get("driver_opts")),
        )


def volume_uses(name: str, driver: str, options: Mapping[str, Any]) -> Iterator[Use]:
    """What a named volume is, by its driver and options: also of one that is on the device already."""
    where = f"volumes, {name}"
    if driver not in ("", "local"):
        yield Use(Subject.MOUNT, where, "driver", f"driver {driver}")
        return
    kind, device = str(options.get("type") or ""), str(options.get("device") or "")
    flags = str(options.get("o") or "").split(",")
    if kind == "tmpfs" or not (kind or device or options.get("o")):
        return
    if {"bind", "rbind"} & set(flags) or kind in ("bind", "none"):
        yield Use(Subject.MOUNT, where, "driver_opts", device, "ro" in flags)
    else:
        yield Use(Subject.MOUNT, where, "driver_opts", f"{kind or 'a file system'} {device}".strip())


def _service(
    name: str, service: Mapping[str, Any], compose: Mapping[str, Any], place: Place
) -> Iterator[Use]:
    yield from _mounts(name, service, compose, place)
    yield from _devices(name, service)
    if _true(service.get("privileged")):
        yield Use(Subject.CAPABILITY, name, "privileged", "privileged")
    for key in ("post_start", "pre_stop"):
        for hook in _list(service.get(key)):
            if isinstance(hook, Mapping) and _true(hook.get("privileged")):
                yield Use(Subject.CAPABILITY, name, key, "privileged")
    for capability in _list(service.get("cap_add")):
        yield Use(Subject.CAPABILITY, name, "cap_add", str(capability).upper().removeprefix("CAP_"))
    yield from _namespaces_and_profiles(name, service)
    if service.get("provider"):
        yield Use(Subject.PROGRAM, name, "provider", str(_mapping(service["provider"]).get("type") or ""))
    for port in _list(service.get("ports")):
        yield from _port(name, port)
    if service.get("logging"):
        yield _logging(name, _mapping(service["logging"]))


def _namespaces_and_profiles(name: str, service: Mapping[str, Any]) -> Iterator[Use]:
    for key in ("network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup", "cgroup_parent"):
        if service.get(key) not in (None, ""):
            yield Use(Subject.NAMESPACE, name, key, f"{key}: {service[key]}")
    for other in _list(service.get("volumes_from")):
        if str(other).startswith("container:"):
            yield Use(Subject.NAMESPACE, name, "volumes_from", f"volumes_from: {other}")
    for option in _list(service.get("security_opt")):
        yield Use(Subject.PROFILE, name, "security_opt", str(option))
    if service.get("runtime"):
        yield Use(Subject.PROFILE, name, "runtime", f"runtime: {service['runtime']}")
    for sysctl in _names(service.get("sysctls")):
        yield Use(Subject.PROFILE, name, "sysctls", f"sysctl: {sysctl}")


def _mounts(name: str, service: Mapping[str, Any], compose: Mapping[str, Any], place: Place) -> Iterator[Use]:
    if _true(service.get("use_api_socket")):
        yield Use(Subject.MOUNT, name, "use_api_socket", "/run/docker.sock")
    for mount in _list(service.get("volumes")):
        if isinstance(mount, Mapping):
            yield from _long_mount(name, mount, place)
            continue
        source, colon, rest = str(mount).partition(":")
        if colon and source.startswith(("/", ".", "~")):
            options = rest.rpartition(":")[2].split(",")
            if not _inside(source, place) or _shared(options):
                yield Use(Subject.MOUNT, name, "volumes", _path(source, place), "ro" in options)
    for section in ("secrets", "configs"):
        declared = _mapping(compose.get(section))
        for used in _list(service.get(section)):
            source = str(used.get("source") if isinstance(used, Mapping) else used)
            file = str(_mapping(declared.get(source)).get("file") or "")
            if file and not _inside(file, place):
                yield Use(Subject.MOUNT, name, f"{section}, {source}", _path(file, place), True)


def _long_mount(name: str, mount: Mapping[str, Any], place: Place) -> Iterator[Use]:
    kind, source = str(mount.get("type") or ""), str(mount.get("source") or "")
    propagation = str(_mapping(mount.get("bind")).get("propagation") or "")
    if kind in ("volume", "tmpfs", "image"):
        return
    if kind != "bind":
        yield Use(Subject.MOUNT, name, "volumes", f"{kind} {source}".strip())
    elif _shared([propagation]):
        yield Use(Subject.MOUNT, name, "volumes", f"{propagation} {source}")
    elif not _inside(source, place):
        yield Use(Subject.MOUNT, name, "volumes", _path(source, place), _true(mount.get("read_only")))


def covered(compose: Mapping[str, Any], agent: Sequence[str]) -> dict[str, Any]:
    """A resolved file in which the agent's own folders are empty wherever a mount contains them.

    Whoever may mount `/` is root, but does not come upon the device's key by searching its files.
    """
    volumes = _mapping(compose.get("volumes"))
    services = {}
    for name, service in _mapping(compose.get("services")).items():
        mounts = _list(service.get("volumes"))
        covers = [
            {
                "type": "tmpfs",
                "target": posixpath.join(str(mount.get("target")), posixpath.relpath(own, source)),
            }
            for mount in mounts
            if (source := _bound_to(mount, volumes))
            for own in agent
            if own != source and _below(own, source)
        ]
        services[name] = {**service, "volumes": [*mounts, *covers]} if covers else service
    return {**compose, "services": services}


def _bound_to(mount: Any, volumes: Mapping[str, Any]) -> str:
    """The path of the device that a mount of the long form has; empty if none."""
    entry = _mapping(mount)
    source = str(entry.get("source") or "")
    if entry.get("type") == "volume":
        source = str(_mapping(_mapping(volumes.get(source)).get("driver_opts")).get("device") or "")
    elif entry.get("type") != "bind":
        source = ""
    return _normal(source) if source.startswith("/") else ""


def _shared(options: Sequence[str]) -> bool:
    """Whether what a container mounts there would be mounted on the device, too."""
    return bool({"shared", "rshared"} & set(options))


def _devices(name: str, service: Mapping[str, Any]) -> Iterator[Use]:
    for device in _list(service.get("devices")):
        source = str(device.get("source") if isinstance(device, Mapping) else device)
        if source.startswith("/"):
            source = _normal(source.partition(":")[0])
        yield Use(Subject.DEVICE, name, "devices", source)
    for rule in _list(service.get("device_cgroup_rules")):
        yield Use(Subject.DEVICE, name, "device_cgroup_rules", f"rule {rule}")
    reserved = _mapping(_mapping(_mapping(service.get("deploy")).get("resources")).get("reservations"))
    for device in [*_list(reserved.get("devices")), *_list(service.get("gpus"))]:
        entry = _mapping(device)
        gpu = not entry or "gpu" in [str(one) for one in _list(entry.get("capabilities"))]
        ids = [str(one) for one in _list(entry.get("device_ids"))]
        by_name = [one for one in ids if "=" in one or str(entry.get("driver")) == "cdi"]
        for value in by_name or ["gpu" if gpu else f"driver {entry.get('driver')}"]:
            yield Use(Subject.DEVICE, name, "devices of a driver", value)


def _port(name: str, port: Any) -> Iterator[Use]:
    if isinstance(port, Mapping):
        published = str(port.get("published") or "")
    else:
        before = str(port).rpartition(":")[0]
        published = before.rpartition(":")[2]
    first = published.partition("-")[0]
    if re.fullmatch(r"[0-9]{1,5}", first):
        yield Use(Subject.PORT, name, "ports", str(int(first)))


def _logging(name: str, logging: Mapping[str, Any]) -> Use:
    driver = str(logging.get("driver") or "")
    value = driver
    if driver not in _LOG_DRIVERS:
        options = _mapping(logging.get("options"))
        option = _LOG_ADDRESSES.get(driver)
        # Without an address these speak to this device; an unknown driver may speak to anyone.
        address = str(options.get(option) or "") if option else "elsewhere"
        value = f"{driver} {re.sub(r'^[a-z+]+://', '', address)}"
    return Use(Subject.LOGGING, name, "logging", value)


def _worst(use: Use, place: Place) -> Row:
    """The row of a path and of what it leads to on the device."""
    row = row_of(use)
    if use.subject is not Subject.MOUNT or not use.value.startswith("/"):
        return row
    real = _normal(place.real(use.value))
    if any(_below(path, own) for path in (use.value, real) for own in place.agent):
        return Row(Subject.MOUNT, "", NEVER, Kind.HOST_PATH, "the agent's own files")
    if row.needs == FREE:
        return row
    if real != use.value:
        there = row_of(Use(use.subject, use.service, use.key, real, use.read_only))
        row = there if there.pattern or not row.pattern else row
    # In no row: the owner of the device may have named this folder.
    if not row.pattern and any(_below(use.value, given) for given in _givable(place)):
        return Row(Subject.MOUNT, "", FREE, Kind.HOST_PATH, "a folder that the device's owner named")
    return row


def _givable(place: Place) -> list[str]:
    """The paths that the owner named, without those of the table: below `/` is everything."""
    paths = [_normal(path) for path in place.given]
    return [path for path in paths if not row_of(Use(Subject.MOUNT, "", "", path)).pattern]


def _refusal(use: Use, row: Row, file: str) -> Refusal:
    mode = ", read-only" if use.read_only else ""
    taken = f"it takes {use.value}{mode}"
    if row.needs == NEVER:
        return Refusal(
            row.kind, _where(use, file), f"{taken}: {row.what}, which no role can have.",
            "Remove it.", use.service,
        )  # fmt: skip
    if row.needs == ROOT:
        why = f"{taken}: {row.what}, which is as good as root on the device."
    else:
        why = f"{taken}: {row.what}, which the role does not declare."
    return Refusal(
        row.kind, _where(use, file), why,
        f"Do without it, or declare it in role.yaml: access: {{{row.needs}: the reason}}.", use.service,
    )  # fmt: skip


def _where(use: Use, file: str) -> str:
    return f"{file} ({use.service}, {use.key})"


def _path(source: str, place: Place) -> str:
    """An absolute path without detours; `~` is a home of the device."""
    if source.startswith("~"):
        return _normal(f"/root/{source.partition('/')[2]}")
    return _normal(posixpath.join(place.folder, source))


def _normal(path: str) -> str:
    path = posixpath.normpath("/" + path.lstrip("/"))
    # A link on every device.
    return re.sub(
        r"^/var/(run|lock)(?=/|$)", lambda found: "/run" if found[1] == "run" else "/run/lock", path
    )


def _inside(source: str, place: Place) -> bool:
    if source.startswith("~"):
        return False
    path = posixpath.normpath(posixpath.join(place.folder, source))
    return any(_below(path, folder) for folder in place.release)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    """A list; of a mapping or text the only item, and of nothing none."""
    if value is None or value == "":
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def _names(value: Any) -> Iterator[str]:
    """The names in a mapping, or in a list of `name=value`."""
    if isinstance(value, Mapping):
        yield from (str(name) for name in value)
    else:
        yield from (str(item).partition("=")[0] for item in _list(value))


def _true(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "yes", "on", "1")
