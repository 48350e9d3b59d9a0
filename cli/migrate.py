"""`tokenkeeper migrate`: brings the database to this code's schema."""

from __future__ import annotations

import os

from shared.db.migrate import migrate
from shared.settings import Settings


def run() -> None:
    """Raises SettingsError, SchemaError, StoreUnavailable."""
    settings = Settings.from_env(os.environ, needs=("DATABASE_URL",))  # noqa: TID251  an entry point
    migrate(settings.database_url)
    print("the database is up to date")
