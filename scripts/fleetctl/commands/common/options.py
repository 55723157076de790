"""The options that every operator command shares, and `command`, which adds them.

A command is a function that takes a `Context` first, then its own Typer parameters; one that acts on devices
also takes a `Selection`. `command` adds what these stand for (`--fleet --data --api-url --key --json`, and
device names, `--selector --segment --role --branch --state --label --all --allow-empty --dry-run --yes`).
They mean the same everywhere.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from fleetctl.commands.common.context import Context
from fleetctl.commands.common.selection import Selection, selector_of
from fleetctl.console import counted
from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import DEFAULT_DATA

#: Options and arguments that mean the same wherever they occur.
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Show at most this many, newest first.")]
OnBranch = Annotated[
    str | None, typer.Option("--on-branch", help="Branch, if the version exists on more than one.")
]
AllAtOnce = Annotated[
    bool, typer.Option("--all-at-once", help="Go back all at once, past the limits of slots.")
]
SelectorText = Annotated[
    str | None,
    typer.Option(
        "--selector",
        metavar="SELECTOR",
        help="Only devices that match, e.g. 'segment=canary,early label.site=rome on=2.1.0'.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="Only devices with this label; short for label.KEY."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Fleet = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Act on this fleet of fleetctl fleet list; local is the stack in .fleet.",
    ),
]
StackData = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help=f"Act on the stack in this folder; {DEFAULT_DATA} if nothing names a fleet.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how many devices it would affect, and change nothing.")
]
Reason = Annotated[str | None, typer.Argument(help="Why, for other operators; or use --reason.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why, for other operators.")]
Until = Annotated[
    str | None,
    typer.Option(help="End it at this time (ISO 8601); without an offset, on this machine's clock."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


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
            *(parameter for parameter in own if hints[parameter.name] not in (Context, Selection)),
            *(_SELECTION_OPTIONS if selecting else ()),
            *_CONTEXT_OPTIONS,
        ]

        @functools.wraps(work)
        def run(**given: Any) -> None:
            context = Context(**{name: given.pop(name) for name in _CONTEXT})
            if selecting:
                given[selecting[0]] = _selection(given)
            try:
                work(context, **given)
            except KeyboardInterrupt:
                raise _interrupted(context) from None

        vars(run)["__signature__"] = inspect.Signature(listed)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in listed}
        del vars(run)["__wrapped__"]  # Typer would look through it
        app.command(name)(run)
        return work

    return add


def _interrupted(context: Context) -> FleetctlError:
    """What a change that was interrupted may have done: the answer to its last request never came."""
    done, open_ = context.written
    if not (done or open_):
        said = "Interrupted, before anything was changed."
    else:
        last = ", and the change that was being made may have been made, too" if open_ else ""
        said = f"Interrupted. {counted(done, 'row')} had been changed{last}."
    return FleetctlError("interrupted", said, hint="See what was done: fleetctl audit", exit_code=130)


def _option(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


_CONTEXT_OPTIONS = (
    _option("fleet", Fleet, None),
    _option("data", StackData, None),
    _option(
        "api_url",
        Annotated[str | None, typer.Option(help="URL of another control plane; or set FLEET_API_URL.")],
        None,
    ),
    _option(
        "key",
        Annotated[
            str | None,
            typer.Option(help="Its secret key; better, set FLEET_KEY, which no process list shows."),
        ],
        None,
    ),
    _option("as_json", Json, False),
)
_CONTEXT = tuple(option.name for option in _CONTEXT_OPTIONS)
_SELECTION_OPTIONS = (
    _option(
        "devices",
        Annotated[list[str] | None, typer.Argument(metavar="DEVICE", help="Device names or ids.")],
        None,
    ),
    _option("selector", SelectorText, None),
    *(
        _option(
            f"in_{name}",
            Annotated[str | None, typer.Option(f"--{name}", help=f"Only devices with this {name}.")],
            None,
        )
        for name in ("segment", "role", "branch", "state")
    ),
    _option("with_label", Labels, None),
    _option("everything", Annotated[bool, typer.Option("--all", help="Every device in the fleet.")], False),
    _option(
        "allow_empty",
        Annotated[bool, typer.Option("--allow-empty", help="Accept it though no device matches.")],
        False,
    ),
    _option(
        "dry_run",
        Annotated[bool, typer.Option("--dry-run", help="List the devices, change nothing.")],
        False,
    ),
    _option("yes", Yes, False),
)


def _selection(given: dict[str, Any]) -> Selection:
    """Take the shared options out of what Typer parsed."""
    conditions = {name: given.pop(f"in_{name}") for name in ("segment", "role", "branch", "state")}
    return Selection(
        names=tuple(given.pop("devices") or ()),
        selector=selector_of(given.pop("selector"), given.pop("with_label"), conditions),
        everything=given.pop("everything"),
        allow_empty=given.pop("allow_empty"),
        dry_run=given.pop("dry_run"),
        yes=given.pop("yes"),
    )
