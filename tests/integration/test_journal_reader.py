"""What the worker makes of HubSpot's journal, one turn after the other, by real calls to the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from sandbox.simulator.control import DEMO_CLIENT_ID, DEMO_CLIENT_SECRET
from shared.db.lifecycle.journal import JournalStore
from shared.db.lifecycle.uninstalls import BATCH_ROWS, SEARCH_ROWS, UninstallStore
from shared.domain.journal import CLOCK_TOLERANCE, RESTART_INTERVAL, RETENTION, STOPPED_AFTER, JournalFile, JournalState
from shared.hubspot.client import HubSpot
from shared.hubspot.journal import SCOPES, JournalClient
from shared.hubspot.transport import Transport
from shared.settings.hubspot_app import HubSpotApp
from shared.token_cipher import TokenCipher
from tests.support.simulator import SimulatorFixture, run_simulator
from tests.support.stores import SqlFixture, open_transaction
from worker.journal.reader import ASKED_PER_TURN, MAX_FILE_FAILURES, MAX_FILES_PER_TURN, JournalReader

APP = "default"
HUB = 7
LEASE_SECONDS = 60.0


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorFixture]:
    with run_simulator() as fixture:
        yield fixture


@dataclass
class JournalFixture:
    simulator: SimulatorFixture
    sql: SqlFixture
    engine: Engine
    transport: Transport
    cipher: TokenCipher
    reader: JournalReader

    def make_reader(self, max_batch_seconds: float = 0.0) -> JournalReader:
        """Of another process."""
        app = HubSpotApp(APP, client_id=DEMO_CLIENT_ID, client_secrets=(DEMO_CLIENT_SECRET,))
        url = self.simulator.url
        hubspot = HubSpot(app, self.transport, api_url=url, app_url=url, timeout=20.0)
        return JournalReader(
            APP,
            JournalStore(self.engine, APP, lease_seconds=25.0),
            UninstallStore(self.engine, APP, lease_seconds=LEASE_SECONDS),
            JournalClient(hubspot, self.transport, api_url=url, api_version="2026-09", timeout_seconds=20.0),
            hubspot=hubspot,
            cipher=self.cipher,
            journal_seconds=10.0,
            max_batch_seconds=max_batch_seconds,
        )

    def connect(self, hub_id: int = HUB, *, ago: float = 60.0, user_id: int | None = None) -> int:
        """An installed app, at the simulator and in the database. Its connection's id."""
        token = self.simulator.control.install(hub_id, user_id=user_id)
        return self.store(hub_id, token, ago=ago, user_id=user_id)

    def store(self, hub_id: int, refresh_token: str = "", *, ago: float = 60.0, user_id: int | None = None) -> int:
        """A connection that was installed `ago` seconds before now."""
        values = (hub_id, user_id, f"access-{hub_id}", self.cipher.encrypt_refresh_token(hub_id, refresh_token), ago)
        return int(self.sql.value(INSERT, *values))

    def connect_many(self, count: int) -> list[int]:
        hub_ids = list(range(1_000, 1_000 + count))
        self.simulator.control.install_many(count, first_hub_id=hub_ids[0])
        self.sql.rows(INSERT_MANY, hub_ids)
        return hub_ids

    def uninstall(self, hub_id: int | None = HUB, **but: Any) -> None:
        self.simulator.control.uninstall(hub_id, **but)

    def turn(self, reader: JournalReader | None = None) -> int:
        """One turn of a journal that is due. How many connections it made due."""
        self.sql.rows("UPDATE tokenkeeper.journals SET due_at = now()")
        return (reader or self.reader).take_turn().due

    def publish(self, **but: Any) -> None:
        """A file with an uninstall of just now, some fields changed."""
        entry = {
            "type": "app_lifecycle_event",
            "action": "APP_UNINSTALL",
            "portalId": HUB,
            "occurredAt": datetime.now(UTC).isoformat(),
            "eventTypeId": "4-1916193",
            "properties": {"hs_app_id": self.simulator.control.get_app_id(DEMO_CLIENT_ID)},
        }
        self.simulator.control.publish_journal_file([{**entry, **but}])

    def status(self, hub_id: int = HUB) -> str:
        return str(self.sql.value("SELECT status FROM hubspot.connections WHERE hub_id = %s", hub_id))

    def is_due(self, hub_id: int = HUB) -> bool:
        return bool(self.sql.value("SELECT due_at <= now() FROM tokenkeeper.connections WHERE hub_id = %s", hub_id))

    def count(self, status: str) -> int:
        return int(self.sql.value("SELECT count(*) FROM hubspot.connections WHERE status = %s", status))

    def state(self, columns: str = "state") -> Any:
        return self.sql.value(f"SELECT {columns} FROM tokenkeeper.journals")

    def count_introspections(self) -> int:
        return int(sum(self.simulator.control.get_stats()["calls"].get("introspect", {}).values()))

    def alerts(self) -> list[bool]:
        """Whether each alert about the journal is one of a recovery."""
        query = "SELECT recovered FROM tokenkeeper.alerts WHERE kind = 'journal_stopped' ORDER BY number"
        return [recovered for (recovered,) in self.sql.rows(query)]


