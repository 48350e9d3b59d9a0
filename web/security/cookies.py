"""Every cookie that the web pages set: HttpOnly, SameSite=Lax, and Secure where the site is served over https."""

from __future__ import annotations

import re
import secrets
from datetime import timedelta

from flask import Request, Response
from werkzeug.http import dump_cookie

DAY_SECONDS = 86_400
#: Browsers drop a larger cookie, counted with its name and attributes.
MAX_COOKIE_BYTES = 4096
#: A handshake that loses its state on every way back is stopped after this many restarts within the time.
MAX_RESTARTS, RESTARTS_SECONDS = 3, 120

#: The one cookie that is sent with every page.
BROWSER_ID = "browser"
_BROWSER_ID = re.compile(r"[0-9A-Za-z_-]{43}")


class Cookies:
    """Reads and sets cookies by short names; in the browser they have a prefix."""

    def __init__(self, is_https: bool) -> None:
        self._is_https = is_https

    def browser_id(self, request: Request) -> str | None:
        """The random identifier of this browser; None on its first visit."""
        value = self.read(request, BROWSER_ID) or ""
        return value if _BROWSER_ID.fullmatch(value) else None

    def ensure_browser_id(self, request: Request, response: Response) -> str:
        """The browser's identifier: a new one where it has none. All its tabs share it. Sets the cookie again."""
        browser_id = self.browser_id(request) or secrets.token_urlsafe(32)
        self.set(response, BROWSER_ID, browser_id, path="/")
        return browser_id

    def mark_code_used(self, response: Response, install_id: str, path: str, lifetime: timedelta) -> None:
        """For as long as the state of a callback is valid, a reload must not exchange its code again."""
        self.set(response, f"done_{install_id}", "1", path=path, max_age=int(lifetime.total_seconds()))

    def is_code_used(self, request: Request, install_id: str) -> bool:
        return self.read(request, f"done_{install_id}") is not None

    def set_restarts(self, response: Response, count: int, path: str) -> None:
        self.set(response, "restarts", str(count), path=path, max_age=RESTARTS_SECONDS)

    def read_restarts(self, request: Request) -> int:
        value = self.read(request, "restarts") or ""
        return int(value) if re.fullmatch(r"[0-9]", value) else 0

    def read(self, request: Request, name: str) -> str | None:
        return request.cookies.get(self._full_name(name))

    def set(self, response: Response, name: str, value: str, *, path: str, max_age: int = DAY_SECONDS) -> None:
        """`max_age` in seconds."""
        response.headers.add("Set-Cookie", self._make_header(name, value, path, max_age))

    def set_if_small_enough(self, response: Response, name: str, value: str, *, path: str) -> bool:
        """False, and nothing is set, where browsers would drop the cookie for its size."""
        is_small_enough = len(self._make_header(name, value, path, DAY_SECONDS)) <= MAX_COOKIE_BYTES
        if is_small_enough:
            self.set(response, name, value, path=path)
        return is_small_enough

    def delete(self, response: Response, name: str, *, path: str) -> None:
        self.set(response, name, "", path=path, max_age=0)

    def _make_header(self, name: str, value: str, path: str, max_age: int) -> str:
        return dump_cookie(
            self._full_name(name),
            value,
            max_age=max_age,
            path=path,
            secure=self._is_https,
            httponly=True,
            samesite="Lax",
            max_size=0,  # no warning: set_if_small_enough measures
        )

    def _full_name(self, name: str) -> str:
        """With a prefix that keeps other sites of the domain from setting it; browsers allow it over https only."""
        if not self._is_https:
            return f"tk_{name}"
        return f"__Host-tk_{name}" if name == BROWSER_ID else f"__Secure-tk_{name}"
