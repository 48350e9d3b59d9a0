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

#: The identifier of the browser.
BROWSER_ID = "browser"
_BROWSER_ID = re.compile(r"[0-9A-Za-z_-]{43}")
#: Codes that this browser has used, newest first, each by the start of its install's identifier.
USED_CODES = "used"
MAX_USED_CODES = 8
#: Of the 32 hexadecimal digits of an install's identifier: two installs of one browser do not share so many.
SHORT_ID_CHARACTERS = 12


class Cookies:
    """Reads and sets cookies by short names; in the browser they have a prefix.

    Every page of the site gets all of them, so they have to stay few and small: `Path=/` is what browsers require of
    the prefix `__Host-`, and that prefix keeps neighbouring sites from setting them.
    """

    def __init__(self, *, is_https: bool, path_prefix: str = "") -> None:
        """`path_prefix` is the path below which the site is served; "" for a site of its own."""
        self._is_https = is_https
        self._path = path_prefix or "/"
        # Browsers allow both prefixes over https only, and __Host- only for the whole site.
        secure_prefix = "__Secure-tk_" if path_prefix else "__Host-tk_"
        self._name_prefix = secure_prefix if is_https else "tk_"

    @property
    def are_kept_over_http(self) -> bool:
        return not self._is_https

    def browser_id(self, request: Request) -> str | None:
        """The random identifier of this browser; None on its first visit."""
        value = self.read(request, BROWSER_ID) or ""
        return value if _BROWSER_ID.fullmatch(value) else None

    def ensure_browser_id(self, request: Request, response: Response) -> str:
        """The browser's identifier: a new one where it has none. All its tabs share it. Sets the cookie again."""
        browser_id = self.browser_id(request) or secrets.token_urlsafe(32)
        self.set(response, BROWSER_ID, browser_id)
        return browser_id

    def mark_code_used(self, request: Request, response: Response, install_id: str, lifetime: timedelta) -> None:
        """For as long as the state of a callback is valid, a reload must not exchange its code again."""
        used = [shorten_install_id(install_id), *self._read_used_codes(request)][:MAX_USED_CODES]
        self.set(response, USED_CODES, ".".join(used), max_age=int(lifetime.total_seconds()))

    def is_code_used(self, request: Request, install_id: str) -> bool:
        return shorten_install_id(install_id) in self._read_used_codes(request)

    def set_restarts(self, response: Response, count: int) -> None:
        self.set(response, "restarts", str(count), max_age=RESTARTS_SECONDS)

    def read_restarts(self, request: Request) -> int:
        value = self.read(request, "restarts") or ""
        return int(value) if re.fullmatch(r"[0-9]", value) else 0

    def read(self, request: Request, name: str) -> str | None:
        return request.cookies.get(self._name_prefix + name)

    def read_all(self, request: Request) -> dict[str, str]:
        """Every cookie of this site by its short name, oldest first as browsers send them."""
        return {
            name.removeprefix(self._name_prefix): value
            for name, value in request.cookies.items()
            if name.startswith(self._name_prefix)
        }

    def count_bytes(self, name: str, value: str) -> int:
        """What the cookie adds to the header of each request."""
        return len(f"{self._name_prefix}{name}={value}; ")

    def is_small_enough(self, name: str, value: str) -> bool:
        """Whether browsers keep the cookie in spite of its size."""
        return len(self._make_header(name, value, DAY_SECONDS)) <= MAX_COOKIE_BYTES

    def set(self, response: Response, name: str, value: str, *, max_age: int = DAY_SECONDS) -> None:
        """`max_age` in seconds."""
        response.headers.add("Set-Cookie", self._make_header(name, value, max_age))

    def delete(self, response: Response, name: str) -> None:
        self.set(response, name, "", max_age=0)

    def _read_used_codes(self, request: Request) -> list[str]:
        return re.findall(rf"[0-9a-f]{{{SHORT_ID_CHARACTERS}}}", self.read(request, USED_CODES) or "")

    def _make_header(self, name: str, value: str, max_age: int) -> str:
        return dump_cookie(
            self._name_prefix + name,
            value,
            max_age=max_age,
            path=self._path,
            secure=self._is_https,
            httponly=True,
            samesite="Lax",
            max_size=0,  # no warning: is_small_enough measures
        )


def shorten_install_id(install_id: str) -> str:
    return install_id.replace("-", "")[:SHORT_ID_CHARACTERS]
