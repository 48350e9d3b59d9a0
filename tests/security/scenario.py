"""The scenario of the audit: every action and every fault in which a secret is received, used or deleted."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import requests

from tests.security.audit import Audit
from tests.support.polling import until
from tests.support.product import url_responds

#: Kinds of the simulator's faults.
FAULTS = (
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
REFUSE_ROWS = "ALTER TABLE tokenkeeper.connections ADD CONSTRAINT audit CHECK (failures < 0) NOT VALID"
#: Without this the next fault waits for one of six probes a minute.
RESET_PROVIDER = "UPDATE tokenkeeper.provider SET condition = 'ok', reason = NULL, paused_until = NULL, rate = NULL"
ACCEPT_ROWS = "ALTER TABLE tokenkeeper.connections DROP CONSTRAINT audit"


#: Processes whose command lines and environments the audit searches at the end: tests/support/fork_server.py.
BY_EXEC = {"PYTHONDEVMODE": "0"}


def run_scenario(audit: Audit) -> None:
    audit.deployment.start(web=False)  # ended in the scenario, so that they may be forked
    audit.deployment.product.web(**BY_EXEC)
    flower = audit.deployment.product.flower(**BY_EXEC)
    _install(audit)
    _import_connections(audit)
    _make_hubspot_fail(audit)
    _end_connections(audit)
    _end_processes(audit)
    _make_statements_fail(audit)
    _stop_servers(audit)
    _fill_queue(audit)
    _open_every_page(audit, flower.url)
    audit.note_processes()
    audit.note_redis()


def _install(audit: Audit, hub_id: int = HUB) -> None:
    with audit.visitor() as visitor:
        visitor.get("/")
        path = visitor.install(hub_id)
        visitor.get(path)
        visitor.wait(path)
        visitor.get(path)


def _import_connections(audit: Audit) -> None:
    tokens = audit.hubspot.install_many(len(FAULTS), 1_000)
    lines = "".join(f"{hub_id},{token}\n" for hub_id, token in tokens.items())
    bad = "".join(
        f"{start}{next(iter(tokens.values()))}{end}\n" for start, end in (("x,", ""), ("", ",7"), ('9,"', ""))
    )
    assert audit.command("import", "-", stdin=f"hub_id,refresh_token\n{lines}{bad}") == 1
    assert audit.command("import", "-", stdin=f"{next(iter(tokens.values()))}\n") == 1
    until(lambda: len(audit.deployment.tokens()) >= len(tokens))
    audit.deployment.hubs += tokens


def _make_hubspot_fail(audit: Audit) -> None:
    """During refreshes, each of its own account and all at once, and during installs, one after the other."""
    _refuse_client_secret(audit)
    for kind, hub_id in zip(FAULTS, audit.deployment.hubs, strict=False):
        _add_fault(audit, kind, "refresh", hub_id=hub_id)
    audit.deployment.make_due()
    until(lambda: _have_all_happened(audit))
    audit.hubspot.clear_faults()
    for kind in FAULTS:
        with _failing_install(audit):
            _add_fault(audit, kind, "code")
        audit.hubspot.clear_faults()
        audit.deployment.sql.rows(RESET_PROVIDER)


def _refuse_client_secret(audit: Audit) -> None:
    with _failing_install(audit):
        audit.hubspot.change_settings(client_secrets=["the-secret-of-another-app"])
    audit.deployment.make_due()
    until(lambda: audit.deployment.hubspot_condition() == "app_rejected")
    audit.hubspot.change_settings(client_secrets=[audit.settings["HUBSPOT_CLIENT_SECRET"]])
    audit.deployment.sql.rows(RESET_PROVIDER)


@contextlib.contextmanager
def _failing_install(audit: Audit) -> Iterator[None]:
    """What the block changes applies to an install, whose page is reloaded then."""
    with audit.visitor() as visitor:
        back = visitor.allow(HUB)
        yield
        visitor.get(back)
        visitor.get(back)


def _add_fault(audit: Audit, kind: str, grant: str, hub_id: int | None = None) -> None:
    seconds = 0.5 if kind == "drip" else None
    audit.hubspot.add_fault(kind, grant=grant, hub_id=hub_id, times=1, seconds=seconds)


def _have_all_happened(audit: Audit) -> bool:
    """One of them may pause all refreshes: that pause is ended."""
    audit.deployment.sql.rows(RESET_PROVIDER)
    return all(fault["times"] == 0 for fault in audit.hubspot.list_faults())


def _end_connections(audit: Audit) -> None:
    """By an uninstall, by the operator's page and by the command."""
    first, second, third = audit.deployment.hubs[:3]
    until(lambda: audit.hubspot.list_subscriptions() != [])  # the worker reads HubSpot's journal
    audit.hubspot.uninstall(first)
    until(lambda: audit.deployment.status(first) == "revoked")
    question = audit.open(f"/connections/{second}/disconnect")
    token = question.text.partition('name="csrf_token" value="')[2].partition('"')[0]
    requests.post(
        f"{audit.deployment.url}/connections/{second}/disconnect",
        data={"csrf_token": token},
        cookies=question.cookies,
        auth=("operator", audit.settings["OPERATOR_PASSWORD"]),
        hooks={"response": audit.note_answer},
        allow_redirects=False,
        timeout=60,
    )
    assert audit.command("disconnect", str(third), "--yes") == 0
    for hub_id in (second, third):
        until(lambda hub_id=hub_id: audit.deployment.status(hub_id) == "disconnected")  # type: ignore[misc]
    del audit.deployment.hubs[:3]
    for command in ("status", "connections", "doctor"):
        audit.command(command)
    audit.command("history", str(HUB))


