"""What libpq, servers and poolers say when there is no connection, and what is told people."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest

from shared.db.core.connection_errors import PROBLEMS, explain_connection_error
from shared.db.core.errors import StoreMisconfigured, StoreUnavailable, translate_error

AT = 'connection to server at "db" (10.0.0.1), port 5432 failed: '
SECRET = "planted-name"
PERMANENT = [
    (f'{AT}root certificate file "/{SECRET}" does not exist\nEither provide the file, or …', "sslrootcert"),
    (f'{AT}could not read root certificate file "/{SECRET}": no certificate or crl found', "sslrootcert"),
    (f'{AT}private key file "/{SECRET}" has group or world access; file must have …', "mode 0600"),
    (f'{AT}could not load private key file "/{SECRET}": no such file', "sslcert and sslkey"),
    (f"{AT}server does not support SSL, but SSL was required", "the server has no TLS"),
    (f"{AT}SSL error: certificate verify failed", "sslrootcert"),
    (f'{AT}server certificate for "{SECRET}" does not match host name "db"', "another host name"),
    (f'{AT}FATAL:  password authentication failed for user "{SECRET}"', "the user or the password"),
    (f'{AT}FATAL:  Peer authentication failed for user "{SECRET}"', "pg_hba.conf"),
    (f"{AT}fe_sendauth: no password supplied", "it wants a password"),
    (f'{AT}FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "{SECRET}", database "d", no encryption', "sslmode"),
    (f'{AT}FATAL:  database "{SECRET}" does not exist', "the database in DATABASE_URL does not exist"),
    (f'{AT}FATAL:  role "{SECRET}" does not exist', "the user in DATABASE_URL does not exist"),
    (f'{AT}FATAL:  permission denied for database "{SECRET}"', "GRANT CONNECT"),
    (f'{AT}FATAL:  role "{SECRET}" is not permitted to log in', "may not connect"),
    (f"{AT}ERROR:  unsupported startup parameter: {SECRET}", "ignore_startup_parameters"),
    (f'invalid sslmode value: "{SECRET}"', "a parameter in DATABASE_URL"),
    (f'invalid integer value "{SECRET}" for connection option "keepalives"', "a parameter in DATABASE_URL"),
    (f'definition of service "{SECRET}" not found', "a parameter in DATABASE_URL"),
    (f'connection to server on socket "/{SECRET}/.s.PGSQL.5432" failed: No such file or directory', "the folder"),
    # libpq tells of each attempt: what people can correct comes first
    (f'{AT}Connection refused\n{AT}FATAL:  password authentication failed for user "{SECRET}"', "the password"),
]
TEMPORARY = [
    (
        f"{AT}Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
        "is it running",
    ),
    (f'could not translate host name "{SECRET}" to address: Name or service not known', "unknown"),
    (f"{AT}FATAL:  the database system is starting up", "it is starting up"),
    (f"{AT}FATAL:  the database system is shutting down", "it is shutting down"),
    (f"{AT}FATAL:  the database system is in recovery mode", "recovers"),
    (f"{AT}FATAL:  sorry, too many clients already", "no connection left"),
    (f"{AT}FATAL:  remaining connection slots are reserved for roles with …", "no connection left"),
    (f"{AT}No route to host", "no route"),
    (f"{AT}timeout expired", "no answer in time"),
    ("server closed the connection unexpectedly", "the connection broke"),
    ("an error that no table lists", "does not name"),
]


@pytest.mark.parametrize(("text", "says"), PERMANENT)
def test_what_does_not_resolve_by_waiting_is_named_with_what_to_do(text: str, says: str) -> None:
    error = translate_error(psycopg2.OperationalError(text), is_disconnect=False)
    assert type(error) is StoreMisconfigured
    assert str(error).startswith("PostgreSQL cannot be used: ")
    assert says in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(("text", "says"), TEMPORARY)
def test_what_may_resolve_by_waiting_is_named_too(text: str, says: str) -> None:
    error = translate_error(psycopg2.OperationalError(text), is_disconnect=False)
    assert type(error) is StoreUnavailable
    assert str(error).startswith("PostgreSQL does not answer: ")
    assert says in str(error)
    assert SECRET not in str(error)


def test_an_unknown_text_of_a_server_is_shown_as_it_is() -> None:
    """Its language is that of its lc_messages, and poolers have texts of their own."""
    text = "SCHWERWIEGEND:  Passwort-Authentifizierung für Benutzer »keeper« fehlgeschlagen"
    for whole in (f"{AT}{text}\n", f"{text}\n"):  # psycopg2 waits for the connection by itself
        problem = explain_connection_error(whole)
        assert (problem.reason, problem.is_permanent) == (f"it says: {text}", False)
    assert explain_connection_error(f"{AT}FATAL:  Tenant or user not found").reason.endswith("not found")


def test_a_socket_that_does_not_exist_yet_in_a_folder_that_does_is_waited_for(tmp_path: Path) -> None:
    text = f'connection to server on socket "{tmp_path}/.s.PGSQL.5432" failed: No such file or directory'
    assert not explain_connection_error(text).is_permanent


def test_no_reason_has_a_line_end() -> None:
    assert not any("\n" in problem.reason for problem in PROBLEMS)
