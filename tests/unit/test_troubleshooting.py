"""Every message that docs/troubleshooting.md quotes is one of the product, and every page for customers exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.support.environment import ROOT
from web import error_pages
from web.oauth.links import error_pages as link_error_pages
from web.oauth.marketplace import error_pages as marketplace_error_pages

SOURCES = ("cli", "deploy", "sandbox", "shared", "web", "worker")
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
#: Its tables quote PostgreSQL's and Docker's words, which tests/examples tries where it can.
OTHERS = ("Docker", "In SQL")
QUOTED = re.compile(r"`([^`]+)`")
#: What varies: `…` in the page, a placeholder in the code.
GAP = "\0"
#: Characters, beside its placeholders.
SAYS_SOMETHING = 10


@cache
def messages() -> frozenset[str]:
    """Every text in our code with more than one word, placeholders as gaps; the Makefile's lines."""
    found: set[str] = set((ROOT / "Makefile").read_text(encoding="utf-8").splitlines())
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr | ast.Constant):
                    found.add(_text(node))
    return frozenset(found)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return re.sub(r"\{\w*\}|%[sd]", GAP, node.value) if isinstance(node.value, str) else ""
    parts = node.values if isinstance(node, ast.JoinedStr) else []
    return "".join(_text(part) if isinstance(part, ast.Constant) else GAP for part in parts)


def quotations() -> Iterator[str]:
    """What stands in the first column of a table, of several words."""
    for section in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)[1:]:
        if section.splitlines()[0] in OTHERS:
            continue
        for line in section.splitlines():
            if line.startswith("| "):
                yield from (quoted for quoted in QUOTED.findall(line.split(" | ")[0]) if " " in quoted)


@pytest.mark.parametrize("quoted", sorted(set(quotations())))
def test_a_quoted_message_is_one_of_ours(quoted: str) -> None:
    pieces = [piece.strip() for piece in quoted.split("…") if len(piece.strip()) > 2]
    assert pieces, "nothing is left to look for"
    assert any(_holds(message, pieces) or _makes(message, quoted) for message in messages()), quoted


def _holds(message: str, pieces: list[str]) -> bool:
    """All of them, in this order."""
    place = 0
    for piece in pieces:
        place = message.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


def _makes(message: str, quoted: str) -> bool:
    """Where the page spells out what a placeholder brings. A message that is little else would make anything."""
    parts = message.split(GAP)
    if len(parts) == 1 or sum(map(len, parts)) < SAYS_SOMETHING:
        return False
    return re.fullmatch(".+".join(map(re.escape, parts)), quoted) is not None


def test_every_page_that_a_customer_may_see_is_explained() -> None:
    modules = (error_pages, link_error_pages, marketplace_error_pages)
    pages = [page for module in modules for page in vars(module).values()]
    titles = {page.title for page in pages if isinstance(page, error_pages.ErrorPage)}
    assert {title for title in titles if f"`{title}`" not in TEXT} == set()


def test_the_tables_are_found() -> None:
    assert len(set(quotations())) > 60
