"""A life of the product, in a minute: all that brings, uses and ends a secret, and all that can go wrong with it."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Callable

import psutil
import requests

from tests.security.house import House
from tests.support.polling import until
from tests.support.product import url_responds

#: Kinds of the simulator's faults; None: our own client secret is wrong.
FAULTS = (
    None,
    "bad_refresh_token",
    "bad_client_id",
    "500",
    "429",
    "477",
    "html_200",
    "html_503",
    "empty_200",
    "wrong_types",
    "truncated",
    "huge",
    "reset",
    "cut",
    "lost",
    "drip",
    "slow",
)
PAGES = ("/", "/operator", "/connections", "/metrics", "/readyz", "/nowhere", "/connections?q=1&sort=failures")
HUB = 62515
REFUSES_ROWS = "ALTER TABLE tokenkeeper.connections ADD CONSTRAINT audit CHECK (failures < 0) NOT VALID"
#: So that the next fault need not wait for one of six probes a minute.
ALL_IS_WELL = "UPDATE tokenkeeper.provider SET condition = 'ok', reason = NULL, paused_until = NULL, rate = NULL"
TAKES_THEM_AGAIN = "ALTER TABLE tokenkeeper.connections DROP CONSTRAINT audit"


def live(house: House) -> None:
    house.world.started()
    flower = house.world.product.flower()
    _installed(house)
    _imported(house)
    _hubspot_fails(house)
    _ended(house)
    _processes_die(house)
    _statements_fail(house)
    _servers_go(house)
    _queue_fills(house)
    _looked_at(house, flower.url)
    house.note_processes()
    house.note_redis()


def _installed(house: House, hub_id: int = HUB) -> None:
    with house.visitor() as visitor:
        visitor.get("/")
        path = visitor.install(hub_id)
        visitor.get(path)
        visitor.wait(path)
        visitor.get(path)


def _imported(house: House) -> None:
    tokens = house.hubspot.install_many(12, 1_000)
    lines = "".join(f"{hub_id},{token}\n" for hub_id, token in tokens.items())
    bad = "".join(
        f"{start}{next(iter(tokens.values()))}{end}\n" for start, end in (("x,", ""), ("", ",7"), ('9,"', ""))
    )
    assert house.command("import", "-", stdin=f"hub_id,refresh_token\n{lines}{bad}") == 1
    assert house.command("import", "-", stdin=f"{next(iter(tokens.values()))}\n") == 1
    until(lambda: len(house.world.tokens()) >= len(tokens))
    house.fleet.hubs += tokens


def _hubspot_fails(house: House) -> None:
    """While somebody installs, and while a token is refreshed."""
    secret = house.settings["HUBSPOT_CLIENT_SECRET"]
    for kind, hub_id in zip(FAULTS, itertools.cycle(house.fleet.hubs), strict=False):
        with house.visitor() as visitor:
            back = visitor.allow(HUB)
            _order(house, kind)
            visitor.get(back)
            house.fleet.due(hub_id)
            until(lambda kind=kind: _happened(house, kind))  # type: ignore[misc]
            visitor.get(back)  # reloaded
        house.hubspot.change_settings(client_secrets=[secret])
        house.hubspot.clear_faults()
        house.world.sql.rows(ALL_IS_WELL)


def _order(house: House, kind: str | None) -> None:
    if kind is None:
        house.hubspot.change_settings(client_secrets=["somebody-elses"])
        return
    for grant in ("code", "refresh"):
        house.hubspot.add_fault(kind, grant=grant, times=1, seconds=0.5 if kind == "drip" else None)


def _happened(house: House, kind: str | None) -> bool:
    if kind is None:
        return house.fleet.condition() == "app_rejected"
    return all(fault["times"] == 0 for fault in house.hubspot.list_faults() if fault["grant"] == "refresh")


def _ended(house: House) -> None:
    """By the customer, by the operator's button and by the command."""
    first, second, third = house.fleet.hubs[:3]
    house.hubspot.uninstall(first)
    house.fleet.due(first)
    until(lambda: house.world.status(first) == "revoked")
    question = house.open(f"/connections/{second}/disconnect")
    token = question.text.partition('name="csrf_token" value="')[2].partition('"')[0]
    requests.post(
        f"{house.world.home}/connections/{second}/disconnect",
        data={"csrf_token": token},
        cookies=question.cookies,
        auth=("operator", house.settings["OPERATOR_PASSWORD"]),
        hooks={"response": house._answered},
        allow_redirects=False,
        timeout=20,
    )
    assert house.command("disconnect", str(third), "--yes") == 0
    for hub_id in (second, third):
        until(lambda hub_id=hub_id: house.world.status(hub_id) == "disconnected")  # type: ignore[misc]
    del house.fleet.hubs[:3]
    for verb in ("status", "connections", "doctor"):
        house.command(verb)
    house.command("history", str(HUB))


