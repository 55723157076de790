"""What every operator command shares: where the fleet is, which devices are meant, and asking before acting.

A command is a function that takes a `Fleet` first, then its own Typer parameters; one that acts on devices
also takes a `Selection`. `command` adds what these stand for (`--data --api-url --key --json`, and device
names, `--segment --role --branch --state --label --all --dry-run --yes`): they mean the same everywhere.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints
from uuid import UUID

import typer

from fleetctl.console import out, print_json, print_table
from fleetctl.errors import FleetctlError

if TYPE_CHECKING:
    from fleetctl.client.api import Api, Narrow, Row

DEFAULT_DATA = Path(".fleet")
#: Ids in tables are cut to what tells them apart in practice; --json has them whole.
SHORT_ID = 8
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class Fleet:
    """The fleet that a command acts on, and how it should talk."""

    data: Path
    api_url: str | None
    key: str | None
    as_json: bool

    @cached_property
    def api(self) -> Api:
        """Connects at first use. Raises FleetctlError."""
        # Half a second of imports that --help must not pay.
        from fleetctl.client.api import Api, Target

        return Api(Target.find(self.data, self.api_url, self.key))

    def show(self, title: str, columns: Mapping[str, Callable[[Row], object]], rows: Sequence[Row]) -> None:
        """A table of `rows` for people, or the rows themselves as JSON."""
        if self.as_json:
            print_json(list(rows))
        elif not rows:
            out.print(f"{title}: none.")
        else:
            print_table(title, list(columns), ([cell(row) for cell in columns.values()] for row in rows))

    def say(self, sentence: str, result: object) -> None:
        """What was done, as one sentence, or the result as JSON."""
        if self.as_json:
            print_json(result)
        else:
            out.print(sentence, markup=False)


@dataclass(frozen=True)
class Selection:
    """Which devices a command is about. Names and conditions both narrow; none at all needs `everything`."""

    names: tuple[str, ...] = ()
    conditions: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    everything: bool = False
    dry_run: bool = False
    yes: bool = False

    def devices(self, fleet: Fleet, *, all_by_default: bool = False) -> list[Row]:
        """The devices meant, by name. Raises FleetctlError: `nothing_selected`, `device_unknown`."""
        if not (self.names or self.conditions or self.labels or self.everything or all_by_default):
            raise FleetctlError(
                "nothing_selected",
                "No device is selected.",
                hint="Name devices, narrow with --segment, --role, --branch, --state, --label, or say --all.",
                exit_code=2,
            )
        if not self.names:
            return fleet.api.rows("devices", self._narrow, order="name")
        found = {}
        for column in ("name", "id"):
            values = [name for name in self.names if _is_id(name) == (column == "id")]
            for row in fleet.api.rows_of("devices", column, values, order="name"):
                found[row[column]] = row
        for name in self.names:
            if name.lower() not in found and name not in found:
                raise device_unknown(name)
        chosen = {row["id"]: row for row in found.values() if self._matches(row)}
        return sorted(chosen.values(), key=lambda row: str(row["name"]))

    def _narrow(self, query: Any) -> Any:
        for column, value in self.conditions.items():
            query = query.eq(column, value)
        if self.labels:
            query = query.contains("labels", dict(self.labels))
        return query

    def _matches(self, row: Row) -> bool:
        return all(row[column] == value for column, value in self.conditions.items()) and all(
            row["labels"].get(name) == value for name, value in self.labels.items()
        )

    def agree(self, what: str, devices: Sequence[Row], *, fleet: Fleet, always_ask: bool = False) -> bool:
        """Say what would happen to how many, and ask where more than what was named is at stake.

        False: a dry run, or nothing to do. Raises FleetctlError `confirmation_needed` without a terminal.
        """
        if not devices or self.dry_run:
            if fleet.as_json:
                print_json(
                    {"dry_run": self.dry_run, "what": what, "devices": [row["name"] for row in devices]}
                )
            else:
                said = f"Would {what}" if self.dry_run else f"Nothing to do: {what}"
                out.print(f"{said}: {counted(devices)}{_some(devices)}.", markup=False)
            return False
        if self.yes or (self.names and len(devices) == 1 and not always_ask):
            return True
        if not sys.stdin.isatty():
            raise FleetctlError(
                "confirmation_needed",
                f"This would {what}: {counted(devices)}{_some(devices)}.",
                hint="Look with --dry-run, then add --yes.",
                exit_code=2,
            )
        return typer.confirm(f"{what[0].upper()}{what[1:]}: {counted(devices)}{_some(devices)}?", abort=True)


def command(
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `work` to `app` under `name` (its own name by default), with the shared options in place."""

    def add(work: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(work, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(work).parameters.values()
        ]
        selecting = [parameter.name for parameter in own if hints[parameter.name] is Selection]
        listed = [
            *(parameter for parameter in own if hints[parameter.name] not in (Fleet, Selection)),
            *(_SELECTION_OPTIONS if selecting else ()),
            *_FLEET_OPTIONS,
        ]

        @functools.wraps(work)
        def run(**given: Any) -> None:
            fleet = Fleet(given.pop("data"), given.pop("api_url"), given.pop("key"), given.pop("as_json"))
            if selecting:
                given[selecting[0]] = _selection(given)
            work(fleet, **given)

        vars(run)["__signature__"] = inspect.Signature(listed)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in listed}
        del vars(run)["__wrapped__"]  # Typer would look through it
        app.command(name)(run)
        return work

    return add