INSERT = """
INSERT INTO tokenkeeper.connections
    (hub_id, user_id, status, access_token, expires_at, lifetime_seconds, encrypted_refresh_token, installed_at,
     refreshed_at, due_at)
SELECT %s, %s, 'active', %s, installed_at + interval '1800 seconds', 1800, %s, installed_at, installed_at,
       installed_at + interval '1200 seconds'
  FROM (SELECT now() - make_interval(secs => %s) AS installed_at) AS install
RETURNING id
"""
INSERT_MANY = """
INSERT INTO tokenkeeper.connections
    (hub_id, status, access_token, expires_at, lifetime_seconds, encrypted_refresh_token, installed_at, refreshed_at,
     due_at)
SELECT hub_id, 'active', 'access', now() + interval '1800 seconds', 1800, 'encrypted', now() - interval '1 minute',
       now() - interval '1 minute', now() + interval '1200 seconds'
  FROM unnest(CAST(%s AS bigint[])) AS hub_id
"""


@pytest.fixture
def journal(simulator: SimulatorFixture, sql: SqlFixture, engine: Engine) -> Iterator[JournalFixture]:
    """Read once, so that the subscriptions are there."""
    simulator.control.reset(settings=True, accounts=True)
    simulator.clock.offset_seconds = 0.0
    transport = Transport(max_idle_connections=5)
    cipher = TokenCipher((Fernet.generate_key().decode(),))
    fixture = JournalFixture(simulator, sql, engine, transport, cipher, reader=None)  # type: ignore[arg-type]
    fixture.reader = fixture.make_reader()
    fixture.turn()
    yield fixture
    transport.close()


def test_the_first_turn_makes_both_subscriptions(journal: JournalFixture) -> None:
    assert sorted(journal.simulator.control.list_subscriptions()) == ["4-1909196", "4-1916193"]
    assert journal.state() == "reading"


def test_an_uninstall_makes_the_connection_suspect_and_due_and_it_is_still_served(journal: JournalFixture) -> None:
    journal.connect()
    journal.connect(8)
    journal.uninstall(keep_access_tokens=True)
    assert journal.turn() == 1
    assert journal.status() == "suspect"
    assert journal.is_due()
    assert journal.sql.events(HUB) == ["suspected"]
    (detail, reason), *_ = journal.sql.rows(
        "SELECT h.detail, c.status_reason FROM hubspot.history AS h JOIN hubspot.connections AS c USING (hub_id)"
    )
    assert detail["witness"] == "journal"
    assert "uninstalled the app" in reason
    assert journal.sql.read_served_token(HUB) == f"access-{HUB}"
    assert (journal.status(8), journal.is_due(8)) == ("active", False)


def test_a_report_is_acted_upon_once_however_often_it_is_repeated(journal: JournalFixture) -> None:
    journal.connect()
    journal.uninstall()
    journal.turn()
    journal.sql.set("status = 'active', status_reason = NULL, due_at = now() + interval '1 hour'", HUB)
    journal.simulator.control.publish_journal_file(journal.simulator.control.list_journal_events() * 3)
    journal.sql.rows("UPDATE tokenkeeper.journals SET next_offset = NULL")  # of a restored backup
    assert journal.turn() == 0
    assert (journal.status(), journal.is_due()) == ("active", False)


