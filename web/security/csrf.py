"""CSRF tokens: a form is accepted only from a page of this site, from the browser to which the page was served."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from flask import Request
from itsdangerous import BadData, URLSafeSerializer

from web.security.cookies import Cookies
from web.security.host_header import original_host
from web.security.signing import MAX_CLOCK_SKEW, SIGNER_OPTIONS, digest_identifier

#: The hidden field of every form.
FIELD = "csrf_token"
TOKEN_LIFETIME = timedelta(hours=12)
#: A token's time is rounded down to it, so that a page that reloads its content keeps the same form.
TIME_STEP = timedelta(hours=1)


class InvalidCsrfToken(Exception):
    """The form was sent from another site or by another browser, or its page is too old."""


class CsrfTokens:
    """Issues and checks tokens. The server stores none: a token is bound to the browser's cookie."""

    def __init__(
        self, secret_key: str, cookies: Cookies, clock: Callable[[], datetime], hosts: Collection[str] = ()
    ) -> None:
        """`hosts`, with their ports, under which browsers reach the site besides the one that they ask for."""
        self._serializer = URLSafeSerializer(secret_key, salt="tokenkeeper.csrf", signer_kwargs=SIGNER_OPTIONS)
        self._cookies = cookies
        self._clock = clock
        self._hosts = hosts

    def issue(self, browser_id: str) -> str:
        """A token for the forms of a page that is served to this browser."""
        now = self._clock().timestamp()
        content = {"b": digest_identifier(browser_id), "t": int(now - now % TIME_STEP.total_seconds())}
        return str(self._serializer.dumps(content))

    def check(self, request: Request) -> None:
        """Raises InvalidCsrfToken."""
        if self._is_cross_site(request):
            raise InvalidCsrfToken
        try:
            content = self._serializer.loads(request.form.get(FIELD, ""))
        except BadData:
            raise InvalidCsrfToken from None
        age = timedelta(seconds=self._clock().timestamp() - content["t"])
        if not -MAX_CLOCK_SKEW <= age <= TOKEN_LIFETIME + TIME_STEP:
            raise InvalidCsrfToken
        # A browser that reaches a site of https over http, in the operator's own network, keeps no Secure cookie. The
        # token alone counts then: only a page behind the operator's password has one.
        browser_id = self._cookies.browser_id(request)
        has_cookie = browser_id is not None or self._cookies.are_kept_over_http
        if has_cookie and not hmac.compare_digest(content["b"], digest_identifier(browser_id or "")):
            raise InvalidCsrfToken

    def _is_cross_site(self, request: Request) -> bool:
        """Whether the browser itself says that another site sent the form.

        `Origin: null` says nothing: the pages' own Referrer-Policy causes it. Some proxies replace the Host header, and
        name the one that the browser sent in X-Forwarded-Host: no script of another site can set either.
        """
        if site := request.headers.get("Sec-Fetch-Site"):
            return site not in {"same-origin", "none"}
        origin = request.headers.get("Origin", "null")
        forwarded_host = request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip()
        own_hosts = {original_host(request).lower(), forwarded_host.lower(), *self._hosts}
        return origin != "null" and _host(origin) not in own_hosts - {""}


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
