"""`tokenkeeper events` and doctor's line about events, by the real command."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from cli.doctor.event_findings import describe_delivery
from cli.doctor.findings import CheckFailed, Level
from shared.db.events.delivery import EventDelivery
from shared.db.reports.history_lines import DeliveryReport
from tests.support.builders import START
from tests.support.polling import until
from tests.support.product import Product
from tests.support.stores import SqlFixture

INSERT = "INSERT INTO tokenkeeper.history (hub_id, event, customer, detail) VALUES (%s, %s, 'acme', %s)"
SENT = DeliveryReport(
    is_enabled=True,
    lag_seconds=0.0,
    waiting_connections=0,
    failing_since=None,
    stopped_at=None,
    accepted=41_812,
    dropped=0,
    last_error=None,
    now=START,
)


@pytest.fixture
def happen(sql: SqlFixture) -> Callable[..., list[int]]:
    """Lines of the history; their ids."""

    def happen(*events: str) -> list[int]:
        for event in events:
            sql.rows(INSERT, 62515, event, json.dumps({"why": "\x1b[31m a\ttab"}))
        return [line_id for (line_id,) in sql.rows("SELECT id FROM hubspot.history ORDER BY id")]

    return happen


def test_events_are_listed_from_a_line_on_for_people_and_for_machines(
    product: Product, happen: Callable[..., list[int]]
) -> None:
    ids = happen("installed", "suspected", "revoked")
    listed = product.tokenkeeper("events", "--since", str(ids[0]), "--json")
    assert listed.returncode == 0, listed.stderr
    assert [(row["id"], row["event"], row["customer"]) for row in map(json.loads, listed.stdout.splitlines())] == [
        (ids[1], "suspected", "acme"),
        (ids[2], "revoked", "acme"),
    ]
    newest = product.tokenkeeper("events").stdout.splitlines()
    assert [line.split("\t")[0] for line in newest] == ["id", *map(str, ids)]
    assert all(len(line.split("\t")) == 8 for line in newest)
    assert "\x1b" not in "".join(newest)


def test_events_are_followed_also_after_postgresql_failed_and_until_ctrl_c(
    product: Product, happen: Callable[..., list[int]], sql: SqlFixture
) -> None:
    happen("installed")
    following = product.start("events", ["tokenkeeper", "events", "--since", "0", "--follow", "--json"])
    until(lambda: "installed" in following.output())
    sql.rows("ALTER TABLE tokenkeeper.history RENAME TO elsewhere")
    until(lambda: "; trying again" in following.output())
    sql.rows("ALTER TABLE tokenkeeper.elsewhere RENAME TO history")
    happen("revoked")
    until(lambda: "revoked" in following.output())
    following.send_signal(signal.SIGINT)
    assert following.wait() == 1


def test_a_replay_and_a_resume_need_a_receiver_and_say_what_follows(
    product: Product, happen: Callable[..., list[int]], engine: Engine, sql: SqlFixture
) -> None:
    (first, *_) = happen("installed", "suspected", "revoked")
    refused = product.tokenkeeper("events", "replay", "--since", "0", "--yes")
    assert (refused.returncode, "set EVENTS_WEBHOOK_URL" in refused.stderr) == (1, True)
    assert product.tokenkeeper("events", "resume").returncode == 1
    EventDelivery(engine).enable(is_enabled=True)
    asked = product.tokenkeeper("events", "replay", "--since", "0", stdin="")
    assert (asked.returncode, "add --yes" in asked.stderr) == (2, True)
    assert product.tokenkeeper("events", "replay", "--since", str(first), "--yes").stdout == "2 events are sent again\n"
    sql.rows("UPDATE tokenkeeper.event_delivery SET stopped_at = now()")
    assert product.tokenkeeper("events", "resume").returncode == 0
    assert sql.value("SELECT stopped_at FROM tokenkeeper.event_delivery") is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "41,812 accepted"),
        ({"is_enabled": False}, "not sent"),
        ({"dropped": 3}, "3 dropped after three days"),
        ({"waiting_connections": 2, "last_error": "HTTP 422"}, (Level.WARN, "2 connections are refused (HTTP 422)")),
        ({"stopped_at": START}, "410 Gone"),
        ({"failing_since": START - timedelta(hours=1), "lag_seconds": 3600.0}, "accepts nothing"),
    ],
    ids=["sent", "disabled", "dropped", "one refused", "gone", "failing"],
)
def test_doctor_says_how_far_events_are_sent(change: dict[str, object], expected: str | tuple[Level, str]) -> None:
    report = DeliveryReport(**{**{name: getattr(SENT, name) for name in DeliveryReport.__slots__}, **change})  # type: ignore[arg-type]
    if "stopped_at" in change or "failing_since" in change:
        with pytest.raises(CheckFailed, match=str(expected)):
            describe_delivery(report)
        return
    found = describe_delivery(report)
    level, text = expected if isinstance(expected, tuple) else (None, expected)
    assert text in (found[1] if isinstance(found, tuple) else found)
    assert level == (found[0] if isinstance(found, tuple) else None)
