"""A database of DATABASE_URL, which may be another project's: `make up` says which it is before it changes it."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import text

from shared.database_url import parse_database_url
from shared.db.core.engine import make_engine
from shared.db.core.errors import translate_errors

IS_OWN = text("SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'tokenkeeper')")


def confirm_database(database_url: str, say: Callable[[str], None], confirm: Callable[[str], object]) -> None:
    """Ask before a database without tokenkeeper's schema gets one.

    Raises StoreUnavailable, and whatever `confirm` raises where the answer is no.
    """
    parameters = parse_database_url(database_url)
    where = f"database {parameters.get('dbname', 'of the user')} at {parameters.get('host', 'a local socket')}"
    engine = make_engine(database_url, pool_size=1)
    try:
        with translate_errors(), engine.connect() as connection:
            is_own = connection.scalar(IS_OWN)
    finally:
        engine.dispose()
    if is_own:
        say(f"uses {where}, which DATABASE_URL names")
    else:
        confirm(f"DATABASE_URL names {where}, which tokenkeeper has not made")
