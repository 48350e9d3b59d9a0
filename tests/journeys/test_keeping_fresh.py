"""From install to fresh token, on real processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import redis

from tests.support.deployment import Deployment
from tests.support.polling import until

#: Short enough to wait for refreshes; a quarter of it, which is left when they fall due, is more than a machine pauses.
LIFETIME_SECONDS = 10
READ_ACCOUNT = "SELECT hub_domain, account_name, account_type, region FROM hubspot.connections WHERE hub_id = %s"
#: Between a signal and the answer for which a process that handles it waits.
SIGNAL_SECONDS = 0.2


@contextmanager
def holding_a_refresh(deployment: Deployment) -> Iterator[None]:
    """HubSpot has a refresh of the test's account, and does not answer it before the end of the block."""
    fault = deployment.simulator.add_fault("held", grant="refresh", hub_id=deployment.hub)
    try:
        deployment.make_due()
        until(deployment.is_refreshing)
        yield
    finally:
        deployment.simulator.clear_faults(fault)


def test_the_token_of_an_install_is_readable_in_sql_at_once_and_its_account_later(deployment: Deployment) -> None:
    names = {"domain": "acme.example", "name": "Acme Ltd", "account_type": "SANDBOX", "hublet": "eu1"}
    deployment.simulator.change_account(deployment.hub, **names)
    assert deployment.install().status_code == 303
    token = until(deployment.token)
    assert deployment.are_live(token)
    account = [("acme.example", "Acme Ltd", "SANDBOX", "eu1")]
    until(lambda: deployment.sql.rows(READ_ACCOUNT, deployment.hub) == account)
    assert deployment.events() == ["installed"]


def test_an_account_whose_name_hubspot_does_not_tell_is_connected_no_less(deployment: Deployment) -> None:
    deployment.simulator.change_account(deployment.hub, domain="acme.example")
    deployment.simulator.add_fault("missing_scopes", where="account_info", hub_id=deployment.hub)
    assert deployment.are_live(deployment.connect())
    until(lambda: deployment.sql.rows(READ_ACCOUNT, deployment.hub) == [("acme.example", None, None, None)])
    assert deployment.events() == ["installed"]


def test_every_token_is_replaced_before_it_expires_until_the_connection_is_revoked(deployment: Deployment) -> None:
    # Each refresh takes several rounds of the loop below, which would see a token that is gone in the meantime.
    deployment.simulator.change_settings(deployment.hub, lifetime=LIFETIME_SECONDS, latency=0.2)
    tokens = [deployment.connect()]
    while len(tokens) < 4:
        time.sleep(0.02)
        token = deployment.token()
        assert token is not None, "no token was served"
        assert deployment.are_live(token), "HubSpot refuses the served token"
        if token != tokens[-1]:
            tokens.append(token)
    deployment.simulator.uninstall(deployment.hub)
    until(lambda: deployment.status() == "revoked")
    assert deployment.token() is None
    assert deployment.events() == ["installed", "refresh_failed", "suspected", "revoked"]
    assert deployment.never_refreshed_twice_at_once()


def test_the_token_of_a_suspect_connection_is_served(deployment: Deployment) -> None:
    token = deployment.connect()
    deployment.simulator.add_fault("bad_refresh_token", where="token", hub_id=deployment.hub)
    deployment.simulator.add_fault(503, where="introspect")
    deployment.make_due()
    until(lambda: deployment.status() == "suspect")
    assert deployment.token() == token
    deployment.simulator.clear_faults()
    deployment.make_due()
    until(lambda: deployment.token() != token)
    assert deployment.status() == "active"


def test_a_reinstall_makes_a_revoked_connection_active(deployment: Deployment) -> None:
    deployment.connect()
    deployment.simulator.uninstall(deployment.hub)
    deployment.make_due()
    until(lambda: deployment.status() == "revoked")
    assert deployment.are_live(deployment.connect())
    assert deployment.events()[-1] == "reinstalled"


def test_a_reinstall_during_a_refresh_wins_over_the_late_answer(deployment: Deployment) -> None:
    deployment.connect()
    with holding_a_refresh(deployment):
        deployment.install()
        until(lambda: "reinstalled" in deployment.events())
        installed = deployment.token()
    until(lambda: deployment.row()["lease_until"] is None)
    assert deployment.token() == installed
    assert deployment.never_refreshed_twice_at_once()


def test_a_connection_is_refreshed_after_its_worker_was_killed_during_a_refresh(deployment: Deployment) -> None:
    deployment.connect()
    before = deployment.row()["refreshed_at"]
    with holding_a_refresh(deployment):
        deployment.processes_named("worker")[-1].kill(signal.SIGKILL)
    deployment.sql.set("lease_until = now()", deployment.hub)  # as if it had been claimed earlier
    deployment.product.worker()
    until(lambda: deployment.row()["refreshed_at"] != before)
    assert deployment.status() == "active"
    assert deployment.are_live(deployment.token() or "")
    assert deployment.never_refreshed_twice_at_once()


def test_a_terminated_worker_saves_the_result_of_a_call_in_flight(deployment: Deployment) -> None:
    old = deployment.connect()
    deployment.simulator.change_settings(deployment.hub, rotation=0)
    worker = deployment.processes_named("worker")[-1]
    with holding_a_refresh(deployment):
        worker.send_signal(signal.SIGTERM)
        time.sleep(SIGNAL_SECONDS)
    assert worker.wait() == 0
    token = deployment.token()
    assert token not in {None, old}
    assert deployment.row()["lease_until"] is None
    deployment.product.worker()
    deployment.make_due()
    until(lambda: deployment.token() != token)
    assert deployment.status() == "active"


def test_a_terminated_pool_process_saves_the_result_of_a_call_in_flight(deployment: Deployment) -> None:
    old = deployment.connect()
    deployment.simulator.change_settings(deployment.hub, rotation=0)
    with holding_a_refresh(deployment):
        for child in psutil.Process(deployment.processes_named("worker")[-1].pid).children():
            child.send_signal(signal.SIGTERM)
        time.sleep(SIGNAL_SECONDS)
    until(lambda: deployment.token() != old)
    token = deployment.token()
    deployment.make_due()
    until(lambda: deployment.token() != token)
    assert deployment.status() == "active"


def test_a_connection_is_refreshed_after_redis_was_flushed(deployment: Deployment) -> None:
    token = deployment.connect()
    with redis.Redis.from_url(deployment.product.environment["REDIS_URL"]) as broker:
        broker.flushdb()
    deployment.make_due()
    until(lambda: deployment.token() != token)


def test_two_beats_and_three_workers_never_refresh_a_hub_twice_at_once(idle_deployment: Deployment) -> None:
    idle_deployment.simulator.change_settings(lifetime=LIFETIME_SECONDS, latency=0.2)
    hubs = idle_deployment.simulator.install_many(40)
    lines = "hub_id,refresh_token\n" + "".join(f"{hub},{token}\n" for hub, token in hubs.items())
    assert idle_deployment.product.tokenkeeper("import", "-", stdin=lines).returncode == 0
    idle_deployment.start(workers=3, beats=2, web=False)
    until(lambda: len(idle_deployment.tokens()) == 40)

    def are_fresh_and_all_refreshed_thrice() -> bool:
        tokens = idle_deployment.tokens()
        assert len(tokens) == 40
        assert idle_deployment.are_live(*tokens.values())
        stats = idle_deployment.simulator.get_stats()
        return min(row["refreshes"] for row in stats["by_hub"].values()) >= 3

    until(are_fresh_and_all_refreshed_thrice, 60)
    assert idle_deployment.never_refreshed_twice_at_once()
