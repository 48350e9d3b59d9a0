"""Redis as a place where anybody may have written: garbage, forgeries and replays are dropped, one line each.

A real worker on a real Valkey. After each attack an install goes through, in the same worker process.
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
from shared.dispatch import BACKGROUND_QUEUE, INTERACTIVE_QUEUE, STORE_INSTALL, TASK_QUEUES, Dispatch
from shared.domain.grant import Install
from shared.token_cipher import TokenCipher
from tests.journeys.world import World
from tests.support.databases import Databases
from tests.support.environment import SHORT_WAITS, product_environment
from tests.support.polling import until
from tests.support.product import Product
from tests.support.stores import SqlFixture

DROPPED = "dropped an invalid message"
_hubs = count(83_001)


class Street:
    """A world whose broker is open to everybody."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.redis = redis.Redis.from_url(url)
        self.app = Celery("street", broker=url, set_as_current=False)
        self.app.conf.update(task_queues=TASK_QUEUES, task_ignore_result=True)

    @property
    def worker(self) -> ChildProcess:
        return self.world.named("worker")[-1]

    def push(self, raw: bytes | str, queue: str = INTERACTIVE_QUEUE) -> None:
        self.redis.lpush(queue, raw)

    def told(self, what: str = DROPPED) -> list[str]:
        return [line for line in self.worker.output().splitlines() if what in line]

    def lives(self) -> bool:
        """The same worker stores an install, of an account that is new."""
        hub = next(_hubs)
        assert self.world.install(hub).status_code == 303
        until(lambda: self.world.sql.rows("SELECT 1 FROM tokenkeeper.connections WHERE hub_id = %s", hub))
        return self.worker.status is None

    def empty(self) -> bool:
        return not any(
            self.redis.exists(key) for key in (INTERACTIVE_QUEUE, BACKGROUND_QUEUE, "unacked", "unacked_index")
        )


@pytest.fixture(scope="module")
def street(
    databases: Databases, simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Street]:
    valkey = EmbeddedValkey(tmp_path_factory.mktemp("valkey"), durable=False)
    valkey.start()
    with databases.migrated() as url, SimulatorControl(simulator_process.url) as simulator:
        simulator.reset(settings=True, accounts=True)
        environment = product_environment(
            databases.as_worker(url),
            valkey.url(),
            simulator.base_url,
            WEB_DATABASE_URL=databases.as_web(url),
            **SHORT_WAITS,
        )
        product = Product(environment, tmp_path_factory.mktemp("street"))
        connection = psycopg2.connect(url)
        connection.autocommit = True
        try:
            world = World(product, simulator, SqlFixture(connection)).started(beats=0)
            yield Street(world, valkey.url())
        finally:
            product.stop()
            connection.close()
            valkey.stop()


def captured(street: Street, send: Callable[[Dispatch], None], queue: str = INTERACTIVE_QUEUE) -> dict[str, Any]:
    """A message as our own code sends it, taken from a queue that nobody reads."""
    url = f"{street.app.conf.broker_url.rpartition('/')[0]}/9"
    send(Dispatch.from_url(url))
    with redis.Redis.from_url(url) as client:
        found: dict[str, Any] = json.loads(client.rpop(queue) or b"")  # type: ignore[arg-type]
    return found


def install_of(street: Street, hub: int, **but: Any) -> Install:
    values = {
        "install_id": str(uuid4()),
        "hub_id": hub,
        "granted_at": street.world.sql.now(),
        "refresh_token": "a-refresh-token-of-a-thief",
        "access_token": "an-access-token-of-a-thief",
        "expires_in": 1800,
        "scopes": ("oauth",),
    }
    return Install(**{**values, **but})


def with_body(message: dict[str, Any], args: Any, kwargs: Any, embed: Any = None) -> dict[str, Any]:
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = json.dumps([args, kwargs, nothing if embed is None else embed])
    return {**deepcopy(message), "body": base64.b64encode(body.encode()).decode()}


