"""What most commands begin with: the settings that they need, and a database with the schema of this code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Engine

from shared.db.core.engine import make_engine
from shared.db.schema.migrate import check_schema
from shared.domain.hub_id import MAX_HUB_ID
from shared.settings import Settings

HUB_ID = click.IntRange(1, MAX_HUB_ID)


def load_settings(*needs: str) -> Settings:
    """Only `needs` must be set. Raises SettingsError."""
    return Settings.from_env(os.environ, needs=needs)  # noqa: TID251  an entry point


@contextmanager
def open_database(settings: Settings) -> Iterator[Engine]:
    """Raises SchemaError where its schema is another version's, StoreUnavailable where it does not answer."""
    engine = make_engine(settings.database_url)
    try:
        check_schema(engine)
        yield engine
    finally:
        engine.dispose()
