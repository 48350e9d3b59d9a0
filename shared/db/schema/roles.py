"""Group roles for web and worker with the privileges of shared/db/schema/privileges.py, and logins in them.

One login may do everything, as after a plain `tokenkeeper migrate`. Where the roles exist (`tokenkeeper roles` creates
them), every migration gives them exactly the privileges listed there. See docs/adr/0013.

A role belongs to the whole cluster. So the name of a group role ends with that of its database: a login of one
installation has no privilege in the database of another one (docs/adr/0031).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

import psycopg2
from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shared.database_url import parse_database_url
from shared.db.core.engine import make_engine
from shared.db.core.errors import SchemaError
from shared.db.schema.privileges import PRIVILEGES, Privilege

ROLE_EXISTS = text("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = :role)")
#: In the order of the fields of Privilege.
GRANTED_PRIVILEGES = text("""
WITH granted AS (
    SELECT 'SCHEMA' AS kind, n.nspname::text AS name, '' AS column_name, acl.*
      FROM pg_catalog.pg_namespace AS n, aclexplode(n.nspacl) AS acl WHERE n.nspname IN ('tokenkeeper', 'hubspot')
    UNION ALL
    SELECT 'TABLE', n.nspname || '.' || c.relname, '', acl.*
      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace,
           aclexplode(c.relacl) AS acl WHERE n.nspname IN ('tokenkeeper', 'hubspot')
    UNION ALL
    SELECT 'TABLE', n.nspname || '.' || c.relname, a.attname, acl.*
      FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace,
           aclexplode(a.attacl) AS acl WHERE n.nspname IN ('tokenkeeper', 'hubspot')
    UNION ALL
    SELECT 'FUNCTION', n.nspname || '.' || p.proname, '', acl.*
      FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace,
           aclexplode(p.proacl) AS acl WHERE n.nspname IN ('tokenkeeper', 'hubspot')
)
SELECT kind, name, column_name, privilege_type FROM granted
  JOIN pg_catalog.pg_roles AS r ON r.oid = granted.grantee WHERE r.rolname = :role
""")
LOGIN = text("""
SELECT rolname = current_user AS is_owner, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls AS is_powerful
  FROM pg_catalog.pg_roles WHERE rolname = :login
""")
IS_MEMBER = text("""
SELECT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS membership
                 JOIN pg_catalog.pg_roles AS role ON role.oid = membership.roleid
                 JOIN pg_catalog.pg_roles AS member ON member.oid = membership.member
                WHERE role.rolname = :role AND member.rolname = current_user)
""")
CAN_CONNECT = text("SELECT has_database_privilege(:role, current_database(), 'CONNECT')")
MAY_NOT = (
    "this login may not create roles, or not change this one: have an administrator run: {statement}; "
    "and the other statements of docs/operations.md, Database roles"
)
#: Of PostgreSQL's identifiers.
MAX_NAME_BYTES = 63
#: The group roles of tokenkeeper 0.1 and 0.2, which all databases of a cluster had in common.
SHARED_ROLES = ("tokenkeeper_web", "tokenkeeper_worker")


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the database. With a `url`, create_login() first tries whether it works already."""

    name: str
    password: str = field(repr=False)
    url: str = field(default="", repr=False)

    @classmethod
    def from_url(cls, database_url: str) -> Login:
        parameters = parse_database_url(database_url)
        return cls(parameters.get("user", ""), parameters.get("password", ""), database_url)


def name_group_role(process: str, database: str) -> str:
    """`process`: of PRIVILEGES. The name of a database may be as long as that of a role: then it is shortened."""
    name = f"tokenkeeper_{process}_{database}"
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    digest = sha256(database.encode()).hexdigest()[:12]
    return name.encode()[: MAX_NAME_BYTES - len(digest) - 1].decode(errors="ignore") + f"_{digest}"


def find_group_role(connection: Connection, process: str) -> str:
    return name_group_role(process, str(connection.scalar(text("SELECT current_database()"))))


