"""A compose file as it was signed: read within bounds, and followed to each file that it is continued in.

Compose itself follows `include` to other hosts, and a kilobyte of nested aliases keeps it busy for half an
hour. So this looks first, without Compose: nothing that leads out of the release, takes something of the
agent's own environment, or is too costly to read gets that far.

    source = compose_source.read(role.compose_file, inside=(role.folder, common))
    refuse(source.refusals(declared))
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fleet_agent import errors
from fleet_agent.errors import FleetError, Kind, ValidationError
from fleet_agent.roles.references import Reference, replaced
from fleet_agent.roles.refusal import Refusal
from fleet_agent.roles.schema import DEPTH_LIMIT, BoundedLoader
from fleet_agent.roles.variables import PROVIDED, reserved

FILE_LIMIT_BYTES = 256 * 1024
#: With every alias written out, of all files together; a large stack has a few thousand.
NODES_LIMIT = 50_000
#: Through how many files it may go.
FILES_LIMIT = 30
_NAMES = re.compile(r"\$(?:\$|\{?([A-Za-z_]\w*))")
#: Of the environment of agents and shells, though a role may declare a variable of this name.
_OF_THE_AGENT = re.compile(r"(HTTPS?|NO|ALL|FTP)_PROXY|SSL_CERT_(FILE|DIR)|XDG_.*|PYTHON.*", re.I)
#: What Compose fetches from another host, in any of its notations.
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*:.*|github\.com/.*|[^/@]*@[^/]*:.*", re.I | re.S)


@dataclass(frozen=True)
class Source:
    """A compose file and all that it is continued in. `content` is plain data, with scalars as text."""

    file: Path
    content: Any
    text: str
    _refusals: list[Refusal] = field(default_factory=list)
    _used: dict[str, str] = field(default_factory=dict)
    _passed: dict[str, str] = field(default_factory=dict)

    def refusals(self, declared: Collection[str]) -> list[Refusal]:
        """What must not reach Compose, where a role declares these variables."""
        return [*self._refusals, *self._taken(declared)]

    def _taken(self, declared: Collection[str]) -> Iterator[Refusal]:
        known = {*declared, *PROVIDED}
        for name, where in {**self._used, **self._passed}.items():
            if name in known:
                continue
            if is_the_agents(name):
                yield Refusal(
                    Kind.ENVIRONMENT_TAKEN,
                    where,
                    f"it takes {name}, which is not the role's but of the agent's own environment.",
                    "Declare a variable of the role for it, of another name if this one is reserved; "
                    "write $$ for a dollar sign.",
                )
            elif name in self._passed:
                yield Refusal(
                    Kind.VARIABLE_MISSING,
                    where,
                    f"it takes {name}, which the role does not declare.",
                    "Declare it in role.yaml.",
                )


def read(file: Path, *, inside: Sequence[Path], name: str = "compose.yaml") -> Source:
    """Read a compose file and follow it. What it is continued in must be below one of `inside`.

    Raises ValidationError: `compose_invalid` if it is not YAML, `compose_too_costly`.
    """
    reader = _Reader(tuple(folder.resolve() for folder in inside))
    text, root = reader.open(file, name)
    source = Source(file, plain(root), text, reader.refusals, reader.used, reader.passed)
    reader.follow(file, name, root)
    return source


def is_the_agents(name: str) -> bool:
    """Whether a variable of this name is the agent's own, unless a role declares it."""
    return _OF_THE_AGENT.fullmatch(name) is not None or reserved(name)


def plain(node: yaml.Node) -> Any:
    """A node as plain data: scalars are text, except null and booleans. Merges (`<<`) are made."""
    if isinstance(node, yaml.MappingNode):
        return {key: plain(value) for key, value in _items(node).items()}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    text = str(node.value)
    if node.tag.endswith(":null"):
        return None
    if node.tag.endswith(":bool"):
        return text.lower() in ("true", "yes", "on", "y")
    return text


def filled(content: Any, values: Mapping[str, str]) -> Any:
    """Plain data with the variables that have a value, or a default, filled in."""

    def value(one: Reference) -> str:
        if one.name is None:
            return "$"
        if values.get(one.name):
            return values[one.name]
        if one.default is not None:
            return one.default
        return one.text if one.name not in values else ""

    if isinstance(content, str):
        return replaced(content, value)
    if isinstance(content, dict):
        return {key: filled(item, values) for key, item in content.items()}
    return [filled(item, values) for item in content] if isinstance(content, list) else content


