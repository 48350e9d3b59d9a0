"""Asks HubSpot about the accounts of new connections: domain, installer, name, type and region."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import structlog

from shared import tracing
from shared.db.lifecycle.account_info import AccountInfoStore, ClaimedAccount
from shared.db.refresh.provider import ProviderStore
from shared.domain.account import AccountDetails, AccountInfo
from shared.domain.errors import AccountMigrating, InvalidClient, ProviderError, TemporarilyUnavailable, Throttled
from shared.domain.provider import CallOutcome
from shared.hubspot.client import HubSpot

log = structlog.get_logger(__name__)

#: Of one run. Between two rounds new installs are claimed first, so that they do not wait for the rest of an import.
CALLS_IN_FLIGHT, ROUNDS = 8, 5
#: After a failure of HubSpot's API, for so long accounts are asked about by introspection alone.
API_PAUSE_SECONDS = 30.0


class AccountInfoFetcher:
    """Introspects new connections' access tokens, and makes the first call of HubSpot's API with each.

    What HubSpot does not answer now is asked again later. Failures of introspection count for HubSpot's state, as those
    of a refresh do. Failures of the API do not: it is another service, and limits each account for itself.
    """

    def __init__(
        self,
        store: AccountInfoStore,
        provider: ProviderStore,
        hubspot: HubSpot,
        monotonic_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._provider = provider
        self._hubspot = hubspot
        self._clock = monotonic_clock
        self._is_app_rejected = False  #: by the newest answer
        self._api_paused_until = monotonic_clock()

    def run(self) -> None:
        """Ask about some accounts; the next sweep runs it again for the rest. The first failure ends it.

        Raises StoreUnavailable.
        """
        with ThreadPoolExecutor(CALLS_IN_FLIGHT, thread_name_prefix="account-info") as threads:
            for _ in range(ROUNDS):
                accounts, provider = self._store.claim_missing(CALLS_IN_FLIGHT)
                errors = list(threads.map(self._fetch, accounts))
                self._record(errors, is_provider_healthy=provider.is_healthy)
                if any(errors) or len(accounts) < CALLS_IN_FLIGHT:
                    break

    @tracing.trace_calls("fetch_account_info")
    def _fetch(self, account: ClaimedAccount) -> ProviderError | None:
        """Raises StoreUnavailable."""
        fields = account.identity.log_fields()
        tracing.set_attributes(**fields)
        try:
            answer = self._hubspot.introspect(account.access_token, "access_token")
        except ProviderError as error:
            log.info(
                "HubSpot did not return the account's information; asked again later", **fields, **error.evidence()
            )
            return error
        if not answer.active:
            self._store.refresh_inactive(account)
            return None
        details, asks_again = self._read_details(account)
        self._store.save(account, AccountInfo(answer.hub_domain, answer.user, details), asks_again=asks_again)
        return None

    def _read_details(self, account: ClaimedAccount) -> tuple[AccountDetails | None, bool]:
        """The account's name, type and region, and whether to ask again. None: HubSpot does not say, or not now."""
        hub_id, fields = account.identity.hub_id, account.identity.log_fields()
        if self._clock() < self._api_paused_until:
            return None, True
        try:
            details = self._hubspot.read_account(account.access_token)
        except TemporarilyUnavailable as error:
            self._api_paused_until = self._clock() + API_PAUSE_SECONDS
            log.info("HubSpot did not return the account's name; asked again later", **fields, **error.evidence())
            return None, True
        except ProviderError as error:
            if error.http_status == HTTPStatus.UNAUTHORIZED:
                log.warning("HubSpot's API refuses a new token", **fields, **error.evidence())
            else:
                log.info("HubSpot refuses to return the account's name", **fields, **error.evidence())
            return None, False
        if details.hub_id not in {None, hub_id}:
            log.warning("HubSpot returned the name of another account", **fields, other_hub_id=details.hub_id)
            return None, False
        return details, False

    def _record(self, errors: Iterable[ProviderError | None], *, is_provider_healthy: bool) -> None:
        """Tell HubSpot's state what these calls found out, if that can change it."""
        outcomes = []
        for error in errors:
            is_repeat = self._is_app_rejected
            self._is_app_rejected = isinstance(error, InvalidClient)
            if error is None or isinstance(error, (Throttled, InvalidClient)):
                outcomes.append(CallOutcome(is_first_attempt=False, error=error, is_repeat=is_repeat))
            elif isinstance(error, TemporarilyUnavailable) and not isinstance(error, AccountMigrating):
                # One of a round: calls that are sent together fail together, and that must not look like an outage.
                is_first = not any(outcome.error for outcome in outcomes)
                outcomes.append(CallOutcome(is_first_attempt=is_first, error=error))
        if outcomes and not (is_provider_healthy and all(outcome.error is None for outcome in outcomes)):
            self._provider.record_outcomes(outcomes)
