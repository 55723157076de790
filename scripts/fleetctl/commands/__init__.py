"""One module a subject, each with a Typer `app`."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Attach every operator command to `app`."""
