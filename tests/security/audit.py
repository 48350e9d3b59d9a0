"""The whole product on servers of its own, with a mark in every secret, and a record of all its output."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import redis
import requests
from cryptography.fernet import Fernet

from sandbox.embedded import EmbeddedValkey
from sandbox.ports import find_free_port
from sandbox.simulator.control import DEMO_CLIENT_ID, SimulatorControl
from tests.security.marked_simulator import run_marked_simulator
from tests.security.markers import Mark, Search, new_mark
from tests.support.command import Command
from tests.support.environment import inherited_environment
from tests.support.fault_deployment import (
    TOKEN_LIFETIME_SECONDS,
    FaultDeployment,
    ReconnectingSql,
    Servers,
)
from tests.support.folders import server_folder
from tests.support.postgres import make_migrated_postgres
from tests.support.product import Product
from tests.support.raw_http_server import replies
from tests.support.visitor import Visitor
from tests.support.webhook_receiver import Receiver, receiving

#: So long that no busy machine makes an install fail by itself, so short that a test can wait for it.
TIMEOUTS = {"SWEEP_SECONDS": "0.5", "HTTP_TIMEOUT_SECONDS": "3", "LEASE_SECONDS": "11"}
ACCESS, REFRESH, CODE = "access token", "refresh token", "code"
CLIENT_SECRET, TOKEN_KEY, SECRET_KEY = "client secret", "token key", "secret key"
PASSWORD, WEBHOOK_SECRET, WEBHOOK_URL = "operator's password", "webhook's secret", "webhook's URL"
LINK_KEY = "key of connect links"
DATABASE_PASSWORD, REDIS_PASSWORD = "PostgreSQL's password", "Redis's password"
MARKED = (ACCESS, REFRESH, CODE, CLIENT_SECRET, TOKEN_KEY, SECRET_KEY, PASSWORD, WEBHOOK_SECRET, WEBHOOK_URL, LINK_KEY)


class DurableServers(Servers):
    """Valkey writes files, as in production: the audit searches them."""

    def __init__(self, folder: Path) -> None:
        self.postgres = make_migrated_postgres(folder, durable=True)
        self.valkey = EmbeddedValkey(folder, durable=True)
        self.postgres.start()
        self.valkey.start()


@dataclass
class Audit:
    deployment: FaultDeployment
    servers: DurableServers
    receiver: Receiver
    marks: dict[str, Mark]
    settings: dict[str, str]  #: the contents of the secret files, by setting
    notes: list[tuple[str, bytes]] = field(default_factory=list)  #: place and content of all output

    @property
    def hubspot(self) -> SimulatorControl:
        return self.deployment.simulator

    @cached_property
    def search(self) -> Search:
        return Search(self.marks.values())

    def note(self, place: str, content: bytes | str) -> None:
        self.notes.append((place, content.encode() if isinstance(content, str) else content))

    @contextmanager
    def visitor(self) -> Iterator[Visitor]:
        """A browser whose responses are noted."""
        with Visitor(self.deployment.url, self.hubspot) as visitor:
            visitor.session.hooks["response"].append(self.note_answer)
            yield visitor

    def open(self, path: str, *, home: str = "", signed_in: bool = True, **options: Any) -> requests.Response:
        """Open a page and note the response."""
        auth = ("operator", self.settings["OPERATOR_PASSWORD"]) if signed_in else None
        address = f"{home or self.deployment.url}{path}"
        answer = requests.get(address, auth=auth, timeout=60, allow_redirects=False, **options)
        self.note_answer(answer)
        return answer

    def command(self, *arguments: str, stdin: str = "") -> int:
        result = Command(self.deployment.product.environment).run_process(*arguments, stdin=stdin)
        self.note(f"tokenkeeper {arguments[0]}", result.out + result.err)
        return result.status

    def note_processes(self) -> None:
        """Command lines and environments of all processes of the product, PostgreSQL and Valkey."""
        servers = [self.servers.postgres.process, self.servers.valkey.process]
        pids = [running.pid for running in self.deployment.product.running if running.status is None]
        pids += [server.pid for server in servers if server is not None]
        for pid in pids:
            for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                    for file in ("cmdline", "environ"):
                        self.note(f"/proc: {file} of {each.name()}", Path(f"/proc/{each.pid}/{file}").read_bytes())

    def note_redis(self) -> None:
        """Each key as it is stored, and the list of clients."""
        with redis.Redis.from_url(self.servers.valkey.url()) as broker:
            for key in broker.scan_iter():
                self.note(f"Redis key {key.decode()}", key + b"\0" + (broker.dump(key) or b""))  # type: ignore[operator]
            self.note("Redis clients", repr(broker.client_list()))

    def note_answer(self, answer: requests.Response, *_: Any, **__: Any) -> None:
        path = urlsplit(answer.request.url or "").path
        self.note(f"answer to {answer.request.method} {path}", f"{answer.headers}\n{answer.text}")


WEB_OPTIONS = ("--access-logfile=-", "--log-level=debug")


@contextmanager
def start_audit(logs: Path) -> Iterator[Audit]:
    marks = {kind: new_mark(kind) for kind in MARKED}
    secret = f"client-{marks[CLIENT_SECRET].text}-secret"
    with ExitStack() as stack:
        folder = stack.enter_context(server_folder("audit"))
        hubspot = stack.enter_context(run_marked_simulator(marks[ACCESS], marks[REFRESH], marks[CODE], secret))
        hubspot.change_settings(lifetime=TOKEN_LIFETIME_SECONDS)
        receiver = stack.enter_context(receiving(replies(500)))
        servers = DurableServers(folder)
        stack.callback(servers.stop)
        database_url = servers.postgres.url()
        for kind, url in ((DATABASE_PASSWORD, database_url), (REDIS_PASSWORD, servers.valkey.url())):
            marks[kind] = Mark(kind, str(urlsplit(url).password))
        settings = _settings(marks, secret, database_url, servers, receiver)
        product = Product(_environment(settings, folder, hubspot.base_url), logs, WEB_OPTIONS)
        stack.callback(product.stop)
        sql = ReconnectingSql(database_url)
        stack.callback(sql.close)
        audit = Audit(
            FaultDeployment(product, hubspot, sql, servers, database_url),
            servers,
            receiver,
            marks,
            settings,
        )
        stack.enter_context(_record_redis_traffic(audit))
        yield audit


def _settings(
    marks: dict[str, Mark], secret: str, database_url: str, servers: DurableServers, receiver: Receiver
) -> dict[str, str]:
    key = Fernet.generate_key().decode()
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": servers.valkey.url(),
        "HUBSPOT_CLIENT_SECRET": secret,
        "TOKEN_KEYS": f"{key[:8]}{marks[TOKEN_KEY].text}{key[16:]}",
        "SECRET_KEY": f"secret-key-{marks[SECRET_KEY].text}",
        "OPERATOR_PASSWORD": f"password-{marks[PASSWORD].text}",
        "EVENTS_WEBHOOK_SECRET": f"whsec_{'B' * 24}{marks[WEBHOOK_SECRET].text}",
        "EVENTS_WEBHOOK_URL": f"{receiver.server.url}/events/{marks[WEBHOOK_URL].text}",
        "ALERT_WEBHOOK_SECRET": f"whsec_{'A' * 24}{marks[WEBHOOK_SECRET].text}",
        "CONNECT_LINK_KEYS": f"key-of-connect-links-of-the-test-{marks[LINK_KEY].text}",
        "ALERT_WEBHOOK_URL": f"{receiver.server.url}/services/{marks[WEBHOOK_URL].text}",
    }


def _environment(settings: dict[str, str], folder: Path, hubspot_url: str) -> dict[str, str]:
    """Secrets come from files, as in production, so that no environment contains one."""
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    for name, value in settings.items():
        (secrets / name).write_text(value)
    return {
        **inherited_environment(),
        **{f"{name}_FILE": str(secrets / name) for name in settings},
        **TIMEOUTS,
        "HUBSPOT_CLIENT_ID": DEMO_CLIENT_ID,
        "HUBSPOT_REDIRECT_URI": f"http://localhost:{find_free_port()}/oauth/callback",
        "HUBSPOT_SCOPES": "oauth crm.objects.contacts.read",
        "HUBSPOT_API_URL": hubspot_url,
        "HUBSPOT_APP_URL": hubspot_url,
        "LOG_LEVEL": "debug",
        "PATH": os.environ["PATH"],
    }


@contextmanager
def _record_redis_traffic(audit: Audit) -> Iterator[None]:
    """Record every command that Valkey receives, because its data may be deleted a moment later."""
    is_over = threading.Event()
    thread = threading.Thread(target=_monitor, args=(audit, is_over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(10)


def _monitor(audit: Audit, is_over: threading.Event) -> None:
    address = urlsplit(audit.servers.valkey.url())
    while not is_over.wait(0.1):
        try:
            with socket.create_connection(("127.0.0.1", address.port or 0), timeout=1) as connection:
                connection.sendall(f"AUTH {address.password}\r\nMONITOR\r\n".encode())
                _note_commands(audit, connection, is_over)
        except OSError:
            continue


def _note_commands(audit: Audit, connection: socket.socket, is_over: threading.Event) -> None:
    commands = b""
    while not is_over.is_set():
        try:
            chunk = connection.recv(1 << 16)
        except TimeoutError:
            continue
        if not chunk:
            break
        commands += chunk
    audit.note("commands to Redis", commands)
