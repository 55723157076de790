"""Selectors as text: the same table of cases as the TypeScript half (web/src/format/selector.test.ts)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetctl.commands.common.selector import CLOSED, KEYS, parse_selector, selector_text
from fleetctl.errors import FleetctlError
from tests.support.profiles import amount

CASES = json.loads((Path(__file__).parents[2] / "support" / "selector_cases.json").read_text("utf-8"))
PAGE = (Path(__file__).parents[3] / "docs" / "usage" / "selectors.md").read_text("utf-8")


def test_each_text_means_what_the_table_says() -> None:
    assert len(CASES["valid"]) > 30
    for case in CASES["valid"]:
        assert parse_selector(case["text"]) == case["selector"], case["text"]
        assert selector_text(case["selector"]) == case["written"]
        assert parse_selector(case["written"]) == case["selector"], case["written"]


def test_each_wrong_text_is_refused_with_the_part_that_is_wrong() -> None:
    assert len(CASES["refused"]) > 60
    for case in CASES["refused"]:
        with pytest.raises(FleetctlError) as caught:
            parse_selector(case["text"])
        assert (caught.value.kind, caught.value.message) == (case["kind"], case["message"])
        assert caught.value.exit_code == 2
        assert all(key in caught.value.hint for key in KEYS) == (case["kind"] == "selector_unknown")


EXAMPLES = settings(max_examples=amount(30, full=500), deadline=None)
#: What a text of PostgreSQL can hold.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def _values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.lists(texts, min_size=1, unique=True).map(
        lambda many: many[0] if len(many) == 1 else sorted(many)
    )


@EXAMPLES
@given(
    st.fixed_dictionaries(
        {},
        optional={
            **{key: _values(st.sampled_from(CLOSED[key]) if key in CLOSED else TEXTS) for key in KEYS},
            "offline": st.booleans(),
            "labels": st.dictionaries(TEXTS.filter(bool), _values(TEXTS), min_size=1),
        },
    )
)
def test_what_is_written_is_read_back(selector: dict[str, Any]) -> None:
    assert parse_selector(selector_text(selector)) == selector


@EXAMPLES
@given(st.text(st.sampled_from("segmntlabofi=,\" \\.'\u200b\n-x")) | st.text())
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        read = parse_selector(text)
    except FleetctlError as error:
        assert error.kind in ("selector_malformed", "selector_unknown")
        assert error.message.endswith(".")
        return
    assert parse_selector(selector_text(read)) == read


def test_the_page_has_each_key() -> None:
    table = PAGE.split("## Keys")[1].split("##")[0]
    assert [key for key in KEYS if f"`{key}`" not in table] == []