def test_an_uninstall_followed_by_an_install_changes_nothing(journal: JournalFixture) -> None:
    journal.simulator.clock.offset_seconds = -2 * CLOCK_TOLERANCE.total_seconds()
    journal.connect(ago=0)
    journal.uninstall()
    assert journal.turn() == 0
    assert (journal.status(), journal.is_due(), journal.sql.events()) == ("active", False, [])


def test_where_the_clocks_may_hide_the_order_the_connection_is_refreshed_and_its_status_stays(
    journal: JournalFixture,
) -> None:
    journal.simulator.clock.offset_seconds = -CLOCK_TOLERANCE.total_seconds() / 2
    journal.connect(ago=0)
    journal.uninstall()
    assert journal.turn() == 1
    assert (journal.status(), journal.is_due(), journal.sql.events()) == ("active", True, [])


@pytest.mark.parametrize(
    "change",
    [
        {"properties": {"hs_app_id": 1}},
        {"portalId": 999},
        {"action": "APP_INSTALL", "eventTypeId": "4-1909196"},
        {"type": "crmObject", "action": "DELETE", "eventTypeId": "0-1"},
        {"occurredAt": "2026-01-01T00:00:00Z"},
    ],
    ids=["of another app", "of an unknown account", "an install", "of another kind", "an old one"],
)
def test_other_entries_change_nothing(journal: JournalFixture, change: dict[str, Any]) -> None:
    journal.connect()
    journal.publish(**change)
    assert journal.turn() == 0
    assert (journal.status(), journal.is_due(), journal.sql.events()) == ("active", False, [])
    journal.publish()
    assert journal.turn() == 1, "and the entry after it is read"


@pytest.mark.parametrize("status", ["revoked", "disconnected"])
def test_a_connection_that_has_ended_stays_as_it_is(journal: JournalFixture, status: str) -> None:
    journal.connect()
    journal.sql.set(f"status = '{status}', due_at = NULL, access_token = NULL, expires_at = NULL", HUB)
    journal.uninstall()
    assert journal.turn() == 0
    assert journal.status() == status


def test_an_uninstall_during_a_refresh_is_acted_upon_after_it(journal: JournalFixture) -> None:
    journal.connect()
    journal.sql.set("lease_until = now() + interval '30 seconds'", HUB)
    journal.uninstall()
    assert journal.turn() == 0
    journal.sql.set("lease_until = NULL, refreshed_at = now() - interval '10 seconds'", HUB)
    turn = journal.reader.take_turn()
    assert (turn.due, journal.status()) == (1, "suspect")


def test_a_row_that_another_transaction_has_locked_delays_its_own_report_only(
    journal: JournalFixture, connect: Callable[..., Any]
) -> None:
    journal.connect()
    journal.connect(8)
    with open_transaction(connect) as other:
        other.rows("SELECT FROM tokenkeeper.connections WHERE hub_id = 7 FOR UPDATE")
        journal.uninstall()
        journal.uninstall(8)
        journal.sql.rows("UPDATE tokenkeeper.journals SET due_at = now()")
        turn = journal.reader.take_turn()
        assert (turn.due, turn.is_more) == (1, True)
        assert (journal.status(), journal.status(8)) == ("active", "suspect")
    assert journal.turn() == 1
    assert journal.status() == "suspect"


def test_an_install_that_is_stored_after_its_uninstall_was_read_is_suspect_too(journal: JournalFixture) -> None:
    token = journal.simulator.control.install(HUB)
    journal.uninstall()
    assert journal.turn() == 0
    journal.store(HUB, token)
    assert journal.turn() == 1
    assert journal.status() == "suspect"


def test_of_a_user_level_app_the_grant_of_that_user_is_suspect_and_the_others_are_refreshed(
    journal: JournalFixture,
) -> None:
    for user_id in (1, 2):
        journal.connect(user_id=user_id)
    journal.publish(properties={"hs_user_id": "1"})
    assert journal.turn() == 2
    rows = journal.sql.rows("SELECT user_id, status, due_at <= now() FROM tokenkeeper.connections ORDER BY user_id")
    assert rows == [(1, "suspect", True), (2, "active", True)]


