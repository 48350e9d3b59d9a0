"""What a pool process works with, built at its first task: neither connections nor threads survive a fork."""

from __future__ import annotations

from dataclasses import dataclass

from celery import Celery

from shared.db.engine import connect
from shared.db.migrate import check
from shared.db.outbox import Outbox
from shared.db.store import ConnectionStore
from shared.db.watch import Watch
from shared.dispatch import Dispatch
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.settings import Settings
from shared.vault import Vault
from worker.loop import RefreshLoop
from worker.refresh import Refresher
from worker.webhook import Webhook

#: Calls that are neither a refresh nor its second witness: introspections of new installs, disconnects.
ASIDE = 8


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    store: ConnectionStore
    hubspot: HubSpot
    vault: Vault
    schedule: Schedule
    dispatch: Dispatch
    loop: RefreshLoop
    outbox: Outbox
    watch: Watch
    webhook: Webhook | None  #: None: alerts are only logged

    @classmethod
    def build(cls, settings: Settings, app: Celery) -> Services:
        """Raises SchemaError where the database is of another version, StoreUnavailable where it does not answer."""
        engine = connect(settings.database_url)
        check(engine)
        store = ConnectionStore(
            engine,
            lease_seconds=settings.lease_seconds,
            max_refreshes_per_second=settings.max_refreshes_per_second,
        )
        hubspot = HubSpot.from_settings(settings, connections=settings.refresh_concurrency + ASIDE)
        vault = Vault(settings.token_keys)
        schedule = Schedule(settings.refresh_from, settings.refresh_until)
        refresher = Refresher(hubspot, vault, store.clock, schedule, settings.http_timeout)
        loop = RefreshLoop(store, refresher, settings.refresh_concurrency)
        url = settings.alert_webhook_url
        webhook = Webhook(url, settings.alert_webhook_secret) if url else None
        return cls(
            settings=settings,
            store=store,
            hubspot=hubspot,
            vault=vault,
            schedule=schedule,
            dispatch=Dispatch(app),
            loop=loop,
            outbox=Outbox(engine),
            watch=Watch(engine, settings.sweep_seconds),
            webhook=webhook,
        )

    def close(self) -> bool:
        """Let what is in flight end, and save it. False where that took longer than two calls may take."""
        return self.loop.drain(2 * self.settings.http_timeout + 5)
