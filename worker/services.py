"""What a pool process uses. It is built before the fork, with neither connections nor threads, and shared."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from shared.db.alerts.detection import AlertDetector
from shared.db.alerts.outbox import Outbox
from shared.db.alerts.scope_watch import ScopeWatch
from shared.db.core.engine import make_engine
from shared.db.events.delivery import EventDelivery
from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.lifecycle.installs import InstallStore
from shared.db.refresh.apps import RegisteredApp, register_apps
from shared.db.refresh.recent_grants import RecentGrants
from shared.db.refresh.requests import RefreshRequests
from shared.db.schema.migrate import check_schema
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport
from shared.settings import Settings
from shared.token_cipher import TokenCipher
from worker.app_services import AppServices, SharedServices
from worker.background import BackgroundWork
from worker.delivery.events import MAX_POSTS_IN_FLIGHT, EventSender
from worker.delivery.webhook import Webhook

#: Connections to HubSpot beside those of refreshes: for introspections of new installs, and for disconnects.
OTHER_CONNECTIONS = 8
#: Connections to PostgreSQL, and further ones for each app: its refresh loop holds one of them much of the time.
POOL_SIZE, POOL_SIZE_PER_APP = 4, 1


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    engine: Engine
    apps: Mapping[str, AppServices]  #: those of the settings, by name
    refresh_requests: RefreshRequests
    recent_grants: RecentGrants
    installs: InstallStore
    disconnects: DisconnectStore
    cipher: TokenCipher
    schedule: Schedule
    outbox: Outbox
    alert_detector: AlertDetector
    webhook: Webhook | None  #: None: alerts are only logged
    scope_watch: ScopeWatch
    event_delivery: EventDelivery
    event_sender: EventSender | None  #: None: no receiver is set
    disconnect_work: BackgroundWork
    alert_work: BackgroundWork
    event_work: BackgroundWork
    scope_work: BackgroundWork

    @classmethod
    def build(cls, settings: Settings) -> Services:
        """Does not connect and starts no thread: begin() does."""
        apps = settings.apps.values()
        engine = make_engine(settings.database_url, pool_size=POOL_SIZE + POOL_SIZE_PER_APP * len(apps))
        shared = SharedServices(
            settings=settings,
            engine=engine,
            transport=Transport(len(apps) * settings.refresh_concurrency + OTHER_CONNECTIONS, settings.hubspot_proxy),
            cipher=TokenCipher(settings.token_keys),
            schedule=Schedule(settings.refresh_from, settings.refresh_until),
            recent_grants=RecentGrants(engine),
        )
        webhook_url = settings.alert_webhook_url
        webhook = Webhook(webhook_url, settings.alert_webhook_secrets) if webhook_url else None
        event_delivery = EventDelivery(engine)
        return cls(
            settings=settings,
            engine=engine,
            apps={app.name: AppServices.build(app, shared) for app in apps},
            refresh_requests=RefreshRequests(engine),
            recent_grants=shared.recent_grants,
            installs=InstallStore(engine),
            disconnects=DisconnectStore(engine),
            cipher=shared.cipher,
            schedule=shared.schedule,
            outbox=Outbox(engine),
            alert_detector=AlertDetector(engine, settings.sweep_seconds),
            webhook=webhook,
            scope_watch=ScopeWatch(engine),
            event_delivery=event_delivery,
            event_sender=_make_event_sender(event_delivery, settings),
            disconnect_work=BackgroundWork("disconnect", threads=3, max_queued=40),
            alert_work=BackgroundWork("alerts", threads=1, max_queued=1),
            event_work=BackgroundWork("events", threads=1, max_queued=1),
            scope_work=BackgroundWork("scopes", threads=1, max_queued=0),
        )

    def begin(self) -> None:
        """Once, in the pool process. After an error it may be called again.

        Raises SchemaError where the database is of another version, StoreUnavailable where it does not answer.
        """
        check_schema(self.engine)
        apps = self.settings.apps.values()
        register_apps(self.engine, [RegisteredApp(app.name, app.scopes, app.is_user_level) for app in apps])
        self.event_delivery.enable(is_enabled=bool(self.settings.events_webhook_url))
        for app in self.apps.values():
            app.refresh_loop.start()

    @property
    def clients(self) -> dict[str, HubSpot]:
        """Those of HubSpot, by app."""
        return {app.name: app.hubspot for app in self.apps.values()}

    def close(self) -> bool:
        """Let calls in flight end, and save their results. False where that took longer than two calls can take."""
        apps = self.apps.values()
        own_works = (self.disconnect_work, self.alert_work, self.event_work, self.scope_work)
        works = (*own_works, *(app.account_info_work for app in apps))
        if self.event_sender is not None:
            self.event_sender.stop()
        for work in works:
            work.stop()
        for app in apps:
            app.refresh_loop.start_draining()
        ends_at = time.monotonic() + 2 * self.settings.http_timeout_seconds + 5
        are_drained = [app.refresh_loop.drain(ends_at - time.monotonic()) for app in apps]
        self.recent_grants.finish(max(0.0, ends_at - time.monotonic()))
        self.installs.finish(max(0.0, ends_at - time.monotonic()))
        return all([*are_drained, *(work.join(max(0.0, ends_at - time.monotonic())) for work in works)])


def _make_event_sender(delivery: EventDelivery, settings: Settings) -> EventSender | None:
    if not settings.events_webhook_url:
        return None
    secrets = settings.events_webhook_secrets
    return EventSender(
        delivery, Webhook(settings.events_webhook_url, secrets, max_idle_connections=MAX_POSTS_IN_FLIGHT)
    )