def test_the_connection_of_another_app_in_the_same_account_stays_as_it_is(journal: JournalFixture) -> None:
    journal.sql.rows("UPDATE tokenkeeper.connections SET app = 'another' WHERE id = %s", journal.store(HUB))
    journal.connect()
    journal.uninstall()
    assert journal.turn() == 1
    statuses = dict(journal.sql.rows("SELECT app, status FROM hubspot.connections"))
    assert statuses == {"default": "suspect", "another": "active"}


def test_while_hubspot_refuses_the_app_its_journal_is_not_read_and_that_is_no_alert_of_its_own(
    journal: JournalFixture,
) -> None:
    journal.connect()
    journal.uninstall()
    journal.sql.rows("UPDATE tokenkeeper.provider SET condition = 'app_rejected'")
    journal.sql.rows("UPDATE tokenkeeper.journals SET since = now() - %s", STOPPED_AFTER)
    assert journal.turn() == 0
    assert (journal.state(), journal.alerts()) == ("reading", [])
    journal.sql.rows("UPDATE tokenkeeper.provider SET condition = 'ok'")
    assert journal.turn() == 1


def test_more_uninstalls_than_one_file_and_one_batch_have_are_all_acted_upon(journal: JournalFixture) -> None:
    hub_ids = journal.connect_many(BATCH_ROWS + 30)
    journal.simulator.control.change_settings(journal_file_events=200)
    journal.uninstall(None)
    journal.sql.set("due_at = now()")  # more than one batch is due: the reader waits before the second one
    assert journal.turn(journal.make_reader(max_batch_seconds=1.0)) == len(hub_ids)
    assert journal.count("suspect") == len(hub_ids)


def test_after_some_files_a_turn_ends_and_the_next_one_reads_on(journal: JournalFixture) -> None:
    journal.simulator.control.change_settings(journal_file_events=1)
    journal.connect_many(MAX_FILES_PER_TURN + 1)
    journal.sql.rows("UPDATE tokenkeeper.journals SET due_at = now()")
    assert [journal.reader.take_turn().is_more for _ in range(2)] == [True, False]


def test_while_the_revocation_brake_is_on_each_turn_acts_on_one_batch(journal: JournalFixture) -> None:
    hub_ids = journal.connect_many(2 * BATCH_ROWS)
    journal.sql.rows("UPDATE tokenkeeper.provider SET brake_since = now()")
    journal.uninstall(None)
    assert journal.turn() == BATCH_ROWS
    assert journal.reader.take_turn().due == 0, "a turn that does not read"
    assert journal.turn() == BATCH_ROWS
    assert journal.count("suspect") == len(hub_ids)


def lose_offset(journal: JournalFixture) -> None:
    """The place that was reached is lost, and what was published since."""
    journal.connect(100)
    journal.turn()
    assert journal.state("next_offset") is not None
    for hub_id in (HUB, 8, 9):
        journal.connect(hub_id)
    journal.uninstall(HUB)
    journal.uninstall(8)
    journal.simulator.control.list_journal_events()  # the simulator writes its files when they are read
    journal.simulator.control.forget_journal()


def test_after_a_lost_offset_connections_that_were_not_refreshed_since_are_asked_about(
    journal: JournalFixture,
) -> None:
    lose_offset(journal)
    journal.sql.set("refreshed_at = now() + interval '1 minute'", 8)
    journal.sql.set("encrypted_refresh_token = 'under a lost key'", 100)
    journal.sql.rows(INSERT_MANY, list(range(1_000, 1_000 + SEARCH_ROWS)))
    journal.sql.rows(
        "UPDATE tokenkeeper.connections SET refreshed_at = now() + interval '1 minute' WHERE hub_id >= 1000"
    )
    journal.turn()
    assert journal.state("next_offset") is None
    assert journal.state("unheard_since") is None, "all have been asked about"
    assert journal.turn() == 1
    statuses = {hub_id: journal.status(hub_id) for hub_id in (HUB, 8, 9, 100)}
    assert statuses == {HUB: "suspect", 8: "active", 9: "active", 100: "active"}
    assert journal.sql.value("SELECT detail ->> 'witness' FROM hubspot.history") == "introspection"
    journal.uninstall(9)
    journal.turn()
    assert journal.status(9) == "suspect", "the journal is read again"


