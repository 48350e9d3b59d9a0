"""Three connections of two apps under all operations in any order, on a real PostgreSQL, compared with their models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from shared.db.core.engine import make_engine as connect_engine
from tests.model import invariants
from tests.model.state_machine import ConnectionMachine
from tests.model.world import ModelDatabase, make_ageing_statement
from tests.support.stores import SqlFixture

#: How many sequences are tried: MODEL_EXAMPLES=2000 is a long run.
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "40"))


@pytest.fixture
def model_database(database_url: str, connect: Callable[..., Any]) -> Iterator[ModelDatabase]:
    engine = connect_engine(database_url)
    superuser, reader, listener = SqlFixture(connect()), SqlFixture(connect()), connect()
    reader.rows("SET ROLE hubspot_reader")
    invariants.prepare(reader, superuser)
    with listener.cursor() as cursor:
        cursor.execute("LISTEN hubspot_connections")
    yield ModelDatabase(engine, superuser, reader, listener, make_ageing_statement(superuser))
    engine.dispose()


@pytest.mark.timeout(0)  # MODEL_EXAMPLES decides how long it runs; to shorten a failing sequence takes minutes
def test_the_database_matches_the_model_after_any_sequence_of_operations(model_database: ModelDatabase) -> None:
    class OnThisDatabase(ConnectionMachine):
        pass

    OnThisDatabase.database = model_database
    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
