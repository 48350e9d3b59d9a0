"""Whether a login may do what a process's statements need, and whether the database can hold what they store."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, text

from shared.db.core.errors import SchemaError, translate_errors
from shared.db.schema.privileges import PRIVILEGES, Privilege

#: By the catalogs, and not by names: to look up a name in a schema is refused where the schema may not be used.
MISSING_PRIVILEGES = text("""
WITH wanted AS (
    SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:names AS text[]), CAST(:columns AS text[]),
                         CAST(:actions AS text[])) AS w (kind, name, column_name, action)
)
SELECT w.kind, w.name, w.column_name, w.action FROM wanted AS w
 WHERE NOT coalesce(CASE w.kind
    WHEN 'SCHEMA' THEN (SELECT has_schema_privilege(n.oid, w.action)
                          FROM pg_catalog.pg_namespace AS n WHERE n.nspname = w.name)
    WHEN 'FUNCTION' THEN (SELECT bool_and(has_function_privilege(p.oid, w.action))
                            FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
                           WHERE n.nspname || '.' || p.proname = w.name)
    ELSE (SELECT CASE w.column_name WHEN '' THEN has_table_privilege(c.oid, w.action)
                                    ELSE has_column_privilege(c.oid, w.column_name, w.action) END
            FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
           WHERE n.nspname || '.' || c.relname = w.name)
    END, false)
 ORDER BY w.kind = 'TABLE', w.name, w.column_name, w.action
""")
DESCRIBE_DATABASE = text(
    "SELECT current_database() AS name, pg_catalog.pg_encoding_to_char(encoding) AS encoding"
    "  FROM pg_catalog.pg_database WHERE datname = current_database()"
)
NO_ACCESS = (
    "the login in DATABASE_URL lacks {privilege}: as the owner of the schemas, run: tokenkeeper migrate && "
    "tokenkeeper roles, with this login in {role}_DATABASE_URL (docs/operations.md, Database roles)"
)
WRONG_ENCODING = (
    "the encoding of database {name} is {encoding}, which cannot hold every name of an account: create one with: "
    "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
)


#: Its policies apply neither to superusers nor to the owner of a table.
HIDDEN_ROWS = text("""
SELECT c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = 'tokenkeeper' AND c.relkind = 'r' AND pg_catalog.row_security_active(c.oid)
 ORDER BY c.relname LIMIT 1
""")
ROWS_HIDDEN = (
    "row level security hides rows of tokenkeeper.{table} from the login in DATABASE_URL: as the owner, run: "
    "ALTER TABLE tokenkeeper.{table} DISABLE ROW LEVEL SECURITY"
)


def check_access(engine: Engine, role: str) -> None:
    """`role`: of PRIVILEGES. Raises SchemaError where this login lacks one of its privileges, or StoreUnavailable."""
    with translate_errors(), engine.connect() as connection:
        missing = find_missing_privileges(connection, role)
        table = connection.scalar(HIDDEN_ROWS)
    if table:
        raise SchemaError(ROWS_HIDDEN.format(table=table))
    if missing:
        first, more = missing[0], f", and {len(missing) - 1} more privileges" if len(missing) > 1 else ""
        column = f" ({first.column})" if first.column else ""
        privilege = f"{first.action}{column} on {first.kind.lower()} {first.name}{more}"
        raise SchemaError(NO_ACCESS.format(privilege=privilege, role=role.upper()))


def find_missing_privileges(connection: Connection, role: str) -> list[Privilege]:
    wanted = sorted(PRIVILEGES[role])
    rows = connection.execute(
        MISSING_PRIVILEGES,
        {
            "kinds": [each.kind for each in wanted],
            "names": [each.name for each in wanted],
            "columns": [each.column for each in wanted],
            "actions": [each.action for each in wanted],
        },
    )
    return [Privilege(*row) for row in rows]


def check_encoding(connection: Connection) -> None:
    """Raises SchemaError."""
    database = connection.execute(DESCRIBE_DATABASE).one()
    if database.encoding != "UTF8":
        raise SchemaError(WRONG_ENCODING.format(name=database.name, encoding=database.encoding))
