"""What a sweep does besides refreshes, with real services."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from shared.settings import Settings
from tests.support.polling import until
from tests.support.stores import ConnectionFixture, SqlFixture
from worker.services import Services
from worker.sweep import sweep


@pytest.fixture
def services(environment: Callable[..., dict[str, str]], database_url: str) -> Iterator[Services]:
    closed = "http://127.0.0.1:1"
    services = Services.build(
        Settings.from_env(environment(DATABASE_URL=database_url, HUBSPOT_API_URL=closed, HUBSPOT_APP_URL=closed))
    )
    services.begin()
    yield services
    assert services.close()
    services.engine.dispose()


def test_a_sweep_corrects_dates_in_the_future_and_finishes_disconnects(
    services: Services, connections: ConnectionFixture, sql: SqlFixture
) -> None:
    connections.install(1)
    connections.install(2)
    sql.set("installed_at = now() + interval '1 day', refreshed_at = now() + interval '1 day'", 1)
    connections.stores.disconnects.mark_and_read_tokens(sql.id_of(2))
    sql.set("lease_until = NULL, status_since = now() - interval '1 hour'", 2)
    assert sweep(services, services.apps.values(), is_from_beat=True)
    assert sql.row(1)["refreshed_at"] <= sql.now().isoformat()
    until(lambda: sql.row(2)["encrypted_refresh_token"] is None)
