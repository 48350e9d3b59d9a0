"""What is said of a broker that cannot be used, and that every form of REDIS_URL leads to one that can."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import redis

from sandbox.child_processes import stop_process
from sandbox.embedded import EmbeddedValkey
from sandbox.embedded.valkey import find_valkey_binary
from sandbox.ports import find_free_port
from shared.broker_check import BrokerUnavailable, BrokerUnusable, check_broker
from tests.support.environment import inherited_environment
from tests.support.polling import until
from tests.support.tls_server import TlsServer

#: An option of Valkey's: a free port.
ANY_PORT = "any"


def check_until_answered(redis_url: str) -> None:
    """A busy machine may take longer for an answer than the two seconds after which a broker counts as unavailable."""

    def is_answered() -> bool:
        try:
            check_broker(redis_url)
        except BrokerUnavailable:
            return False
        return True

    until(is_answered)


def explain_unavailable(redis_url: str) -> str:
    with pytest.raises(BrokerUnavailable) as raised:
        check_broker(redis_url)
    return str(raised.value)


def read_problem(redis_url: str) -> str:
    with pytest.raises(BrokerUnusable) as raised:
        check_until_answered(redis_url)
    message = str(raised.value)
    assert "\n" not in message
    assert "its-password" not in message
    return message


@pytest.fixture
def start_valkey(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a Valkey with these options; returns its port."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> int:
        port = find_free_port()
        argv = [str(find_valkey_binary()), "--port", str(port), "--dir", str(tmp_path), "--save", ""]
        argv += [str(find_free_port()) if option == ANY_PORT else option for option in options]
        processes.append(process := subprocess.Popen(argv, env=inherited_environment(), stdout=subprocess.DEVNULL))
        until(lambda: process.poll() is not None or is_answering(port, process.pid))
        # It has ended where a server of another test has taken a port meanwhile.
        return port if process.poll() is None else start(*options)

    yield start
    for process in processes:
        stop_process(process)


def is_answering(port: int, pid: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=5.0) as client:
            return bool(client.info("server")["process_id"] == pid)
    except redis.RedisError:  # it does not listen yet, or it is another server
        return False


@pytest.fixture
def make_user(redis_url: str) -> Iterator[Callable[..., str]]:
    """Returns the URL of a user with these rules."""
    admin = redis.Redis.from_url(redis_url)

    def make(*rules: str) -> str:
        admin.execute_command("ACL", "SETUSER", "keeper", "reset", "on", ">its-password", *rules)
        parts = urlsplit(redis_url)
        return parts._replace(netloc=f"keeper:its-password@{parts.hostname}:{parts.port}").geturl()

    yield make
    admin.execute_command("ACL", "DELUSER", "keeper")
    admin.close()


def test_a_user_with_the_rights_that_the_message_names_is_enough(make_user: Callable[..., str]) -> None:
    check_until_answered(make_user("~*", "&*", "+@all", "-@admin", "-@dangerous"))


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        (("resetchannels", "~*", "+@all"), "PUBLISH, SUBSCRIBE, PSUBSCRIBE"),
        (("~*", "&*", "+@all", "-brpop"), "BRPOP"),
        (("~*", "&*", "+@all", "-time", "-client"), "TIME"),
        (("~*", "&*", "+@all", "-@scripting"), "EVALSHA, SCRIPT LOAD"),
        (("~*", "&*", "+@all", "-@transaction"), "WATCH, UNWATCH, MULTI"),
        (("~tokenkeeper*", "~unacked*", "&*", "+@all"), "SADD, SREM, SMEMBERS"),
        (("~celery*", "&*", "+@all"), "WATCH, RPOP, LLEN, DEL"),
    ],
)
def test_a_right_that_the_user_lacks_is_named(
    make_user: Callable[..., str], rules: tuple[str, ...], refused: str
) -> None:
    message = read_problem(make_user(*rules))
    assert f"the user of REDIS_URL may not run {refused}" in message
    assert "ACL SETUSER … ~* &* +@all" in message


def test_nothing_is_executed(redis_url: str) -> None:
    check_until_answered(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys() == []


def test_a_server_in_cluster_mode_is_named(start_valkey: Callable[..., int]) -> None:
    """Also one that has every slot, so that it refuses no command of one key."""
    # its default, port + 10000, may be none
    port = start_valkey("--cluster-enabled", "yes", "--cluster-port", ANY_PORT)
    assert "is in cluster mode" in read_problem(f"redis://127.0.0.1:{port}/0")
    with redis.Redis(port=port) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
        until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
    assert "is in cluster mode, and Celery's queues need one server" in read_problem(f"redis://127.0.0.1:{port}/0")


def test_a_wrong_password_and_a_wrong_database_are_named(redis_url: str) -> None:
    parts = urlsplit(redis_url)
    wrong = parts._replace(netloc=f":its-password-no@{parts.hostname}:{parts.port}").geturl()
    assert "correct user and password in REDIS_URL" in read_problem(wrong)
    assert "correct user and password" in read_problem(f"redis://{parts.hostname}:{parts.port}/0")
    assert "is the number of the database" in read_problem(parts._replace(path="/9999").geturl())


def test_a_broker_that_is_down_or_read_only_for_now_is_not_unusable(own_valkey: EmbeddedValkey) -> None:
    assert explain_unavailable("redis://127.0.0.1:1/0") == "ConnectionError"
    with redis.Redis.from_url(own_valkey.url()) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", 1)
    until(lambda: explain_unavailable(own_valkey.url()) == "ReadOnlyError")


@pytest.mark.parametrize(
    "url", ["unix://{path}?db=3", "redis+socket://{path}?virtual_host=3", "unix://:its-password@{quoted}?db=3"]
)
def test_every_spelling_of_a_unix_socket_works(start_valkey: Callable[..., int], tmp_path: Path, url: str) -> None:
    path = tmp_path / "a b.sock"
    password = ("--requirepass", "its-password") if "password" in url else ()
    start_valkey("--unixsocket", str(path)) if not password else start_locked(start_valkey, path)
    quoted = quote(str(path))
    check_until_answered(url.format(path=quoted, quoted=quoted))


def start_locked(start_valkey: Callable[..., int], path: Path) -> None:
    port = start_valkey("--unixsocket", str(path))
    with redis.Redis(port=port) as client:
        client.config_set("requirepass", "its-password")


def test_the_database_may_be_in_the_query_as_in_redis_py(redis_url: str) -> None:
    parts = urlsplit(redis_url)
    check_until_answered(parts._replace(path="", query=f"db={parts.path[1:]}").geturl())
    assert "is the number of the database" in read_problem(parts._replace(path="", query="db=9999").geturl())


@pytest.fixture
def tls_port(redis_url: str, self_signed_tls: ssl.SSLContext) -> Iterator[int]:
    with TlsServer(("127.0.0.1", int(urlsplit(redis_url).port or 0)), self_signed_tls) as server:
        yield server.port


@pytest.fixture
def secure_url(redis_url: str, tls_port: int) -> str:
    parts = urlsplit(redis_url)
    return parts._replace(scheme="rediss", netloc=f":{parts.password}@127.0.0.1:{tls_port}").geturl()


def test_tls_verifies_the_certificate_unless_the_url_says_otherwise(secure_url: str, certificate: Path) -> None:
    assert "has a certificate that is not trusted" in read_problem(secure_url)
    assert "has a certificate that is not trusted" in read_problem(f"{secure_url}?ssl_cert_reqs=required")
    check_until_answered(f"{secure_url}?ssl_ca_certs={quote(str(certificate))}")
    other_host = secure_url.replace("127.0.0.1", "localhost")
    assert "another host's" in read_problem(f"{other_host}?ssl_ca_certs={quote(str(certificate))}")
    check_until_answered(f"{secure_url}?ssl_cert_reqs=none")


def test_a_missing_file_and_a_server_without_tls_are_named(secure_url: str, redis_url: str) -> None:
    assert "needs a file that REDIS_URL names" in read_problem(f"{secure_url}?ssl_ca_certs=/no/such/file")
    # Valkey waits for the end of a line, or finds one in the random bytes of the handshake and refuses it.
    assert "has no TLS at this port" in read_problem(redis_url.replace("redis://", "rediss://"))
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(BrokerUnavailable, match="has it TLS"):
        check_broker(f"rediss://127.0.0.1:{silent.getsockname()[1]}/0", max_retries=0)
