"""Every process against every environment that it cannot work in, and against odd ones in which it works.

Each refusal is one line that says what to do, with the exit status of a configuration error, no traceback, no secret,
and nothing that says "ready" before.
"""

from __future__ import annotations

import secrets
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import redis

from sandbox.ports import find_free_port
from tests.support.command import TOKENKEEPER, Command
from tests.support.product import Product, has_printed, url_responds
from tests.support.stores import SqlFixture
from tests.support.tls_server import TlsServer

#: On an idle machine a refusal takes two seconds at most; the processes of a case start at the same time.
REFUSAL_SECONDS = 60
STATUSES = {"web": 4, "worker": 78, "beat": 78, "flower": 78}
READY = (" ready.", "Listening at", "beat: Starting", "Visit me at")
PASSWORD = "planted-password"


@dataclass
class Servers:
    """The URLs of working servers, from which each case makes one that does not work."""

    database_url: str  #: with the worker's login
    redis_url: str
    tls_database_port: int
    tls_redis_port: int
    certificate: Path
    powerless_url: str
    empty_url: str

    def change_database(self, **parts: str) -> str:
        return urlsplit(self.database_url)._replace(**parts).geturl()

    def log_in_as(self, user: str, port: int | None = None, host: str = "127.0.0.1") -> str:
        return self.change_database(netloc=f"{user}@{host}:{port or urlsplit(self.database_url).port}")

    def over_tls(self, query: str, host: str = "127.0.0.1") -> str:
        login = urlsplit(self.database_url).netloc.rpartition("@")[0]
        return self.log_in_as(login, self.tls_database_port, host) + f"?{query}"

    def broker(self, scheme: str = "redis", login: str = "", port: int | None = None, query: str = "") -> str:
        parts = urlsplit(self.redis_url)
        netloc = f"{login or f':{parts.password}'}@127.0.0.1:{port or parts.port}"
        return parts._replace(scheme=scheme, netloc=netloc, query=query).geturl()


