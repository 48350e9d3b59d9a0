"""What a verb begins with: the settings that it needs, and a database that answers and is of this code's schema."""

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

#: An account's number, as an argument.
HUB = click.IntRange(1, MAX_HUB_ID)


def settings(*needs: str) -> Settings:
    """Only `needs` must be there. Raises SettingsError."""
    return Settings.from_env(os.environ, needs=needs)  # noqa: TID251  an entry point


@contextmanager
def database(settings: Settings) -> Iterator[Engine]:
    """Raises SchemaError where it is of another version, StoreUnavailable where it does not answer."""
    engine = make_engine(settings.database_url)
    try:
        check_schema(engine)
        yield engine
    finally:
        engine.dispose()
