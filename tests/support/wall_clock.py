"""A wall clock that a test sets, for processes that it starts."""

from __future__ import annotations

from pathlib import Path

from tests.support.environment import ROOT


class WallClock:
    """Processes that are started with `settings` read this clock instead of the machine's, at each call."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set_ahead(0.0)

    @property
    def settings(self) -> dict[str, str]:
        folder = ROOT / "tests" / "support" / "shifted_clock"
        return {"PYTHONPATH": str(folder), "CLOCK_SHIFT_FILE": str(self._file)}

    def set_ahead(self, seconds: float) -> None:
        """Negative: behind the machine's clock."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)  # no reader finds half of it
