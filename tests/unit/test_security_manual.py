"""docs/security.md names a test for each of its claims: every one of them is there, under that name."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.environment import ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAMES = sorted(set(NAMED.findall((ROOT / "docs" / "security.md").read_text(encoding="utf-8"))))


@pytest.mark.parametrize(("file", "name"), NAMES, ids="::".join)
def test_every_test_that_the_manual_names_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert name in found


def test_the_manual_names_tests() -> None:
    assert len(NAMES) > 5
