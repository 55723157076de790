"""Every link and every path in the documentation leads somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTED = subprocess.run(
    ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
PAGES = [name for name in LISTED if name.endswith(".md") and not name.startswith("roles/")]
FOLDERS = {name.split("/")[0] for name in LISTED if "/" in name}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def is_built(path: str) -> bool:
    """Whether Git ignores it: made when it is needed."""
    asked = ["git", "-C", str(ROOT), "check-ignore", "-q", f"{path}/"]
    return subprocess.run(asked, check=False).returncode == 0


def anchors(page: Path) -> set[str]:
    """As the code host makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_each_link_leads_to_a_page_and_its_heading(name: str) -> None:
    page = ROOT / name
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        path, _, heading = target.partition("#")
        leads_to = (page.parent / path).resolve() if path else page
        if not leads_to.exists() or (heading and heading not in anchors(leads_to)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("name", [name for name in PAGES if not name.startswith("docs/decisions/")])
def test_each_path_of_this_repository_exists(name: str) -> None:
    """Decisions are dated and keep the names of their day."""
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = {path.rstrip("/.") for path in re.findall(r"`([\w.-]+/[\w./-]*)`", text)}
    ours = {path for path in paths if path.split("/")[0] in FOLDERS - {"roles", "supabase"}}
    assert {path for path in ours if not (ROOT / path).exists() and not is_built(path)} == set()


@pytest.mark.parametrize("half", ["usage", "development"])
def test_the_readme_leads_to_every_page(half: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT).as_posix() for page in (ROOT / "docs" / half).glob("*.md")]
    assert [page for page in pages if f"({page})" not in readme] == []


def test_each_page_that_the_code_names_exists() -> None:
    """Hints and comments send people to pages."""
    named = subprocess.run(
        ["git", "-C", str(ROOT), "grep", "-hoIE", r"\bdocs/[a-z0-9/-]+\.md", "--", ":!*.md"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(named) > 10
    assert {page for page in named if not (ROOT / page).exists()} == set()
