"""The OAuth state: proves that a redirect from HubSpot belongs to a handshake that this browser began."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from itsdangerous import BadData, URLSafeSerializer

from shared.domain.identity import DEFAULT_APP
from web.security.signing import MAX_CLOCK_SKEW, SIGNER_OPTIONS, digest_identifier

STATE_LIFETIME = timedelta(minutes=15)


class StateRejected(Exception):
    """The state is not valid. Never raised directly."""


class StateInvalid(StateRejected):
    """Not signed with SECRET_KEY, or changed on the way."""


class StateExpired(StateRejected):
    """Issued more than 15 minutes ago."""

    def __init__(self, checked: CheckedState | None) -> None:
        """`checked`: what it says, where this browser got it."""
        super().__init__()
        self.checked = checked


class StateOfAnotherBrowser(StateRejected):
    """Issued to another browser: a person passed the link on, or the browser lost its cookies."""


@dataclass(frozen=True, slots=True)
class CheckedState:
    handshake_id: str  #: random, of one redirect to HubSpot
    app: str  #: the name of the app that the browser was sent to HubSpot for
    link: str | None = None  #: the encrypted LinkContext of the connect link by which the browser came


class States:
    """Issues and checks states. The server stores none: a state is bound to the browser's cookie."""

    def __init__(self, secret_key: str) -> None:
        self._key = secret_key.encode()
        self._serializer = URLSafeSerializer(secret_key, salt="tokenkeeper.oauth-state", signer_kwargs=SIGNER_OPTIONS)

    def issue(self, browser_id: str, now: datetime, app: str = DEFAULT_APP, link: str | None = None) -> str:
        content = {"n": secrets.token_urlsafe(16), "b": digest_identifier(browser_id), "t": int(now.timestamp())}
        if app != DEFAULT_APP:
            content["a"] = app
        if link is not None:
            content["l"] = link
        return str(self._serializer.dumps(content))

    def check(self, state: str, browser_id: str | None, now: datetime) -> CheckedState:
        """Raises a StateRejected."""
        try:
            content = self._serializer.loads(state)
        except BadData:
            raise StateInvalid from None
        checked = CheckedState(str(content["n"]), str(content.get("a", DEFAULT_APP)), content.get("l"))
        is_same_browser = browser_id is not None and hmac.compare_digest(content["b"], digest_identifier(browser_id))
        age = timedelta(seconds=now.timestamp() - content["t"])
        if not -MAX_CLOCK_SKEW <= age <= STATE_LIFETIME:
            raise StateExpired(checked if is_same_browser else None)
        if not is_same_browser:
            raise StateOfAnotherBrowser
        return checked

    def install_id(self, handshake_id: str, code: str) -> str:
        """A UUID. The same handshake and code always give the same one, so that any web process recognises a reload.

        The code is part of it because one state can come back with two codes: back button, then another account.
        """
        digest = hmac.digest(self._key, f"install/{handshake_id}/{code}".encode(), hashlib.sha256)
        return str(UUID(bytes=digest[:16], version=4))
