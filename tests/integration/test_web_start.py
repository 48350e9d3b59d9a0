"""web as a process: how it starts or refuses to, its health checks, its log and its end."""

import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import requests
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from shared.db.schema.migrate import migrate
from shared.settings import Settings
from tests.support.environment import ROOT
from tests.support.polling import until
from tests.support.product import has_printed, url_responds
from tests.support.tcp_proxy import TcpProxy
from tests.support.visitor import Visitor
from web.startup import check_database_when_it_answers

HUB = 62515
APP_LOAD_ERROR_STATUS = 4
#: gunicorn kills workers that are still there after this time.
KILL_SECONDS = 30
#: The worker stops the master before or after our hook and goes on starting once the master's signal has arrived.
STOP_WHILE_A_WORKER_STARTS = """
import os, runpy, signal, time

product = runpy.run_path("{root}/gunicorn.conf.py")
globals().update(product)

def stop_master(server):
    os.kill(server.pid, {signum})
    while server.SIG_QUEUE.empty() and not signal.sigpending():
        time.sleep(0.01)

def post_fork(server, worker):
    steps = [stop_master, lambda server: product["post_fork"](server, worker)]
    for step in steps if {is_before} else reversed(steps):
        step(server)
"""


def read_refusal(product, **changes):
    """The one line that says why gunicorn refused to start."""
    web = product.web(wait=False, **changes)
    assert web.wait(60) == APP_LOAD_ERROR_STATUS
    lines = [line for line in web.output().splitlines() if line.startswith("tokenkeeper: ")]
    assert lines
    assert "Traceback" not in web.output()
    return lines[0]


def read_readiness(url):
    """Status and content of /readyz, which answers within three seconds; a busy machine may add some."""
    response = requests.get(f"{url}/readyz", timeout=60)
    return response.status_code, response.json()


def wait_for_readiness(url, status, **states):
    """On a busy machine a server that answers may not do so within the two seconds that /readyz waits."""
    until(lambda: read_readiness(url) == (status, states))


def test_wrong_settings_stop_gunicorn_with_one_line(product):
    line = read_refusal(product, HUBSPOT_SCOPES="", TOKEN_KEYS="no-key-at-all")
    assert "HUBSPOT_SCOPES" in line
    assert "TOKEN_KEYS" in line
    assert "no-key-at-all" not in line


def test_a_database_that_is_not_migrated_stops_gunicorn_with_one_line(environment, new_product, empty_database_url):
    assert "tokenkeeper migrate" in read_refusal(new_product(environment(DATABASE_URL=empty_database_url)))


@pytest.mark.parametrize(
    "values",
    [
        "connections (hub_id, status, encrypted_refresh_token) VALUES (1, 'active', %s)",
        "key_check (encrypted_check_value) VALUES (%s)",
    ],
)
def test_token_keys_of_another_database_stop_gunicorn_with_one_line(
    environment, new_product, database_url, connect, values
):
    ciphertext = Fernet(Fernet.generate_key()).encrypt(b"{}").decode()
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO tokenkeeper.{values}", (ciphertext,))
    # With one login for all processes web checks refresh tokens; with its own login, the value that the worker writes.
    one_login = {"DATABASE_URL": database_url} if "connections" in values else {}
    assert "TOKEN_KEYS" in read_refusal(new_product(environment(**one_login)))


def test_web_starts_with_its_servers_down_and_is_ready_once_they_are_up(
    environment, new_product, own_postgres, own_valkey
):
    migrate(own_postgres.url())
    own_postgres.stop()
    own_valkey.stop()
    settings = environment(DATABASE_URL=own_postgres.url(), REDIS_URL=own_valkey.url())
    web = new_product(settings).web()
    wait_for_readiness(web.url, 503, postgres="down", redis="down")
    own_valkey.start()
    wait_for_readiness(web.url, 503, postgres="down", redis="ok")
    own_postgres.start()
    wait_for_readiness(web.url, 200, postgres="ok", redis="ok")
    web.wait_until(has_printed("PostgreSQL answers"))


def test_a_database_that_turns_out_to_be_the_wrong_one_is_logged_with_what_to_do(environment, empty_database_url):
    """In this process: gunicorn's workers run it in a thread where PostgreSQL does not answer at the start."""
    server = urlsplit(empty_database_url)
    with TcpProxy("127.0.0.1", 1) as proxy, capture_logs() as lines, ThreadPoolExecutor(1) as threads:
        settings = Settings.from_env(environment(DATABASE_URL=proxy.lead(empty_database_url)))
        check = threads.submit(check_database_when_it_answers, settings, 0.05)
        until(lambda: proxy.refused > 1)
        proxy.target = (str(server.hostname), server.port or 5432)
        check.result(60)
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert "wrong database" in line["event"]
    assert "tokenkeeper migrate" in line["why"]


def test_frozen_servers_are_named_by_readyz_and_healthz_still_answers(
    environment, new_product, own_postgres, own_valkey
):
    migrate(own_postgres.url())
    web = new_product(environment(DATABASE_URL=own_postgres.url(), REDIS_URL=own_valkey.url())).web()
    wait_for_readiness(web.url, 200, postgres="ok", redis="ok")
    for server in (own_postgres, own_valkey):
        server.process.send_signal(signal.SIGSTOP)
    try:
        status, states = read_readiness(web.url)
        assert status == 503
        assert "ok" not in states.values() or states["postgres"] == "ok"  # a running backend may still answer
        assert states["redis"] != "ok"
        web.wait_until(url_responds("/healthz"))
    finally:
        for server in (own_postgres, own_valkey):
            server.process.send_signal(signal.SIGCONT)