class _Reader:
    """Reads the files, and collects what it finds in them."""

    def __init__(self, inside: tuple[Path, ...]) -> None:
        self._inside = inside
        self._seen: set[Path] = set()
        self._nodes = 0
        self.refusals: list[Refusal] = []
        #: Each variable, and where it is used first; and those that are passed on by name alone.
        self.used: dict[str, str] = {}
        self.passed: dict[str, str] = {}

    def open(self, file: Path, name: str) -> tuple[str, yaml.Node]:
        try:
            with file.open("rb") as handle:
                raw = handle.read(FILE_LIMIT_BYTES + 1)
        except OSError as error:
            raise _invalid(name, f"it cannot be read ({error.strerror})") from error
        if len(raw) > FILE_LIMIT_BYTES:
            raise _costly(name, f"it is larger than {FILE_LIMIT_BYTES // 1024} KiB")
        try:
            text = raw.decode()
            root = yaml.compose(text, Loader=BoundedLoader)
        except UnicodeDecodeError as error:
            raise _invalid(name, "it is not UTF-8 text") from error
        except RecursionError as error:
            raise _costly(name, "it is nested too deeply") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" (line {mark.line + 1})" if mark is not None else ""
            raise _invalid(name, f"{getattr(error, 'problem', None) or 'it is not YAML'}{where}") from error
        if root is None:
            raise _invalid(name, "it is empty")
        self._nodes += _weight(root, name, {}, 0)
        if self._nodes > NODES_LIMIT:
            raise _costly(name, f"with its aliases written out it has more than {NODES_LIMIT} values")
        self._seen.add(file.resolve())
        return text, root

    def follow(self, file: Path, name: str, root: yaml.Node) -> None:
        self._references(root, name, "")
        for entry in _list(_get(root, "include")):
            self._include(entry, file, name)
        self._program(_get(root, "models"), name, "models")
        services = _get(root, "services")
        for service, node in _items(services).items():
            self._service(service, node, file, name)

    def _service(self, service: str, node: yaml.Node, file: Path, name: str) -> None:
        extends = _get(node, "extends")
        if isinstance(extends, yaml.MappingNode):
            self._continue(_get(extends, "file"), file.parent, name, f"{service}, extends", service)
        for key in ("env_file", "label_file"):
            for entry in _list(_get(node, key)):
                path = _get(entry, "path") if isinstance(entry, yaml.MappingNode) else entry
                self._lines(path, file.parent, name, f"{service}, {key}", service)
        build = _get(node, "build")
        if build is not None:
            self._build(build, file.parent, name, service)
        for key in ("provider", "models"):
            self._program(_get(node, key), name, f"{service}, {key}", service)

    def _program(self, node: yaml.Node | None, name: str, key: str, service: str | None = None) -> None:
        """A section for which Compose starts another program, with what the file says as its arguments."""
        if node is not None:
            hint = "Run the program in a container of its own."
            self._add(
                Kind.HOST_PROGRAM,
                node,
                name,
                key,
                "it has Compose start a program of the device.",
                hint,
                service,
            )

    def _lines(
        self, node: yaml.Node | None, folder: Path, name: str, key: str, service: str | None = None
    ) -> None:
        """A file of `NAME=value` lines. A name without a value takes the one of Compose's own environment."""
        place = self._leads(node, folder, name, key, service)
        if place is None or node is None or not _is_file(place):
            return
        try:
            with place.open("rb") as handle:
                text = handle.read(FILE_LIMIT_BYTES + 1).decode(errors="replace")
        except OSError as error:
            raise _invalid(str(node.value), f"it cannot be read ({error.strerror})") from error
        if len(text) > FILE_LIMIT_BYTES:
            raise _costly(str(node.value), f"it is larger than {FILE_LIMIT_BYTES // 1024} KiB")
        for number, line in enumerate(text.splitlines(), start=1):
            where = f"{node.value}, line {number} ({key})"
            variable, sign, value = line.strip().removeprefix("export ").partition("=")
            taken = [] if value.lstrip().startswith("'") else _NAMES.findall(value)
            if not sign and is_the_agents(variable.strip()):
                taken = [variable.strip()]
            for one in filter(None, taken):
                self.used.setdefault(one, where)

    def _build(self, build: yaml.Node, folder: Path, name: str, service: str) -> None:
        where = f"{service}, build"
        if not isinstance(build, yaml.MappingNode):
            self._leads(build, folder, name, where, service)
            return
        context = _get(build, "context")
        self._leads(context, folder, name, where, service)
        for more in _items(_get(build, "additional_contexts")).values():
            self._leads(more, folder, name, where, service)

    def _include(self, entry: yaml.Node, file: Path, name: str) -> None:
        if not isinstance(entry, yaml.MappingNode):
            self._continue(entry, file.parent, name, "include")
            return
        for path in _list(_get(entry, "path")):
            self._continue(path, file.parent, name, "include")
        for path in _list(_get(entry, "project_directory")):
            self._leads(path, file.parent, name, "include, project_directory")
        for path in _list(_get(entry, "env_file")):
            self._lines(path, file.parent, name, "include, env_file")

    def _continue(
        self, node: yaml.Node | None, folder: Path, name: str, key: str, service: str | None = None
    ) -> None:
        """A file that Compose reads as a compose file, too."""
        place = self._leads(node, folder, name, key, service)
        if place is None or place in self._seen or node is None:
            return
        if not _is_file(place):
            raise _invalid(name, f"{key}: {_short(node.value)} is not a file of the release")
        if len(self._seen) >= FILES_LIMIT:
            raise _costly(name, f"it is continued in more than {FILES_LIMIT} files")
        below = str(node.value)
        _, root = self.open(place, below)
        self.follow(place, below, root)

    def _leads(
        self, node: yaml.Node | None, folder: Path, name: str, key: str, service: str | None = None
    ) -> Path | None:
        """Where a path leads, if that is inside the release; else it is refused."""
        if node is None or node.tag.endswith(":null"):
            return None
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        why = _why_outside(text)
        if why is None:
            try:
                place = (folder / text).resolve()
            except (OSError, RuntimeError, ValueError):
                place = Path("/")
            if any(place.is_relative_to(part) for part in self._inside):
                return place
            why = "which is not in the release"
        self._add(
            Kind.OUTSIDE_RELEASE,
            node,
            name,
            key,
            f"it leads to {_short(text)}, {why}: only what was signed runs.",
            "Put the file into the role's folder or into roles/common, and name it by a relative path.",
            service,
        )
        return None

    def _references(self, node: yaml.Node, name: str, key: str, seen: set[int] | None = None) -> None:
        seen = set() if seen is None else seen
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            for found in _NAMES.findall(str(node.value)):
                if found:
                    self.used.setdefault(found, _at(name, node, key))
            return
        for below, item in _items(node).items() if isinstance(node, yaml.MappingNode) else ():
            if below == "environment":
                self._passed_on(item, name, key)
            self._references(item, name, f"{key}, {below}" if key else below, seen)
        for item in node.value if isinstance(node, yaml.SequenceNode) else ():
            self._references(item, name, key, seen)

    def _passed_on(self, node: yaml.Node, name: str, key: str) -> None:
        """Variables that get their value from around: of a service, or of a secret."""
        names: list[yaml.Node] = []
        if isinstance(node, yaml.ScalarNode):
            names = [node]
        elif isinstance(node, yaml.SequenceNode):
            names = [item for item in node.value if "=" not in str(item.value)]
        else:
            for below, item in _items(node).items():
                if item.tag.endswith(":null"):
                    self.passed.setdefault(below, _at(name, item, f"{key}, environment"))
        for item in names:
            if not item.tag.endswith(":null"):
                self.passed.setdefault(str(item.value), _at(name, item, f"{key}, environment"))

    def _add(  # noqa: PLR0917  the sides of one sentence
        self, kind: Kind, node: yaml.Node, name: str, key: str, message: str, hint: str, service: str | None
    ) -> None:
        self.refusals.append(Refusal(kind, _at(name, node, key), message, hint, service))


