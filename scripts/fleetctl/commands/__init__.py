"""The operator's commands, one module a subject. `register` attaches them all."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Mount every operator command on `app`: sub-apps by subject, the most used verbs at the top."""
    from fleetctl.commands import (
        alert,
        audit,
        branch,
        command,
        device,
        explain,
        halt,
        history,
        hold,
        known_bad,
        login,
        operator,
        pin,
        release,
        rollout,
        settings,
        token,
    )

    for module, name in (
        (device, "device"), (release, "release"), (branch, "branch"), (rollout, "rollout"), (halt, "halt"),
        (alert, "alert"), (known_bad, "known-bad"),
        (hold, "hold"), (command, "command"),
        (token, "token"), (operator, "operator"), (settings, "settings"),
    ):  # fmt: skip
        app.add_typer(module.app, name=name)
    for verbs in (login, pin, history, explain, audit):
        verbs.add_to(app)
