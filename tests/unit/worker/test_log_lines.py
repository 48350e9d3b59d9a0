"""What the log says of refusals: the account and HubSpot's correlation id, in fields of their own."""

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
from shared.db.refresh.claims import Lease, RefreshResult
from shared.domain import connection as rules
from shared.domain.connection import Connection, Status
from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, TemporarilyUnavailable
from shared.domain.grant import Introspection
from tests.support.builders import HUB, START
from tests.unit.worker.test_refresh import ScriptedHubSpot, attempt, claimed
from worker.refresh_log import RefreshLog

CORRELATION = "0f6a0f3a-7a4a-4b9e-9f5d-3d1f2f6c8a11"
Lines = Callable[[], list[dict[str, Any]]]
LEASE = Lease(HUB, 1, 1, START + timedelta(seconds=60), Status.ACTIVE)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What was logged since the test began."""
    root, said = logging.getLogger(), StringIO()
    before = root.handlers, root.level, logging.raiseExceptions
    with redirect_stderr(said):
        logs.configure("json", "debug")
    yield lambda: [json.loads(line) for line in said.getvalue().splitlines()]
    root.handlers, root.level, logging.raiseExceptions = before
    structlog.reset_defaults()


def test_the_first_refusal_of_a_streak_is_told_with_its_evidence(lines: Lines) -> None:
    error = TemporarilyUnavailable("html", http_status=502, correlation_id=CORRELATION)
    RefreshLog().note([RefreshResult(LEASE, rules.after_failure(Connection(HUB, Status.ACTIVE), error, START))])
    (line,) = lines()
    assert (line["event"], line["level"], line["hub_id"]) == ("connection refresh_failed", "info", HUB)
    assert (line["code"], line["http_status"], line["correlation_id"]) == ("html", 502, CORRELATION)


def test_a_revocation_names_the_refusal_and_the_witness(lines: Lines) -> None:
    dead = InvalidGrant("BAD_REFRESH_TOKEN", http_status=400, correlation_id=CORRELATION)
    suspect = rules.after_failure(Connection(HUB, Status.ACTIVE), dead, START)
    RefreshLog().note([RefreshResult(LEASE, rules.after_introspection(suspect, dead, Introspection(active=False)))])
    told = {line["event"]: line for line in lines()}
    assert list(told) == ["connection refresh_failed", "connection suspected", "connection revoked"]
    assert {line["correlation_id"] for line in told.values()} == {CORRELATION}
    assert told["connection revoked"]["active"] is False


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (TemporarilyUnavailable("html", http_status=502, correlation_id=CORRELATION), "debug"),
        (InvalidClient("BAD_CLIENT_SECRET", http_status=401, correlation_id=CORRELATION), "info"),
    ],
)
def test_every_single_refusal_can_be_had(error: ProviderError, level: str, lines: Lines) -> None:
    attempt(ScriptedHubSpot(refreshing=error), claimed(failures=3))
    (line,) = lines()
    assert (line["event"], line["level"], line["hub_id"]) == ("HubSpot refused a refresh", level, HUB)
    assert error.evidence().items() <= line.items()


def test_a_second_witness_that_does_not_answer_is_told_too(lines: Lines) -> None:
    silent = TemporarilyUnavailable("timeout", correlation_id=CORRELATION)
    attempt(ScriptedHubSpot(refreshing=InvalidGrant("BAD_REFRESH_TOKEN"), witness=silent), claimed())
    _, line = lines()
    assert (line["event"], line["code"], line["hub_id"]) == ("the second witness did not answer", "timeout", HUB)
