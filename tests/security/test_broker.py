"""An attacker who can write to Redis: garbage, forged and replayed messages are dropped, with one log line each.

A real worker on a real Valkey. After each attack the same worker process still stores an install.
"""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
import redis
from celery import Celery

from sandbox.child_processes import ChildProcess
from sandbox.embedded import EmbeddedValkey
from sandbox.simulator.control import SimulatorControl
from shared.dispatch import BACKGROUND_QUEUE, INTERACTIVE_QUEUE, STORE_INSTALL, SWEEP, TASK_QUEUES, Dispatch
from shared.domain.grant import Install
from shared.token_cipher import TokenCipher
from tests.support.databases import Databases
from tests.support.deployment import Deployment
from tests.support.environment import SHORT_WAITS, product_environment
from tests.support.polling import until
from tests.support.product import Product
from tests.support.stores import SqlFixture

FORGET_INSTALLS_OF_HUB = """
DELETE FROM tokenkeeper.installs AS i USING tokenkeeper.connections AS c WHERE c.id = i.connection_id AND c.hub_id = %s
"""
DROPPED = "dropped an invalid message"
_hub_ids = count(83_001)


class AttackedBroker:
    """The product with a broker that the attacker can reach."""

    def __init__(self, deployment: Deployment, url: str) -> None:
        self.deployment = deployment
        self.redis = redis.Redis.from_url(url)
        self.app = Celery("attacker", broker=url, set_as_current=False)
        self.app.conf.update(task_queues=TASK_QUEUES, task_ignore_result=True)

    @property
    def worker(self) -> ChildProcess:
        return self.deployment.processes_named("worker")[-1]

    def push(self, raw: bytes | str, queue: str = INTERACTIVE_QUEUE) -> None:
        self.redis.lpush(queue, raw)

    def find_log_lines(self, text: str = DROPPED) -> list[str]:
        return [line for line in self.worker.output().splitlines() if text in line]

    def stores_an_install(self) -> bool:
        """Whether the worker stores the install of a new account, and is still the same process."""
        hub = next(_hub_ids)
        assert self.deployment.install(hub).status_code == 303
        until(lambda: self.deployment.sql.rows("SELECT 1 FROM tokenkeeper.connections WHERE hub_id = %s", hub))
        return self.worker.status is None

    def is_empty(self) -> bool:
        return not any(
            self.redis.exists(key) for key in (INTERACTIVE_QUEUE, BACKGROUND_QUEUE, "unacked", "unacked_index")
        )


@pytest.fixture(scope="module")
def broker(
    databases: Databases, simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AttackedBroker]:
    valkey = EmbeddedValkey(tmp_path_factory.mktemp("valkey"), durable=False)
    valkey.start()
    with databases.create_migrated() as url, SimulatorControl(simulator_process.url) as simulator:
        simulator.reset(settings=True, accounts=True)
        environment = product_environment(
            databases.as_worker(url),
            valkey.url(),
            simulator.base_url,
            WEB_DATABASE_URL=databases.as_web(url),
            **SHORT_WAITS,
        )
        product = Product(environment, tmp_path_factory.mktemp("product"))
        connection = psycopg2.connect(url)
        connection.autocommit = True
        try:
            deployment = Deployment(product, simulator, SqlFixture(connection)).start(beats=0)
            yield AttackedBroker(deployment, valkey.url())
        finally:
            product.stop()
            connection.close()
            valkey.stop()


def capture_message(
    broker: AttackedBroker, send: Callable[[Dispatch], None], queue: str = INTERACTIVE_QUEUE
) -> dict[str, Any]:
    """A message as tokenkeeper sends it, taken from a database that no worker reads."""
    url = f"{broker.app.conf.broker_url.rpartition('/')[0]}/9"
    send(Dispatch.from_url(url))
    with redis.Redis.from_url(url) as client:
        message: dict[str, Any] = json.loads(client.rpop(queue) or b"")  # type: ignore[arg-type]
    return message


