"""HubSpot's scopes in words."""

from __future__ import annotations

import re
from collections.abc import Iterable

_OBJECTS = re.compile(r"crm\.(?P<kind>objects|schemas|lists)(?:\.(?P<what>[a-z0-9_-]+))?\.(?P<verb>read|write)")
_WORDS = {"oauth": "Know which account this is", "tickets": "Read and change tickets", "content": "Use content"}
_KINDS = {"objects": "{what}", "schemas": "the properties of {what}", "lists": "lists"}


def in_words(scopes: Iterable[str]) -> list[tuple[str, str]]:
    """Each scope with what it allows; one we have no words for stands for itself."""
    return [(scope, _words(scope)) for scope in scopes]


def _words(scope: str) -> str:
    if found := _OBJECTS.fullmatch(scope):
        verb = "Read" if found["verb"] == "read" else "Change"
        return f"{verb} {_KINDS[found['kind']].format(what=(found['what'] or 'records').replace('_', ' '))}"
    return _WORDS.get(scope, scope)
