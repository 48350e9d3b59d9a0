"""The states that a Marketplace install carries through HubSpot: for one app and, by a connect link, one customer.

HubSpot calls back from a frame in which the browser sends no cookie of this site, so the state alone has to say for
whom it is. It is encrypted, lives ten minutes, and works once (docs/adr/0035).
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from itsdangerous import BadData, URLSafeSerializer

from shared.token_cipher import DecryptionError, TokenCipher
from web.oauth.links.context import LinkContext
from web.security.signing import MAX_CLOCK_SKEW, SIGNER_OPTIONS, digest_identifier

LIFETIME = timedelta(minutes=10)
#: From the redirect to our product's sign-in page until the browser comes back: people may sign up there.
SIGN_IN_LIFETIME = timedelta(hours=1)
PURPOSE = "marketplace-state"


@dataclass(frozen=True, slots=True)
class MarketplaceState:
    state_id: str
    app: str
    expires_at: datetime
    browser: str | None  #: a digest of the browser's identifier; None: it had none
    link: LinkContext | None  #: None: the install is unclaimed

    def is_of_browser(self, browser_id: str | None) -> bool:
        """Also where either is unknown: most browsers send no cookie into a frame."""
        if self.browser is None or browser_id is None:
            return True
        return hmac.compare_digest(self.browser, digest_identifier(browser_id))


class MarketplaceStates:
    def __init__(self, cipher: TokenCipher, secret_key: str) -> None:
        self._cipher = cipher
        self._sign_ins = URLSafeSerializer(
            secret_key, salt="tokenkeeper.marketplace-sign-in", signer_kwargs=SIGNER_OPTIONS
        )

    def issue(self, app: str, browser_id: str | None, link: LinkContext | None, now: datetime) -> str:
        fields = {
            "i": secrets.token_urlsafe(16),
            "a": app,
            "e": (now + LIFETIME).timestamp(),
            "b": browser_id and digest_identifier(browser_id),
            "l": link and link.to_fields(),
        }
        return self._cipher.encrypt_fields(PURPOSE, fields)

    def read(self, text: str, now: datetime) -> MarketplaceState | None:
        """None where it is not one, or has expired."""
        try:
            fields = self._cipher.decrypt_fields(PURPOSE, text)
        except DecryptionError:
            return None
        expires_at = datetime.fromtimestamp(fields["e"], UTC)
        link = fields["l"] and LinkContext.from_fields(fields["l"])
        state = MarketplaceState(fields["i"], fields["a"], expires_at, fields["b"], link)
        return state if now < expires_at else None

    def issue_sign_in(self, browser_id: str, return_url: str, now: datetime) -> str:
        """Proves that this browser was sent from here to our product's sign-in page, to return to this address."""
        fields = {"b": digest_identifier(browser_id), "r": digest_identifier(return_url), "t": int(now.timestamp())}
        return str(self._sign_ins.dumps(fields))

    def is_sign_in(self, text: str, browser_id: str | None, return_url: str, now: datetime) -> bool:
        try:
            fields = self._sign_ins.loads(text)
        except BadData:
            return False
        age = timedelta(seconds=now.timestamp() - fields["t"])
        given = (fields["b"], fields["r"])
        wanted = (digest_identifier(browser_id or ""), digest_identifier(return_url))
        return -MAX_CLOCK_SKEW <= age <= SIGN_IN_LIFETIME and all(map(hmac.compare_digest, given, wanted))
