"""The server's version, and the settings by which secrets could get into its own log."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement

DESCRIBE = single_statement("""
SELECT current_setting('server_version') AS version,
       current_setting('log_min_error_statement') AS log_min_error_statement,
       current_setting('log_error_verbosity') AS log_error_verbosity
""")


@dataclass(frozen=True, slots=True)
class ServerInfo:
    version: str
    #: psycopg2 puts values into the text of a statement: below `panic`, a failed one is logged with tokens in it.
    log_min_error_statement: str
    #: Above `terse`, a row that violates a constraint is logged with the beginning of each column.
    log_error_verbosity: str


def read_server_info(engine: Engine) -> ServerInfo:
    """Raises StoreUnavailable."""
    row = Database(engine).execute(DESCRIBE)[0]
    return ServerInfo(row.version, row.log_min_error_statement, row.log_error_verbosity)