def _processes_die(house: House) -> None:
    """Each in the middle of its work, killed and stopped."""
    house.hubspot.change_settings(latency=0.5)
    for signum in (signal.SIGKILL, signal.SIGABRT, signal.SIGTERM):
        house.fleet.due()
        until(lambda: house.fleet.under_way() > 0)
        house.fleet.signal_child("worker", signum)
        _while_installing(house, lambda signum=signum: house.fleet.signal_child("web", signum))  # type: ignore[misc]
    house.fleet.newest("beat").kill()
    house.world.product.beat()
    house.fleet.newest("worker").kill()
    house.world.product.worker()
    house.hubspot.change_settings(latency=0)
    house.fleet.newest("web").wait_until(url_responds("/healthz"))


def _while_installing(house: House, happens: Callable[[], object]) -> None:
    with house.visitor() as visitor:
        back = visitor.allow(HUB)
        with contextlib.suppress(requests.RequestException):
            visitor.session.get(back, timeout=0.2, allow_redirects=False)
        happens()
        with contextlib.suppress(requests.RequestException):
            visitor.get(back)


def _statements_fail(house: House) -> None:
    """PostgreSQL refuses rows, loses a table, and has statements of ours cancelled: all of them with secrets inside."""
    sql = house.world.sql
    for spoil, mend in (
        (REFUSES_ROWS, TAKES_THEM_AGAIN),
        ("ALTER TABLE tokenkeeper.connections RENAME TO gone", "ALTER TABLE tokenkeeper.gone RENAME TO connections"),
        ("ALTER DATABASE {} SET statement_timeout = 1", "ALTER DATABASE {} RESET statement_timeout"),
    ):
        name = sql.value("SELECT current_database()")
        house.fleet.due()
        sql.rows(spoil.format(name))
        house.fleet.cut_connections()
        with house.visitor() as visitor:
            path = visitor.install(HUB)
            visitor.get(path)
            time.sleep(2)  # retries and sweeps go wrong meanwhile
        sql.rows(mend.format(name))
        house.fleet.cut_connections()


def _servers_go(house: House) -> None:
    for stop, start in (
        (house.servers.valkey.stop, house.servers.valkey.start),
        (house.servers.postgres.stop, house.servers.postgres.start),
    ):
        stop()
        with house.visitor() as visitor:
            visitor.get(visitor.install(HUB))
            house.open("/operator")
        start()
    house.servers.stop()
    with house.visitor() as visitor:
        path = visitor.install(HUB)
        visitor.get(path)
        house.servers.postgres.start()
        house.servers.valkey.start()
        visitor.wait(path)


def _queue_fills(house: House) -> None:
    """Nobody takes installs from the queue: they are looked at there."""
    worker = house.fleet.newest("worker")
    for child in (psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)):
        child.suspend()
    for _ in range(3):
        with house.visitor() as visitor:
            visitor.get(visitor.install(HUB))
    house.note_redis()
    for child in (psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)):
        child.resume()


def _looked_at(house: House, flower: str) -> None:
    """By the operator, on every page, Flower's too; and by somebody who may not."""
    for path in (*PAGES, f"/connections/{HUB}", f"/connections/{HUB}/disconnect"):
        house.open(path)
        house.open(path, signed_in=False)
    tasks = house.open("/api/tasks?limit=500", home=flower).json()
    assert {"tokenkeeper.store_install", "tokenkeeper.refresh"} <= {task["name"] for task in tasks.values()}
    for path in ("/api/workers", "/api/task/types", "/workers", "/tasks", "/broker", "/metrics"):
        house.open(path, home=flower)
    installs = [name for name, task in tasks.items() if task["name"] == "tokenkeeper.store_install"]
    for name in installs[:20]:
        house.open(f"/task/{name}", home=flower)
        house.open(f"/api/task/info/{name}", home=flower)
