"""The log lines of refreshes: the hub id and HubSpot's correlation id are fields of their own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import structlog

from shared import logs
from shared.db.refresh.leases import Lease, RefreshResult
from shared.domain import connection as rules
from shared.domain.connection import Status
from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, TemporarilyUnavailable
from shared.domain.grant import Introspection
from tests.support.builders import HUB, START, make_connection
from tests.support.hubspot import ScriptedHubSpot
from tests.support.refresh_attempts import make_claimed_row, refresh_row
from worker.refresh.log import RefreshLog

CORRELATION_ID = "0f6a0f3a-7a4a-4b9e-9f5d-3d1f2f6c8a11"
ReadLines = Callable[[], list[dict[str, Any]]]
LEASE = Lease(HUB, 1, 1, START + timedelta(seconds=60), Status.ACTIVE)


@pytest.fixture
def read_lines() -> Iterator[ReadLines]:
    """Reads what was logged since the test began."""
    root, output = logging.getLogger(), StringIO()
    before = root.handlers, root.level, logging.raiseExceptions
    with redirect_stderr(output):
        logs.configure("json", "debug")
    yield lambda: [json.loads(line) for line in output.getvalue().splitlines()]
    root.handlers, root.level, logging.raiseExceptions = before
    structlog.reset_defaults()


def test_the_first_failure_of_a_streak_is_logged_with_hubspots_evidence(read_lines: ReadLines) -> None:
    error = TemporarilyUnavailable("html", http_status=502, correlation_id=CORRELATION_ID)
    transition = rules.apply_failure(make_connection(), error, START)
    RefreshLog("default").log_results([RefreshResult(LEASE, transition)])
    (line,) = read_lines()
    assert (line["event"], line["level"], line["hub_id"]) == ("connection refresh_failed", "info", HUB)
    assert (line["code"], line["http_status"], line["correlation_id"]) == ("html", 502, CORRELATION_ID)


def test_a_revocation_is_logged_with_the_refusal_and_the_introspection(read_lines: ReadLines) -> None:
    dead = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400, correlation_id=CORRELATION_ID)
    suspect = rules.apply_failure(make_connection(), dead, START)
    revoked = rules.apply_introspection(suspect, dead, Introspection(active=False))
    RefreshLog("default").log_results([RefreshResult(LEASE, revoked)])
    lines = {line["event"]: line for line in read_lines()}
    assert list(lines) == ["connection refresh_failed", "connection suspected", "connection revoked"]
    assert {line["correlation_id"] for line in lines.values()} == {CORRELATION_ID}
    assert lines["connection revoked"]["active"] is False


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (TemporarilyUnavailable("html", http_status=502, correlation_id=CORRELATION_ID), "debug"),
        (InvalidClient("BAD_CLIENT_SECRET", http_status=401, correlation_id=CORRELATION_ID), "info"),
    ],
)
def test_every_refusal_is_logged_at_debug_and_those_of_the_app_at_every_level(
    error: ProviderError, level: str, read_lines: ReadLines
) -> None:
    refresh_row(ScriptedHubSpot(error), make_claimed_row(failures=3))
    (line,) = read_lines()
    assert (line["event"], line["level"], line["hub_id"]) == ("HubSpot refused a refresh", level, HUB)
    assert error.evidence().items() <= line.items()


def test_an_introspection_without_an_answer_is_logged(read_lines: ReadLines) -> None:
    timeout = TemporarilyUnavailable("timeout", correlation_id=CORRELATION_ID)
    refresh_row(ScriptedHubSpot(InvalidGrant("BAD_REFRESH_TOKEN"), timeout), make_claimed_row())
    _, line = read_lines()
    assert (line["event"], line["code"], line["hub_id"]) == ("introspection did not answer", "timeout", HUB)