def test_after_a_lost_offset_a_few_connections_are_asked_about_in_each_turn_and_none_during_a_fault_of_hubspot(
    journal: JournalFixture,
) -> None:
    lose_offset(journal)
    for hub_id in range(1_000, 1_000 + ASKED_PER_TURN):
        journal.connect(hub_id)
    journal.sql.rows("UPDATE tokenkeeper.provider SET condition = 'unavailable'")
    calls = journal.count_introspections()
    journal.turn()
    assert journal.count_introspections() == calls
    journal.sql.rows("UPDATE tokenkeeper.provider SET condition = 'ok'")
    journal.turn()
    assert journal.count_introspections() == calls + ASKED_PER_TURN
    assert journal.state("unheard_since") is not None
    journal.simulator.control.add_fault(500, where="introspect", times=1)
    journal.turn()
    assert journal.state("unheard_since") is not None, "it goes on where HubSpot failed"
    journal.turn()
    assert journal.state("unheard_since") is None


@pytest.mark.parametrize("status", ["404", "400"])
def test_a_server_that_calls_the_end_of_the_journal_an_unknown_offset_is_read_from_the_beginning_once(
    journal: JournalFixture, status: str
) -> None:
    lose_offset(journal)
    journal.simulator.control.change_settings(journal_lost_offset=status)
    journal.turn()
    restarted_at = journal.state("restarted_at")
    journal.uninstall(9)
    journal.turn()
    assert journal.status(9) == "suspect"
    journal.simulator.control.forget_journal()
    for _ in range(2):
        journal.turn()
    assert (journal.state(), journal.state("restarted_at")) == ("reading", restarted_at)
    journal.sql.rows("UPDATE tokenkeeper.journals SET restarted_at = restarted_at - %s", RESTART_INTERVAL)
    journal.turn()
    assert journal.state("restarted_at") > restarted_at


def test_after_an_absence_longer_than_hubspot_keeps_entries_the_journal_is_read_from_its_beginning(
    journal: JournalFixture,
) -> None:
    journal.connect()
    journal.connect(8)
    journal.turn()
    journal.uninstall()
    journal.sql.rows("UPDATE tokenkeeper.journals SET read_at = now() - %s", RETENTION)
    journal.uninstall(8)
    journal.turn()
    assert journal.state("restarted_at") is not None
    assert (journal.status(), journal.status(8)) == ("suspect", "suspect")
    assert journal.alerts() == []


def test_a_file_whose_url_leads_into_our_network_is_tried_again_and_at_last_passed_over(
    journal: JournalFixture,
) -> None:
    journal.connect()
    journal.connect(8)
    journal.turn()
    journal.simulator.control.change_settings(journal_file_url="http://169.254.169.254")
    journal.uninstall()
    for failures in range(1, MAX_FILE_FAILURES + 1):
        began_at = journal.sql.now()
        journal.turn()
        assert (journal.state(), journal.state("reason"), journal.state("failures")) == (
            *("failing", "address_not_allowed", failures),
        )
        assert journal.state("due_at") > began_at + timedelta(seconds=8)
    journal.turn()
    journal.simulator.control.change_settings(journal_file_url="")
    journal.turn()
    assert journal.state() == "reading"
    assert (journal.status(), journal.status(8)) == ("suspect", "active"), "introspection was asked instead"


