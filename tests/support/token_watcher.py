"""A downstream job that reads every token continuously and asks HubSpot whether it is live."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg2
import requests

from sandbox.simulator.control import SimulatorControl, TokenCheck
from tests.support.polling import until

#: The tokens served, and the connections that have ended, without one. To plan it takes longer than to execute it.
PREPARE = """
PREPARE watched AS
SELECT hub_id, access_token FROM hubspot.tokens
UNION ALL
SELECT hub_id, NULL FROM hubspot.connections WHERE status IN ('revoked', 'disconnected')
"""
#: HubSpot is asked about a token at its first read, at its end, and after so long in between, when only an uninstall by
#: the customer can end it.
RECHECK_SECONDS = 0.5
HUBSPOT_TIMEOUT_SECONDS = 60


class TokenWatcher:
    """Records what it read between `__enter__` and `__exit__`. It ignores a database that does not answer."""

    def __init__(self, database_url: str, simulator_url: str, *, interval_seconds: float = 0.1) -> None:
        self.reads = 0  #: tokens read
        self.refused: list[str] = []  #: tokens that were served and not live at HubSpot
        self.ended_hub_ids: set[int] = set()  #: seen revoked or disconnected
        self.unanswered_reads = 0  #: by PostgreSQL
        self._url = database_url
        # `requests` takes three times as long for a call, and this one is made ten times a second.
        self._hubspot = http.client.HTTPConnection(urlsplit(simulator_url).netloc, timeout=HUBSPOT_TIMEOUT_SECONDS)
        self._interval_seconds = interval_seconds
        self._checked_at = 0.0
        self._ends_at: dict[
            str, float
        ] = {}  #: of the tokens that were live at the last check; both by time.monotonic()
        self._connection: Any = None
        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="token-watcher")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._disconnect()

    def found_no_refused_token(self) -> bool:
        """Waits for the first token that it reads. Raises the exception that ended it: then it proved nothing."""
        until(lambda: self.reads or self._error)
        if self._error:
            raise self._error
        return not self.refused

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._interval_seconds):
                self._read_unless_down()
        except Exception as error:  # noqa: BLE001  found_no_refused_token raises it in the test's thread
            self._error = error

    def _read_unless_down(self) -> None:
        try:
            self._read()
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self.unanswered_reads += 1
            self._disconnect()

    def _read(self) -> None:
        if self._connection is None:
            self._connection = psycopg2.connect(self._url, connect_timeout=2)
            self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute(PREPARE)
        started_at = time.monotonic()
        rows = self._execute()
        tokens = {hub_id: token for hub_id, token in rows if token}
        if self._is_check_due(tokens.values()):
            checks = self._check_tokens(list(tokens.values()))
            seconds = time.monotonic() - started_at
            refused = [
                (hub_id, token, check)
                for (hub_id, token), check in zip(tokens.items(), checks, strict=True)
                if _is_refused(check, seconds)
            ]
            if refused:  # one that has ended, here and at HubSpot, since it was read is not served any more
                served = self._execute()
                self.refused += [f"{hub_id}: {check}" for hub_id, token, check in refused if (hub_id, token) in served]
        self.ended_hub_ids.update(hub_id for hub_id, token in rows if not token)
        self.reads += len(tokens)

    def _execute(self) -> list[tuple[int, str | None]]:
        with self._connection.cursor() as cursor:
            cursor.execute("EXECUTE watched")
            return list(cursor.fetchall())

    def _is_check_due(self, tokens: Iterable[str]) -> bool:
        now = time.monotonic()
        return now - self._checked_at >= RECHECK_SECONDS or any(
            self._ends_at.get(token, now) <= now for token in tokens
        )

    def _check_tokens(self, tokens: list[str]) -> list[TokenCheck]:
        """As SimulatorControl.check_tokens. Remembers when they end."""
        self._hubspot.request(
            "POST", "/_sim/check", json.dumps({"tokens": tokens}), {"Content-Type": "application/json"}
        )
        reply = self._hubspot.getresponse()
        body = reply.read()
        assert reply.status == http.HTTPStatus.OK, body
        checks = [TokenCheck(**each) for each in json.loads(body)["tokens"]]
        self._checked_at = now = time.monotonic()
        live = [(token, check) for token, check in zip(tokens, checks, strict=True) if check.is_live]
        self._ends_at = {token: now + (check.seconds_left or 0.0) for token, check in live}
        return checks

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
        self._connection = None
        self._hubspot.close()  # it would end while PostgreSQL is down; the next request opens it again


def _is_refused(check: TokenCheck, seconds: float) -> bool:
    """A token that expired within the `seconds` since it was read does not count."""
    expired_since = check.state == "expired" and (check.seconds_left or 0.0) > -seconds
    return not (check.is_live or expired_since)


def has_no_call_in_flight(simulator: SimulatorControl) -> bool:
    """Whether HubSpot answers no refresh now. A refresh whose client disconnected does not count."""
    with contextlib.suppress(requests.RequestException):
        return bool(simulator.get_stats(by_hub=False)["in_flight"] == 0)
    return False
