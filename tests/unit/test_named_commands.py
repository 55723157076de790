"""Whatever tells people to run `fleetctl …` or `fleet-agent …` names a command that exists."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from typer.main import get_command

from fleet_agent.cli.main import parser
from fleetctl import cli
from tests.support.visible_texts import visible_texts

ROOT = Path(__file__).resolve().parents[2]
#: In backticks, after a colon, or told to run; in prose it is the name of a program.
NAMED = re.compile(
    r"(?:\.venv/bin/|`|: |\b[Rr]un )(fleetctl|fleet-agent) (?!(?:in|as) a )([a-z][a-z-]*)(?: ([a-z][a-z-]*))?"
)


def commands() -> dict[str, set[str]]:
    """Each command of both programs, and what follows it if it is a group."""
    if not cli.app.registered_commands:
        cli.mount()
    known = {
        f"fleetctl {name}": set(getattr(command, "commands", ()))
        for name, command in get_command(cli.app).commands.items()  # type: ignore[attr-defined]
    }
    known["fleetctl demo"] = set()  # runs alone, too
    (verbs,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return known | {f"fleet-agent {name}": set() for name in verbs.choices}


def test_each_named_command_exists() -> None:
    known = commands()
    texts = [(text.file, text.text) for text in visible_texts() if not text.file.endswith(".md")]
    # Decisions are dated: they name what was there then.
    pages = [file for half in ("usage", "development") for file in (ROOT / "docs" / half).glob("*.md")]
    pages += [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.yml")]
    texts += [(str(page.relative_to(ROOT)), page.read_text()) for page in pages]
    named = [(file, *match) for file, text in texts for match in NAMED.findall(text)]
    assert len(named) > 100
    wrong = [
        f"{file}: {program} {first} {second}"
        for file, program, first, second in named
        if f"{program} {first}" not in known
        or ((below := known[f"{program} {first}"]) and second and second not in below)
    ]
    assert wrong == []
