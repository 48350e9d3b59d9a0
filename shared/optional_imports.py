"""Lets a library be imported without optional parts that this product does not use, and that are large."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hide_optional(*modules: str) -> Iterator[None]:
    """In the block these look as if they were not installed, and a library that asks for them does without.

    Later they can be imported. What is imported already stays.
    """
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is Python's own mark for it
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