def _why_outside(text: str) -> str | None:
    if not text:
        return "which is not a path"
    if "$" in text:
        return "which depends on a variable"
    if _REMOTE.fullmatch(text):
        return "which is on another host"
    if text.startswith(("/", "~")):
        return "which is a path of the device"
    return None


def _weight(node: yaml.Node, name: str, known: dict[int, int], depth: int) -> int:
    """How many values a node has with every alias written out, in time that does not grow with them."""
    if id(node) in known:
        weight = known[id(node)]
        if weight == 0:
            raise _costly(name, "an alias contains itself")
        return weight
    if depth > DEPTH_LIMIT:
        raise _costly(name, f"it is nested more than {DEPTH_LIMIT} levels deep")
    known[id(node)] = 0
    weight = 1
    if isinstance(node, yaml.MappingNode):
        weight += sum(
            _weight(key, name, known, depth + 1) + _weight(value, name, known, depth + 1)
            for key, value in node.value
        )
    elif isinstance(node, yaml.SequenceNode):
        weight += sum(_weight(item, name, known, depth + 1) for item in node.value)
    known[id(node)] = weight
    return weight


def _items(node: yaml.Node | None) -> Mapping[str, yaml.Node]:
    """The entries of a mapping, its merges made; of anything else none."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    merged: dict[str, yaml.Node] = {}
    own: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.tag.endswith(":merge"):
            for one in reversed(_list(value)):
                merged.update(_items(one))
        else:
            own[str(key.value)] = value
    return {**merged, **own}


def _get(node: yaml.Node | None, key: str) -> yaml.Node | None:
    return _items(node).get(key)


def _list(node: yaml.Node | None) -> list[yaml.Node]:
    """The items of a list; anything else is the only one."""
    if node is None or node.tag.endswith(":null"):
        return []
    return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]


def _at(name: str, node: yaml.Node, key: str) -> str:
    return f"{name}, line {node.start_mark.line + 1}" + (f" ({key})" if key else "")


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except OSError:
        # A name that is too long for any disk.
        return False


def _short(text: str) -> str:
    return f"{text[:100]!r}"


def _costly(name: str, why: str) -> ValidationError:
    return ValidationError(
        Kind.COMPOSE_TOO_COSTLY,
        f"{name} is too costly to read: {why}.",
        hint="Make it smaller: fewer aliases, levels and files.",
    )


def _invalid(name: str, why: str) -> FleetError:
    return errors.compose_invalid(why, file=name)
