"""gunicorn's own log lines: through the same net as ours, and with nothing in them that a client could forge."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from gunicorn.config import Config
from gunicorn.glogging import Logger

from shared.logs import RedactingFilter


class AccessLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.addFilter(RedactingFilter())

    def atoms(self, *args: Any) -> dict[str, Any]:
        """The path as it was sent, not as it is meant: %0a would begin a line of the client's own."""
        found: dict[str, Any] = super().atoms(*args)
        return {**found, "U": quote(found["U"] or "")}
