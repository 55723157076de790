"""Errors that fleetctl shows as one sentence, with a stable kind and an exit code."""

from __future__ import annotations


class FleetctlError(Exception):
    """What happened, in one sentence; `hint` says what to try.

    `exit_code`: 1 the operation failed, 2 the call was wrong, 3 the control plane could not be reached,
    4 refused (rights), 5 not found.
    """

    def __init__(self, kind: str, message: str, *, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


def not_changed(message: str) -> FleetctlError:
    """The database accepted a change, but there was no row to change."""
    hint = "Someone else may have changed it meanwhile. Look again, then repeat the command."
    return FleetctlError("not_changed", message, hint=hint)
