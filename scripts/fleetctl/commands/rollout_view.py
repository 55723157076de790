"""A rollout's preview and progress as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fleetctl.client.query import Row
from fleetctl.commands.common.format import SHORT_ID, minute
from fleetctl.console import counted, out, print_table, table


def print_preview(devices: Sequence[Row]) -> None:
    """What `preview_rollout` tells about each device, stage by stage."""
    print_table(
        counted(devices),
        ["stage", "devices", "already run it", "known bad", "held", "earliest", "names"],
        (
            _preview_of(stage, [row for row in devices if row["stage"] == stage])
            for stage in sorted({row["stage"] for row in devices})
        ),
    )


def print_outlook(outlook: Row) -> None:
    """The devices that would get a release that is about to be added, and when."""
    out.print(outlook["summary"], markup=False, soft_wrap=True)
    if outlook["stages"]:
        print_table(
            "",
            ["stage", "who", "devices", "earliest", "then"],
            (
                (
                    stage["stage"], _devices_of(stage), stage["devices"], minute(stage["earliest"]),
                    "waits for approval" if stage["needs_approval"] else "",
                )
                for stage in outlook["stages"]
            ),
        )  # fmt: skip


def print_access(release: Row) -> None:
    """What the roles of a release take of their devices, each with its reason; root first."""
    for role, declared in sorted((release.get("access") or {}).items()):
        for word, reason in sorted(declared.items(), key=lambda one: (one[0] != "root", one[0])):
            what = "is as good as root on its devices" if word == "root" else f"takes {word} of its devices"
            out.print(f"The role {role} {what}: {reason.rstrip('.')}.", markup=False, soft_wrap=True)


def print_progress(progress: Row) -> None:
    """The summary, what halts it, and the stages."""
    out.print(progress["summary"], markup=False)
    for halt in progress["halts"]:
        out.print(f"Halt {halt['id'][:SHORT_ID]} ({halt['cause']}): {halt['reason']}", markup=False)
    print_table("", list(_STAGE_COLUMNS), _stage_rows(progress))


def picture(progress: Row) -> Any:
    """What `watch` redraws: the summary, a bar and the stages."""
    from rich.console import Group
    from rich.markup import escape
    from rich.progress_bar import ProgressBar

    total = max(1, progress["devices"])
    return Group(
        escape(progress["summary"]),
        ProgressBar(total=total, completed=progress["on_release"], width=60),
        table("", list(_STAGE_COLUMNS), _stage_rows(progress)),
    )


def _preview_of(stage: int, devices: Sequence[Row]) -> Sequence[object]:
    counts = [sum(row[column] for row in devices) for column in ("already_there", "known_bad", "held")]
    earliest = min((row["earliest"] for row in devices if row["earliest"]), default=None)
    return (stage, len(devices), *counts, minute(earliest), _first_names(devices))


def _first_names(rows: Sequence[Row]) -> str:
    names = [row["name"] for row in rows[:4]]
    return ", ".join(names) + (", …" if len(rows) > len(names) else "")


def _devices_of(stage: Row) -> str:
    share = f"{stage['percent']:g}%" if stage["percent"] is not None else ""
    return " ".join(part for part in (stage["segment"], share) if part) or "all"


def _state_of(stage: Row) -> str:
    if stage["opened_at"] is None:
        waits = stage["needs_approval"] and stage["approved_at"] is None
        return "needs approval" if waits else "not open"
    return "proved" if stage["proved_at"] else "open"


_STAGE_COLUMNS: dict[str, Callable[[Row], object]] = {
    "stage": lambda stage: stage["position"],
    "for": _devices_of,
    "state": _state_of,
    "devices": lambda stage: stage["devices"],
    "done": lambda stage: stage["on_release"],
    "in flight": lambda stage: stage["in_flight"],
    "failed": lambda stage: stage["failed"],
    "waiting": lambda stage: stage["waiting"],
    "offline": lambda stage: stage["offline"],
}


def _stage_rows(progress: Row) -> Iterator[Sequence[object]]:
    for stage in progress["stages"]:
        yield [cell(stage) for cell in _STAGE_COLUMNS.values()]
