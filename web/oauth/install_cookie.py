"""The signed cookie of one install: lets this browser see its page, and says when its grant was last submitted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime

from itsdangerous import BadData, URLSafeSerializer

from shared.domain.identity import DEFAULT_APP
from web.security.signing import SIGNER_OPTIONS

#: From the submission of a grant until it is submitted again, if it is still not stored.
RESUBMIT_SECONDS = 3.0
#: The same while the queue has the grant and PostgreSQL does not answer: more copies in the queue would not help.
RESUBMIT_QUEUED_SECONDS = 30.0
#: From HubSpot's answer until a grant counts as lost that is neither stored nor in the browser.
LOST_AFTER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class InstallCookie:
    install_id: str
    hub_id: int
    granted_at: float  #: epoch seconds of HubSpot's answer
    submitted_at: float = (
        0.0  #: epoch seconds at which the grant was last submitted to the queue or PostgreSQL; 0: never
    )
    is_accepted: bool = False  #: whether the queue or PostgreSQL accepted it then
    is_stored: bool = False  #: whether the row was seen in PostgreSQL; a failover may lose it all the same
    app: str = DEFAULT_APP

    def mark_submitted(self, now: datetime, *, is_accepted: bool) -> InstallCookie:
        return replace(self, submitted_at=now.timestamp(), is_accepted=is_accepted)

    def should_resubmit(self, now: datetime, *, postgres_answers: bool) -> bool:
        """For a grant that is not stored yet."""
        wait_seconds = RESUBMIT_QUEUED_SECONDS if self.is_accepted and not postgres_answers else RESUBMIT_SECONDS
        return now.timestamp() - self.submitted_at >= wait_seconds

    def is_lost(self, now: datetime) -> bool:
        """For a grant that is neither stored nor in the browser."""
        return now.timestamp() - self.granted_at > LOST_AFTER_SECONDS


class InstallCookieSigner:
    def __init__(self, secret_key: str) -> None:
        self._serializer = URLSafeSerializer(
            secret_key, salt="tokenkeeper.install-cookie", signer_kwargs=SIGNER_OPTIONS
        )

    def sign(self, cookie: InstallCookie) -> str:
        content = asdict(cookie)
        if cookie.app == DEFAULT_APP:
            del content["app"]  # every request carries it
        return str(self._serializer.dumps(content))

    def verify(self, value: str, install_id: str) -> InstallCookie | None:
        """None where the signature is wrong or the cookie is another install's."""
        cookie = self.read(value)
        return cookie if cookie is not None and cookie.install_id == install_id else None

    def read(self, value: str) -> InstallCookie | None:
        """Of whichever install; None where the signature is wrong."""
        try:
            return InstallCookie(**self._serializer.loads(value))
        except (BadData, TypeError):
            return None
