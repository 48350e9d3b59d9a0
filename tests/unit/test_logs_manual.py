"""docs/logs.md names events that the code says, word by word."""

from __future__ import annotations

import ast
import re

import pytest

from shared.domain.connection import EventName
from tests.support.environment import ROOT

TABLE = (ROOT / "docs" / "logs.md").read_text().partition("## Events")[2].partition("## ")[0]
EVENTS = [event for row in re.findall(r"^\| (`.*?) \|", TABLE, re.MULTILINE) for event in re.findall(r"`(.*?)`", row)]
OF_A_CONNECTION = {f"connection {name.value}" for name in EventName} | {"connection held by the revocation brake"}


@pytest.fixture(scope="module")
def texts() -> set[str]:
    """Every text in the code. A fixture: every process of a test run imports this file."""
    trees = [
        ast.parse(path.read_text()) for folder in ("shared", "web", "worker") for path in (ROOT / folder).rglob("*.py")
    ]
    constants = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in constants if isinstance(text, str)}


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_of_the_manual_is_one_of_the_code(texts: set[str], event: str) -> None:
    assert event in OF_A_CONNECTION or any(re.match(re.escape(event) + r"($|[:;])", text) for text in texts), event


def test_the_manual_has_events() -> None:
    assert len(EVENTS) > 20
