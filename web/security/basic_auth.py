"""HTTP Basic: the operator's pages, and whatever else only the operator may read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import structlog
from flask import Response, render_template, request

from web.problems import FRONT_PAGE, AbortWithPage, Problem
from web.security.rate_limits import Addresses, RateLimiter

log = structlog.get_logger(__name__)

USER = "operator"
CHALLENGE = 'Basic realm="tokenkeeper", charset="UTF-8"'
SIGN_IN = Problem(
    401,
    "This page is the operator's",
    "It shows how the connections are doing. To read it, sign in as the user “operator”.",
    "The password is the setting OPERATOR_PASSWORD. “make up” prints it; in the containers it is in the file "
    "/run/tokenkeeper/OPERATOR_PASSWORD. Reload this page to be asked for it.",
    badge="",
    ways=(FRONT_PAGE,),
)

TOO_MANY = Problem(
    429,
    "Too many wrong passwords",
    "From your address came several wrong passwords in a row. No more are looked at for a moment, not even right ones.",
    "Wait a few seconds, then reload this page.",
    badge="",
    ways=(FRONT_PAGE,),
)

View = Callable[..., Response]


class BasicAuth:
    def __init__(self, password: str, wrong: RateLimiter, addresses: Addresses) -> None:
        """`wrong` holds how many wrong passwords an address may still give."""
        self._wrong = wrong
        self._addresses = addresses
        self._wanted = _digest(f"{USER}:{password}".encode())

    def guarded(self, view: View) -> View:
        """The view, for the operator alone: nobody else learns anything of what it would say."""

        @wraps(view)
        def guard(*args: Any, **kwargs: Any) -> Response:
            return view(*args, **kwargs) if self._is_operator() else _refused()

        return guard

    def _is_operator(self) -> bool:
        header = request.headers.get("Authorization", "")
        if not header:
            return False
        address = self._addresses.of(request)
        if wait := self._wrong.wait(address):
            raise AbortWithPage(TOO_MANY, math.ceil(wait))
        given = _given(header)
        right = hmac.compare_digest(_digest(given), self._wanted)
        if not right:
            if given:  # what makes no sense is no guess
                self._wrong.take(address)
            log.warning("somebody gave a wrong operator's password", address=address)
        return right


def _given(header: str) -> bytes:
    """User and password, as they were sent; empty where they were not, or make no sense."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(rest.strip(), validate=True)
    except ValueError:
        return b""


def _digest(text: bytes) -> bytes:
    """Of one length for all, so that the time to compare them does not tell how long the password is."""
    return hashlib.sha256(text).digest()


def _refused() -> Response:
    response = Response(render_template("problem.html", problem=SIGN_IN), SIGN_IN.status)
    response.headers["WWW-Authenticate"] = CHALLENGE
    return response