def test_a_database_behind_the_code_is_not_ready(product, connect):
    web = product.web()
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE tokenkeeper.alembic_version SET version_num = '0000'")
    wait_for_readiness(web.url, 503, postgres="not migrated", redis="ok")


def test_no_log_line_of_an_install_holds_a_secret(product, simulator):
    web = product.web("--access-logfile=-", LOG_LEVEL="debug")
    simulator.change_settings(client_secrets=["another"])
    with Visitor(web.url, simulator) as visitor:
        rejected = visitor.get(visitor.allow(HUB))
        simulator.change_settings(client_secrets=["simulated-secret"])
        back = visitor.allow(HUB)
        path = visitor.get(back).headers["Location"]
        visitor.get(path)
    output = web.output()
    assert rejected.status_code == 502
    assert "BAD_CLIENT_SECRET" in output
    query = urlsplit(back).query
    for secret in (*(value.partition("=")[2] for value in query.split("&")), "simulated-secret", "gAAAA"):
        assert secret not in output


def test_raw_bytes_over_a_socket_are_never_a_500(product):
    web = product.web()
    address = urlsplit(web.url)
    head = b"\r\nHost: \xff\xff\r\nCookie: tk_browser=\xff; =; \x01\r\nConnection: close\r\n\r\n"
    for line in (
        b"GET /oauth/callback?state=\xff\xfe&code=\x00 HTTP/1.1",
        b"GET /oauth/callback?%zz=%&state=%00 HTTP/1.1",
        b"GET /install?hub_id=" + b"9" * 3000 + b" HTTP/1.1",
        b"GET /\xc3\x28 HTTP/1.1",
        b"GET http://evil.example/install HTTP/1.1",
    ):
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            connection.sendall(line + head)
            response = connection.recv(200)
        assert not response or re.match(rb"HTTP/1.[01] [34]", response), (line, response)
    response = requests.get(f"{web.url}/installs/x", headers={"Cookie": "tk_grant=" + "x" * 7000}, timeout=60)
    assert response.status_code == 404


def test_health_checks_are_answered_whatever_host_a_balancer_names(product):
    """Also none, as a balancer's HTTP/1.0; and after the reload that `systemctl reload` and log rotation ask for."""
    web = product.web()
    web.send_signal(signal.SIGHUP)
    # A worker that ends drops a connection on which no header has come yet.
    web.wait_until(lambda web: web.output().count("Worker exiting") >= 2)
    wait_for_readiness(web.url, 200, postgres="ok", redis="ok")
    address = urlsplit(web.url)
    for head in ("HTTP/1.0", "HTTP/1.1\r\nHost: 10.244.0.5:5000", "HTTP/1.1\r\nHost: [fd00::1]:5000"):
        for path in ("/healthz", "/readyz"):
            request = f"GET {path} {head}\r\nConnection: close\r\n\r\n".encode()
            assert until(lambda request=request: read_status(address, request) == b"200"), (path, head)


def read_status(address, request):
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(request)
        return connection.recv(200).split()[1]


def test_a_reload_takes_settings_of_now_and_keeps_those_of_before_where_they_are_wrong(product):
    password = product.folder / "metrics_password"
    password.write_text("the first one")
    web = product.web(METRICS_PASSWORD_FILE=str(password))

    def ask_for_metrics(secret):
        """None where a worker that ends has dropped the connection: this process took too long to send its request."""
        with suppress(requests.ConnectionError):
            return requests.get(f"{web.url}/metrics", auth=("metrics", secret), timeout=60).status_code
        return None

    until(lambda: ask_for_metrics("the first one") == 200)
    password.write_text("the second one")
    web.send_signal(signal.SIGHUP)
    until(lambda: (ask_for_metrics("the second one"), ask_for_metrics("the first one")) == (200, 401))
    password.write_text("short")
    web.send_signal(signal.SIGHUP)
    web.wait_until(has_printed("nothing is reloaded"))
    until(lambda: ask_for_metrics("the second one") == 200)


def test_forks_of_a_preloaded_application_share_no_connection(product, simulator):
    web = product.web("--preload")
    product.worker()
    paths = []
    for hub_id in range(1, 9):
        with Visitor(web.url, simulator) as visitor:
            path = visitor.install(hub_id)
            assert visitor.wait(path) == {"state": "connected", "hub_id": hub_id}
            paths.append(path)
    assert len(set(paths)) == 8
    assert "[error" not in web.output()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_web_stops_at_a_signal_before_gunicorn_kills_its_workers(product, signum):
    web = product.web()
    web.send_signal(signum)
    assert web.wait(KILL_SECONDS - 5) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("is_before", [True, False])
def test_a_worker_that_is_still_starting_stops_at_a_signal_too(product, signum, is_before):
    config = product.folder / "stop_while_a_worker_starts.py"
    config.write_text(STOP_WHILE_A_WORKER_STARTS.format(root=ROOT, signum=int(signum), is_before=is_before))
    web = product.web(f"--config={config}", wait=False)
    assert web.wait(KILL_SECONDS - 5) == 0
    assert "Booting worker" in web.output()
