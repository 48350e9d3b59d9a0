"""The rows that the simulator stores. Times are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field

#: In place of a user: the app is an account-level one.
NO_USER = 0
#: Who authorizes an account-level app, and the first user that the consent page of a user-level app offers.
DEFAULT_USER_ID = 222222
#: What an app may ask for with the client-credentials grant.
JOURNAL_SCOPES = (
    "developer.webhooks_journal.read",
    "developer.webhooks_journal.subscriptions.read",
    "developer.webhooks_journal.subscriptions.write",
    "developer.webhooks_journal.snapshots.read",
    "developer.webhooks_journal.snapshots.write",
)


@dataclass(frozen=True, slots=True)
class Account:
    hub_id: int
    name: str
    domain: str
    user: str  #: e-mail address of DEFAULT_USER_ID
    account_type: str  #: STANDARD, DEVELOPER_TEST, SANDBOX or APP_DEVELOPER
    hublet: str  #: its region: na1, eu1 …

    def find_email(self, user_id: int) -> str:
        return self.user if user_id in {NO_USER, DEFAULT_USER_ID} else f"user-{user_id}@{self.domain}"


@dataclass(frozen=True, slots=True)
class Installation:
    """What one grant belongs to: an app, an account, and for user-level apps a user."""

    hub_id: int
    client_id: str
    user_id: int = NO_USER


@dataclass(frozen=True, slots=True)
class Code:
    code: str = field(repr=False)
    installation: Installation
    redirect_uri: str
    scopes: tuple[str, ...]
    expires_at: float


@dataclass(frozen=True, slots=True)
class RefreshToken:
    token: str = field(repr=False)
    installation: Installation
    scopes: tuple[str, ...]
    revoked_at: float | None  #: may lie in the future: a rotated token stays valid until then

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None or self.revoked_at > now
