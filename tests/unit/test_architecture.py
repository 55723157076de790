"""The architecture page is as the code is: rooms, arrows, files and the names in them."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.room_map import arrows, reduced, rooms

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "development" / "architecture.md").read_text(encoding="utf-8")
PLACE = re.compile(r"`([\w.-]+/[\w./-]+\.(?:py|sql|tsx?))` \(([^)]*)\)")
DEFINED = r"(?:def|class|function|const|interface|type) (?:(?:public|private)\.)?{}\b"


def places() -> list[tuple[str, str]]:
    """Each name that the page says is in a file."""
    return sorted(
        {(file, name) for file, names in PLACE.findall(PAGE) for name in re.findall(r"`(\w+)`", names)}
    )


def drawn() -> set[tuple[str, str]]:
    (picture,) = re.findall(r"```mermaid\nflowchart TD\n(.*?)```", PAGE, re.DOTALL)
    return set(re.findall(r"^    (\w+) --> (\w+)$", picture, re.MULTILINE))


def test_the_picture_has_every_room_and_no_other() -> None:
    assert {room for arrow in drawn() for room in arrow} == rooms()
    described = re.findall(r"^\| `(\w+)/` \|", PAGE.split("| room of ")[1].split("\n\n")[0], re.MULTILINE)
    assert sorted(described) == sorted(rooms())


def test_the_picture_has_every_arrow_that_follows_from_no_other() -> None:
    assert drawn() == reduced(arrows())


def test_each_arrow_of_the_picture_leads_down_the_layers_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [
        contract["layers"]
        for contract in contracts
        if contract["type"] == "layers" and contract["containers"] == ["fleet_agent"]
    ]
    floor = {room.strip(): number for number, layer in enumerate(layers) for room in layer.split("|")}
    assert [(start, end) for start, end in sorted(drawn()) if floor[start] >= floor[end]] == []


def test_arrows_make_no_circle() -> None:
    """Only then can those that follow from others be left out."""
    left = arrows()
    while sinks := {end for _, end in left} - {start for start, _ in left}:
        left = {(start, end) for start, end in left if end not in sinks}
    assert left == set()


@pytest.mark.parametrize(("file", "name"), places())
def test_each_name_is_defined_in_the_file_that_the_page_names(file: str, name: str) -> None:
    assert re.search(DEFINED.format(name), (ROOT / file).read_text(encoding="utf-8"))


def test_the_page_names_at_least_its_guides() -> None:
    assert len(places()) > 25


def test_each_folder_of_the_repository_is_on_the_page() -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {name.split("/")[0] for name in listed if "/" in name and not name.startswith((".", "docs/"))}
    assert {folder for folder in folders if f"`{folder}/" not in PAGE} == set()
