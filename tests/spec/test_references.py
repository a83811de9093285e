"""What one page says of another is there: requirements by their ids, pages and headings by their links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SPEC = Path(__file__).parent.parent.parent / "spec"
PAGES = {path.name: path.read_text("utf-8") for path in sorted(SPEC.glob("*.md"))}
REQUIREMENTS = set(re.findall(r"^\s*- \*\*\[([A-Z]-\d+)\]\*\*", "\n".join(PAGES.values()), re.MULTILINE))

_LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]*))?\)")
_ID = re.compile(r"\b([NIDJAPGBELS]-[1-9]\d*)\b")


def anchors(page: str) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for target, anchor in _LINK.findall(PAGES[name]):
        assert (SPEC / target).exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(PAGES[target or name]), f"{name}: {target}#{anchor}"


@pytest.mark.parametrize("name", [name for name in PAGES if name[:2].isdigit()])
def test_requirements_that_are_referred_to_exist(name: str) -> None:
    assert set(_ID.findall(PAGES[name])) <= REQUIREMENTS


def test_requirements_are_numbered_without_gaps() -> None:
    for letter in {id[0] for id in REQUIREMENTS}:
        numbers = sorted(int(id[2:]) for id in REQUIREMENTS if id[0] == letter)
        assert numbers == list(range(1, len(numbers) + 1)), letter
