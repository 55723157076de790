"""Every text that a person can read: what the check of our English looks at.

Python and TypeScript strings (help, errors, hints, log lines, labels), SQL literals (sentences, hints,
comments on objects) and the prose of the documentation. Code inside texts is taken out.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Text:
    """One text and where it stands."""

    file: str
    line: int
    text: str


def visible_texts() -> list[Text]:
    """All of them, file by file."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [text for name in listed if (ROOT / name).is_file() for text in _of(name)]


def _of(name: str) -> Iterator[Text]:
    read = (ROOT / name).read_text
    if re.match(r"(fleet_agent|scripts)/.*\.py$", name):
        yield from _python(name, read())
    elif re.match(r"(web/src|supabase/local|edge_functions)/.*\.tsx?$", name) and not _is_ours_alone(name):
        yield from _typescript(name, read())
    elif re.match(r"(migrations/|supabase/seed).*\.sql$", name):
        yield from _sql(name, read())
    elif name.endswith(".md"):
        yield from _markdown(name, read())


def _is_ours_alone(name: str) -> bool:
    """Whether only contributors see it."""
    return name.endswith(".test.ts") or "/testing/" in name or "/generated/" in name


def _python(name: str, source: str) -> Iterator[Text]:
    """Strings, with `{}` for what an f-string fills in. Of docstrings only those that typer shows as help."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    if not name.startswith("scripts/fleetctl/commands/"):
        inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{}"
                for part in node.values
            )
            yield Text(name, node.lineno, "".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            is_a_key = re.fullmatch(r"[a-z_]+", node.value)
            yield from [] if is_a_key else [Text(name, node.lineno, node.value)]


_TS = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)
    |(?P<jsx>>[^<>{}]*[a-z]{2}[^<>{}]*<)""",
    re.DOTALL | re.VERBOSE,
)


def _typescript(name: str, source: str) -> Iterator[Text]:
    for found in _TS.finditer(source):
        if found["comment"] is None:
            text = re.sub(r"\$\{[^}]*\}", "{}", found[0][1:-1])
            yield Text(name, source.count("\n", 0, found.start()) + 1, text)


def _sql(name: str, source: str) -> Iterator[Text]:
    """Literals; comments to the end of a line hold apostrophes and are taken out first."""
    without = re.sub(r"^(\s*)--[^\n]*|(?<=[\s;,(])--[^\n']*$", r"\1", source, flags=re.MULTILINE)
    for found in re.finditer(r"'((?:[^']|'')*)'", without):
        yield Text(name, without.count("\n", 0, found.start()) + 1, found[1].replace("''", "'"))


def _markdown(name: str, source: str) -> Iterator[Text]:
    """Paragraphs, list items and table cells, without code, links' targets and images."""
    prose = re.sub(
        r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), source, flags=re.DOTALL | re.MULTILINE
    )
    prose = re.sub(r"`[^`\n]*`", "{}", prose)
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    for number, line in enumerate(prose.splitlines(), 1):
        for cell in line.split("|") if line.startswith("|") else [line]:
            if cell.strip(" -:"):
                yield Text(name, number, cell.strip())