def sync_privileges(connection: Connection) -> None:
    """Grant each existing role the privileges it lacks and revoke those it should not have; else change nothing."""
    for process, wanted in PRIVILEGES.items():
        role = find_group_role(connection, process)
        if connection.scalar(ROLE_EXISTS, {"role": role}):
            _sync(connection, role, wanted)


def _sync(connection: Connection, role: str, wanted: frozenset[Privilege]) -> None:
    for privilege in sorted(read_granted_privileges(connection, role) - wanted):
        _execute(connection, privilege.sql("REVOKE", _quote(role)))
    # Read again: revoking a privilege on a table also revokes it on each of its columns.
    for privilege in sorted(wanted - read_granted_privileges(connection, role)):
        _execute(connection, privilege.sql("GRANT", _quote(role)))


def read_granted_privileges(connection: Connection, role: str) -> set[Privilege]:
    return {Privilege(*row) for row in connection.execute(GRANTED_PRIVILEGES, {"role": role})}


def create_group_roles(connection: Connection) -> None:
    """Create the roles, which cannot log in, and let them connect. Raises SchemaError."""
    database = _quote(str(connection.scalar(text("SELECT current_database()"))))
    for process in PRIVILEGES:
        role = find_group_role(connection, process)
        if not connection.scalar(ROLE_EXISTS, {"role": role}):
            _execute_once(connection, f"CREATE ROLE {_quote(role)} NOLOGIN")
        if not connection.scalar(CAN_CONNECT, {"role": role}):
            grant = f"GRANT CONNECT ON DATABASE {database} TO {_quote(role)}"
            _execute_once(connection, grant)
            if not connection.scalar(CAN_CONNECT, {"role": role}):  # PostgreSQL only warns
                raise SchemaError(MAY_NOT.format(statement=grant))
    for role in SHARED_ROLES:
        _sync(connection, role, frozenset())


def create_login(connection: Connection, process: str, login: Login) -> None:
    """Create `login`, or give it this password, in the group role of `process`. Where it works already, do nothing.

    Raises SchemaError.
    """
    role, name = find_group_role(connection, process), _quote(login.name)
    existing = connection.execute(LOGIN, {"login": login.name}).one_or_none()
    if not login.name or (existing and (existing.is_owner or existing.is_powerful)):
        raise SchemaError(f"the login for {process} must be one of its own, without power: not the owner, no superuser")
    if login.url and _is_member(login.url, role):
        return
    if existing is None:
        _execute_once(connection, f"CREATE ROLE {name} LOGIN")
    if login.password:
        # Sent as a verifier, so that the password itself appears neither on the network nor in the server's log.
        raw_connection: psycopg2.extensions.connection = connection.connection.driver_connection  # type: ignore[assignment]
        verifier = encrypt_password(login.password, login.name, algorithm="scram-sha-256", scope=raw_connection)
        _execute_once(
            connection, f"ALTER ROLE {name} LOGIN PASSWORD '{verifier}'", shown=f"ALTER ROLE {name} PASSWORD …"
        )
    _execute_once(connection, f"GRANT {_quote(role)} TO {name}")


def _is_member(database_url: str, role: str) -> bool:
    """Whether this login works and is a member of `role`."""
    engine = make_engine(database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            return bool(connection.scalar(IS_MEMBER, {"role": role}))
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


def _execute_once(connection: Connection, statement: str, shown: str = "") -> None:
    """Execute `statement`; where another database's migration did the same at this moment, that is as good.

    Raises SchemaError, with `shown` in place of the statement where that has a secret.
    """
    try:
        with connection.begin_nested():
            _execute(connection, statement)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg2.errors.InsufficientPrivilege):
            raise SchemaError(MAY_NOT.format(statement=shown or statement)) from None
        if not isinstance(error.orig, (psycopg2.errors.DuplicateObject, psycopg2.errors.UniqueViolation)):
            raise


def _execute(connection: Connection, statement: str) -> None:
    """Statements with names of roles, which cannot be parameters."""
    connection.exec_driver_sql(statement.replace("%", "%%"))


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
