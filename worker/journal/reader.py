"""Reads HubSpot's journal for uninstalls, and acts on what it reports (docs/adr/0036)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

import structlog
from sqlalchemy import Engine

from shared import tracing
from shared.db.lifecycle.journal import JournalClaim, JournalStore
from shared.db.lifecycle.uninstalls import UnheardConnection, UninstallStore
from shared.domain.backoff import backoff_seconds
from shared.domain.errors import ProviderError
from shared.domain.journal import (
    JournalFile,
    JournalRefused,
    JournalState,
    OffsetUnknown,
    UnreadableFile,
    select_uninstalls,
)
from shared.hubspot.client import HubSpot
from shared.hubspot.journal import JournalClient
from shared.hubspot.transport import Transport
from shared.settings import Settings
from shared.settings.hubspot_app import HubSpotApp
from shared.token_cipher import DecryptionError, TokenCipher

log = structlog.get_logger(__name__)

#: A process that is killed keeps the others from reading for as long as one call may take, and so much longer.
LEASE_MARGIN_SECONDS = 5.0
#: Of one turn: so that what they report is acted upon before more are read.
MAX_FILES_PER_TURN = 20
#: A turn that fails is repeated after JOURNAL_SECONDS, then twice that, up to so long.
MAX_RETRY_SECONDS = 60.0
#: After HubSpot's Retry-After, at most; and after it refused to let the app read its journal.
MAX_RETRY_AFTER_SECONDS, REFUSED_RETRY_SECONDS = 300.0, 600.0
#: Between two looks at the subscriptions.
SUBSCRIPTIONS_SECONDS = 300.0
#: A file that cannot be read in so many turns is passed over.
MAX_FILE_FAILURES = 5
#: Between two batches of reports, at least and at most: each makes hundreds of connections due, and refreshes of other
#: connections must not wait behind thousands.
MIN_BATCH_SECONDS, MAX_BATCH_SECONDS = 0.2, 5.0
#: Connections that one turn asks about after a gap, and pages of the table that it searches for them.
ASKED_PER_TURN, SEARCHES_PER_TURN = 20, 10
#: Of JOURNAL_SECONDS: after so long the journal is due again, so that who looks every JOURNAL_SECONDS reads it.
DUE_SHARE = 0.8
PRUNE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of one turn."""

    due: int  #: connections that were made due
    is_more: bool  #: the next turn is to begin soon


