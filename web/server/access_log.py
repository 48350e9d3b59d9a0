"""gunicorn's log lines: secrets are redacted as in the product's own, and a client cannot forge a line."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from gunicorn.config import Config
from gunicorn.glogging import Logger

from shared.logs import RedactingFilter

#: A connect link names the customer, and may still be used.
_CONNECT_LINK = re.compile(r"(/connect/).+")


class AccessLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.addFilter(RedactingFilter())

    def atoms(self, *args: Any) -> dict[str, Any]:
        """The path percent-encoded, as it was sent: decoded, %0a would begin a new line."""
        atoms: dict[str, Any] = super().atoms(*args)
        path = _CONNECT_LINK.sub(r"\1…", quote(atoms["U"] or ""))
        return {**atoms, "U": path}
