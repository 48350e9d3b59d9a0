"""The documentation's own links lead somewhere, and its table of settings is the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.settings import Settings
from tests.support.environment import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
READ = re.compile(r"self\.read\(\s*\"([A-Z_]+)\"")


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


def headings(page: Path) -> set[str]:
    """As GitHub names them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_page_of_settings_has_each_of_them_with_an_example_and_no_other() -> None:
    code = set(READ.findall((ROOT / "shared" / "settings.py").read_text(encoding="utf-8")))
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    page = {name: row for row in rows for name in re.findall(r"`([A-Z_]+)`", row[0])}
    assert page.keys() == code
    examples = {name: row[2].strip("`") for name, row in page.items() if name != "TOKEN_KEYS"}
    Settings.from_env(examples, needs=set(examples))  # raises where one is missing, or none that would do
