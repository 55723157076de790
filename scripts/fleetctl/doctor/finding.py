"""What one check found: a sentence, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    FIX = "fix"
    #: It could not be looked at; `todo` says what is missing for that.
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Finding:
    """`todo` is empty only if the state is ok."""

    check: str
    state: State
    sentence: str
    todo: str = ""


def ok(check: str, sentence: str) -> Finding:
    return Finding(check, State.OK, sentence)


def fix(check: str, sentence: str, todo: str) -> Finding:
    return Finding(check, State.FIX, sentence, todo)


def unchecked(check: str, sentence: str, todo: str) -> Finding:
    return Finding(check, State.UNCHECKED, sentence, todo)
