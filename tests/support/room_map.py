"""The rooms of the agent and which imports which, as the code has them."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "fleet_agent"


def rooms() -> set[str]:
    """The folders that hold code."""
    return {folder.parent.name for folder in (ROOT / PACKAGE).glob("*/__init__.py")}


def arrows() -> set[tuple[str, str]]:
    """`(a, b)` if any module of room a imports one of room b, anywhere in its text."""
    found = set()
    for room in rooms():
        for file in (ROOT / PACKAGE / room).rglob("*.py"):
            for target in _imported(ast.parse(file.read_text(encoding="utf-8"))):
                if target in rooms() and target != room:
                    found.add((room, target))
    return found


def reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Without the arrows that follow from others, as long as there is no circle."""
    return {
        (start, end)
        for start, end in edges
        if not any(
            (start, middle) in edges and end in _reachable(middle, edges)
            for middle in {e for s, e in edges if s == start and e != end}
        )
    }


def _reachable(start: str, edges: set[tuple[str, str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        room = waiting.pop()
        for source, target in edges:
            if source == room and target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def _imported(tree: ast.AST) -> set[str]:
    """First names below the package, however they are imported."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    prefix = f"{PACKAGE}."
    return {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
