"""What the services of a compose file take of the device, in the short forms of a file and in the long.

Pure: it reads a compose file, resolved by Compose or as it was written, and looks at no disk. `host_table`
says what of this a role may have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fleet_agent.roles.host_paths import Place, normal
from fleet_agent.roles.host_table import Subject, Use

#: Drivers of logs that send somewhere, and the option with the address.
_LOG_ADDRESSES = {"syslog": "syslog-address", "gelf": "gelf-address", "fluentd": "fluentd-address"}
_LOG_DRIVERS = ("", "json-file", "local", "journald", "none")


def uses(compose: Mapping[str, Any], place: Place) -> Iterator[Use]:
    """Everything that the file takes of the device."""
    for name, service in mapping(compose.get("services")).items():
        if isinstance(service, Mapping):
            yield from _service(str(name), service, compose, place)
    for name, network in mapping(compose.get("networks")).items():
        entry = mapping(network)
        external = entry.get("external")
        full = str(mapping(external).get("name") or entry.get("name") or name)
        is_hosts = full == "host" and (isinstance(external, Mapping) or _true(external))
        # A bridge that has a name may be one of the host's, with its own network behind it.
        named = "com.docker.network.bridge.name" in mapping(entry.get("driver_opts"))
        driver = "host" if is_hosts or named else str(entry.get("driver") or "")
        yield Use(Subject.NETWORK, f"networks, {name}", "driver", driver)
    for name, volume in mapping(compose.get("volumes")).items():
        yield from volume_uses(
            str(name),
            str(mapping(volume).get("driver") or ""),
            mapping(mapping(volume).get("driver_opts")),
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
        for hook in listed(service.get(key)):
            if isinstance(hook, Mapping) and _true(hook.get("privileged")):
                yield Use(Subject.CAPABILITY, name, key, "privileged")
    for capability in listed(service.get("cap_add")):
        yield Use(Subject.CAPABILITY, name, "cap_add", str(capability).upper().removeprefix("CAP_"))
    yield from _namespaces_and_profiles(name, service)
    if service.get("provider"):
        yield Use(Subject.PROGRAM, name, "provider", str(mapping(service["provider"]).get("type") or ""))
    for port in listed(service.get("ports")):
        yield from _port(name, port)
    if service.get("logging"):
        yield _logging(name, mapping(service["logging"]))


def _namespaces_and_profiles(name: str, service: Mapping[str, Any]) -> Iterator[Use]:
    for key in ("network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup", "cgroup_parent"):
        if service.get(key) not in (None, ""):
            yield Use(Subject.NAMESPACE, name, key, f"{key}: {service[key]}")
    for other in listed(service.get("volumes_from")):
        if str(other).startswith("container:"):
            yield Use(Subject.NAMESPACE, name, "volumes_from", f"volumes_from: {other}")
    for option in listed(service.get("security_opt")):
        yield Use(Subject.PROFILE, name, "security_opt", str(option))
    if service.get("runtime"):
        yield Use(Subject.PROFILE, name, "runtime", f"runtime: {service['runtime']}")
    if service.get("credential_spec"):
        yield Use(Subject.PROFILE, name, "credential_spec", "credential_spec")
    for annotation in _names(service.get("annotations")):
        yield Use(Subject.PROFILE, name, "annotations", f"annotation: {annotation}")
    for sysctl in _names(service.get("sysctls")):
        yield Use(Subject.PROFILE, name, "sysctls", f"sysctl: {sysctl}")


def _mounts(name: str, service: Mapping[str, Any], compose: Mapping[str, Any], place: Place) -> Iterator[Use]:
    if _true(service.get("use_api_socket")):
        yield Use(Subject.MOUNT, name, "use_api_socket", "/run/docker.sock")
    for mount in listed(service.get("volumes")):
        if isinstance(mount, Mapping):
            yield from _long_mount(name, mount, place)
            continue
        source, colon, rest = str(mount).partition(":")
        if colon and source.startswith(("/", ".", "~")):
            options = rest.rpartition(":")[2].split(",")
            if not place.is_inside(source) or _shared(options):
                yield Use(Subject.MOUNT, name, "volumes", place.path(source), "ro" in options)
    for section in ("secrets", "configs"):
        declared = mapping(compose.get(section))
        for used in listed(service.get(section)):
            source = str(used.get("source") if isinstance(used, Mapping) else used)
            file = str(mapping(declared.get(source)).get("file") or "")
            if file and not place.is_inside(file):
                yield Use(Subject.MOUNT, name, f"{section}, {source}", place.path(file), True)


def _long_mount(name: str, mount: Mapping[str, Any], place: Place) -> Iterator[Use]:
    kind, source = str(mount.get("type") or ""), str(mount.get("source") or "")
    bind = mapping(mount.get("bind"))
    propagation = str(bind.get("propagation") or "")
    # `writable`: what is mounted below stays writable.
    read_only = _true(mount.get("read_only")) and str(bind.get("recursive") or "") != "writable"
    if kind in ("volume", "tmpfs", "image"):
        return
    if kind != "bind":
        yield Use(Subject.MOUNT, name, "volumes", f"{kind} {source}".strip())
    elif _shared([propagation]):
        yield Use(Subject.MOUNT, name, "volumes", f"{propagation} {source}")
    elif not place.is_inside(source):
        yield Use(Subject.MOUNT, name, "volumes", place.path(source), read_only)


def _shared(options: Sequence[str]) -> bool:
    """Whether what a container mounts there would be mounted on the device, too."""
    return bool({"shared", "rshared"} & set(options))


def _devices(name: str, service: Mapping[str, Any]) -> Iterator[Use]:
    for device in listed(service.get("devices")):
        source = str(device.get("source") if isinstance(device, Mapping) else device)
        if source.startswith("/"):
            source = normal(source.partition(":")[0])
        yield Use(Subject.DEVICE, name, "devices", source)
    for rule in listed(service.get("device_cgroup_rules")):
        yield Use(Subject.DEVICE, name, "device_cgroup_rules", f"rule {rule}")
    reserved = mapping(mapping(mapping(service.get("deploy")).get("resources")).get("reservations"))
    for device in [*listed(reserved.get("devices")), *listed(service.get("gpus"))]:
        entry = mapping(device)
        gpu = not entry or "gpu" in [str(one) for one in listed(entry.get("capabilities"))]
        ids = [str(one) for one in listed(entry.get("device_ids"))]
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
        options = mapping(logging.get("options"))
        option = _LOG_ADDRESSES.get(driver)
        # Without an address these speak to this device; an unknown driver may speak to anyone.
        address = str(options.get(option) or "") if option else "elsewhere"
        value = f"{driver} {re.sub(r'^[a-z+]+://', '', address)}"
    return Use(Subject.LOGGING, name, "logging", value)


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping; of anything else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> Sequence[Any]:
    """A list; of a mapping or text the only item, and of nothing none."""
    if value is None or value == "":
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def _names(value: Any) -> Iterator[str]:
    """The names in a mapping, or in a list of `name=value`."""
    if isinstance(value, Mapping):
        yield from (str(name) for name in value)
    else:
        yield from (str(item).partition("=")[0] for item in listed(value))


def _true(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "yes", "on", "1")
