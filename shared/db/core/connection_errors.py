"""Why there is no connection to PostgreSQL: libpq says it in a text, which has no SQLSTATE.

The texts are those of libpq 10 to 18, of the server, and of PgBouncer. Those of the server are in English: the engine
does not ask for another language, and a server's own lc_messages concerns what it says after that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: What shared/db/core/engine.py raises when a wait has reached its limit.
TIMED_OUT = "timed out waiting for the server"
SOCKET_PATH = re.compile(r'on socket "([^"]+)"')


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    pattern: str  #: a regular expression for part of the text
    reason: str  #: what to tell people
    is_permanent: bool  #: it does not resolve by waiting: the settings, or the server's own configuration, are wrong


def _permanent(pattern: str, reason: str) -> ConnectionProblem:
    return ConnectionProblem(pattern, reason, is_permanent=True)


def _temporary(pattern: str, reason: str) -> ConnectionProblem:
    return ConnectionProblem(pattern, reason, is_permanent=False)


OUT_OF_CONNECTIONS = _temporary(
    r"too many|remaining connection slots|no more connections allowed", "it has no connection left for us"
)
#: The first that fits counts. libpq's text may tell of several attempts, to several addresses, with TLS and without:
#: then the reason that people can act on comes first.
PROBLEMS = (
    _permanent(
        r"root certificate file .* does not exist|could not (?:read|load) root certificate",
        "the file of sslrootcert in DATABASE_URL cannot be read: correct its path, or use sslrootcert=system",
    ),
    _permanent(
        r"could not (?:open|load|read) (?:private key|certificate)|private key file|certificate present, but",
        "the files of sslcert and sslkey in DATABASE_URL cannot be used: check path, owner and mode 0600 of each",
    ),
    _permanent(
        r"does not support SSL|server does not support TLS",
        "the server has no TLS, which sslmode in DATABASE_URL demands: turn it on there, or change sslmode",
    ),
    _permanent(
        r"certificate verify failed",
        "its certificate is of an authority that sslrootcert in DATABASE_URL does not contain",
    ),
    _permanent(
        r"does not match host name",
        "its certificate is for another host name than the one in DATABASE_URL: use the name that it is for",
    ),
    _permanent(r"(?:password|SASL|SCRAM) authentication failed", "it refuses the user or the password in DATABASE_URL"),
    _permanent(
        r"authentication failed|authentication method|channel binding",
        "it refuses the user in DATABASE_URL by its own method of authentication: see its pg_hba.conf",
    ),
    _permanent(r"no password supplied", "it wants a password: put one into DATABASE_URL"),
    _permanent(
        r"no pg_hba.conf entry|pg_hba.conf rejects",
        "its pg_hba.conf does not let this user in from here: have an administrator add a line, or use TLS "
        "(sslmode=require in DATABASE_URL)",
    ),
    _permanent(
        r'database "[^"]*" does not exist|no such database',
        "the database in DATABASE_URL does not exist: create it, or correct its name",
    ),
    _permanent(r'role "[^"]*" does not exist|no such user', "the user in DATABASE_URL does not exist"),
    _permanent(
        r"permission denied for database|is not permitted to log in",
        "the login in DATABASE_URL may not connect: have an administrator run: GRANT CONNECT ON DATABASE … TO it",
    ),
    _permanent(
        r"unsupported startup parameter",
        "the pooler refuses a parameter of the connection: add it to PgBouncer's ignore_startup_parameters",
    ),
    _permanent(
        r"invalid \S+ value|invalid (?:integer|value)|invalid port|is too long|definition of service|service file",
        "a parameter in DATABASE_URL has a value that PostgreSQL's own clients refuse",
    ),
    _permanent(r"(?s)on socket .*Permission denied", "this user may not use the Unix socket that DATABASE_URL names"),
    _temporary(r"starting up", "it is starting up"),
    _temporary(r"shutting down", "it is shutting down"),
    _temporary(r"recovery mode", "it recovers from a crash"),
    OUT_OF_CONNECTIONS,
    _temporary(r"refused", "connection refused: is it running at the address in DATABASE_URL?"),
    _temporary(r"on socket", "nothing listens on the Unix socket that DATABASE_URL names: is it running?"),
    _temporary(r"translate host name", "the host in DATABASE_URL is unknown"),
    _temporary(rf"{TIMED_OUT}|timeout expired|timed out", "no answer in time"),
    _temporary(r"unreachable|No route", "there is no route to the host in DATABASE_URL"),
    _temporary(r"SSL error", "TLS fails: does a server that speaks PostgreSQL's protocol listen there?"),
    _temporary(r"closed|reset|SSL SYSCALL|EOF", "the connection broke"),
)
NO_SOCKET_FOLDER = ConnectionProblem("", "the folder of the Unix socket in DATABASE_URL does not exist", True)
#: What the server says, "SEVERITY:  text", where lc_messages is another language than English, or a pooler has texts of
#: its own. It may name the user and the database, and never a password.
SERVER_TEXT = re.compile(r"(?:failed: |^)(\S+:  .+)", re.MULTILINE)
MAX_SERVER_TEXT_CHARACTERS = 200
UNKNOWN = ConnectionProblem("", "no connection, for a reason that libpq does not name", is_permanent=False)


def explain_connection_error(text: str) -> ConnectionProblem:
    """`text`: of psycopg2's error. Looks whether the folder of a Unix socket exists."""
    if (socket := SOCKET_PATH.search(text)) and not Path(socket[1]).parent.is_dir():
        return NO_SOCKET_FOLDER
    known = next((each for each in PROBLEMS if re.search(each.pattern, text)), None)
    if known or not (said := SERVER_TEXT.search(text)):
        return known or UNKNOWN
    return ConnectionProblem("", f"it says: {said[1].strip()[:MAX_SERVER_TEXT_CHARACTERS]}", is_permanent=False)
