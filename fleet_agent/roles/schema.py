"""role.yaml: what a role may declare, and the parser that refuses everything else."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.errors import Kind, ValidationError
from fleet_agent.roles import host_table, variables
from fleet_agent.roles.variables import PROVIDED, Variable

ROLE_FILE = "role.yaml"
ROLE_FILE_LIMIT_BYTES = 64 * 1024
#: How deeply lists and mappings may be nested, also in a compose file.
DEPTH_LIMIT = 60

ServiceName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$")]
#: Seconds. An hour is the longest that any single wait of a role may last.
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Timeout = Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)]


class Strict(BaseModel):
    """Part of role.yaml: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HttpCheck(Strict):
    """A GET that must respond in time with one of `status`; redirects are not followed.

    `body` is text the response must contain, `body_is` the whole response without surrounding white space.
    `url`, `body` and `body_is` may use `${NAME}`.
    """

    kind: Literal["http"]
    url: str
    status: tuple[Annotated[int, Field(ge=100, le=599)], ...] = Field(
        default=(200,), min_length=1, strict=False
    )
    body: str | None = None
    body_is: str | None = None
    timeout_s: Timeout = 5.0
    max_latency_ms: int | None = Field(default=None, ge=1, le=3_600_000)


class TcpCheck(Strict):
    """A connection that must open in time. `host` and `port` may use `${NAME}`."""

    kind: Literal["tcp"]
    host: str = "127.0.0.1"
    port: str | Annotated[int, Field(ge=1, le=65535)]
    timeout_s: Timeout = 3.0


class ContainerCheck(Strict):
    """Each service's container runs and restarted at most `max_restarts` times in probation.

    No `services` means all. `completed` lists one-shot services that may also have exited
    with code 0, besides those that others wait for.
    """

    kind: Literal["container"]
    services: tuple[ServiceName, ...] = Field(default=(), strict=False)
    completed: tuple[ServiceName, ...] = Field(default=(), strict=False)
    max_restarts: int = Field(default=0, ge=0, le=1000)


class ComposeCheck(Strict):
    """Each service's own Compose healthcheck reports `healthy`. No services: all that declare one."""

    kind: Literal["compose"]
    services: tuple[ServiceName, ...] = Field(default=(), strict=False)


class LogCheck(Strict):
    """At most `max_matches` lines matching `pattern` (Python regex, searched) within the last `window_s`."""

    kind: Literal["log"]
    pattern: str = Field(min_length=1, max_length=500)
    services: tuple[ServiceName, ...] = Field(default=(), strict=False)
    max_matches: int = Field(default=0, ge=0, le=1_000_000)
    window_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 60.0

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        if re.search(r"[\U00010000-\U0010ffff]|\\[UN]", value):
            # Sets of them take seconds to compile.
            raise ValueError("may not contain characters beyond U+FFFF")
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        return value


class CommandCheck(Strict):
    """A command inside a service's container that must exit with 0. Arguments may use `${NAME}`; no shell."""

    kind: Literal["command"]
    service: ServiceName
    command: tuple[str, ...] = Field(min_length=1, strict=False)
    timeout_s: Timeout = 10.0


class FileCheck(Strict):
    """A file on the device exists and was written at most `max_age_s` ago. `path` may use `${NAME}`."""

    kind: Literal["file"]
    path: str = Field(min_length=1)
    max_age_s: Annotated[float, Field(gt=0, le=31_622_400, allow_inf_nan=False)] = 60.0


Check = Annotated[
    HttpCheck | TcpCheck | ContainerCheck | ComposeCheck | LogCheck | CommandCheck | FileCheck,
    Field(discriminator="kind"),
]


