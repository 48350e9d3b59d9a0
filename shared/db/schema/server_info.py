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


#: Other databases in which hubspot_reader has privileges, where everyone may connect both there and here.
OTHER_READERS = single_statement("""
SELECT DISTINCT d.datname::text AS name
  FROM pg_catalog.pg_shdepend AS s
  JOIN pg_catalog.pg_roles AS r ON r.oid = s.refobjid AND s.refclassid = 'pg_catalog.pg_authid'::regclass
  JOIN pg_catalog.pg_database AS d ON d.oid = s.dbid
  JOIN pg_catalog.pg_database AS own ON own.datname = current_database()
 WHERE r.rolname = 'hubspot_reader' AND d.oid <> own.oid AND d.datallowconn
   AND has_database_privilege('public', d.oid, 'CONNECT') AND has_database_privilege('public', own.oid, 'CONNECT')
 ORDER BY name
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


def read_other_readers(engine: Engine) -> list[str]:
    """Names of databases. Raises StoreUnavailable."""
    return [row.name for row in Database(engine).execute(OTHER_READERS)]