def make_install(broker: AttackedBroker, hub: int, **changes: Any) -> Install:
    fields = {
        "install_id": str(uuid4()),
        "hub_id": hub,
        "granted_at": broker.deployment.sql.now(),
        "refresh_token": "a-refresh-token-of-the-attacker",
        "access_token": "an-access-token-of-the-attacker",
        "expires_in": 1800,
        "scopes": ("oauth",),
    }
    return Install(**{**fields, **changes})


def replace_body(message: dict[str, Any], args: Any, kwargs: Any, embed: Any = None) -> dict[str, Any]:
    no_further_tasks = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = json.dumps([args, kwargs, no_further_tasks if embed is None else embed])
    return {**deepcopy(message), "body": base64.b64encode(body.encode()).decode()}


def change_field(message: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    """A copy with another value at `path`; `to` of Ellipsis removes the field."""
    copy = deepcopy(message)
    parent = copy
    for name in path[:-1]:
        parent = parent[name]
    if to is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = to
    return copy


RAW = {
    "a letter": b"x",
    "nothing": b"",
    "no UTF-8": b"\xff\xfe\x00",
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "an empty object": b"{}",
    "a deep list": b"[" * 200_000,
    "a deep object": b'{"a":' * 100_000,
    "a number without end": b"9" * 100_000,
    "50 MB": b'{"body": "' + b"A" * 50_000_000 + b'"}',
    "a pickle": pickle.dumps({"body": "x"}),
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
@pytest.mark.parametrize("queue", [INTERACTIVE_QUEUE, BACKGROUND_QUEUE])
def test_garbage_in_a_queue_is_dropped_with_one_line(broker: AttackedBroker, raw: bytes, queue: str) -> None:
    before = len(broker.find_log_lines())
    broker.push(raw, queue)
    assert broker.stores_an_install()
    until(lambda: len(broker.find_log_lines()) > before)
    assert len(broker.find_log_lines()) == before + 1
    assert "Traceback" not in broker.worker.output()
    until(broker.is_empty)


SIGNATURE = {"task": "tokenkeeper.disconnect", "args": [], "kwargs": {"connection_id": 1}, "options": {}}


def make_forgeries(message: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Copies of a valid message, each with one fault."""

    def alter(*path: str, to: Any) -> dict[str, Any]:
        return change_field(message, *path, to=to)

    kwargs = {"connection_id": 404}
    body = pickle.dumps([[], kwargs, {}])
    bomb = base64.b64encode(zlib.compress(b"0" * 50_000_000)).decode()
    return {
        "no properties": alter("properties", to=...),
        "no headers": alter("headers", to=...),
        "no body": alter("body", to=...),
        "no delivery tag": alter("properties", "delivery_tag", to=...),
        "a delivery tag of a list": alter("properties", "delivery_tag", to=[]),
        "no delivery info": alter("properties", "delivery_info", to=...),
        "delivery info of null": alter("properties", "delivery_info", to=None),
        "an unknown encoding of the body": alter("properties", "body_encoding", to="rot13"),
        "a body that is not base64": alter("body", to="!"),
        "a body that is not ASCII": alter("body", to="\x80"),
        "a body of a number": alter("body", to=1),
        "pickle": {
            **alter("content-type", to="application/x-python-serialize"),
            "body": base64.b64encode(body).decode(),
        },
        "yaml": alter("content-type", to="application/x-yaml"),
        "no content type": alter("content-type", to=...),
        "an unknown charset": alter("content-encoding", to="klingon"),
        "compressed": {**alter("headers", "compression", to="application/x-gzip"), "body": bomb},
        "no task": alter("headers", "task", to=...),
        "a task that does not exist": alter("headers", "task", to="tokenkeeper.drop_everything"),
        "a task of Celery's": alter("headers", "task", to="celery.backend_cleanup"),
        "a task of a list": alter("headers", "task", to=[]),
        "no id": alter("headers", "id", to=...),
        "an id of an object": alter("headers", "id", to={}),
        "retries of a text": alter("headers", "retries", to="many"),
        "a time limit": alter("headers", "timelimit", to=[0.001, 0.001]),
        "a time limit of a text": alter("headers", "timelimit", to="x"),
        "a group": alter("headers", "group", to="x"),
        "headers of a list": alter("headers", to=["task"]),
        "no arguments": alter("body", to=base64.b64encode(b"null").decode()),
        "positional arguments": replace_body(message, [404], {}),
        "a missing argument": replace_body(message, [], {}),
        "a connection id of a text": replace_body(message, [], {"connection_id": "404"}),
        "a connection id of true": replace_body(message, [], {"connection_id": True}),
        "a connection id above a bigint": replace_body(message, [], {"connection_id": 2**63}),
        "a connection id of a list": replace_body(message, [], {"connection_id": [1]}),
        "arguments of a list": replace_body(message, [], [1]),
        "a task to call afterwards": replace_body(message, [], kwargs, {"callbacks": [SIGNATURE]}),
        "a task to call on failure": replace_body(message, [], kwargs, {"errbacks": [SIGNATURE]}),
        "a chain": replace_body(message, [], kwargs, {"chain": [SIGNATURE]}),
        "a chord": replace_body(message, [], kwargs, {"chord": SIGNATURE}),
        "the old protocol": {
            **alter("headers", to={}),
            "body": base64.b64encode(json.dumps(SIGNATURE).encode()).decode(),
        },
    }


def test_a_forged_message_is_dropped_with_one_line(broker: AttackedBroker) -> None:
    message = capture_message(broker, lambda dispatch: dispatch.disconnect(404))
    for name, forgery in make_forgeries(message).items():
        before = len(broker.find_log_lines())
        broker.push(json.dumps(forgery))
        until(
            lambda before=before, name=name: len(broker.find_log_lines()) > before or _check_running(broker, name), 60
        )  # type: ignore[misc]
        assert len(broker.find_log_lines()) == before + 1, name
    assert broker.stores_an_install()
    assert "Traceback" not in broker.worker.output()
    until(broker.is_empty)


def _check_running(broker: AttackedBroker, name: str) -> bool:
    """False, so that the wait goes on."""
    assert broker.worker.status is None, name
    return False


def test_messages_of_tokenkeeper_are_accepted_as_sent_retried_redelivered_and_with_a_new_header(
    broker: AttackedBroker,
) -> None:
    """Otherwise the tests above would prove nothing."""
    before = len(broker.find_log_lines())
    message = capture_message(broker, lambda dispatch: dispatch.disconnect(404))
    redelivered = change_field(message, "headers", "redelivered", to=True)
    retried = change_field(message, "headers", "retries", to=3)
    retried = change_field(retried, "headers", "eta", to=broker.deployment.sql.now().isoformat())
    newer = change_field(message, "headers", "a-header-of-a-newer-version", to={"x": 1})
    sweep = change_field(message, "headers", "task", to=SWEEP)
    sweep = change_field(sweep, "headers", "expires", to=broker.deployment.sql.now().isoformat())
    for each in (message, redelivered, retried, newer):
        broker.push(json.dumps(each))
    broker.push(json.dumps(sweep), BACKGROUND_QUEUE)
    assert broker.stores_an_install()
    until(broker.is_empty)
    assert len(broker.find_log_lines()) == before


def test_no_message_ends_a_connection_that_the_operator_did_not_disconnect(broker: AttackedBroker) -> None:
    deployment = broker.deployment
    token = deployment.connect(hub := next(_hub_ids))
    Dispatch.from_url(broker.app.conf.broker_url).disconnect(deployment.sql.id_of(hub))
    until(broker.is_empty)
    assert broker.stores_an_install()
    assert (deployment.status(hub), deployment.token(hub)) == ("active", token)
    assert deployment.are_live(token)


def test_a_disconnect_that_the_operator_began_is_finished(broker: AttackedBroker) -> None:
    deployment = broker.deployment
    token = deployment.connect(hub := next(_hub_ids))
    deployment.sql.set("status = 'disconnected'", hub)
    Dispatch.from_url(broker.app.conf.broker_url).disconnect(deployment.sql.id_of(hub))
    until(lambda: deployment.sql.row(hub)["encrypted_refresh_token"] is None)
    assert not deployment.are_live(token)


def test_the_attacker_cannot_add_a_connection(broker: AttackedBroker) -> None:
    """Neither with his own key, nor with something that was encrypted here for another purpose."""
    cipher = TokenCipher([broker.deployment.product.environment["TOKEN_KEYS"]])
    attacker = TokenCipher(["dGhpcyBpcyBhIGtleSBvZiBhIHRoaWVmJ3Mgb3duISE="])
    forged_hub = next(_hub_ids)
    ciphertexts = {
        "with another key": attacker.encrypt_install(make_install(broker, forged_hub)).ciphertext,
        "a stored refresh token": cipher.encrypt_refresh_token(forged_hub, "a-refresh-token"),
        "the check value": cipher.encrypt_check_value(),
        "nothing": "",
    }
    message = capture_message(
        broker, lambda dispatch: dispatch.store_install(attacker.encrypt_install(make_install(broker, forged_hub)))
    )
    for name, ciphertext in ciphertexts.items():
        before = len(broker.find_log_lines("dropped an install message that cannot be decrypted"))
        kwargs = {"install_id": str(uuid4()), "hub_id": forged_hub, "ciphertext": ciphertext}
        broker.push(json.dumps(replace_body(message, [], kwargs)))
        until(
            lambda before=before: (
                len(broker.find_log_lines("dropped an install message that cannot be decrypted")) > before
            )
        )  # type: ignore[misc]
        assert len(broker.find_log_lines("dropped an install message that cannot be decrypted")) == before + 1, name
    assert broker.stores_an_install()
    assert count_rows(broker, forged_hub) == 0


def count_rows(broker: AttackedBroker, hub: int) -> int:
    return int(broker.deployment.sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE hub_id = %s", hub))


@pytest.mark.parametrize("field", ["hub_id", "install_id"])
def test_an_encrypted_grant_under_another_hub_or_install_is_dropped(broker: AttackedBroker, field: str) -> None:
    """Otherwise a grant that was read from Redis could be stored and logged as another one."""
    cipher = TokenCipher([broker.deployment.product.environment["TOKEN_KEYS"]])
    encrypted = cipher.encrypt_install(make_install(broker, hub := next(_hub_ids)))
    other = {"hub_id": next(_hub_ids), "install_id": str(uuid4())}
    message = capture_message(broker, lambda dispatch: dispatch.store_install(encrypted))
    kwargs = {
        "install_id": encrypted.install_id,
        "hub_id": hub,
        "ciphertext": encrypted.ciphertext,
        field: other[field],
    }
    broker.push(json.dumps(replace_body(message, [], kwargs)))
    until(lambda: broker.find_log_lines("for another install than the message says"))
    assert broker.stores_an_install()
    assert count_rows(broker, hub) == count_rows(broker, other["hub_id"]) == 0


def test_a_replayed_install_changes_nothing_even_after_a_disconnect(broker: AttackedBroker) -> None:
    deployment, cipher = broker.deployment, TokenCipher([broker.deployment.product.environment["TOKEN_KEYS"]])
    encrypted = cipher.encrypt_install(make_install(broker, hub := next(_hub_ids), access_token="overheard"))
    message = json.dumps(capture_message(broker, lambda dispatch: dispatch.store_install(encrypted)))
    broker.push(message)
    until(lambda: deployment.token(hub) == "overheard")
    deployment.sql.set("status = 'disconnected', status_since = now(), encrypted_refresh_token = NULL", hub)
    deployment.sql.set("access_token = NULL, expires_at = NULL", hub)
    broker.push(message)
    # The same where the list of installs was pruned and the row does not name its newest install any more.
    until(broker.is_empty)
    deployment.sql.rows(FORGET_INSTALLS_OF_HUB, hub)
    deployment.sql.set("install_id = NULL", hub)
    broker.push(message)
    until(broker.is_empty)
    assert broker.stores_an_install()
    assert (deployment.status(hub), deployment.token(hub)) == ("disconnected", None)
    assert deployment.sql.row(hub)["encrypted_refresh_token"] is None


REFUSED_COMMANDS: dict[str, dict[str, Any]] = {
    "shutdown": {},
    "pool_restart": {},
    "pool_shrink": {"n": 2},
    "autoscale": {"max": 0, "min": 0},
    "cancel_consumer": {"queue": INTERACTIVE_QUEUE},
    "add_consumer": {"queue": "of-a-attacker"},
    "rate_limit": {"task_name": STORE_INSTALL, "rate_limit": "1/h"},
    "time_limit": {"task_name": STORE_INSTALL, "hard": 0.001},
    "revoke": {"task_id": "x", "terminate": True},
    "terminate": {"task_id": "x", "signal": "KILL"},
    "disable_events": {},
    "memdump": {},
    "objgraph": {},
    "election": {"id": "x", "topic": "task", "action": SIGNATURE},
}


def test_the_worker_answers_inspection_and_refuses_remote_control(broker: AttackedBroker) -> None:
    for command, arguments in REFUSED_COMMANDS.items():
        for replies in broker.app.control.broadcast(command, arguments, reply=True, timeout=0.5):
            assert [*replies.values()] == [{"error": f"KeyError('{command}')"}]
    inspect = broker.app.control.inspect(timeout=60, limit=1)
    (answer,) = inspect.ping().values()
    assert answer == {"ok": "pong"}
    (queues,) = inspect.active_queues().values()
    assert {queue["name"] for queue in queues} == {INTERACTIVE_QUEUE, BACKGROUND_QUEUE}
    assert broker.stores_an_install()


def test_celery_inspect_gets_its_answers_through_the_validating_transport(broker: AttackedBroker) -> None:
    """Flower loads the same transport."""
    inspection = broker.deployment.product.celery("inspect", "ping", "--timeout", "10")
    assert (inspection.returncode, "pong" in inspection.stdout) == (0, True), inspection.stdout + inspection.stderr
    assert "dropped" not in inspection.stdout + inspection.stderr


@pytest.mark.parametrize("raw", [b"x", b"[]", b"{}", b'{"properties": {}}', b"[" * 100_000, b"\xff", b"null"])
def test_garbage_on_the_channel_of_remote_control_is_dropped(broker: AttackedBroker, raw: bytes) -> None:
    assert broker.redis.publish("/0.celery.pidbox", raw), "the worker is not subscribed"
    assert broker.stores_an_install()


def test_garbage_among_unacknowledged_messages_does_not_keep_an_install_from_being_restored(
    broker: AttackedBroker,
) -> None:
    cipher = TokenCipher([broker.deployment.product.environment["TOKEN_KEYS"]])
    encrypted = cipher.encrypt_install(make_install(broker, hub := next(_hub_ids)))
    message = capture_message(broker, lambda dispatch: dispatch.store_install(encrypted))
    left = json.dumps([message, INTERACTIVE_QUEUE, INTERACTIVE_QUEUE])
    for tag, what in (("a", "x"), ("b", "[]"), ("c", "{}"), ("d", "[1, 2, 3]"), ("left", left), ("e", "[" * 100_000)):
        broker.redis.hset("unacked", tag, what)
        broker.redis.zadd("unacked_index", {tag: 1})
    until(lambda: count_rows(broker, hub), 60)
    until(broker.is_empty)
    assert broker.stores_an_install()


def test_a_queue_key_of_another_type_stops_the_worker_only_while_it_exists(broker: AttackedBroker) -> None:
    broker.redis.set(INTERACTIVE_QUEUE, "mine")
    assert broker.deployment.install(next(_hub_ids)).status_code == 303, "web stores it without the queue"
    broker.redis.delete(INTERACTIVE_QUEUE)
    assert broker.stores_an_install()