def _option(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


_FLEET_OPTIONS = (
    _option("data", Annotated[Path, typer.Option(help="Folder of the embedded stack.")], DEFAULT_DATA),
    _option(
        "api_url",
        Annotated[str | None, typer.Option(help="Another control plane's address; or FLEET_API_URL.")],
        None,
    ),
    _option(
        "key",
        Annotated[
            str | None, typer.Option(help="Its secret key; better in FLEET_KEY, off the process list.")
        ],
        None,
    ),
    _option("as_json", Annotated[bool, typer.Option("--json", help="Print one JSON document.")], False),
)
_SELECTION_OPTIONS = (
    _option(
        "devices",
        Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Names or ids.")],
        None,
    ),
    *(
        _option(
            f"in_{name}",
            Annotated[str | None, typer.Option(f"--{name}", help=f"Only of this {name}.")],
            None,
        )
        for name in ("segment", "role", "branch", "state")
    ),
    _option(
        "with_label",
        Annotated[
            list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Only with this label.")
        ],
        None,
    ),
    _option("everything", Annotated[bool, typer.Option("--all", help="Every device of the fleet.")], False),
    _option("dry_run", Annotated[bool, typer.Option("--dry-run", help="Only say which devices.")], False),
    _option("yes", Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")], False),
)  # fmt: skip


def _selection(given: dict[str, Any]) -> Selection:
    """Take the shared options out of what Typer parsed."""
    conditions = {name: given.pop(f"in_{name}") for name in ("segment", "role", "branch", "state")}
    return Selection(
        names=tuple(given.pop("devices") or ()),
        conditions={name: value for name, value in conditions.items() if value is not None},
        labels=pairs_of(given.pop("with_label") or ()),
        everything=given.pop("everything"),
        dry_run=given.pop("dry_run"),
        yes=given.pop("yes"),
    )


def change_devices(
    fleet: Fleet, devices: Sequence[Row], change: Callable[[Row], Mapping[str, Any]]
) -> list[Row]:
    """Write `change(device)` to each device, those with the same change together, batch by batch.

    A batch is written whole or not at all. Raises FleetctlError that says how many were written before.
    """
    from fleetctl.client.api import BATCH

    groups: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for device in devices:
        wanted = change(device)
        groups.setdefault(repr(sorted(wanted.items())), (wanted, []))[1].append(device["id"])
    changed: list[Row] = []
    for wanted, ids in groups.values():
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            try:
                changed += fleet.api.update("devices", wanted, _with_id_in(part))
            except FleetctlError as error:
                if changed:
                    error.message += f" {len(changed)} of {len(devices)} devices were changed before."
                raise
    return changed


def _with_id_in(ids: Sequence[str]) -> Narrow:
    return lambda query: query.in_("id", list(ids))


def find_device(fleet: Fleet, name: str) -> Row:
    """One device by name or id. Raises FleetctlError `device_unknown`."""
    return Selection(names=(name,)).devices(fleet)[0]


def device_unknown(name: str) -> FleetctlError:
    return FleetctlError(
        "device_unknown", f"There is no device {name}.", hint="See fleetctl device list.", exit_code=5
    )


def find_release(fleet: Fleet, name: str, branch: str | None = None) -> Row:
    """One release by id, version or the first 7 or more digits of its commit; the branch decides between two.

    Raises FleetctlError: `release_unknown`, `release_ambiguous`.
    """

    def narrow(query: Any) -> Any:
        if branch is not None:
            query = query.eq("branch", branch)
        if _is_id(name):
            return query.eq("id", name)
        if re.fullmatch(r"[0-9a-f]{7,64}", name):
            return query.or_(f'version.eq."{name}",commit_sha.like.{name}*')
        return query.eq("version", name)

    found = fleet.api.rows("releases", narrow, order="created_at", newest_first=True, limit=10)
    if not found:
        raise FleetctlError(
            "release_unknown", f"There is no release {name}.", hint="See fleetctl release list.", exit_code=5
        )
    if len(found) > 1:
        choices = ", ".join(f"{row['version']} {row['commit_sha'][:12]} ({row['branch']})" for row in found)
        raise FleetctlError(
            "release_ambiguous",
            f"{name} could be {choices}.",
            hint="Give the commit or the id, or --on-branch.",
            exit_code=2,
        )
    return found[0]


def find_by_id(rows: Sequence[Row], text: str, what: str) -> Row:
    """The one row whose id is `text` or begins with it (8 characters or more, as lists show it).

    Raises FleetctlError `<what>_unknown`.
    """
    found = [
        row for row in rows if row["id"] == text or (len(text) >= SHORT_ID and row["id"].startswith(text))
    ]
    if len(found) == 1:
        return found[0]
    raise FleetctlError(
        f"{what.replace('-', '_')}_unknown",
        f"There is no {what} {text}.",
        hint=f"See fleetctl {what} list.",
        exit_code=5,
    )


def pairs_of(texts: Sequence[str]) -> dict[str, str]:
    """`["site=rome"]` as a dictionary. Raises FleetctlError `pair_malformed`."""
    pairs = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise FleetctlError("pair_malformed", f"{text} is not KEY=VALUE.", exit_code=2)
        pairs[name] = value
    return pairs


def duration(text: str) -> timedelta:
    """`90s`, `30m`, `12h`, `7d`, `2w`. Raises FleetctlError `duration_malformed`."""
    parsed = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if not parsed:
        raise FleetctlError(
            "duration_malformed",
            f"{text} is no duration.",
            hint="Write 90s, 30m, 12h, 7d or 2w.",
            exit_code=2,
        )
    return timedelta(seconds=int(parsed[1]) * _UNITS_S[parsed[2]])


def moment(text: str) -> datetime:
    """An ISO time; without an offset it is UTC. Raises FleetctlError `time_malformed`."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise FleetctlError(
            "time_malformed", f"{text} is no time.", hint="Write 2026-12-01T02:00:00+01:00.", exit_code=2
        ) from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def ago(text: str | None, now: datetime) -> str:
    """`3 min ago`, for a time as the API writes it; empty for none."""
    if not text:
        return ""
    seconds = int((now - datetime.fromisoformat(text)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{max(0, seconds)} s ago"


def counted(devices: Sequence[object]) -> str:
    return f"{len(devices)} device{'' if len(devices) == 1 else 's'}"


def _some(devices: Sequence[Row]) -> str:
    """The first few names, so that a wrong selector is seen before it acts."""
    names = [str(row["name"]) for row in devices[:5]]
    more = ", …" if len(devices) > len(names) else ""
    return f" ({', '.join(names)}{more})" if names else ""


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