def changed(message: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    """`to` of Ellipsis: taken out."""
    new = deepcopy(message)
    place = new
    for step in path[:-1]:
        place = place[step]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return new


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
def test_garbage_in_a_queue_is_dropped_with_one_line(street: Street, raw: bytes, queue: str) -> None:
    before = len(street.told())
    street.push(raw, queue)
    assert street.lives()
    until(lambda: len(street.told()) > before)
    assert len(street.told()) == before + 1
    assert "Traceback" not in street.worker.output()
    until(street.empty)


SIGNATURE = {"task": "tokenkeeper.disconnect", "args": [], "kwargs": {"hub_id": 1}, "options": {}}


def forgeries(message: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of a message that is right but for one thing."""

    def but(*path: str, to: Any) -> dict[str, Any]:
        return changed(message, *path, to=to)

    kwargs = {"hub_id": 404}
    body = pickle.dumps([[], kwargs, {}])
    bomb = base64.b64encode(zlib.compress(b"0" * 50_000_000)).decode()
    return {
        "no properties": but("properties", to=...),
        "no headers": but("headers", to=...),
        "no body": but("body", to=...),
        "no delivery tag": but("properties", "delivery_tag", to=...),
        "a delivery tag of a list": but("properties", "delivery_tag", to=[]),
        "no delivery info": but("properties", "delivery_info", to=...),
        "delivery info of null": but("properties", "delivery_info", to=None),
        "an unknown encoding of the body": but("properties", "body_encoding", to="rot13"),
        "a body that is no base64": but("body", to="!"),
        "a body that is no ASCII": but("body", to="\x80"),
        "a body of a number": but("body", to=1),
        "pickle": {**but("content-type", to="application/x-python-serialize"), "body": base64.b64encode(body).decode()},
        "yaml": but("content-type", to="application/x-yaml"),
        "no content type": but("content-type", to=...),
        "an unknown charset": but("content-encoding", to="klingon"),
        "compressed": {**but("headers", "compression", to="application/x-gzip"), "body": bomb},
        "no task": but("headers", "task", to=...),
        "a task of ours that there is not": but("headers", "task", to="tokenkeeper.drop_everything"),
        "a task of Celery's": but("headers", "task", to="celery.backend_cleanup"),
        "a task of a list": but("headers", "task", to=[]),
        "no id": but("headers", "id", to=...),
        "an id of an object": but("headers", "id", to={}),
        "an eta that is no date": but("headers", "eta", to="soon"),
        "an eta of a list": but("headers", "eta", to=[1]),
        "an eta before all time": but("headers", "eta", to="0001-01-01T00:00:00+14:00"),
        "an end after all time": but("headers", "expires", to="9999-12-31T23:59:59-14:00"),
        "an end that is no date": but("headers", "expires", to="never"),
        "retries of a text": but("headers", "retries", to="many"),
        "a time limit": but("headers", "timelimit", to=[0.001, 0.001]),
        "time limits that are none": but("headers", "timelimit", to="x"),
        "a group": but("headers", "group", to="x"),
        "headers of a list": but("headers", to=["task"]),
        "no arguments": but("body", to=base64.b64encode(b"null").decode()),
        "arguments by place": with_body(message, [404], {}),
        "a missing argument": with_body(message, [], {}),
        "a hub of a text": with_body(message, [], {"hub_id": "404"}),
        "a hub of true": with_body(message, [], {"hub_id": True}),
        "a hub that no number column holds": with_body(message, [], {"hub_id": 2**63}),
        "a hub of a list": with_body(message, [], {"hub_id": [1]}),
        "arguments of a list": with_body(message, [], [1]),
        "a task to call afterwards": with_body(message, [], kwargs, {"callbacks": [SIGNATURE]}),
        "a task to call on failure": with_body(message, [], kwargs, {"errbacks": [SIGNATURE]}),
        "a chain": with_body(message, [], kwargs, {"chain": [SIGNATURE]}),
        "a chord": with_body(message, [], kwargs, {"chord": SIGNATURE}),
        "the old protocol": {
            **but("headers", to={}),
            "body": base64.b64encode(json.dumps(SIGNATURE).encode()).decode(),
        },
    }


def test_a_message_that_is_not_of_our_making_is_dropped_with_one_line(street: Street) -> None:
    """All at once: what does not stop the queue together does not stop it alone, and each has its line."""
    message = captured(street, lambda dispatch: dispatch.disconnect(404))
    for name, forgery in forgeries(message).items():
        before = len(street.told())
        street.push(json.dumps(forgery))
        until(lambda before=before, name=name: len(street.told()) > before or _complain(street, name), 10)  # type: ignore[misc]
        assert len(street.told()) == before + 1, name
    assert street.lives()
    assert "Traceback" not in street.worker.output()
    until(street.empty)


def _complain(street: Street, name: str) -> bool:
    assert street.worker.status is None, name
    return False


def test_our_own_messages_are_taken_as_they_are_sent_retried_and_redelivered(street: Street) -> None:
    """Else what is above proves nothing."""
    before = len(street.told())
    message = captured(street, lambda dispatch: dispatch.disconnect(404))
    again = changed(message, "headers", "redelivered", to=True)
    later = changed(message, "headers", "retries", to=3)
    later = changed(later, "headers", "eta", to=street.world.sql.now().isoformat())
    newer = changed(message, "headers", "a-header-of-a-newer-version", to={"x": 1})
    wake = captured(street, lambda dispatch: dispatch.refresh(1, expires_seconds=60), BACKGROUND_QUEUE)
    for each in (message, again, later, newer):
        street.push(json.dumps(each))
    street.push(json.dumps(wake), BACKGROUND_QUEUE)
    assert street.lives()
    until(street.empty)
    assert len(street.told()) == before


def test_no_message_ends_a_connection_that_no_operator_began_to_end(street: Street) -> None:
    world = street.world
    token = world.connected(hub := next(_hubs))
    Dispatch.from_url(street.app.conf.broker_url).disconnect(hub)
    until(street.empty)
    assert street.lives()
    assert (world.status(hub), world.token(hub)) == ("active", token)
    assert world.live(token)


def test_a_disconnect_that_an_operator_began_is_finished(street: Street) -> None:
    world = street.world
    token = world.connected(hub := next(_hubs))
    world.sql.set("status = 'disconnected'", hub)
    Dispatch.from_url(street.app.conf.broker_url).disconnect(hub)
    until(lambda: world.sql.row(hub)["encrypted_refresh_token"] is None)
    assert not world.live(token)


def test_nobody_plants_a_connection(street: Street) -> None:
    """Not with a key of his own, nor with something that was sealed here for another purpose."""
    ours = TokenCipher([street.world.product.environment["TOKEN_KEYS"]])
    thief = TokenCipher(["dGhpcyBpcyBhIGtleSBvZiBhIHRoaWVmJ3Mgb3duISE="])
    planted = next(_hubs)
    sealed_here = {
        "with another key": thief.encrypt_install(install_of(street, planted)).ciphertext,
        "a stored refresh token": ours.encrypt_refresh_token(planted, "a-refresh-token"),
        "the check value": ours.encrypt_check_value(),
        "nothing": "",
    }
    message = captured(
        street, lambda dispatch: dispatch.store_install(thief.encrypt_install(install_of(street, planted)))
    )
    for name, sealed in sealed_here.items():
        before = len(street.told("dropped an install message that cannot be decrypted"))
        kwargs = {"install_id": str(uuid4()), "hub_id": planted, "ciphertext": sealed}
        street.push(json.dumps(with_body(message, [], kwargs)))
        until(lambda before=before: len(street.told("dropped an install message that cannot be decrypted")) > before)  # type: ignore[misc]
        assert len(street.told("dropped an install message that cannot be decrypted")) == before + 1, name
    assert street.lives()
    assert world_rows(street, planted) == 0


def world_rows(street: Street, hub: int) -> int:
    return int(street.world.sql.value("SELECT count(*) FROM tokenkeeper.connections WHERE hub_id = %s", hub))


@pytest.mark.parametrize("beside", ["hub_id", "install_id"])
def test_what_stands_beside_a_sealed_grant_must_be_what_it_was_sealed_for(street: Street, beside: str) -> None:
    """Else a grant that was overheard could be played under another name, and the log would tell of that one."""
    ours = TokenCipher([street.world.product.environment["TOKEN_KEYS"]])
    sealed = ours.encrypt_install(install_of(street, hub := next(_hubs)))
    other = {"hub_id": next(_hubs), "install_id": str(uuid4())}
    message = captured(street, lambda dispatch: dispatch.store_install(sealed))
    kwargs = {"install_id": sealed.install_id, "hub_id": hub, "ciphertext": sealed.ciphertext, beside: other[beside]}
    street.push(json.dumps(with_body(message, [], kwargs)))
    until(lambda: street.told("sealed for another install than the message says"))
    assert street.lives()
    assert world_rows(street, hub) == world_rows(street, other["hub_id"]) == 0


def test_an_install_that_is_played_again_changes_nothing_not_even_after_a_disconnect(street: Street) -> None:
    world, ours = street.world, TokenCipher([street.world.product.environment["TOKEN_KEYS"]])
    sealed = ours.encrypt_install(install_of(street, hub := next(_hubs), access_token="overheard"))
    message = json.dumps(captured(street, lambda dispatch: dispatch.store_install(sealed)))
    street.push(message)
    until(lambda: world.token(hub) == "overheard")
    world.sql.set("status = 'disconnected', status_since = now(), encrypted_refresh_token = NULL", hub)
    world.sql.set("access_token = NULL, expires_at = NULL", hub)
    street.push(message)
    # And where the list of installs was pruned, and the row has forgotten which was its newest.
    until(street.empty)
    world.sql.rows("DELETE FROM tokenkeeper.installs WHERE hub_id = %s", hub)
    world.sql.set("install_id = NULL", hub)
    street.push(message)
    until(street.empty)
    assert street.lives()
    assert (world.status(hub), world.token(hub)) == ("disconnected", None)
    assert world.sql.row(hub)["encrypted_refresh_token"] is None


ORDERS: dict[str, dict[str, Any]] = {
    "shutdown": {},
    "pool_restart": {},
    "pool_shrink": {"n": 2},
    "autoscale": {"max": 0, "min": 0},
    "cancel_consumer": {"queue": INTERACTIVE_QUEUE},
    "add_consumer": {"queue": "of-a-thief"},
    "rate_limit": {"task_name": STORE_INSTALL, "rate_limit": "1/h"},
    "time_limit": {"task_name": STORE_INSTALL, "hard": 0.001},
    "revoke": {"task_id": "x", "terminate": True},
    "terminate": {"task_id": "x", "signal": "KILL"},
    "disable_events": {},
    "memdump": {},
    "objgraph": {},
    "election": {"id": "x", "topic": "task", "action": SIGNATURE},
}


def test_the_worker_looks_for_whoever_asks_and_obeys_nobody(street: Street) -> None:
    for order, arguments in ORDERS.items():
        for replies in street.app.control.broadcast(order, arguments, reply=True, timeout=0.5):
            assert [*replies.values()] == [{"error": f"KeyError('{order}')"}]
    (answer,) = street.app.control.inspect(timeout=5).ping().values()
    assert answer == {"ok": "pong"}
    (queues,) = street.app.control.inspect(timeout=5).active_queues().values()
    assert {queue["name"] for queue in queues} == {INTERACTIVE_QUEUE, BACKGROUND_QUEUE}
    assert street.lives()


def test_whoever_asks_by_our_own_app_hears_the_answer(street: Street) -> None:
    """As Flower does: it loads the same guard."""
    asked = street.world.product.celery("inspect", "ping", "--timeout", "10")
    assert (asked.returncode, "pong" in asked.stdout) == (0, True), asked.stdout + asked.stderr
    assert "dropped" not in asked.stdout + asked.stderr


@pytest.mark.parametrize("raw", [b"x", b"[]", b"{}", b'{"properties": {}}', b"[" * 100_000, b"\xff", b"null"])
def test_garbage_where_remote_control_listens_is_dropped(street: Street, raw: bytes) -> None:
    assert street.redis.publish("/0.celery.pidbox", raw), "nobody listens"
    assert street.lives()


def test_garbage_among_what_is_not_acknowledged_yet_keeps_nobody_s_install(street: Street) -> None:
    """A message whose worker died comes back, whatever lies beside it."""
    ours = TokenCipher([street.world.product.environment["TOKEN_KEYS"]])
    sealed = ours.encrypt_install(install_of(street, hub := next(_hubs)))
    message = captured(street, lambda dispatch: dispatch.store_install(sealed))
    left = json.dumps([message, INTERACTIVE_QUEUE, INTERACTIVE_QUEUE])
    for tag, what in (("a", "x"), ("b", "[]"), ("c", "{}"), ("d", "[1, 2, 3]"), ("left", left), ("e", "[" * 100_000)):
        street.redis.hset("unacked", tag, what)
        street.redis.zadd("unacked_index", {tag: 1})
    until(lambda: world_rows(street, hub), 60)
    until(street.empty)
    assert street.lives()


def test_a_queue_that_is_no_list_any_more_stops_the_worker_only_while_it_is_there(street: Street) -> None:
    street.redis.set(INTERACTIVE_QUEUE, "mine")
    assert street.world.install(next(_hubs)).status_code == 303, "web stores it without the queue"
    street.redis.delete(INTERACTIVE_QUEUE)
    assert street.lives()
