"""Proves that a form was sent from a page of ours, by the browser that was shown it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from flask import Request
from itsdangerous import BadData, URLSafeSerializer

from web.oauth.state import SIGNED, SKEW
from web.security.cookies import Cookies

#: The hidden field of every form.
FIELD = "csrf_token"
LIFETIME = timedelta(hours=12)
#: A token's date is rounded down to it: a page that is fetched anew for its news keeps the form it has.
STEP = timedelta(hours=1)


class Forged(Exception):
    """Sent from elsewhere, or too late."""


class Csrf:
    """Issues and checks the tokens. Nothing is kept here: the browser's cookie is the other half."""

    def __init__(self, secret_key: str, cookies: Cookies, clock: Callable[[], datetime]) -> None:
        self._serializer = URLSafeSerializer(secret_key, salt="tokenkeeper.csrf", signer_kwargs=SIGNED)
        self._cookies = cookies
        self._clock = clock

    def token(self, browser: str) -> str:
        """For the forms of a page that this browser, known by its cookie, is shown."""
        now = self._clock().timestamp()
        content = {"b": _digest(browser), "t": int(now - now % STEP.total_seconds())}
        return str(self._serializer.dumps(content))

    def check(self, request: Request, called: str) -> None:
        """Raises Forged. `called`: the host that the browser asked for."""
        if _elsewhere(request, called):
            raise Forged
        try:
            content = self._serializer.loads(request.form.get(FIELD, ""))
        except BadData:
            raise Forged from None
        age = self._clock().timestamp() - content["t"]
        if not -SKEW.total_seconds() <= age <= (LIFETIME + STEP).total_seconds():
            raise Forged
        browser = self._cookies.browser(request)
        if browser is None or not hmac.compare_digest(content["b"], _digest(browser)):
            raise Forged


def _elsewhere(request: Request, called: str) -> bool:
    """Whether the browser itself says that the form is another site's.

    An Origin of "null" says nothing: it is what our own Referrer-Policy makes of it.
    """
    if site := request.headers.get("Sec-Fetch-Site"):
        return site not in {"same-origin", "none"}
    origin = request.headers.get("Origin", "null")
    return origin != "null" and _host(origin) != called.lower()


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _digest(browser: str) -> str:
    return hashlib.sha256(browser.encode()).hexdigest()[:32]