class JournalReader:
    """One app's journal: reads what is new, and acts on what it reports."""

    def __init__(
        self,
        app: str,
        journal: JournalStore,
        uninstalls: UninstallStore,
        client: JournalClient,
        *,
        hubspot: HubSpot,
        cipher: TokenCipher,
        journal_seconds: float,
        max_batch_seconds: float = MAX_BATCH_SECONDS,
    ) -> None:
        self._app = app
        self._max_batch_seconds = max_batch_seconds
        self._journal = journal
        self._uninstalls = uninstalls
        self._client = client
        self._hubspot = hubspot
        self._cipher = cipher
        self._journal_seconds = journal_seconds
        self._is_registered = False
        self._app_id: int | None = None
        self._next_subscriptions_at = 0.0  #: this and the next one by time.monotonic()
        self._next_prune_at = 0.0

    @classmethod
    def for_app(
        cls, app: HubSpotApp, settings: Settings, engine: Engine, hubspot: HubSpot, transport: Transport
    ) -> JournalReader:
        """`hubspot`: the app's client, on the same `transport`."""
        return cls(
            app.name,
            JournalStore(engine, app.name, lease_seconds=settings.http_timeout_seconds + LEASE_MARGIN_SECONDS),
            UninstallStore(engine, app.name, lease_seconds=settings.lease_seconds),
            JournalClient.for_app(app, settings, hubspot, transport),
            hubspot=hubspot,
            cipher=TokenCipher(settings.token_keys),
            journal_seconds=settings.journal_seconds,
        )

    @tracing.trace_calls("journal")
    def take_turn(self) -> Turn:
        """Raises StoreUnavailable."""
        tracing.set_attributes(app=self._app)
        # 1. Read, where it is due and no other process does.
        if not self._is_registered:
            self._journal.register()
            self._is_registered = True
        claim = self._journal.claim()
        is_more = self._read(claim) if claim else False
        # 2. Act on what any process has read; while the brake is on, only as often as the journal is read.
        may_settle = claim or not self._uninstalls.is_brake_on()
        due, deferred = self._settle() if may_settle else (0, 0)
        # 3. Where entries may be lost, ask about connections instead.
        if claim:
            self._ask_unheard(claim)
        # 4. Tell operators where the journal is not read any more, and delete what is not needed any more.
        self._journal.alert_if_stopped()
        if monotonic() >= self._next_prune_at:
            self._uninstalls.prune()
            self._next_prune_at = monotonic() + PRUNE_SECONDS
        return Turn(due, is_more=is_more or deferred > 0)

    def _read(self, claim: JournalClaim) -> bool:
        """Whether files are left. However it ends, the claim is released. Raises StoreUnavailable."""
        try:
            self._ensure_subscriptions(claim)
            is_end = self._read_files(claim)
        except JournalRefused as error:
            wait_seconds, state, reason = REFUSED_RETRY_SECONDS, JournalState.REFUSED, str(error)
        except ProviderError as error:
            longest = MAX_RETRY_SECONDS if error.retry_after is None else MAX_RETRY_AFTER_SECONDS
            wait_seconds = min(
                longest, error.retry_after or backoff_seconds(claim.failures + 1, self._journal_seconds, longest)
            )
            state, reason = JournalState.FAILING, str(error)
        else:
            wait_seconds = self._journal_seconds * DUE_SHARE if is_end else 0.0
            self._end_turn(claim, JournalState.READING, wait_seconds, is_end=is_end)
            return not is_end
        self._end_turn(claim, state, wait_seconds, reason)
        return False

    def _end_turn(
        self,
        claim: JournalClaim,
        state: JournalState,
        wait_seconds: float,
        reason: str | None = None,
        *,
        is_end: bool = False,
    ) -> None:
        """A change is logged, each further turn of the same kind is not."""
        before = self._journal.end_turn(claim, is_end=is_end, wait_seconds=wait_seconds, state=state, reason=reason)
        if before in (None, state):
            return
        if state is JournalState.READING:
            log.info("HubSpot's journal is read", app=self._app)
        elif state is JournalState.REFUSED:
            log.warning(
                "HubSpot does not let this app read its journal; uninstalls are noticed at the next refresh",
                app=self._app,
                why=reason,
            )
        else:
            log.warning("HubSpot's journal cannot be read now; it is tried again", app=self._app, why=reason)

    def _ensure_subscriptions(self, claim: JournalClaim) -> None:
        if monotonic() >= self._next_subscriptions_at:
            self._app_id = self._client.ensure_subscriptions()
            self._next_subscriptions_at = monotonic() + SUBSCRIPTIONS_SECONDS
            self._journal.renew(claim)

    def _read_files(self, claim: JournalClaim) -> bool:
        """Whether the end was reached. False also where another process reads now."""
        offset, may_restart = claim.next_offset, claim.may_restart
        if claim.is_offset_old:
            self._restart(claim, "HubSpot does not keep entries for so long")
            may_restart, offset = False, None
        for _ in range(MAX_FILES_PER_TURN):
            try:
                file, has_gap = self._read_next(claim, offset)
            except OffsetUnknown as error:
                if not may_restart:
                    return True
                self._restart(claim, str(error))
                may_restart, offset = False, None
                continue
            if file is None or file.offset == offset:
                return True
            uninstalls = select_uninstalls(file.entries, self._app_id)
            reported = self._journal.advance(claim, file, uninstalls, has_gap=has_gap)
            if reported is None:
                return False
            if reported:
                log.info("HubSpot reported uninstalls", app=self._app, count=reported)
            offset = file.offset
        return False

    def _read_next(self, claim: JournalClaim, offset: str | None) -> tuple[JournalFile | None, bool]:
        """The next file, and whether an empty one stands in for a file that cannot be read."""
        try:
            return self._client.read_next(offset), False
        except UnreadableFile as error:
            has_failed_before = offset == claim.next_offset and claim.reason == str(error)
            if not has_failed_before or claim.failures < MAX_FILE_FAILURES:
                raise
            log.error("a file of HubSpot's journal cannot be read, and is passed over", app=self._app, why=str(error))
            return JournalFile(error.next_offset), True

    def _restart(self, claim: JournalClaim, why: str) -> None:
        log.warning(
            "the place in HubSpot's journal is lost: it is read from its beginning, and connections are asked about",
            app=self._app,
            why=why,
        )
        self._journal.restart(claim)

    def _ask_unheard(self, claim: JournalClaim) -> None:
        """Introspect some of the connections that were not refreshed since the gap. HubSpot's first failure ends it."""
        gap = self._journal.read_gap(claim)
        if gap is None:
            return
        asked_up_to, left = gap.asked_up_to, ASKED_PER_TURN
        for _ in range(SEARCHES_PER_TURN):
            page = self._uninstalls.find_unheard(asked_up_to, gap.since, left)
            try:
                for connection in page.connections:
                    self._ask(connection, page.now)
            except ProviderError as error:
                log.debug("HubSpot does not say now which connections have ended", app=self._app, **error.evidence())
                return
            self._journal.save_gap(claim, gap.since, page.searched_up_to)
            left -= len(page.connections)
            if page.searched_up_to is None or not left:
                return
            asked_up_to = page.searched_up_to

    def _ask(self, connection: UnheardConnection, now: datetime) -> None:
        try:
            token = self._cipher.decrypt_refresh_token(connection.hub_id, connection.encrypted_refresh_token)
        except DecryptionError:
            return  # the refresh loop reports it
        if not self._hubspot.introspect(token, "refresh_token").active:
            self._uninstalls.report_inactive(connection, now)

    def _settle(self) -> tuple[int, int]:
        """How many connections were made due, and how many reports wait for connections that are being refreshed.

        All that there is, or one batch while the revocation brake is on: it would hold them, and refresh each again and
        again. So it gets them about as slowly as their regular refreshes would notice them.
        """
        batch = self._uninstalls.settle_batch()
        suspected, checked, deferred = batch.suspected, batch.checked, batch.deferred
        while batch.is_full:
            self._wait_for_refreshes()
            if self._uninstalls.is_brake_on():
                break
            batch = self._uninstalls.settle_batch(after=batch.last_id)
            suspected += batch.suspected
            checked += batch.checked
            deferred += batch.deferred
        if suspected:
            log.info("connections are suspect: HubSpot reported uninstalls", app=self._app, count=suspected)
        return suspected + checked, deferred

    def _wait_for_refreshes(self) -> None:
        """Until most of what is due is claimed. Not for long: during an outage much stays due."""
        ends_at = monotonic() + self._max_batch_seconds
        time.sleep(MIN_BATCH_SECONDS)
        while monotonic() < ends_at and self._uninstalls.has_backlog():
            time.sleep(MIN_BATCH_SECONDS)
