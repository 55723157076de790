"""The device's own configuration: one small JSON file that a person or an installer writes.

A value in the file takes precedence over what the control plane sends (`poll_interval_s`, `labels`).
Everything else about a device (role, segment, pin) belongs to the control plane and is not in the file.
"""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

from loguru import logger
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.errors import ConfigError, FleetError, config_invalid, config_missing

#: 256 MiB: room for the release's export, the journal and the logs; images are checked by the engine.
DEFAULT_MIN_FREE_BYTES = 256 * 1024 * 1024


def _without_nul(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("must not contain a NUL character")
    return path


#: pydantic accepts a path that the system calls refuse.
FilePath = Annotated[Path, AfterValidator(_without_nul)]
LabelName = Annotated[str, StringConstraints(min_length=1, max_length=63)]
LabelValue = Annotated[str, StringConstraints(max_length=255)]


_PUBLISHABLE_KEY = re.compile(r"sb_publishable_[A-Za-z0-9_-]+")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_USER = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)
_SCP_LIKE = re.compile(r"([^@/:]+)@([^@/:]+):([^:].*)")
_NOT_ONE = "its user, host or path is not one"
_SCHEMES = ("file", "https", "http", "ssh", "git")


def git_url_problem(url: str) -> str | None:
    """Why releases are not fetched from `url`, or None.

    Nothing in it can become an option of a program that Git starts. Plain http only to this machine: content
    is signed, but which release a device is offered would be readable.
    """
    # Git decodes an address before it takes it apart.
    if not all(text.isprintable() and not set(text) & set('"\\') for text in (url, unquote(url))):
        return "it contains characters that are not allowed"
    if url.startswith("/"):
        return None
    if (scp_like := _SCP_LIKE.fullmatch(url)) is not None:
        user, host, path = scp_like.groups()
        sound = _USER.fullmatch(user) and _HOST.fullmatch(host) and not path.startswith("-")
        return None if sound else _NOT_ONE
    scheme, found, rest = url.partition("://")
    if not found or scheme not in _SCHEMES:
        return "it must be a path or an address with https://, ssh://, git:// or file://"
    return _place_problem(url, scheme, rest.partition("/")[0])