class ProbationSettings(Strict):
    """How long and how strictly a new release is watched (its probation). Times are in seconds.

    Failures within `grace_s` of the start do not count. Healthy after `successes` passing rounds in a row,
    one each `interval_s`, and not before `watch_s` (so that a late crash is still caught in probation).
    Unhealthy once more than `failure_budget` rounds have failed after the grace, or at `deadline_s`.
    Without `checks` the engine uses `container` and `compose`, and calls the result weaker evidence.
    """

    grace_s: Seconds = 15.0
    successes: int = Field(default=3, ge=1, le=1000)
    interval_s: Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)] = 2.0
    watch_s: Seconds = 20.0
    deadline_s: Annotated[float, Field(gt=0, le=7200, allow_inf_nan=False)] = 120.0
    failure_budget: int = Field(default=2, ge=0, le=1000)
    checks: tuple[Check, ...] = Field(default=(), max_length=50, strict=False)

    @model_validator(mode="after")
    def _deadline_leaves_room(self) -> Self:
        needed = max(self.grace_s, self.watch_s, (self.successes - 1) * self.interval_s)
        if self.deadline_s <= needed:
            raise ValueError(
                f"deadline_s must be more than {needed:g}: grace, watch and successes need that long"
            )
        return self


def completed(health: ProbationSettings) -> set[str]:
    """The one-shot services that the checks name."""
    return {name for check in health.checks if isinstance(check, ContainerCheck) for name in check.completed}


class Validate(Strict):
    """Limits of the role's own `validate` executable."""

    timeout_s: Timeout = 30.0
    network: bool = False


class RoleFile(Strict):
    """`role.yaml`."""

    description: str = Field(min_length=1)
    variables: dict[str, Variable] = Field(default_factory=dict)
    health: ProbationSettings = ProbationSettings()
    #: What the role takes of the device beyond its own files (see `host_table`): a reason for each word.
    access: dict[str, Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]] = (
        Field(default_factory=dict)
    )
    # `validate` is a method of every pydantic model, hence the other name inside.
    validation: Validate = Field(default=Validate(), alias="validate")

    @field_validator("variables")
    @classmethod
    def _names(cls, value: dict[str, Variable]) -> dict[str, Variable]:
        for name in value:
            if not variables.NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a variable name: use capitals, digits and _ only")
            if variables.reserved(name):
                raise ValueError(f"{name} is reserved; a role cannot declare it")
        return value

    @field_validator("access")
    @classmethod
    def _words(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value) - {*host_table.WORDS, *host_table.CAPABILITIES})
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)[:100]} cannot be declared: use {', '.join(host_table.WORDS)}, "
                f"or the name of a capability ({', '.join(host_table.CAPABILITIES)})"
            )
        return value

    @model_validator(mode="after")
    def _checks_use_known_variables(self) -> Self:
        known = {*self.variables, *PROVIDED}
        for check in self.health.checks:
            unknown = variables.references(check.model_dump_json()) - known
            if unknown and not isinstance(check, LogCheck):
                raise ValueError(
                    f"a {check.kind} check uses {', '.join(sorted(unknown))}, which is not declared"
                )
        return self


def parse(text: str, name: str) -> RoleFile:
    """Parse role.yaml of role `name`. Raises ValidationError (`role_invalid`) naming every wrong field."""
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader, only stricter
    except (yaml.YAMLError, ValueError, RecursionError, *_YAML_SLIPS) as error:
        problem = getattr(error, "problem", None) or "it is not valid YAML"
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise role_invalid(name, f"{ROLE_FILE}: {problem}{where}") from error
    if not isinstance(raw, dict):
        raise role_invalid(name, f"{ROLE_FILE} must be a mapping")
    try:
        return RoleFile.model_validate(raw)
    except PydanticValidationError as error:
        complaints = [
            f"{'.'.join(str(part) for part in item['loc']) or ROLE_FILE}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise role_invalid(name, "; ".join(complaints)) from error


#: What PyYAML itself raises for values that contradict their tag or form, like `!!timestamp x`.
_YAML_SLIPS = (AttributeError, KeyError, TypeError, IndexError, OverflowError)


class BoundedLoader(yaml.SafeLoader):
    """Gives up at once where brackets are nested too deeply: PyYAML is slow to find out."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803  PyYAML's own name
        if self.flow_level > DEPTH_LIMIT:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)


class _Loader(BoundedLoader):
    """YAML without its traps: no repeated keys, no aliases (a kilobyte of them can expand to gigabytes)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key in seen:
                problem = "a key is not plain text" if key is None else f"{key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def role_invalid(role: str, why: str) -> ValidationError:
    return ValidationError(
        Kind.ROLE_INVALID,
        f"Role {role}: {why}.",
        hint=f"Run `fleetctl role check roles/{role}` in the fleet repository.",
    )