@pytest.fixture
def powerless_user(connect: Callable[..., Any]) -> Iterator[str]:
    """A login with no privilege but CONNECT."""
    admin, user = SqlFixture(connect()), f"user_{secrets.token_hex(4)}"
    admin.rows(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    yield user
    admin.rows(f"DROP ROLE {user}")


@pytest.fixture
def tls_ports(database_url: str, redis_url: str, self_signed_tls: ssl.SSLContext) -> Iterator[tuple[int, int]]:
    """Of PostgreSQL and Redis over TLS."""
    with ExitStack() as stack:
        address = ("127.0.0.1", int(urlsplit(database_url).port or 0))
        tls_database = stack.enter_context(TlsServer(address, self_signed_tls, is_postgres=True))
        broker = ("127.0.0.1", int(urlsplit(redis_url).port or 0))
        tls_redis = stack.enter_context(TlsServer(broker, self_signed_tls))
        yield tls_database.port, tls_redis.port


@pytest.fixture
def servers(
    environment: Callable[..., dict[str, str]],
    empty_database_url: str,
    tls_ports: tuple[int, int],
    certificate: Path,
    powerless_user: str,
) -> Servers:
    settings = environment()
    servers = Servers(
        settings["DATABASE_URL"], settings["REDIS_URL"], *tls_ports, certificate, "", empty_url=empty_database_url
    )
    servers.powerless_url = servers.log_in_as(f"{powerless_user}:{PASSWORD}")
    return servers


DATABASE_CASES: dict[str, tuple[Callable[[Servers], str], str]] = {
    "a wrong password": (lambda s: s.log_in_as(f"keeper:{PASSWORD}"), "it refuses the user or the password"),
    "an unknown database": (
        lambda s: s.change_database(path="/planted"),
        "the database in DATABASE_URL does not exist",
    ),
    "a login without rights": (
        lambda s: s.powerless_url,
        "the login in DATABASE_URL may not read tokenkeeper's tables",
    ),
    "a server without TLS": (lambda s: s.change_database(query="sslmode=require"), "the server has no TLS"),
    "no certificate's file": (
        lambda s: s.over_tls("sslmode=verify-full&sslrootcert=/planted"),
        "the file of sslrootcert in DATABASE_URL cannot be read",
    ),
    "an unknown authority": (
        lambda s: s.over_tls("sslmode=verify-full&sslrootcert=system"),
        "its certificate is of an authority that sslrootcert in DATABASE_URL does not contain",
    ),
    "another host's certificate": (
        lambda s: s.over_tls(f"sslmode=verify-full&sslrootcert={quote(str(s.certificate))}", "localhost"),
        "its certificate is for another host name",
    ),
    "no socket's folder": (
        lambda s: s.change_database(netloc=f"keeper:{PASSWORD}@%2Fplanted%2Ffolder"),
        "the folder of the Unix socket in DATABASE_URL does not exist",
    ),
    "a parameter of another client": (
        lambda s: s.change_database(query="pgbouncer=true"),
        "DATABASE_URL is malformed: remove the parameter pgbouncer",
    ),
}
BROKER_CASES: dict[str, tuple[Callable[[Servers], str], str]] = {
    "a wrong password": (lambda s: s.broker(login=f":{PASSWORD}"), "correct user and password in REDIS_URL"),
    "a user without channels": (lambda s: s.broker(login=f"powerless:{PASSWORD}"), "may not run PUBLISH, SUBSCRIBE"),
    "an untrusted certificate": (
        lambda s: s.broker("rediss", port=s.tls_redis_port),
        "has a certificate that is not trusted",
    ),
    "a server without TLS": (lambda s: s.broker("rediss"), "has no TLS at this port, which rediss:// demands"),
    "nonsense for TLS": (
        lambda s: s.broker("rediss", query="ssl_cert_reqs=planted"),
        "REDIS_URL is malformed: ssl_cert_reqs is required, optional or none",
    ),
}


def check_refusals(product: Product, says: str, *names: str, **changes: str) -> None:
    """Start these processes at the same time, and check how each ends."""
    processes = {name: getattr(product, name)(wait=False, **changes) for name in names}
    for name, process in processes.items():
        assert process.wait(REFUSAL_SECONDS) == STATUSES[name], process.output()
        check_lines(process.output(), says)


def check_lines(output: str, says: str) -> None:
    lines = [line for line in output.splitlines() if line.startswith("tokenkeeper: ")]
    assert len(lines) == 1, output
    assert says in lines[0]
    assert "Traceback" not in output
    assert PASSWORD not in output
    assert not any(word in output for word in READY), output


def check_doctor(environment: dict[str, str], about: str, says: str) -> None:
    result = Command(environment)("doctor")
    assert result.status == 1
    line = next(line for line in result.out.splitlines() if line[6:].startswith(f"{about}: "))
    assert line.startswith("FAIL")
    assert says in line
    assert PASSWORD not in result.out + result.err


@pytest.mark.parametrize("case", DATABASE_CASES)
def test_an_unusable_database_ends_the_start_of_each_process_that_meets_it(
    servers: Servers, environment: Callable[..., dict[str, str]], new_product: Callable[..., Product], case: str
) -> None:
    make_url, says = DATABASE_CASES[case]
    changed = environment(DATABASE_URL=make_url(servers))
    check_refusals(new_product(changed), says, "web", "worker")
    migrated = Command(changed)("migrate")
    assert (migrated.status, migrated.out) == (1, "")
    check_lines(migrated.err, says)
    check_doctor(changed, "schema" if "rights" in case else "database", says)


def test_a_database_that_is_not_migrated_ends_the_start(
    servers: Servers, environment: Callable[..., dict[str, str]], new_product: Callable[..., Product]
) -> None:
    says = "this database is not migrated: run: tokenkeeper migrate"
    changed = environment(DATABASE_URL=servers.empty_url)
    check_refusals(new_product(changed), says, "web", "worker")
    check_doctor(changed, "schema", says)


@pytest.mark.parametrize("case", BROKER_CASES)
def test_an_unusable_broker_ends_the_start_of_each_process(
    servers: Servers, environment: Callable[..., dict[str, str]], new_product: Callable[..., Product], case: str
) -> None:
    make_url, says = BROKER_CASES[case]
    with redis.Redis.from_url(servers.redis_url) as admin:
        rules = ("reset", "on", f">{PASSWORD}", "~*", "resetchannels", "+@all")
        admin.execute_command("ACL", "SETUSER", "powerless", *rules)
        try:
            changed = environment(REDIS_URL=make_url(servers))
            check_refusals(new_product(changed), says, "web", "worker", "beat", "flower")
            check_doctor(changed, "redis", says)
        finally:
            admin.execute_command("ACL", "DELUSER", "powerless")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"HUBSPOT_SCOPES": "oauth,tickets"}, "separate scopes by spaces, not by commas"),
        ({"TOKEN_KEYS": '"planted-password"'}, "TOKEN_KEYS is malformed: remove the quotes around it"),
    ],
)
def test_a_setting_that_cannot_work_ends_the_start(product: Product, changes: dict[str, str], says: str) -> None:
    check_refusals(product, says, "web", "worker", **changes)


