"""The phases of an update: one enum, one table of moves (a test compares docs/development/engine.md)."""

from __future__ import annotations

from enum import StrEnum

from fleet_agent.errors import internal


class Phase(StrEnum):
    """What the engine is doing, or which rest it is in."""

    STEADY = "steady"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    VALIDATING = "validating"
    PULLING = "pulling"
    SWAPPING = "swapping"
    STARTING = "starting"
    PROBATION = "probation"
    COMMITTING = "committing"
    ROLLING_BACK = "rolling_back"
    ENTERING_SAFE_MODE = "entering_safe_mode"
    RECORDING = "recording"
    SAFE_MODE = "safe_mode"


#: Nothing is under way in these; every other phase is finished by the next start of the engine.
RESTING = frozenset({Phase.STEADY, Phase.SAFE_MODE})

#: Nothing that runs has been touched yet in these: giving up costs nothing.
UNTOUCHED = frozenset({Phase.FETCHING, Phase.VERIFYING, Phase.VALIDATING, Phase.PULLING})

#: Nobody has vouched for the release yet in these, so nothing that happens makes it known to be bad.
UNVERIFIED = frozenset({Phase.FETCHING, Phase.VERIFYING})

#: The new release may be running in these, and is not committed: the way out is back.
UNPROVEN = frozenset({Phase.SWAPPING, Phase.STARTING, Phase.PROBATION})

#: The whole life of an attempt. A failure before the swap is only recorded; after it, the way out is back.
MOVES: dict[Phase, frozenset[Phase]] = {
    # Swapping directly: back to the previous release, which is still complete here.
    Phase.STEADY: frozenset({Phase.FETCHING, Phase.SWAPPING, Phase.ENTERING_SAFE_MODE}),
    Phase.FETCHING: frozenset({Phase.VERIFYING, Phase.RECORDING, Phase.ENTERING_SAFE_MODE}),
    Phase.VERIFYING: frozenset({Phase.VALIDATING, Phase.RECORDING, Phase.ENTERING_SAFE_MODE}),
    Phase.VALIDATING: frozenset({Phase.PULLING, Phase.RECORDING, Phase.ENTERING_SAFE_MODE}),
    Phase.PULLING: frozenset({Phase.SWAPPING, Phase.RECORDING, Phase.ENTERING_SAFE_MODE}),
    Phase.SWAPPING: frozenset({Phase.STARTING, Phase.ROLLING_BACK}),
    Phase.STARTING: frozenset({Phase.PROBATION, Phase.ROLLING_BACK}),
    Phase.PROBATION: frozenset({Phase.COMMITTING, Phase.ROLLING_BACK}),
    Phase.COMMITTING: frozenset({Phase.RECORDING}),
    Phase.ROLLING_BACK: frozenset({Phase.RECORDING, Phase.ENTERING_SAFE_MODE}),
    Phase.ENTERING_SAFE_MODE: frozenset({Phase.RECORDING, Phase.SAFE_MODE}),
    Phase.RECORDING: frozenset({Phase.STEADY, Phase.SAFE_MODE}),
    # A fix is still accepted, and leaving means starting what was committed last.
    # A release that ran beside it needs no start when the cause is gone.
    Phase.SAFE_MODE: frozenset({Phase.FETCHING, Phase.SWAPPING, Phase.ENTERING_SAFE_MODE, Phase.STEADY}),
}


def check_move(was: Phase, to: Phase) -> None:
    """Refuse a move that is not in the table. Raises StateError (`internal`): it is a bug."""
    if to not in MOVES[was]:
        raise internal(f"no move from {was} to {to}")


def diagram() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.STEADY}"]
    lines += [f"    {was} --> {to}" for was in Phase for to in Phase if to in MOVES[was]]
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
