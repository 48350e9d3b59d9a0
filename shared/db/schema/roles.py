"""Group roles for web and worker, with the privileges that shared/db/schema/privileges.py names, and logins in them.

One login may be everything, as after a plain `tokenkeeper migrate`. Where the roles exist (`tokenkeeper roles` makes
them), every migration brings their privileges to what is named there: no more, no fewer. See docs/adr/0013.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shared.db.core.engine import make_engine
from shared.db.core.errors import SchemaError
from shared.db.schema.privileges import PRIVILEGES, WEB, WORKER, Privilege

EXISTS = text("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = :role)")
HELD = text("""
WITH held AS (
    SELECT 'SCHEMA' AS kind, n.nspname::text AS name, '' AS col, a.*
      FROM pg_catalog.pg_namespace AS n, aclexplode(n.nspacl) AS a WHERE n.nspname IN ('tokenkeeper', 'hubspot')
    UNION ALL
    SELECT 'TABLE', n.nspname || '.' || c.relname, '', a.*
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace,
           aclexplode(c.relacl) AS a WHERE n.nspname IN ('tokenkeeper', 'hubspot')
    UNION ALL
    SELECT 'TABLE', n.nspname || '.' || c.relname, t.attname, a.*
      FROM pg_catalog.pg_attribute AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.attrelid
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace,
           aclexplode(t.attacl) AS a WHERE n.nspname IN ('tokenkeeper', 'hubspot')
    UNION ALL
    SELECT 'FUNCTION', n.nspname || '.' || p.proname, '', a.*
      FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace,
           aclexplode(p.proacl) AS a WHERE n.nspname IN ('tokenkeeper', 'hubspot')
)
SELECT kind, name, col, privilege_type FROM held
  JOIN pg_catalog.pg_roles AS r ON r.oid = held.grantee WHERE r.rolname = :role
""")
LOGIN = text("""
SELECT rolname = current_user AS ours, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls AS mighty
  FROM pg_catalog.pg_roles WHERE rolname = :login
""")
IS_IN = text("""
SELECT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m
                 JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid JOIN pg_catalog.pg_roles AS u ON u.oid = m.member
                WHERE g.rolname = :role AND u.rolname = current_user)
""")
NO_ROLES = (
    "this login may not create roles: have an administrator run: "
    f"CREATE ROLE {WEB} NOLOGIN; CREATE ROLE {WORKER} NOLOGIN; and make the logins, as docs/operations.md says"
)


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the database, as its URL names it."""

    name: str
    password: str = field(repr=False)
    url: str = field(default="", repr=False)

    @classmethod
    def of(cls, database_url: str) -> Login:
        url = make_url(database_url)
        return cls(url.username or "", str(url.password or ""), database_url)


def settle(connection: Connection) -> None:
    """Give each role that exists what it should have, and take away the rest; where that is so, nothing changes."""
    for role, wanted in PRIVILEGES.items():
        if connection.scalar(EXISTS, {"role": role}):
            _say(connection, [each.sql("REVOKE", role) for each in sorted(_held(connection, role) - wanted)])
            # Looked at anew: what is taken from a table is taken from all its columns.
            _say(connection, [each.sql("GRANT", role) for each in sorted(wanted - _held(connection, role))])


def create(connection: Connection) -> None:
    """The group roles, which nobody logs in as. They belong to the whole cluster: another database may have made them.

    Raises SchemaError.
    """
    for role in PRIVILEGES:
        if not connection.scalar(EXISTS, {"role": role}):
            _made(connection, f"CREATE ROLE {role} NOLOGIN")


def admit(connection: Connection, role: str, login: Login) -> None:
    """Make `login`, or give it this password, and let it do what `role` may. Where it can already, nothing changes.

    Raises SchemaError.
    """
    quoted = '"' + login.name.replace('"', '""') + '"'
    found = connection.execute(LOGIN, {"login": login.name}).one_or_none()
    if not login.name or (found and (found.ours or found.mighty)):
        raise SchemaError(f"the login for {role} must be one of its own, without power: not the owner, no superuser")
    if login.url and _is_in(login.url, role):
        return
    if found is None:
        _made(connection, f"CREATE ROLE {quoted} LOGIN")
    if login.password:
        # The server, and its log, see what only proves a password.
        proof = encrypt_password(login.password, login.name, algorithm="scram-sha-256", scope=_raw(connection))
        _made(connection, f"ALTER ROLE {quoted} LOGIN PASSWORD '{proof}'")
    _made(connection, f"GRANT {role} TO {quoted}")


def _is_in(database_url: str, role: str) -> bool:
    """Whether one can log in so, and may do what `role` may."""
    engine = make_engine(database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            return bool(connection.scalar(IS_IN, {"role": role}))
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


def _held(connection: Connection, role: str) -> set[Privilege]:
    return {Privilege(*row) for row in connection.execute(HELD, {"role": role})}


def _made(connection: Connection, statement: str) -> None:
    """Whoever made it meanwhile is as good as we are. Raises SchemaError."""
    try:
        with connection.begin_nested():
            _say(connection, [statement])
    except DBAPIError as error:
        if isinstance(error.orig, psycopg2.errors.InsufficientPrivilege):
            raise SchemaError(NO_ROLES) from None
        if not isinstance(error.orig, (psycopg2.errors.DuplicateObject, psycopg2.errors.UniqueViolation)):
            raise


def _say(connection: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement.replace("%", "%%"))


def _raw(connection: Connection) -> psycopg2.extensions.connection:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg2.extensions.connection)  # noqa: S101  it is psycopg2's: shared/db/core/engine.py
    return raw
