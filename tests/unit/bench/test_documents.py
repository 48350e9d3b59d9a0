"""The sections of documents that are made from figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import documents, report
from bench.documents import SECTIONS, Section
from bench.results import Results
from tests.support.environment import ROOT

MACHINE = {"growth": False, "told": "A run on 2 cores."}
FIGURES_SECTION, _, NEEDS_SECTION = SECTIONS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With figures."""
    results = Results()
    results.add(10_000, product=3600, cpu=0.25)
    for value in (3380, 3550, 3360):
        results.add(1_000_000, product=value, cpu_worker=0.2, cpu_postgres=0.1, wal=5000, row_bytes=1200)
    report.write_json(results, MACHINE, tmp_path / "performance.json")
    return tmp_path


def write_document(path: Path, section: Section) -> None:
    begin = documents.BEGIN.format(name=section.name, source=section.source)
    path.write_text(f"before\n{begin}\nold\n{documents.END.format(name=section.name)}\nafter\n", encoding="utf-8")


def test_a_document_gets_the_tables_between_its_markers(folder: Path) -> None:
    document = folder / "performance.md"
    write_document(document, FIGURES_SECTION)
    for _ in range(2):
        documents.update(folder)
        text = document.read_text(encoding="utf-8")
        assert text.startswith("before\n<!-- figures: made from performance.json")
        assert text.endswith("\n<!-- end of figures -->\nafter\n")
        assert "old" not in text
        row = "| refreshes per second, sustained | at least 3,500 refreshes/s | 3,380 (3,360\u20133,550) | MISSED |"
        assert row in text
    assert (folder / "performance.svg").exists()


def test_what_many_connections_need_is_computed_from_the_figures_at_the_largest_size(folder: Path) -> None:
    write_document(folder / "growth.md", NEEDS_SECTION)
    text = NEEDS_SECTION.replace((folder / "growth.md").read_text(encoding="utf-8"), folder / "performance.json")
    assert "| refreshes a second | 823 | 8,230 | 82,305 |" in text
    assert "| worker: cores (0.20 ms each) | 0.2 | 1.6 | 16.5 |" in text
    assert "| table and indexes, GB (1,200 bytes a row) | 1 | 12 | 120 |" in text


def test_a_document_without_markers_is_an_error(folder: Path) -> None:
    (folder / "performance.md").write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match=r"performance\.md has no lines"):
        documents.update(folder)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: f"{section.document}-{section.name}")
def test_a_section_in_docs_is_what_its_figures_make(section: Section) -> None:
    text = (ROOT / "docs" / section.document).read_text(encoding="utf-8")
    assert section.replace(text, ROOT / "docs" / section.source) == text, "run: python -m bench.documents docs"
