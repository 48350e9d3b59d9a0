"""Reads the code blocks of the documentation."""

from __future__ import annotations

import re
import textwrap

from tests.support.environment import ROOT

BLOCK = re.compile(r"^( *)```\w+\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def find_code_block(page: str, beginning: str) -> str:
    """The one block of docs/`page` that begins with `beginning`; ValueError where there is none, or more than one."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = [textwrap.dedent(block) for _, block in BLOCK.findall(text)]
    (found,) = [block for block in blocks if block.startswith(beginning)]
    return str(found)