@pytest.mark.parametrize("case", ["a wrong password", "no socket's folder", "a parameter of another client"])
def test_up_refuses_an_unusable_database_and_writes_nothing(servers: Servers, tmp_path: Path, case: str) -> None:
    make_url, says = DATABASE_CASES[case]
    result = subprocess.run(
        [sys.executable, TOKENKEEPER, "up"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "DATABASE_URL": make_url(servers)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=REFUSAL_SECONDS,
        check=False,
    )
    assert result.returncode == 1
    check_lines(result.stderr, says)
    assert not (tmp_path / ".tokenkeeper" / "secrets").exists()


#: Of other programs, in a shell or on a host: each would break a process that listened to it.
FOREIGN_VARIABLES = {
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
    "BROKER_URL": "amqp://127.0.0.1:1//",
    "CELERY_CONFIG_MODULE": "planted",
    "CELERY_LOADER": "planted",
    "PGSSLMODE": "verify-full",
    "PGOPTIONS": "-c statement_timeout=1ms",
    "PGSERVICE": "planted",
    "PGTARGETSESSIONATTRS": "standby",
    "FLOWER_BASIC_AUTH": "a:b",
    "FLOWER_CONF": "/planted",
    "GUNICORN_CMD_ARGS": "--bind=127.0.0.1:1 --workers=77 --threads=1 --certfile=/planted",
    "WEB_CONCURRENCY": "77",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "REQUESTS_CA_BUNDLE": "/planted",
    "FLASK_DEBUG": "1",
}


def test_variables_of_other_programs_change_nothing(
    servers: Servers, environment: Callable[..., dict[str, str]], new_product: Callable[..., Product]
) -> None:
    product = new_product({**environment(), **FOREIGN_VARIABLES})
    processes = {name: getattr(product, name)(wait=False) for name in ("web", "worker", "beat", "flower")}
    processes["web"].wait_until(url_responds("/readyz"))
    processes["worker"].wait_until(has_printed(" ready."))
    processes["beat"].wait_until(has_printed("is starting"))
    processes["flower"].wait_until(url_responds("/healthcheck"))
    processes["web"].wait_until(has_printed("GUNICORN_CMD_ARGS"))
    # The second worker may begin after the first one responds.
    processes["web"].wait_until(lambda web: web.output().count("Booting worker") >= 2)
    processes["worker"].wait_until(has_printed("CELERY_BROKER_URL"))
    assert Command(product.environment)("migrate").status == 0
    assert processes["web"].output().count("Booting worker") == 2, "as the command line says"


def test_several_hosts_and_verified_tls_to_both_servers_work(
    servers: Servers, environment: Callable[..., dict[str, str]], new_product: Callable[..., Product]
) -> None:
    host = f"127.0.0.1:{urlsplit(servers.database_url).port}"
    url = servers.database_url.replace(f"@{host}", f"@127.0.0.1:{find_free_port()},{host}")
    certificate = quote(str(servers.certificate))
    changed = environment(
        DATABASE_URL=f"{url}?target_session_attrs=read-write",
        REDIS_URL=servers.broker("rediss", port=servers.tls_redis_port, query=f"ssl_ca_certs={certificate}"),
    )
    new_product(changed).worker()
    tls = servers.over_tls(f"sslmode=verify-full&sslrootcert={certificate}")
    assert Command({**changed, "DATABASE_URL": tls})("migrate").status == 0