def _end_processes(audit: Audit) -> None:
    """Kill and terminate each process during its work."""
    audit.hubspot.change_settings(latency=0.5)
    for signum in (signal.SIGKILL, signal.SIGABRT, signal.SIGTERM):
        fault = audit.hubspot.add_fault("held", grant="refresh")
        audit.deployment.make_due()
        until(lambda: audit.deployment.count_calls_in_flight() > 0)
        audit.deployment.signal_child("worker", signum)
        audit.hubspot.clear_faults(fault)
        _while_installing(audit, lambda signum=signum: audit.deployment.signal_child("web", signum))  # type: ignore[misc]
    audit.deployment.newest_process("beat").kill()
    audit.deployment.product.beat(**BY_EXEC)
    audit.deployment.newest_process("worker").kill()
    audit.deployment.product.worker(**BY_EXEC)
    audit.hubspot.change_settings(latency=0)
    audit.deployment.newest_process("web").wait_until(url_responds("/healthz"))


def _while_installing(audit: Audit, action: Callable[[], object]) -> None:
    with audit.visitor() as visitor:
        back = visitor.allow(HUB)
        with contextlib.suppress(requests.RequestException):
            visitor.session.get(back, timeout=0.2, allow_redirects=False)
        action()
        with contextlib.suppress(requests.RequestException):
            visitor.get(back)


def _make_statements_fail(audit: Audit) -> None:
    """PostgreSQL refuses rows, loses a table, and cancels statements: each of them contains secrets."""
    sql = audit.deployment.sql
    for break_statement, repair_statement in (
        (REFUSE_ROWS, ACCEPT_ROWS),
        ("ALTER TABLE tokenkeeper.connections RENAME TO gone", "ALTER TABLE tokenkeeper.gone RENAME TO connections"),
        ("ALTER DATABASE {} SET statement_timeout = 1", "ALTER DATABASE {} RESET statement_timeout"),
    ):
        name = sql.value("SELECT current_database()")
        audit.deployment.make_due()
        sql.rows(break_statement.format(name))
        audit.deployment.terminate_sessions()
        with audit.visitor() as visitor:
            path = visitor.install(HUB)
            visitor.get(path)
            time.sleep(2)  # retries and sweeps fail in this time
        sql.rows(repair_statement.format(name))
        audit.deployment.terminate_sessions()


def _stop_servers(audit: Audit) -> None:
    for stop, start in (
        (audit.servers.valkey.stop, audit.servers.valkey.start),
        (audit.servers.postgres.stop, audit.servers.postgres.start),
    ):
        stop()
        with audit.visitor() as visitor:
            visitor.get(visitor.install(HUB))
            audit.open("/operator")
        start()
    audit.servers.stop()
    with audit.visitor() as visitor:
        path = visitor.install(HUB)
        visitor.get(path)
        audit.servers.postgres.start()
        audit.servers.valkey.start()
        visitor.wait(path)


def _fill_queue(audit: Audit) -> None:
    """Suspend the worker, so that installs stay in the queue and the audit finds them there."""
    worker = audit.deployment.newest_process("worker")
    for child in (psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)):
        child.suspend()
    for _ in range(3):
        with audit.visitor() as visitor:
            visitor.get(visitor.install(HUB))
    audit.note_redis()
    for child in (psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)):
        child.resume()


def _open_every_page(audit: Audit, flower: str) -> None:
    """Open every page, Flower's too, with and without the operator's password."""
    for path in (*PAGES, f"/connections/{HUB}", f"/connections/{HUB}/disconnect"):
        audit.open(path)
        audit.open(path, signed_in=False)
    tasks = audit.open("/api/tasks?limit=500", home=flower).json()
    assert "tokenkeeper.store_install" in {task["name"] for task in tasks.values()}
    for path in ("/api/workers", "/api/task/types", "/workers", "/tasks", "/broker", "/metrics"):
        audit.open(path, home=flower)
    installs = [name for name, task in tasks.items() if task["name"] == "tokenkeeper.store_install"]
    for name in installs[:20]:
        audit.open(f"/task/{name}", home=flower)
        audit.open(f"/api/task/info/{name}", home=flower)
