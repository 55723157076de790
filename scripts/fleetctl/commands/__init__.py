"""The operator's commands, one module a subject: `device.py` is `fleetctl device`.

register         attaches all that talk to a control plane
demo, stack      what runs on this machine: the demo, and `up`, `down`, `migrate`
repo, role       the fleet repository and its roles
common/          what commands share: options, selecting devices, looking rows up, parsing, formatting
"""

from __future__ import annotations

from importlib import import_module

import typer

__all__ = ["GROUPS", "VERBS", "demo", "register", "repo", "role", "stack"]

#: Sub-apps: name on the command line -> module.
GROUPS = {
    "device": "device", "release": "release", "branch": "branch", "rollout": "rollout", "halt": "halt",
    "alert": "alert", "known-bad": "known_bad", "pin": "pin", "hold": "hold", "command": "command",
    "token": "token", "operator": "operator", "settings": "settings", "fleet": "fleet", "hosted": "hosted",
    "dashboard": "dashboard",
}  # fmt: skip
#: The most used verbs, at the top: name on the command line -> module.
VERBS = {
    "login": "login", "logout": "login", "whoami": "login", "retry": "retry", "history": "history",
    "explain": "explain", "audit": "audit", "doctor": "doctor",
}  # fmt: skip


def register(app: typer.Typer, only: str | None = None) -> None:
    """Mount every operator command on `app`, or the module of `only`: loading all takes long."""
    for name, module in GROUPS.items():
        if only in (None, name):
            app.add_typer(import_module(f"fleetctl.commands.{module}").app, name=name)
    modules = dict.fromkeys(module for name, module in VERBS.items() if only in (None, name))
    for module in modules:
        import_module(f"fleetctl.commands.{module}").add_to(app)
