"""What a pool process uses for one HubSpot app: what goes wrong with one app must neither slow nor stop another's."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from shared.db.lifecycle.account_info import AccountInfoStore
from shared.db.refresh.claims import ConnectionClaims
from shared.db.refresh.counters import CounterStore
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.recent_grants import RecentGrants
from shared.db.refresh.results import RefreshResults
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport
from shared.settings import Settings
from shared.settings.hubspot_app import HubSpotApp
from shared.token_cipher import TokenCipher
from worker.account_info import AccountInfoFetcher
from worker.background import BackgroundWork
from worker.journal.reader import JournalReader
from worker.refresh.loop import RefreshLoop
from worker.refresh.refresher import Refresher

#: For how many sweeps' time the refresh loop claims rows after the last message that activated it.
ACTIVE_SWEEPS = 2.5


@dataclass(frozen=True, slots=True)
class SharedServices:
    """What all apps of a pool process share: PostgreSQL, the thread of HTTP calls, the keys."""

    settings: Settings
    engine: Engine
    transport: Transport
    cipher: TokenCipher
    schedule: Schedule
    recent_grants: RecentGrants


@dataclass(frozen=True, slots=True)
class AppServices:
    name: str
    hubspot: HubSpot
    claims: ConnectionClaims
    provider: ProviderStore
    refresh_loop: RefreshLoop
    account_info: AccountInfoStore
    account_info_fetcher: AccountInfoFetcher
    account_info_work: BackgroundWork
    journal_reader: JournalReader
    active_seconds: float  #: of the refresh loop, after its activation

    @classmethod
    def build(cls, app: HubSpotApp, shared: SharedServices) -> AppServices:
        settings, engine = shared.settings, shared.engine
        lease_seconds = settings.lease_seconds
        hubspot = HubSpot.for_app(app, settings, shared.transport)
        claims = ConnectionClaims(
            engine, app.name, lease_seconds=lease_seconds, max_refreshes_per_second=app.max_refreshes_per_second
        )
        provider = ProviderStore(engine, app.name)
        account_info = AccountInfoStore(
            engine, app.name, lease_seconds=lease_seconds, max_refreshes_per_second=app.max_refreshes_per_second
        )
        return cls(
            name=app.name,
            hubspot=hubspot,
            claims=claims,
            provider=provider,
            refresh_loop=RefreshLoop(
                claims,
                RefreshResults(engine, app.name, lease_seconds=lease_seconds, recent_grants=shared.recent_grants),
                provider,
                CounterStore(engine, app.name),
                Refresher(hubspot, shared.cipher, claims.clock, shared.schedule, settings.http_timeout_seconds),
                concurrency=settings.refresh_concurrency,
            ),
            account_info=account_info,
            account_info_fetcher=AccountInfoFetcher(account_info, provider, hubspot),
            account_info_work=BackgroundWork(f"account-info-{app.name}", threads=2, max_queued=2),
            journal_reader=JournalReader.for_app(app, settings, engine, hubspot, shared.transport),
            active_seconds=ACTIVE_SWEEPS * settings.sweep_seconds,
        )

    def activate_refresh_loop(self, *, delay_seconds: float = 0.0) -> None:
        self.refresh_loop.activate(self.active_seconds, delay_seconds=delay_seconds)

    def start_account_info(self) -> None:
        self.account_info_work.submit(self.account_info_fetcher.run)
