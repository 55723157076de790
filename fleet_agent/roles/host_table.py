"""The table of what a release can take of the device beyond its own files, and what of that it must declare.

Each row of `ROWS` has a class:

    free       as it is
    declared   needs its own word under `access:` in role.yaml, with a reason
    root       whoever has it is root on the device, as good as: needs `access: root`, with a reason
    never      the agent's own files: no role gets them

The first row that fits decides. What fits none (a device, capability, namespace, profile, or mount from
outside the release) is root. docs/usage/roles.md shows the table; `tests/attack/test_role.py` tries each row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from fleet_agent.errors import Kind


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
        Subject.PROFILE, r"(runtime|sysctl|seccomp|apparmor|label|annotation|credential_spec).*",
        ROOT, Kind.UNCONFINED, "other profiles, and words for the runtime",
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


def row_of(use: Use) -> Row:
    """The row that decides."""
    for row in ROWS:
        if row.subject is use.subject and re.fullmatch(row.pattern, use.fits, re.S):
            return row
    return Row(use.subject, "", ROOT, _DEFAULT_KINDS[use.subject], "what is in no other row")
