"""The operator's commands, one module a subject: `device.py` is `fleetctl device`.

register         attaches all that talk to a control plane
demo, stack      what runs on this machine: the demo, and `up`, `down`, `migrate`
repo, role       the fleet repository and its roles
common/          what commands share: options, selecting devices, looking rows up, parsing, formatting
"""

from __future__ import annotations

import typer

__all__ = ["demo", "register", "repo", "role", "stack"]


def register(app: typer.Typer) -> None:
    """Mount every operator command on `app`: sub-apps by subject, the most used verbs at the top."""
    from fleetctl.commands import (
        alert,
        audit,
        branch,
        command,
        device,
        doctor,
        explain,
        fleet,
        halt,
        history,
        hold,
        hosted,
        known_bad,
        login,
        operator,
        pin,
        release,
        retry,
        rollout,
        settings,
        token,
    )

    for module, name in (
        (device, "device"), (release, "release"), (branch, "branch"), (rollout, "rollout"), (halt, "halt"),
        (alert, "alert"), (known_bad, "known-bad"), (pin, "pin"),
        (hold, "hold"), (command, "command"),
        (token, "token"), (operator, "operator"), (settings, "settings"), (fleet, "fleet"),
        (hosted, "hosted"),
    ):  # fmt: skip
        app.add_typer(module.app, name=name)
    for verbs in (login, retry, history, explain, audit, doctor):
        verbs.add_to(app)
