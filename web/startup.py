"""Reads the settings, checks the database and builds the services of the pages."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog

from shared import logs
from shared.broker_check import BrokerUnavailable, BrokerUnusable, check_broker
from shared.db.core.engine import make_engine
from shared.db.core.errors import SchemaError, StoreUnavailable
from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.lifecycle.installs import InstallStore
from shared.db.lifecycle.single_uses import SingleUses
from shared.db.refresh.brake import RevocationBrake
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.requests import RefreshRequests
from shared.db.reports.connection_list import ConnectionList
from shared.db.reports.connections import ConnectionReports
from shared.db.reports.history_lines import HistoryReader
from shared.db.reports.refresh_stats import RefreshStats
from shared.db.reports.scopes import ScopeReports
from shared.db.schema.privileges import WEB
from shared.dispatch import Dispatch
from shared.domain.schedule import Schedule
from shared.foreign_environment import GUNICORN_ARGUMENTS
from shared.hubspot.app_definition import check_scopes
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport
from shared.settings import Settings, SettingsError
from shared.startup_checks import check_database
from shared.token_cipher import TokenCipher
from web.monitoring import health
from web.server.lanes import EXCHANGE_THREADS
from web.services import Services

log = structlog.get_logger(__name__)

#: gunicorn's own status for this: its master stops. After any other status it restarts the worker for ever.
APP_LOAD_ERROR_STATUS = 4
#: Between checks of a PostgreSQL that did not answer at the start.
DATABASE_CHECK_SECONDS = 5.0


@contextmanager
def exit_on_configuration_error() -> Iterator[None]:
    """For an error that waiting does not correct: one line on stderr and the exit of gunicorn."""
    try:
        yield
    except (SettingsError, SchemaError) as error:
        print(f"tokenkeeper: {error}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(APP_LOAD_ERROR_STATUS)


def refuse_gunicorn_arguments(environ: Mapping[str, str]) -> None:
    """gunicorn.conf.py has removed them, unless they name another configuration file. Raises SettingsError."""
    if environ.get(GUNICORN_ARGUMENTS):
        raise SettingsError(f"{GUNICORN_ARGUMENTS} is set: unset it, and give gunicorn its options on its command line")


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Configures the log, too. Raises SettingsError."""
    settings = Settings.from_env(environ)
    logs.configure(settings.log_format, settings.log_level, settings.list_secrets(), names_app=len(settings.apps) > 1)
    check_link_settings(settings)
    return settings


def warn_of_scopes(settings: Settings) -> None:
    """Of what HubSpot would refuse at each install, on a page of its own that leaves no trace here."""
    for app in settings.apps.values():
        for finding in check_scopes(app):
            log.warning("the scopes in the settings need a change", app=app.name, what=finding.text)


def check_link_settings(settings: Settings) -> None:
    """Raises SettingsError. Only web has the keys, so only web can check what needs them."""
    if settings.connect_link_keys:
        return
    needs = {
        "CONNECT_LINK_REQUIRED": settings.connect_link_required,
        "MARKETPLACE_SIGN_IN_URL": any(app.marketplace_sign_in_url for app in settings.apps.values()),
    }
    if names := [name for name, is_needed in needs.items() if is_needed]:
        raise SettingsError(f"bad settings: CONNECT_LINK_KEYS is missing: it is needed by {' and '.join(names)}")


def refuse_unusable_broker(settings: Settings) -> None:
    """Raises SettingsError where waiting does not help. Installs are stored directly while the broker is down."""
    try:
        check_broker(settings.redis_url, max_retries=0)
    except BrokerUnusable as error:
        raise SettingsError(str(error)) from None
    except BrokerUnavailable as error:
        log.warning("the broker at REDIS_URL does not answer yet; installs are stored directly", why=str(error))


def make_services(settings: Settings) -> Services:
    """Opens no connection: with --preload the forks share the result, and must not share a socket."""
    engine = make_engine(settings.database_url)
    transport = Transport(EXCHANGE_THREADS, settings.hubspot_proxy)
    return Services(
        hubspot_clients={name: HubSpot.for_app(app, settings, transport) for name, app in settings.apps.items()},
        apps=settings.apps,
        cipher=TokenCipher(settings.token_keys),
        installs=InstallStore(engine),
        refresh_requests=RefreshRequests(engine),
        disconnects=DisconnectStore(engine),
        provider=ProviderStore(engine),
        brake=RevocationBrake(engine),
        queue=Dispatch.from_url(settings.redis_url),
        reports=ConnectionReports(engine),
        connection_list=ConnectionList(engine),
        refresh_stats=RefreshStats(engine),
        history=HistoryReader(engine),
        scope_reports=ScopeReports(engine),
        schedule=Schedule(settings.refresh_from, settings.refresh_until),
        clock=lambda: datetime.now(UTC),  # noqa: TID251  see Services.clock
        readiness_checks=health.readiness_checks(engine, settings.redis_url),
        secret_key=settings.secret_key,
        operator_password=settings.operator_password,
        metrics_password=settings.metrics_password or settings.operator_password,
        hubspot_app_url=settings.hubspot_app_url,
        single_uses=SingleUses(engine),
        connect_link_keys=settings.connect_link_keys,
        is_link_required=settings.connect_link_required,
        return_to_origins=settings.return_to_origins,
        marketplace_return_hosts=settings.marketplace_return_hosts,
        sweep_seconds=settings.sweep_seconds,
        trusted_proxies=settings.trusted_proxies,
    )


def check_database_when_it_answers(settings: Settings, pause_seconds: float = DATABASE_CHECK_SECONDS) -> None:
    """Waits for PostgreSQL, then logs whether it holds the right database. Installs wait in the queue meanwhile."""
    while True:
        time.sleep(pause_seconds)
        try:
            check_database(settings, WEB)
        except StoreUnavailable:
            continue
        except (SettingsError, SchemaError) as error:
            log.error("PostgreSQL answers with the wrong database; installs wait", why=str(error))
        else:
            log.info("PostgreSQL answers")
        return
