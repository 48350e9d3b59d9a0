"""DATABASE_URL as libpq reads it: whatever PostgreSQL's own clients take works here too, such as several hosts.

Written out, because beat and Flower check settings without psycopg2 in memory. A test compares it with libpq.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

#: Of libpq 17 (PostgreSQL's manual, 32.1.2). libpq refuses a URL with any other one.
_PARAMETERS = """
host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout client_encoding options
application_name fallback_application_name keepalives keepalives_idle keepalives_interval keepalives_count
tcp_user_timeout replication gssencmode sslmode requiressl sslnegotiation sslcompression sslcert sslkey sslpassword
sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version ssl_max_protocol_version krbsrvname
gsslib gssdelegation service target_session_attrs load_balance_hosts
"""
LIBPQ_PARAMETERS = frozenset(_PARAMETERS.split())
HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
NAME = re.compile(r"[A-Za-z_]{1,40}")
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
MAX_PORT = 65_535


class InvalidDatabaseUrl(ValueError):
    """What is wrong, in a few words that contain no value of the URL."""


def parse_database_url(url: str) -> dict[str, str]:
    """The parameters of a connection by libpq's names. Raises InvalidDatabaseUrl."""
    if BAD_ESCAPE.search(url):
        raise InvalidDatabaseUrl("write %25 for a %")
    try:
        unquote(url, errors="strict")
    except UnicodeDecodeError:
        raise InvalidDatabaseUrl("percent-encode other letters as UTF-8") from None
    rest, _, query = url.partition("://")[2].partition("?")
    authority, _, database = rest.partition("/")
    login, at, hosts = authority.partition("@")
    if not at:
        login, hosts = "", authority
    user, _, password = login.partition(":")
    parameters = {"user": unquote(user), "password": unquote(password), "dbname": unquote(database)}
    parameters |= _parse_hosts(hosts)
    parameters |= dict(_parse_query(query))
    _check_hosts_of_query(parameters)
    return {name: value for name, value in parameters.items() if value.strip(",")}


def _parse_hosts(hosts: str) -> dict[str, str]:
    """One host, or several with commas between them, each with or without a port."""
    if "@" in hosts:
        raise InvalidDatabaseUrl("write %40 for an @ in the password")
    matches = [HOST.fullmatch(host) for host in hosts.split(",")]
    parts = [(unquote(match["host"].strip("[]")), match["port"] or "") for match in matches if match]
    if len(parts) < len(matches) or not all(port == "" or 0 < int(port) <= MAX_PORT for _, port in parts):
        raise InvalidDatabaseUrl("percent-encode what is not a letter or digit in the password, and check the port")
    names, ports = zip(*parts, strict=True)
    return {"host": ",".join(names), "port": ",".join(ports)}


def _parse_query(query: str) -> Iterator[tuple[str, str]]:
    for parameter in query.split("&") if query else ():
        name, equals, value = parameter.partition("=")
        if (name, value) == ("ssl", "true"):  # of JDBC, which libpq takes
            yield "sslmode", "require"
        elif "=" in value:
            raise InvalidDatabaseUrl("write %3D for an = in the value of a parameter")
        elif name in LIBPQ_PARAMETERS and equals:
            yield name, unquote(value)
        else:
            shown = f"the parameter {name}" if NAME.fullmatch(name) else "a parameter"
            raise InvalidDatabaseUrl(f"remove {shown}, which PostgreSQL's own clients do not know")


def _check_hosts_of_query(parameters: dict[str, str]) -> None:
    """SQLAlchemy has a form of its own for several hosts, and libpq would look for a host of that name."""
    if any(host.count(":") == 1 for host in parameters["host"].split(",")):
        raise InvalidDatabaseUrl("write several hosts as host1:5432,host2:5432 before the name of the database")
