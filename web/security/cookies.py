"""Every cookie that we set: HttpOnly, SameSite=Lax, Secure where we are reached by https."""

from __future__ import annotations

import re
import secrets

from flask import Request, Response
from werkzeug.http import dump_cookie

from web.oauth.state import LIFETIME

DAY = 86_400
#: Browsers drop a cookie above this, in bytes with its name and attributes.
LARGEST = 4096
#: A handshake that loses its state on every way back is stopped after so many restarts in two minutes.
MOST_RESTARTS, RESTARTS_SECONDS = 3, 120

#: The one cookie that every page of ours gets.
BROWSER = "browser"
_KNOWN_AS = re.compile(r"[0-9A-Za-z_-]{43}")


class Cookies:
    """Names, sets and reads them; short names are ours, the browser sees them with a prefix."""

    def __init__(self, https: bool) -> None:
        self._https = https

    def browser(self, request: Request) -> str | None:
        """What this browser is known by, if it has been here before."""
        known = self.read(request, BROWSER) or ""
        return known if _KNOWN_AS.fullmatch(known) else None

    def recognise(self, request: Request, response: Response) -> str:
        """The same, given to the browser now where it has none. Any number of tabs share it."""
        browser = self.browser(request) or secrets.token_urlsafe(32)
        self.set(response, BROWSER, browser, path="/")
        return browser

    def mark_done(self, response: Response, install_id: str, path: str) -> None:
        """The code has been exchanged: for as long as its state is good, a reload must not do it again."""
        self.set(response, f"done_{install_id}", "1", path=path, seconds=int(LIFETIME.total_seconds()))

    def is_done(self, request: Request, install_id: str) -> bool:
        return self.read(request, f"done_{install_id}") is not None

    def mark_restart(self, response: Response, count: int, path: str) -> None:
        self.set(response, "restarts", str(count), path=path, seconds=RESTARTS_SECONDS)

    def restarts(self, request: Request) -> int:
        text = self.read(request, "restarts") or ""
        return int(text) if re.fullmatch(r"[0-9]", text) else 0

    def read(self, request: Request, name: str) -> str | None:
        return request.cookies.get(self._full(name))

    def set(self, response: Response, name: str, value: str, *, path: str, seconds: int = DAY) -> None:
        response.headers.add("Set-Cookie", self._header(name, value, path, seconds))

    def set_if_it_fits(self, response: Response, name: str, value: str, *, path: str) -> bool:
        """False, and nothing is set, where browsers would drop it for its size."""
        fits = len(self._header(name, value, path, DAY)) <= LARGEST
        if fits:
            self.set(response, name, value, path=path)
        return fits

    def drop(self, response: Response, name: str, *, path: str) -> None:
        self.set(response, name, "", path=path, seconds=0)

    def _header(self, name: str, value: str, path: str, seconds: int) -> str:
        return dump_cookie(
            self._full(name),
            value,
            max_age=seconds,
            path=path,
            secure=self._https,
            httponly=True,
            samesite="Lax",
            max_size=0,  # whether it fits is asked before
        )

    def _full(self, name: str) -> str:
        """With the prefix that keeps other sites of the domain from setting it, where browsers allow one."""
        if not self._https:
            return f"tk_{name}"
        return f"__Host-tk_{name}" if name == BROWSER else f"__Secure-tk_{name}"
