"""Selectors as people type them: `segment=canary label.site=rome`. The grammar is docs/usage/selectors.md.

web/src/format/selector.ts is the same in TypeScript; tests/support/selector_cases.json holds both to it.
Light: a command's module may load it for `--help`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fleetctl.errors import FleetctlError

#: As the database has it: texts, lists of texts, `offline` as a boolean, and `labels` inside.
Selector = dict[str, Any]

#: Keys in the order in which they are written.
KEYS = (
    "segment", "role", "branch", "name", "hardware_model", "os", "agent_version", "state", "release",
    "not_release", "offline", "last_outcome", "shown", "text",
)  # fmt: skip
SHORT = {"on": "release", "not_on": "not_release"}
LABEL = "label."
#: Keys with a closed list of values.
CLOSED = {
    "state": ("pending", "active", "suspended", "retired"),
    "offline": ("true", "false"),
    "last_outcome": ("succeeded", "failed", "rolled_back", "skipped"),
    "shown": (
        "safe_mode", "isolated", "degraded", "offline", "rolled_back", "pending", "updating", "never_seen",
        "suspended", "healthy", "retired",
    ),
}  # fmt: skip
#: What separates parts. Other spaces come from copying and pasting.
_SPACES = " \t\r\n"
_INVISIBLE = re.compile(
    "[\\0- \\x7f-\\xa0\\xad\\u061c\\u1680\\u180e\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u3000\\ufeff"
    "\\U000e0000-\\U000e007f\\ud800-\\udfff]"
)
_NEEDS_QUOTES = re.compile(r"""[="'\\‘’‚‛“”„‟«»]""")
#: PostgreSQL's texts cannot hold these.
_IMPOSSIBLE = re.compile("[\\0\\ud800-\\udfff]")
_HINT = 'Write it like segment=canary,early label.site=rome hardware_model="Pi 3".'
_SHOWN = 100


def parse_selector(text: str) -> Selector:
    """The selector that `text` writes, in the normal form of the database; {} for an empty text.

    Raises FleetctlError: `selector_malformed`, `selector_unknown`. Both name the part that is wrong.
    """
    selector: Selector = {}
    labels: dict[str, Any] = {}
    for part in _parts(text):
        key, rest = _key_of(part)
        values = list(_values_of(part, rest))
        if key.startswith(LABEL):
            put(labels, key.removeprefix(LABEL), values, part, called=_quoted_key(key))
        else:
            _check_closed(part, key, values)
            put(selector, key, values, part, called=key)
    if "offline" in selector:
        selector["offline"] = selector["offline"] == "true"
    return {**selector, "labels": labels} if labels else selector


def selector_text(selector: Mapping[str, Any]) -> str:
    """The text that `parse_selector` reads back; empty for {}."""
    others = sorted(set(selector) - {*KEYS, "labels"})
    parts = [(key, selector[key]) for key in (*KEYS, *others) if key in selector]
    labels = selector.get("labels") or {}
    parts += [(_quoted_key(LABEL + name), labels[name]) for name in sorted(labels)]
    return " ".join(f"{key}={_written(value)}" for key, value in parts)


def put(into: dict[str, Any], key: str, values: Sequence[str], part: str, *, called: str) -> None:
    """Add a key with its values: one as a text, several sorted and each once.

    Raises FleetctlError `selector_malformed` if it has the key already.
    """
    if key in into:
        raise _malformed(part, f"{called} is there twice; separate several values with commas")
    chosen = sorted(set(values))
    into[key] = chosen[0] if len(chosen) == 1 else chosen


def _parts(text: str) -> Iterator[str]:
    """What stands between spaces, those in quotes aside."""
    part = ""
    quoted = escaped = False
    for sign in text:
        if not quoted and sign in _SPACES:
            if part:
                yield part
            part = ""
            continue
        part += sign
        if escaped:
            escaped = False
        elif quoted and sign == "\\":
            escaped = True
        elif sign == '"':
            quoted = not quoted
    if part:
        yield part


