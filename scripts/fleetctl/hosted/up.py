"""Doing the steps: what a person did already is left alone, and what they have to do is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from fleetctl.doctor import ControlPlane, Finding, State
from fleetctl.errors import FleetctlError
from fleetctl.hosted.cli import shown
from fleetctl.hosted.project import HostedProject
from fleetctl.hosted.steps import Step

#: As `fleetctl.doctor.examine`.
Examine = Callable[[ControlPlane, Iterable[str]], Iterable[Finding]]
_AGAIN_S = 10.0


def describe(todo: Sequence[Step]) -> Iterable[str]:
    """Every command and every step by hand; nothing is run."""
    for number, step in enumerate(todo, 1):
        yield f"{number}. {step.title}"
        yield from (f"   $ {shown(command)}" for command in step.commands)
        if step.by_hand:
            yield f"   By hand: {step.by_hand}"
        if step.checks:
            yield f"   Checked by: fleetctl doctor --only {' --only '.join(step.checks)}"


def bring_up(
    project: HostedProject,
    todo: Sequence[Step],
    examine: Examine,
    say: Callable[[str], None],
    *,
    wait_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Raises FleetctlError: `step_open` if a step is not done after `wait_s`, and what the steps raise."""
    for number, step in enumerate(todo, 1):
        say(f"{number}/{len(todo)} {step.title}")
        if step.work is not None:
            step.work()
        open_ = _open(project, step, examine)
        if open_ and step.by_hand:
            say(f"By hand, in the project's dashboard: {step.by_hand}")
        waited = 0.0
        while open_:
            if waited >= wait_s:
                raise _step_open(number, step, open_)
            if not waited:
                say(f"Waiting for at most {wait_s / 60:.0f} minutes. {open_[0].sentence}")
            sleep(_AGAIN_S)
            waited += _AGAIN_S
            open_ = _open(project, step, examine)


def _open(project: HostedProject, step: Step, examine: Examine) -> list[Finding]:
    """What is not right yet."""
    if not step.checks:
        return []
    found = examine(project.control_plane(), step.checks)
    return [finding for finding in found if finding.state is not State.OK]


def _step_open(number: int, step: Step, open_: Sequence[Finding]) -> FleetctlError:
    finding = open_[0]
    return FleetctlError(
        "step_open",
        f"Step {number} is not done: {step.title}. {finding.sentence}",
        hint=f"{step.by_hand or finding.todo} Then run the command again: what is done stays done.",
    )
