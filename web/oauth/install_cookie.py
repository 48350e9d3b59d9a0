"""The ticket of one install: this browser may see its page, and how its grant was last handed in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime

from itsdangerous import BadData, URLSafeSerializer

from web.oauth.state import SIGNED

#: Seconds that a grant is given to be stored before it is handed in again.
SOON = 3.0
#: The same while PostgreSQL does not answer and the queue has it: handing it in again would only pile up copies.
LATER = 30.0
#: Seconds after which a grant that nobody has any more counts as lost.
LOST = 300.0


@dataclass(frozen=True, slots=True)
class InstallCookie:
    install_id: str
    hub_id: int
    since: float  #: epoch seconds, as HubSpot answered
    tried: float = 0.0  #: epoch seconds, as the grant was last handed in; 0: never
    kept: bool = False  #: whether the queue or PostgreSQL took it then

    def handed_in(self, now: datetime, kept: bool) -> InstallCookie:
        return replace(self, tried=now.timestamp(), kept=kept)

    def hand_in_again(self, now: datetime, postgres_answers: bool) -> bool:
        wait = LATER if self.kept and not postgres_answers else SOON
        return now.timestamp() - self.tried >= wait

    def lost(self, now: datetime) -> bool:
        """To be asked where no grant is left to hand in."""
        return now.timestamp() - self.since > LOST


class InstallCookies:
    """Signs and reads tickets."""

    def __init__(self, secret_key: str) -> None:
        self._serializer = URLSafeSerializer(secret_key, salt="tokenkeeper.install-ticket", signer_kwargs=SIGNED)

    def sign(self, ticket: InstallCookie) -> str:
        return str(self._serializer.dumps(asdict(ticket)))

    def read(self, text: str, install_id: str) -> InstallCookie | None:
        """None where it is not ours or is another install's."""
        try:
            ticket = InstallCookie(**self._serializer.loads(text))
        except (BadData, TypeError):
            return None
        return ticket if ticket.install_id == install_id else None
