"""Describes an unexpected exception for the log without any value: messages and local variables may hold secrets."""

from __future__ import annotations

import traceback
from pathlib import Path

#: The innermost frames of a traceback that are logged.
MAX_FRAMES = 6


def describe_exception(error: BaseException) -> dict[str, object]:
    """Fields for a log line: the exception's type and the lines that it passed through."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": type(error).__name__, "where": where}
