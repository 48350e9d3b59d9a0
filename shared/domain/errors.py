"""Everything HubSpot can do instead of handing out a grant, and whose trouble it is.

    ProviderError
    ├── InvalidGrant         this connection is dead, says one witness
    │   └── WrongHub      the grant belongs to another account than the row it came from
    ├── InvalidClient       we are misconfigured: never costs a connection anything
    ├── UnknownRefusal    a refusal we do not know: ours until proven otherwise
    ├── CodeRejected      this one attempt to install is spent: start the handshake again
    └── TemporarilyUnavailable            HubSpot or the way there is ill: due again later, for ever
        ├── Throttled     429: everybody waits
        └── AccountMigrating  477, "migration in progress": this account waits

Which reply is which is decided in one place, `shared/hubspot/response_parsing.py`.
"""

from __future__ import annotations

from typing import Any


class ProviderError(Exception):
    """HubSpot brought no grant. Never raised directly.

    Carries codes, never bodies: a reply can echo what was sent.
    """

    def __init__(
        self,
        code: str,
        *,
        http_status: int | None = None,
        retry_after: float | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """`code` is HubSpot's own word (BAD_REFRESH_TOKEN) or ours (timeout, html): one line, no secrets.

        `retry_after` is in seconds, as HubSpot asked for; None where it did not say.
        """
        super().__init__(code)
        self.code = code
        self.http_status = http_status
        self.retry_after = retry_after
        self.correlation_id = correlation_id

    def __str__(self) -> str:
        return self.code if self.http_status is None else f"{self.code} (HTTP {self.http_status})"

    def evidence(self) -> dict[str, Any]:
        """What is worth keeping in the history, without what is not known."""
        facts = {"code": self.code, "http_status": self.http_status, "correlation_id": self.correlation_id}
        return {name: value for name, value in facts.items() if value is not None}


class InvalidGrant(ProviderError):
    """HubSpot says that this refresh token is no good: one witness, not yet a verdict."""


class WrongHub(InvalidGrant):
    """The reply speaks of another account than the row: a wrong line in an import."""


class InvalidClient(ProviderError):
    """HubSpot refuses our client id, secret, redirect URI or way of asking."""


class UnknownRefusal(ProviderError):
    """A refusal that stands in no table of ours."""


class CodeRejected(ProviderError):
    """The authorization code is unknown, used, expired or was issued for another redirect URI."""


class TemporarilyUnavailable(ProviderError):
    """No answer, no sensible answer, or a plea to come back later."""


class Throttled(TemporarilyUnavailable):
    """429: the app asks too much."""


class AccountMigrating(TemporarilyUnavailable):
    """This account is being moved between data centres; HubSpot's wait can be 24 hours."""
