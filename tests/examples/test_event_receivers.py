"""The receivers of events in examples/events: they take what tokenkeeper signs, print it once, and refuse the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from shared.domain.events import Event
from shared.domain.identity import ConnectionIdentity
from tests.examples.downstream_job import EXAMPLES
from tests.support.polling import until
from worker.delivery.events import make_body, make_message_id
from worker.delivery.webhook import Webhook, WebhookRejected

OLD_SECRET, SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", f"whsec_{'TmV3' * 8}"
FOREIGN_SECRET = f"whsec_{'Rm9y' * 8}"


@dataclass
class RunningReceiver:
    url: str
    lines: list[str] = field(default_factory=list)

    def post(self, event: Event, *secrets: str, now: datetime | None = None) -> None:
        now = now or datetime.now(UTC)
        Webhook(self.url, secrets, timeout_seconds=30.0).post(make_message_id(event), make_body(event), now)


@pytest.fixture(params=["python", "node"])
def receiver(request: pytest.FixtureRequest) -> Iterator[RunningReceiver]:
    if request.param == "node" and shutil.which("node") is None:
        pytest.skip("the receiver in Node was not run: there is no node here")
    command = (
        [sys.executable, "receiver.py"] if request.param == "python" else [str(shutil.which("node")), "receiver.mjs"]
    )
    environment = {"EVENTS_WEBHOOK_SECRET": f"{SECRET},{OLD_SECRET}", "PATH": os.defpath}
    with subprocess.Popen(
        [*command, "0"], cwd=EXAMPLES / "events", env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        port = process.stdout.readline().split()[-1]
        running = RunningReceiver(f"http://127.0.0.1:{port}/events")
        reader = threading.Thread(target=running.lines.extend, args=[iter(process.stdout.readline, "")])
        reader.start()
        yield running
        process.terminate()
        reader.join()


def make_event(event_id: int = 41812) -> Event:
    identity = ConnectionIdentity("default", 62515)
    at = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
    return Event(event_id, at, "revoked", identity, "acme", "revoked", {"why": "Ünïcödé"})


def test_a_receiver_prints_each_event_once_whichever_secret_signs_it(receiver: RunningReceiver) -> None:
    receiver.post(make_event(1), SECRET)
    receiver.post(make_event(2), OLD_SECRET)
    receiver.post(make_event(2), FOREIGN_SECRET, SECRET)
    receiver.post(make_event(3), SECRET, OLD_SECRET)
    until(lambda: len(receiver.lines) == 3)
    assert receiver.lines[0] == "1 connection.revoked 62515 acme\n"


def test_a_receiver_refuses_what_is_not_signed_or_is_old(receiver: RunningReceiver) -> None:
    now = datetime.now(UTC)
    for secrets, at in (((), now), ((FOREIGN_SECRET,), now), ((SECRET,), now - timedelta(minutes=6))):
        with pytest.raises(WebhookRejected, match="HTTP 401"):
            receiver.post(make_event(), *secrets, now=at)
    assert receiver.lines == []