def _key_of(part: str) -> tuple[str, str]:
    """The key, short forms written out, and what follows its equals sign."""
    if part.startswith(f'{LABEL}"'):
        name, rest = _unquoted(part, part[len(LABEL) :])
        if not rest.startswith("="):
            raise _malformed(part, "it is not of the form KEY=VALUE")
        rest = rest[1:]
    else:
        key, equals, rest = part.partition("=")
        if not equals or not key:
            raise _malformed(part, "it is not of the form KEY=VALUE")
        key = SHORT.get(key, key)
        if key in KEYS:
            return key, rest
        if not key.startswith(LABEL):
            raise _unknown(part, key)
        name = key.removeprefix(LABEL)
        _check_bare(part, name)
    if not name:
        raise _malformed(part, "a label needs a name")
    return LABEL + name, rest


def _values_of(part: str, rest: str) -> Iterator[str]:
    while True:
        if rest.startswith('"'):
            value, rest = _unquoted(part, rest)
        else:
            value, comma, after = rest.partition(",")
            if not value:
                raise _malformed(part, 'a value is missing; an empty text is ""')
            _check_bare(part, value)
            rest = comma + after
        yield value
        if not rest:
            return
        if not rest.startswith(","):
            raise _malformed(part, "a comma or a space has to follow the closing quote")
        rest = rest[1:]


def _unquoted(part: str, text: str) -> tuple[str, str]:
    """What stands in the quotes with which `text` begins, and what follows them."""
    value = ""
    signs = iter(range(1, len(text)))
    for at in signs:
        sign = text[at]
        if sign == '"':
            return value, text[at + 1 :]
        if sign == "\\":
            sign = text[next(signs)] if at + 1 < len(text) else ""
            if sign not in ('"', "\\"):
                raise _malformed(part, 'a backslash in quotes goes before " or \\ only')
        if _IMPOSSIBLE.match(sign):
            raise _malformed(part, f"no text can contain U+{ord(sign):04X}")
        value += sign
    raise _malformed(part, "the quote is not closed")


def _check_bare(part: str, text: str) -> None:
    if found := _INVISIBLE.search(text):
        raise _malformed(part, f"the invisible character U+{ord(found[0]):04X} is allowed in quotes only")
    if found := _NEEDS_QUOTES.search(text):
        raise _malformed(part, f"what contains {found[0]} goes into double quotes")
    if "," in text:
        raise _malformed(part, "the name of a label that contains , goes into double quotes")


def _check_closed(part: str, key: str, values: Sequence[str]) -> None:
    allowed = CLOSED.get(key)
    wrong = [value for value in values if allowed and value not in allowed]
    if allowed and wrong:
        raise _malformed(part, f"{key} is one of {', '.join(allowed)}")
    if key == "offline" and len(values) > 1:
        raise _malformed(part, "offline has one value, true or false")


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(_quoted(str(one)) for one in (value if isinstance(value, list) else [value]))


def _quoted(text: str) -> str:
    """`text`, in quotes if the grammar needs them."""
    if text and not (_INVISIBLE.search(text) or _NEEDS_QUOTES.search(text) or "," in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _quoted_key(key: str) -> str:
    return LABEL + _quoted(key.removeprefix(LABEL))


def _malformed(part: str, problem: str) -> FleetctlError:
    return FleetctlError(
        "selector_malformed", f"{_shown(part)} is not valid: {problem}.", hint=_HINT, exit_code=2
    )


def _unknown(part: str, key: str) -> FleetctlError:
    return FleetctlError(
        "selector_unknown",
        f"Devices have no attribute {_shown(key)}: {_shown(part)}.",
        hint=f"Use {', '.join(KEYS)} or {LABEL}NAME.",
        exit_code=2,
    )


def _shown(text: str) -> str:
    """A part of the text for a message: not too long, and without what a terminal would not show."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return _INVISIBLE.sub(lambda found: f"<U+{ord(found[0]):04X}>" if found[0] != " " else " ", cut)