def _role_of_key(key: str) -> str:
    """The role that a legacy key, which is a JWT, stands for; empty for anything else."""
    try:
        _, claims, _ = key.split(".")
        role = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["role"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return str(role)


def _place_problem(url: str, scheme: str, place: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, user, _ = parts.hostname or "", parts.username, parts.port
    except ValueError:
        return "it is not an address"
    if scheme == "file":
        return None if host in ("", "localhost") else "a file must be on this machine"
    if scheme == "http" and host not in _LOOPBACK:
        return "plain http is for this machine only; it must be https"
    options = scheme in ("ssh", "git") and ("%" in place or (user and not _USER.fullmatch(user)))
    return _NOT_ONE if options or not _HOST.fullmatch(host) else None


class RescueAccess(BaseModel):
    """ssh by key while the device is in safe mode. `authorized_keys` is sshd's file of public keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    authorized_keys: FilePath = Field(description="File with the public keys that may sign in.")
    port: int = Field(default=2222, ge=1, le=65535, description="Port that is open while in safe mode.")
    user: str = Field(
        default="root", pattern=r"^[a-z_][a-z0-9_-]{0,31}$", description="User that the keys sign in as."
    )

    def __str__(self) -> str:
        return f"port {self.port} for {self.user} with the keys in {self.authorized_keys}"

    def describe(self) -> str:
        """For the safe-mode page and the reported reason."""
        return f"ssh is open on {self}"


class DeviceConfig(BaseModel):
    """`device.json`. Unknown keys are refused, so that a misspelled key is not silently a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    api_url: str = Field(description="Address of the control plane, such as https://abc.supabase.co.")
    publishable_key: str = Field(description="The project's public key (`sb_publishable_…` or the anon key).")
    git_url: str = Field(description="The fleet repository that releases are fetched from.")
    allowed_signers: FilePath | None = Field(
        default=None,
        description="OpenSSH allowed_signers file; commits signed by anyone else are refused. "
        "Required while `verify_signatures` is true. A relative path starts at this file's folder.",
    )
    verify_signatures: bool = Field(
        default=True,
        description="`false` runs unsigned commits: anyone who can push can then run code on the device.",
    )
    fleet_id: UUID | None = Field(
        default=None,
        description="The fleet that this device belongs to, as in `roles/common/fleet.json`; a release of "
        "any other is refused. Empty means the fleet of the first release that it verified.",
    )
    refuse_older_releases: bool = Field(
        default=False,
        description="`true` refuses a release that was committed more than a day before the one that runs, "
        "unless this device ran it before.",
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        description="Name to request at enrollment; empty means the host name.",
    )
    runtime: Literal["auto", "docker", "simulated"] = Field(
        default="auto", description="Container runtime; `auto` uses Docker if an engine answers."
    )
    project: str = Field(
        default="fleet",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="Compose project; each agent on a machine needs its own.",
    )
    poll_interval_s: int | None = Field(
        default=None,
        ge=1,
        le=7 * 86400,
        description="Seconds between two polls, overriding the control plane's interval.",
    )
    isolated_after_s: int = Field(
        default=3600,
        ge=1,
        le=30 * 86400,
        description="Seconds of unanswered check-ins after which the device is isolated.",
    )
    wake: bool = Field(
        default=True, description="Keep a Realtime subscription; polling continues either way."
    )
    labels: dict[LabelName, LabelValue] = Field(
        default_factory=dict,
        max_length=32,
        description="Labels of this device; each one overrides the server's label with the same name.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level that is logged to standard error."
    )
    min_free_bytes: int = Field(
        default=DEFAULT_MIN_FREE_BYTES,
        ge=0,
        description="Bytes of free disk space that an update must leave.",
    )
    rescue_access: RescueAccess | None = Field(
        default=None,
        description="ssh with a key while in safe mode; `fleet-agent install` applies it. Empty means off.",
    )

    @field_validator("api_url")
    @classmethod
    def _api_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// address")
        if parts.query or parts.fragment or parts.username:
            raise ValueError("must be a plain address, without user, query or fragment")
        return value.rstrip("/")

    @field_validator("publishable_key")
    @classmethod
    def _publishable_key(cls, value: str) -> str:
        if value.startswith("sb_secret_"):
            raise ValueError("must be the publishable key; this is a secret key")
        if not (_PUBLISHABLE_KEY.fullmatch(value) or _role_of_key(value) == "anon"):
            raise ValueError("must be the project's publishable key, which begins with sb_publishable_")
        return value

    @field_validator("git_url")
    @classmethod
    def _git_url(cls, value: str) -> str:
        problem = git_url_problem(value)
        if problem is not None:
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _signers_are_named(self) -> Self:
        if self.verify_signatures and self.allowed_signers is None:
            raise ValueError(
                "allowed_signers must name a file while verify_signatures is true; "
                "set verify_signatures to false to run unsigned commits on purpose"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether the control plane is on this machine (tests, the demo)."""
        return urlsplit(self.api_url).hostname in ("127.0.0.1", "localhost", "::1")


def parse(text: bytes | str, *, source: Path) -> DeviceConfig:
    """Parse a configuration. Raises ConfigError; its sentence names every wrong key."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise _invalid(source, f"it is not JSON ({error})") from error
    except RecursionError as error:
        raise _invalid(source, "it is nested too deeply") from error
    if not isinstance(raw, dict):
        raise _invalid(source, "it must contain one JSON object")
    try:
        return DeviceConfig.model_validate(raw)
    except PydanticValidationError as error:
        raise _invalid(source, "; ".join(_problem(item) for item in _problems(error))) from error


def load(path: Path) -> DeviceConfig:
    """Read and check the configuration file. Raises ConfigError (`config_missing`, `config_invalid`)."""
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        hint = "Create it (docs/usage/agent.md lists the keys), or name another file with --config."
        raise config_missing(path, error.strerror, hint=hint) from error
    except OSError as error:
        raise config_missing(path, error.strerror, hint="Check its owner and mode.") from error
    config = parse(text, source=path)
    # Relative to the file, not to the current folder.
    if config.allowed_signers is not None and not config.allowed_signers.is_absolute():
        absolute = (path.parent / config.allowed_signers).resolve()
        config = config.model_copy(update={"allowed_signers": absolute})
    access = config.rescue_access
    if access is not None and not access.authorized_keys.is_absolute():
        # Not resolved: in the tree of an image a link leads elsewhere.
        absolute = Path(os.path.normpath(path.parent / access.authorized_keys))
        access = access.model_copy(update={"authorized_keys": absolute})
        config = config.model_copy(update={"rescue_access": access})
    return config


@dataclass
class ConfigFile:
    """The configuration in force, and the file it is re-read from when that changes.

    A bad change keeps the old configuration; `config_error` says what is wrong until the file is good again.
    """

    path: Path
    current: DeviceConfig
    config_error: ConfigError | None = None
    _seen: tuple[int, int, int] | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path) -> ConfigFile:
        """Load `path`. Raises ConfigError."""
        seen = _fingerprint(path)
        return cls(path, load(path), None, seen)

    def reload_if_changed(self) -> bool:
        """Re-read the file when it changed; return whether a new configuration is in force."""
        fingerprint = _fingerprint(self.path)
        if fingerprint == self._seen:
            return False
        self._seen = fingerprint
        try:
            fresh = load(self.path)
        except ConfigError as error:
            self.config_error = error
            logger.error("the old configuration stays in effect: {error}", error=error)
            return False
        self.config_error = None
        if fresh == self.current:
            return False
        changed = sorted(
            name for name in DeviceConfig.model_fields if getattr(fresh, name) != getattr(self.current, name)
        )
        self.current = fresh
        logger.info("configuration reloaded; changed: {keys}", keys=", ".join(changed))
        return True


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def _problems(error: PydanticValidationError) -> list[dict[str, Any]]:
    # Without the values: a key pasted into the wrong place must not reach the log.
    return [dict(item) for item in error.errors(include_input=False, include_url=False)]


def _problem(item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"`{key}` is not a known key"
    if item["type"] == "missing":
        return f"`{key}` is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"`{key}`: {message}" if key else message


def _invalid(source: Path, why: str) -> FleetError:
    hint = "docs/usage/agent.md lists every key; `fleet-agent validate-config` checks the file."
    return config_invalid(source, why, hint=hint)
