"""HTTP Basic authentication for the operator's pages and /metrics."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Mapping
from functools import wraps
from typing import Any

import structlog
from flask import Response, render_template, request

from web.error_pages import SIGN_IN, TOO_MANY_WRONG_PASSWORDS, AbortWithPage
from web.security.rate_limits import RateLimiter, View, client_address

log = structlog.get_logger(__name__)

#: Users: of every page, and of /metrics alone.
OPERATOR, METRICS = "operator", "metrics"
CHALLENGE = 'Basic realm="tokenkeeper", charset="UTF-8"'


class BasicAuth:
    def __init__(self, passwords: Mapping[str, str], wrong_passwords: RateLimiter) -> None:
        """`passwords` of the users who may see the pages. `wrong_passwords` counts the guesses of each address."""
        self._wrong_passwords = wrong_passwords
        self._expected_digests = [_digest(f"{user}:{password}".encode()) for user, password in passwords.items()]

    def require(self, view: View) -> View:
        """The view for signed-in requests; a page with status 401 for others, before the view reads anything."""

        @wraps(view)
        def check(*args: Any, **kwargs: Any) -> Response:
            if self._is_signed_in():
                return view(*args, **kwargs)
            response = Response(render_template("error.html", page=SIGN_IN, frame="base.html"), SIGN_IN.status)
            response.headers["WWW-Authenticate"] = CHALLENGE
            return response

        return check

    def _is_signed_in(self) -> bool:
        header = request.headers.get("Authorization", "")
        if not header:
            return False
        address = client_address(request)
        if wait_seconds := self._wrong_passwords.wait_seconds(address):
            raise AbortWithPage(TOO_MANY_WRONG_PASSWORDS, math.ceil(wait_seconds))
        credentials = _parse_credentials(header)
        digest = _digest(credentials)
        is_right = any(hmac.compare_digest(digest, expected) for expected in self._expected_digests)
        if not is_right:
            if credentials:  # a header that is not Basic is no guess
                self._wrong_passwords.take(address)
            log.warning("wrong password", address=address)
        return is_right


def _parse_credentials(header: str) -> bytes:
    """`user:password` as sent; empty where the header is not of that scheme or cannot be decoded."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(rest.strip(), validate=True)
    except ValueError:
        return b""


def _digest(credentials: bytes) -> bytes:
    """Of one length for all, so that the time of the comparison does not depend on the length of the password."""
    return hashlib.sha256(credentials).digest()
