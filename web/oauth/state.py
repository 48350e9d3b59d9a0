"""The OAuth state: proves that an answer from HubSpot belongs to a handshake that this browser began."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from uuid import UUID

from itsdangerous import BadData, URLSafeSerializer

LIFETIME = timedelta(minutes=15)
#: Web hosts may disagree by so much about the time.
SKEW = timedelta(minutes=1)
#: How the serializers of this package sign; each adds a salt of its own, so that none passes for another.
SIGNED = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}


class StateRejected(Exception):
    """This is no state that may go on. Never raised directly."""


class StateForged(StateRejected):
    """Not signed by us, or cut off on the way."""


class StateExpired(StateRejected):
    """Issued more than 15 minutes ago."""


class StateOfAnotherBrowser(StateRejected):
    """Issued to another browser: somebody passed the link on, or the cookies are gone."""


class States:
    """Issues and checks states. Nothing is kept here: the browser's cookie is the other half."""

    def __init__(self, secret_key: str) -> None:
        self._key = secret_key.encode()
        self._serializer = URLSafeSerializer(secret_key, salt="tokenkeeper.oauth-state", signer_kwargs=SIGNED)

    def issue(self, browser: str, now: datetime) -> str:
        """A new state for this browser, which is known by what its cookie says."""
        content = {"n": secrets.token_urlsafe(16), "b": _digest(browser), "t": int(now.timestamp())}
        return str(self._serializer.dumps(content))

    def check(self, state: str, browser: str | None, now: datetime) -> str:
        """The handshake's own name. Raises a StateRejected."""
        try:
            content = self._serializer.loads(state)
        except BadData:
            raise StateForged from None
        age = now.timestamp() - content["t"]
        if not -SKEW.total_seconds() <= age <= LIFETIME.total_seconds():
            raise StateExpired
        if browser is None or not hmac.compare_digest(content["b"], _digest(browser)):
            raise StateOfAnotherBrowser
        return str(content["n"])

    def install_id(self, handshake: str, code: str) -> str:
        """The same handshake and code always make the same install: a reload is recognised, anywhere.

        The code belongs to it because a state can come back with another one: back button, another account.
        """
        digest = hmac.digest(self._key, f"install/{handshake}/{code}".encode(), hashlib.sha256)
        return str(UUID(bytes=digest[:16], version=4))


def _digest(browser: str) -> str:
    return hashlib.sha256(browser.encode()).hexdigest()[:32]
