"""Builds what the pages work with from the settings, and looks first whether the database is the right one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog

from shared import logs
from shared.db.core.engine import make_engine
from shared.db.core.errors import SchemaError, StoreUnavailable
from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.lifecycle.installs import InstallStore
from shared.db.refresh.brake import RevocationBrake
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.requests import RefreshRequests
from shared.db.reports.connection_list import ConnectionList
from shared.db.reports.connections import ConnectionReports
from shared.db.reports.refresh_stats import RefreshStats
from shared.dispatch import Dispatch
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.settings import Settings, SettingsError
from shared.startup_checks import check_database
from shared.token_cipher import TokenCipher
from web.monitoring import health
from web.services import Services

log = structlog.get_logger(__name__)

#: gunicorn's own: its master stops, where after any other status it would start us again for ever.
APP_LOAD_ERROR = 4
#: HubSpot calls at once that keep their connection: an exchange per thread of gunicorn.
CALLS = 16
#: Seconds until PostgreSQL, which did not answer at the start, is asked again what it holds.
LOOK_AGAIN = 5.0


@contextmanager
def refusing() -> Iterator[None]:
    """One line on stderr and the end of gunicorn, where something is wrong that waiting does not mend."""
    try:
        yield
    except (SettingsError, SchemaError) as error:
        print(f"tokenkeeper: {error}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(APP_LOAD_ERROR)


def settings(environ: Mapping[str, str]) -> Settings:
    """Raises SettingsError. From here on the log is ours."""
    ours = Settings.from_env(environ)
    logs.configure(ours.log_format, ours.log_level, ours.list_secrets())
    return ours


def services(settings: Settings) -> Services:
    # Nothing here connects yet: with --preload it is shared by the forks, and no socket of it may be.
    engine = make_engine(settings.database_url)
    return Services(
        hubspot=HubSpot.from_settings(settings, connections=CALLS),
        cipher=TokenCipher(settings.token_keys),
        installs=InstallStore(engine),
        refresh_requests=RefreshRequests(engine),
        disconnects=DisconnectStore(engine),
        provider=ProviderStore(engine),
        brake=RevocationBrake(engine),
        queue=Dispatch.to(settings.redis_url),
        reports=ConnectionReports(engine),
        connection_list=ConnectionList(engine),
        refresh_stats=RefreshStats(engine),
        schedule=Schedule(settings.refresh_from, settings.refresh_until),
        clock=lambda: datetime.now(UTC),  # noqa: TID251  a grant is dated by this host: PostgreSQL may be down
        checks=health.checks(engine, settings.redis_url),
        secret_key=settings.secret_key,
        operator_password=settings.operator_password,
        redirect_uri=settings.hubspot_redirect_uri,
        hubspot_app_url=settings.hubspot_app_url,
        scopes=settings.hubspot_scopes,
        optional_scopes=settings.hubspot_optional_scopes,
        sweep_seconds=settings.sweep_seconds,
        trusted_proxies=settings.trusted_proxies,
    )


def check_later(settings: Settings) -> None:
    """Once PostgreSQL answers: one line that says whether it is the right one. Installs wait meanwhile."""
    while True:
        time.sleep(LOOK_AGAIN)
        try:
            check_database(settings)
        except StoreUnavailable:
            continue
        except (SettingsError, SchemaError) as error:
            log.error("installs wait for the right database", why=str(error))
            return
        log.info("PostgreSQL answers")
        return
