"""Fixtures of the store's tests: an engine, a store and a superuser's look past both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.db.engine import connect as connect_engine
from shared.db.roster import Roster
from shared.db.store import ConnectionStore
from tests.integration.store_rig import Sql, Town


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = connect_engine(database_url, pool_size=10)
    yield made
    made.dispose()


@pytest.fixture
def store(engine: Engine) -> ConnectionStore:
    return ConnectionStore(engine, lease_seconds=60)


@pytest.fixture
def roster(engine: Engine) -> Roster:
    return Roster(engine)


@pytest.fixture
def sql(connect: Callable[..., Any]) -> Sql:
    return Sql(connect())


@pytest.fixture
def town(store: ConnectionStore, sql: Sql) -> Town:
    return Town(store, sql)