def test_refused_scopes_are_said_once_and_tried_again_when_a_worker_starts(
    journal: JournalFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.simulator.control.change_settings(journal_scopes=[])
    capsys.readouterr()
    reader = journal.make_reader()
    for _ in range(3):
        journal.turn(reader)
    assert capsys.readouterr().out.count("does not let this app read its journal") == 1
    assert (journal.state(), journal.state("reason")) == ("refused", "BAD_SCOPES (HTTP 403)")
    assert journal.state("due_at - now() > interval '9 minutes'")
    journal.simulator.control.change_settings(journal_scopes=SCOPES.split())
    journal.connect()
    journal.uninstall()
    journal.make_reader().take_turn()
    assert (journal.state(), journal.status()) == ("reading", "suspect")


def test_a_journal_that_is_read_no_more_is_one_alert_and_its_recovery_another(journal: JournalFixture) -> None:
    journal.simulator.control.add_fault(500, where="journal")
    journal.turn()
    assert journal.alerts() == []
    journal.sql.rows("UPDATE tokenkeeper.journals SET since = now() - %s", STOPPED_AFTER)
    for _ in range(2):
        journal.turn()
    assert journal.alerts() == [False]
    journal.simulator.control.clear_faults()
    for _ in range(2):
        journal.turn()
    assert journal.alerts() == [False, True]


def test_a_journal_that_was_never_read_is_no_alert(journal: JournalFixture) -> None:
    journal.sql.rows("UPDATE tokenkeeper.journals SET read_at = NULL, next_offset = NULL")
    journal.simulator.control.change_settings(journal_scopes=[])
    reader = journal.make_reader()
    journal.turn(reader)
    journal.sql.rows("UPDATE tokenkeeper.journals SET since = now() - %s", STOPPED_AFTER)
    journal.turn(reader)
    assert journal.alerts() == []


def test_one_process_reads_at_a_time_and_another_one_takes_over_where_it_was_killed(journal: JournalFixture) -> None:
    journal.connect()
    journal.uninstall()
    store = JournalStore(journal.engine, APP, lease_seconds=25.0)
    journal.sql.rows("UPDATE tokenkeeper.journals SET due_at = now()")
    killed = store.claim()
    assert killed is not None
    assert journal.turn(journal.make_reader()) == 0
    journal.sql.rows("UPDATE tokenkeeper.journals SET lease_until = now()")
    assert journal.turn(journal.make_reader()) == 1
    offset = journal.state("next_offset")
    assert store.advance(killed, JournalFile("an-old-offset"), []) is None
    assert store.end_turn(killed, is_end=True, wait_seconds=0, state=JournalState.FAILING) is None
    assert store.restart(killed) is False
    assert (journal.state("next_offset"), journal.state()) == (offset, "reading")


#: As if another process claimed the journal while this one asks about the subscriptions.
TAKE_OVER = """
CREATE FUNCTION take_over() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NEW.lease_number := OLD.lease_number + 1; RETURN NEW; END';
CREATE TRIGGER take_over BEFORE UPDATE ON tokenkeeper.journals FOR EACH ROW EXECUTE FUNCTION take_over();
"""


def test_a_process_that_took_longer_than_its_lease_records_nothing(journal: JournalFixture) -> None:
    journal.connect()
    journal.uninstall()
    journal.sql.rows(TAKE_OVER)
    assert journal.turn(journal.make_reader()) == 0
    assert journal.status() == "active"
    journal.sql.rows("DROP TRIGGER take_over ON tokenkeeper.journals")
    journal.sql.rows("UPDATE tokenkeeper.journals SET lease_until = now()")
    assert journal.turn() == 1


def test_a_turn_that_is_not_due_calls_hubspot_not_at_all(journal: JournalFixture) -> None:
    journal.sql.rows("UPDATE tokenkeeper.journals SET due_at = now() + interval '1 minute'")
    calls = journal.simulator.control.get_stats()
    assert journal.reader.take_turn().due == 0
    assert journal.simulator.control.get_stats() == calls


def test_reports_are_deleted_when_the_journal_cannot_repeat_them_any_more(journal: JournalFixture) -> None:
    for hub_id in (HUB, 8):
        journal.connect(hub_id)
        journal.uninstall(hub_id)
    journal.turn()
    journal.sql.rows("UPDATE tokenkeeper.reported_uninstalls SET reported_at = now() - %s WHERE hub_id = 8", RETENTION)
    journal.sql.rows(
        "UPDATE tokenkeeper.reported_uninstalls SET reported_at = now() - interval '5 days' WHERE hub_id = 7"
    )
    journal.turn(journal.make_reader())
    assert journal.sql.rows("SELECT hub_id FROM tokenkeeper.reported_uninstalls") == [(8,)]
