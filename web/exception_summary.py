"""Tells a bug of ours without a single value: its text, and what stood around it, may hold what nobody must read."""

from __future__ import annotations

import traceback
from pathlib import Path


def describe_exception(error: BaseException) -> dict[str, object]:
    """What was raised, and through which lines: for a log line."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": type(error).__name__, "where": where}
