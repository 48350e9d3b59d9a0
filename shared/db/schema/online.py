"""The steps of a revision that take long: done while everything runs, before the revision's own transaction.

A file `versions/NNNN_prepare.sql` has the steps (docs/adr/0033). Each may be repeated: where a migration was
interrupted, the next one does what is left, or all of a step again. A lock that stops readers or refreshes is
tried for again and again, shortly, because all who come later wait behind it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg2
from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from shared.db.core.errors import StoreUnavailable

VERSIONS = Path(__file__).parent / "migrations" / "versions"
#: How long a statement of a migration waits for a lock, and all that need the table wait behind it.
LOCK_TIMEOUT_MILLISECONDS = 400
#: Between two attempts to get a lock, and how often it is tried.
RETRY_PAUSE_SECONDS, MAX_ATTEMPTS = 0.5, 120
LOCKED = "another transaction holds a lock on tokenkeeper's tables: end it, and run again: tokenkeeper migrate"
#: Rows that are locked together while they are copied.
BATCH_ROWS = 2000
COPY_STEP = "copy the hub id of all rows"
#: Settings of one transaction, whatever the defaults of the login, the database and the server are.
STEP_SETTINGS = f"""
SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '60s';
SET LOCAL lock_timeout = {LOCK_TIMEOUT_MILLISECONDS};
SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL default_tablespace = '';
"""
#: An index is built outside a transaction, so its settings are those of the session. Its waits stop no other session.
INDEX_SETTINGS = "SET statement_timeout = 0; SET lock_timeout = 0; SET default_tablespace = ''"
RESET_INDEX_SETTINGS = "RESET statement_timeout; RESET lock_timeout; RESET default_tablespace"
#: Tables on which a vacuum of the server's own may run for minutes. It is ended only where a session waits for its lock
#: for a second, and all that come later would wait as long. A revision's transaction turns it on again: both are
#: committed together.
_LONG_TABLES = ("connections", "accounts", "history")
AUTOVACUUM_OFF, AUTOVACUUM_ON = (
    "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s'; "
    + "; ".join(f"ALTER TABLE tokenkeeper.{table} {change}" for table in _LONG_TABLES)
    for change in ("SET (autovacuum_enabled = false)", "RESET (autovacuum_enabled)")
)
#: The last step before the indexes was done.
IS_COPIED = text("""
SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint
                WHERE conname = 'connections_new_hub_id_given' AND convalidated
                  AND conrelid = to_regclass('tokenkeeper.connections'))
""")
IS_INVALID_INDEX = text("""
SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
                WHERE c.relnamespace = 'tokenkeeper'::regnamespace AND c.relname = :name AND NOT i.indisvalid)
""")
#: Rows that another transaction has locked are left to the next round.
COPY_BATCH = text(f"""
WITH page AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections WHERE hub_id > :after ORDER BY hub_id LIMIT {BATCH_ROWS}
), locked AS MATERIALIZED (
    SELECT hub_id FROM tokenkeeper.connections
     WHERE hub_id IN (SELECT hub_id FROM page) AND new_hub_id IS NULL
     ORDER BY hub_id FOR NO KEY UPDATE SKIP LOCKED
), copied AS (
    UPDATE tokenkeeper.connections AS c SET new_hub_id = c.hub_id FROM locked WHERE c.hub_id = locked.hub_id
)
SELECT max(hub_id) AS last FROM page
""")
ANY_LEFT = text("SELECT EXISTS (SELECT FROM tokenkeeper.connections WHERE new_hub_id IS NULL)")


def run_online(engine: Engine, revision: str) -> None:
    """Do the steps of `revision` while everything runs. Raises StoreUnavailable, DBAPIError.

    The caller holds the lock by which one migration runs at a time.
    """
    with engine.connect() as connection:
        is_copied = connection.scalar(IS_COPIED)
    for name, statement in read_steps(revision).items():
        if is_copied and " CONCURRENTLY " not in statement:
            continue
        if name == COPY_STEP:
            _copy_hub_ids(engine)
        elif " CONCURRENTLY " in statement:
            _build_index(engine, name, statement)
        else:
            retry_for_lock(partial(_run_step, engine, statement))


def run_in_transaction(connection: Connection, revision: str) -> None:
    """Do the same steps in the caller's transaction: for a new database."""
    for statement in read_steps(revision).values():
        connection.exec_driver_sql(statement.replace(" CONCURRENTLY ", " "))


@contextmanager
def autovacuum_off(engine: Engine) -> Iterator[None]:
    """End a vacuum that the server has begun by itself, and let it begin none. No other session waits meanwhile."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(AUTOVACUUM_OFF)
    try:
        yield
    except BaseException:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(AUTOVACUUM_ON)
        raise


def read_steps(revision: str) -> dict[str, str]:
    """The steps by name, in their order; empty where the revision has none."""
    path = VERSIONS / f"{revision}_prepare.sql"
    if not path.exists():
        return {}
    _, *parts = re.split(r"^-- step: (.+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def retry_for_lock(
    attempt: Callable[[], bool | None],
    refusal: str = LOCKED,
    *,
    max_attempts: int = MAX_ATTEMPTS,
    pause_seconds: float = RETRY_PAUSE_SECONDS,
) -> None:
    """Call `attempt` until it gets its locks: while it fails by their timeout, or returns False.

    Raises StoreUnavailable with `refusal` where it never does, and the other errors of `attempt`.
    """
    for _ in range(max_attempts):
        try:
            if attempt() is not False:
                return
        except DBAPIError as error:
            if not is_lock_timeout(error):
                raise
        time.sleep(pause_seconds)
    raise StoreUnavailable(refusal)


def is_lock_timeout(error: DBAPIError) -> bool:
    """Whether the statement did not get its lock in time, or would have been in a deadlock."""
    codes = (errorcodes.LOCK_NOT_AVAILABLE, errorcodes.QUERY_CANCELED, errorcodes.DEADLOCK_DETECTED)
    return isinstance(error.orig, psycopg2.Error) and error.orig.pgcode in codes


def _run_step(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(STEP_SETTINGS)
        connection.exec_driver_sql(statement)


def _build_index(engine: Engine, name: str, statement: str) -> None:
    """An index of this name that is not valid is left over from an interrupted migration: it is built again."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(INDEX_SETTINGS)
        try:
            if connection.scalar(IS_INVALID_INDEX, {"name": name}):
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY tokenkeeper.{name}")
            connection.exec_driver_sql(statement)
        finally:
            connection.exec_driver_sql(RESET_INDEX_SETTINGS)


def _copy_hub_ids(engine: Engine) -> None:
    """In batches, so that no row is locked for long; until none is left."""

    def copy_all() -> bool:
        after: int | None = -1
        while after is not None:
            with engine.begin() as connection:
                connection.exec_driver_sql(STEP_SETTINGS)
                after = connection.execute(COPY_BATCH, {"after": after}).scalar_one()
        with engine.connect() as connection:
            return not connection.scalar(ANY_LEFT)

    retry_for_lock(
        copy_all,
        "another transaction has locked rows of tokenkeeper's connections: end it, and run again: tokenkeeper migrate",
    )
