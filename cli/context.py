"""What most commands begin with: the settings that they need, and a database with the schema of this code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from sqlalchemy import Engine

from shared.db.core.engine import make_engine
from shared.db.schema.migrate import check_schema
from shared.domain.hub_id import MAX_HUB_ID
from shared.settings import Settings
from shared.settings.hubspot_app import HubSpotApp


class NumberInRange(click.IntRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not value.removeprefix("-").isdecimal():
            self.fail(f"{value!r} is not a number", param, ctx)
        return super().convert(value, param, ctx)


class HubIdType(click.ParamType[int]):
    name = "hub"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Digits only; the largest is what a bigint holds."""
        if not (str(value).isascii() and str(value).isdecimal() and 1 <= int(value) <= MAX_HUB_ID):
            self.fail(f"{value!r} is not a HubSpot account number", param, ctx)
        return int(value)


HUB_ID = HubIdType()
app_option = click.option("--app", "app_name", metavar="NAME", help="Which app, where the settings describe several.")
one_of_stored_apps_option = click.option(
    "--app", "app_name", metavar="NAME", help="Which app, where there are several."
)


def load_settings(*needs: str) -> Settings:
    """Only `needs` must be set. Raises SettingsError."""
    return Settings.from_env(os.environ, needs=needs)  # noqa: TID251  an entry point


def choose_app(settings: Settings, name: str | None) -> HubSpotApp:
    """The app with that name; without a name the only one. Raises click.UsageError, which lists the apps."""
    if name is None and len(settings.apps) == 1:
        return next(iter(settings.apps.values()))
    if name is not None and name in settings.apps:
        return settings.apps[name]
    what = "the settings describe several apps" if name is None else f"the settings describe no app {name!r}"
    raise click.UsageError(f"{what}: add --app with one of {', '.join(settings.apps)}")


def choose_stored_app(apps: Sequence[str], name: str) -> str:
    """Raises click.UsageError, which lists the apps that the database knows."""
    if name not in apps:
        raise click.UsageError(f"there is no app {name!r}: add --app with one of {', '.join(apps)}")
    return name


@contextmanager
def open_database(settings: Settings) -> Iterator[Engine]:
    """Raises SchemaError where its schema is another version's, StoreUnavailable where it does not answer."""
    engine = make_engine(settings.database_url)
    try:
        check_schema(engine)
        yield engine
    finally:
        engine.dispose()
