"""Every answer of HubSpot other than a grant, by its consequence.

    ProviderError
    ├── InvalidGrant             HubSpot rejects this refresh token: introspection is asked next
    │   └── WrongHub             the grant belongs to another account than the row that it is for
    ├── InvalidClient            our app is misconfigured: never costs a connection anything
    ├── UnknownRefusal           a refusal that is in no table: never costs a connection anything
    │   └── ScopesRejected       the grant and the app's scopes do not match: the account has to consent again
    ├── CodeRejected             this attempt to install has failed: the handshake has to start again
    └── TemporarilyUnavailable   HubSpot or the network is failing: retried without end
        ├── Throttled            429: every connection waits
        ├── AccountMigrating     477 or "migration in progress": this account waits
        └── NoAccessToken        a 2xx without a usable access token, but with a refresh token: it is stored

`shared/hubspot/response_parsing.py` decides which reply is which error.
"""

from __future__ import annotations

from typing import Any


class ProviderError(Exception):
    """HubSpot issued no grant. Never raised directly.

    Carries codes and never bodies, because a reply can echo the tokens that were sent.
    """

    def __init__(
        self,
        code: str,
        *,
        http_status: int | None = None,
        retry_after: float | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """`code` is HubSpot's (BAD_REFRESH_TOKEN) or our own (timeout, html): one line, no secrets.

        `retry_after` is in seconds, as HubSpot asked; None where it did not.
        """
        super().__init__(code)
        self.code = code
        self.http_status = http_status
        self.retry_after = retry_after
        self.correlation_id = correlation_id

    def __str__(self) -> str:
        return self.code if self.http_status is None else f"{self.code} (HTTP {self.http_status})"

    def evidence(self) -> dict[str, Any]:
        """What the history and the log keep of it, without fields that are unknown."""
        facts = {"code": self.code, "http_status": self.http_status, "correlation_id": self.correlation_id}
        return {name: value for name, value in facts.items() if value is not None}


class InvalidGrant(ProviderError):
    """HubSpot says that this refresh token is invalid. Only introspection makes that a revocation."""


class WrongHub(InvalidGrant):
    """The reply names another account than the row, or another user: a wrong line in an import."""


class InvalidClient(ProviderError):
    """HubSpot refuses our client id, our secret, our redirect URI or the form of our request."""


class UnknownRefusal(ProviderError):
    """A refusal with a code that ERROR_CLASSIFICATION does not contain."""


class ScopesRejected(UnknownRefusal):
    """BAD_SCOPES to a refresh: the scopes of the app and of the grant have come apart.

    One account has to consent again. Many in a row mean that the app's scopes are wrong: they count as unknown refusals
    do.
    """


class CodeRejected(ProviderError):
    """The authorization code is unknown, used, expired or was issued for another redirect URI."""


class TemporarilyUnavailable(ProviderError):
    """No answer, an answer that makes no sense, or a request to come back later."""


class Throttled(TemporarilyUnavailable):
    """429: our app sends too many requests."""


class AccountMigrating(TemporarilyUnavailable):
    """HubSpot moves this account to another data centre; its Retry-After can be 24 hours."""


class NoAccessToken(TemporarilyUnavailable):
    """HubSpot sent a refresh token, which may replace the stored one, without an access token that can be used."""

    def __init__(self, code: str, *, refresh_token: str, hub_id: int | None = None, **facts: Any) -> None:
        """`hub_id`: the account that the reply names; None where it names none. `facts`: as for ProviderError."""
        super().__init__(code, **facts)
        self.refresh_token = refresh_token  #: in clear, and in no text of the error
        self.hub_id = hub_id
