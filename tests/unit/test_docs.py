"""The documentation's own links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.environment import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, place = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if place:
            assert place in headings(file), target


def test_the_pattern_of_a_link_finds_those_of_the_index() -> None:
    assert "architecture.md" in LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))


def headings(page: Path) -> set[str]:
    """As GitHub names them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_index_names_every_page_of_the_documentation() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {target.partition("#")[0] for target in LINK.findall(index)}
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - linked == set()


def test_every_path_of_the_code_that_a_page_names_exists() -> None:
    """Decision records and the changelog tell of the past. `kubectl exec deploy/tokenkeeper-worker` names no path."""
    pages = [page for page in PAGES if page.parent.name != "adr" and page.name != "CHANGELOG.md"]
    path = re.compile(r"(?<![\w./-])((?:shared|web|worker|cli|sandbox|deploy|tools|bench|tests|examples)/[\w./-]*\w)")
    missing = [
        f"{page.name}: {name}"
        for page in pages
        for name in path.findall(page.read_text(encoding="utf-8"))
        if not name.startswith("deploy/tokenkeeper-")
        and not (ROOT / name).exists()
        and not (ROOT / f"{name}.py").exists()
    ]
    assert missing == []
