"""The reason for what is done to a fleet: in words or as --reason, the same everywhere."""

from __future__ import annotations

from fleetctl.errors import FleetctlError


def reason_of(words: str | None, option: str | None, what: str) -> str:
    """The reason that was given; `what` needs it, like "A halt".

    Raises FleetctlError: `reason_missing`, `reason_said_twice`.
    """
    if words is not None and option is not None:
        raise FleetctlError(
            "reason_said_twice",
            f"Two reasons were given: {words} and {option}.",
            hint="Give one of them. A text of several words goes into quotes.",
            exit_code=2,
        )
    reason = words if option is None else option
    if reason is None or not reason.strip():
        raise FleetctlError(
            "reason_missing",
            f"{what} needs a reason, for the other operators.",
            hint="Add it in quotes, or as --reason 'what was seen'.",
            exit_code=2,
        )
    return reason
