"""The tests that docs/certification.md names exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "certification.md").read_text(encoding="utf-8")
TESTS = re.findall(r"`(test_\w+)`", PAGE)
FILES = re.findall(r"`(tests/[\w/]+\.py)`", PAGE)


def test_every_test_of_the_page_exists() -> None:
    defined = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert [name for name in TESTS if name not in defined] == []
    assert [name for name in FILES if not (ROOT / name).exists()] == []


def test_each_row_of_the_page_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    assert [row for row in rows if not re.search(r"`test", row)] == []
