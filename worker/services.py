"""What a pool process uses, built after its start: neither connections nor threads survive a fork."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from shared.db.alerts.detection import AlertDetector
from shared.db.alerts.outbox import Outbox
from shared.db.core.engine import make_engine
from shared.db.lifecycle.account_info import AccountInfoStore
from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.lifecycle.installs import InstallStore
from shared.db.refresh.claims import ConnectionClaims
from shared.db.refresh.counters import CounterStore
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.requests import RefreshRequests
from shared.db.refresh.results import RefreshResults
from shared.db.schema.migrate import check_schema
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport
from shared.settings import Settings
from shared.token_cipher import TokenCipher
from worker.account_info import AccountInfoFetcher
from worker.background import BackgroundWork
from worker.journal import JournalReader
from worker.refresh import Refresher
from worker.refresh_loop import RefreshLoop
from worker.webhook import Webhook

#: Connections to HubSpot beside those of refreshes: for introspections of new installs, and for disconnects.
OTHER_CONNECTIONS = 8

#: For how many sweeps' time the refresh loop claims rows after the last message that activated it.
ACTIVE_SWEEPS = 2.5


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    engine: Engine
    claims: ConnectionClaims
    results: RefreshResults
    refresh_requests: RefreshRequests
    provider: ProviderStore
    installs: InstallStore
    account_info: AccountInfoStore
    account_info_fetcher: AccountInfoFetcher
    disconnects: DisconnectStore
    hubspot: HubSpot
    cipher: TokenCipher
    schedule: Schedule
    refresh_loop: RefreshLoop
    journal_readers: Mapping[str, JournalReader]  #: by the app's name
    outbox: Outbox
    alert_detector: AlertDetector
    webhook: Webhook | None  #: None: alerts are only logged
    account_info_work: BackgroundWork
    disconnect_work: BackgroundWork
    alert_work: BackgroundWork

    @classmethod
    def build(cls, settings: Settings) -> Services:
        """Raises SchemaError where the database is of another version, StoreUnavailable where it does not answer."""
        engine = make_engine(settings.database_url)
        check_schema(engine)
        app = next(iter(settings.apps.values()))
        claims = ConnectionClaims(
            engine,
            lease_seconds=settings.lease_seconds,
            max_refreshes_per_second=app.max_refreshes_per_second,
        )
        provider = ProviderStore(engine)
        results = RefreshResults(engine, lease_seconds=settings.lease_seconds)
        transport = Transport(settings.refresh_concurrency + OTHER_CONNECTIONS, settings.hubspot_proxy)
        hubspot = HubSpot.for_app(app, settings, transport)
        cipher = TokenCipher(settings.token_keys)
        schedule = Schedule(settings.refresh_from, settings.refresh_until)
        refresher = Refresher(hubspot, cipher, claims.clock, schedule, settings.http_timeout_seconds)
        refresh_loop = RefreshLoop(
            claims,
            results,
            provider,
            CounterStore(engine),
            refresher,
            concurrency=settings.refresh_concurrency,
        )
        account_info = AccountInfoStore(
            engine,
            lease_seconds=settings.lease_seconds,
            max_refreshes_per_second=app.max_refreshes_per_second,
        )
        webhook_url = settings.alert_webhook_url
        webhook = Webhook(webhook_url, settings.alert_webhook_secrets) if webhook_url else None
        return cls(
            settings=settings,
            engine=engine,
            claims=claims,
            results=results,
            refresh_requests=RefreshRequests(engine),
            provider=provider,
            installs=InstallStore(engine),
            account_info=account_info,
            account_info_fetcher=AccountInfoFetcher(account_info, provider, hubspot),
            disconnects=DisconnectStore(engine),
            hubspot=hubspot,
            cipher=cipher,
            schedule=schedule,
            refresh_loop=refresh_loop,
            journal_readers={
                name: JournalReader.for_app(
                    each, settings, engine, HubSpot.for_app(each, settings, transport), transport
                )
                for name, each in settings.apps.items()
            },
            outbox=Outbox(engine),
            alert_detector=AlertDetector(engine, settings.sweep_seconds),
            webhook=webhook,
            account_info_work=BackgroundWork("account-info", threads=2, max_queued=2),
            disconnect_work=BackgroundWork("disconnect", threads=3, max_queued=40),
            alert_work=BackgroundWork("alerts", threads=1, max_queued=1),
        )

    def activate_refresh_loop(self) -> None:
        self.refresh_loop.activate(ACTIVE_SWEEPS * self.settings.sweep_seconds)

    def close(self) -> bool:
        """Let calls in flight end, and save their results. False where that took longer than two calls can take."""
        works = (self.account_info_work, self.disconnect_work, self.alert_work)
        for work in works:
            work.stop()
        ends_at = time.monotonic() + 2 * self.settings.http_timeout_seconds + 5
        is_drained = self.refresh_loop.drain(ends_at - time.monotonic())
        self.installs.finish(max(0.0, ends_at - time.monotonic()))
        return all([is_drained, *(work.join(max(0.0, ends_at - time.monotonic())) for work in works)])
