"""Installs in every order, imports, identification and disconnects, on a real PostgreSQL."""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import permutations
from uuid import uuid4

import pytest

from shared.db.imports import ImportRow
from shared.db.installs import Became
from shared.domain.connection import Status
from tests.builders import HUB
from tests.integration.store_rig import Sql, Town, at_once


def test_an_install_is_readable_at_once(town: Town, sql: Sql) -> None:
    install_id = str(uuid4())
    added = town.install(install_id=install_id)
    assert (added.became, added.unidentified) == (Became.INSTALLED, True)
    assert sql.served() == f"access-of-{HUB}"
    seen = town.store.installed(install_id)
    assert seen is not None
    assert (seen.hub_id, seen.status, seen.hub_domain) == (HUB, Status.ACTIVE, None)
    assert town.store.installed(str(uuid4())) is None
    assert sql.events() == ["installed"]


def test_the_same_install_twice_changes_nothing_whatever_came_between(town: Town, sql: Sql) -> None:
    install_id, granted_at = str(uuid4()), sql.now()
    town.install(install_id=install_id, granted_at=granted_at)
    town.store.save([town.refreshed(town.claim_one())])
    town.install()
    town.store.disconnecting(HUB)
    town.store.wiped(HUB)
    before = sql.row()
    again = town.install(install_id=install_id, granted_at=granted_at)
    assert again.became is Became.ALREADY
    assert sql.row() == before


def test_an_install_without_a_name_is_known_by_its_date(town: Town, sql: Sql) -> None:
    granted_at = sql.now()
    assert town.install(install_id=None, granted_at=granted_at).became is Became.INSTALLED
    assert town.install(install_id=None, granted_at=granted_at).became is Became.ALREADY
    assert town.install(install_id=None).became is Became.REINSTALLED


@pytest.mark.parametrize("order", list(permutations((30, 20, 10))))
def test_the_newest_grant_wins_in_every_order(town: Town, sql: Sql, order: tuple[int, ...]) -> None:
    base = sql.now()
    for ago in order:
        town.install(
            granted_at=base - timedelta(seconds=ago),
            sealed_refresh_token=f"sealed-{ago}",
            access_token=f"access-{ago}",
        )
    assert sql.served() == "access-10"
    assert sql.row()["sealed_refresh_token"] == "sealed-10"


def test_an_install_dated_in_the_future_counts_as_now(town: Town, sql: Sql) -> None:
    town.install(ago=-3600, access_token="from-the-future")
    assert sql.value("SELECT installed_at <= clock_timestamp() FROM hubspot.connections")
    assert sql.value("SELECT expires_in <= 1800 FROM hubspot.tokens")
    assert town.install(access_token="from-today").became is Became.REINSTALLED
    assert sql.served() == "from-today"


def test_a_reinstall_begins_anew_but_leaves_the_lease(town: Town, sql: Sql) -> None:
    town.install()
    town.store.save([town.failed(town.claim_one())])
    sql.set("refresh_requested = true, not_before = now() + interval '1 hour'")
    claimed = town.claim_one()
    added = town.install(scopes=("oauth",), access_token="anew", sealed_refresh_token="sealed-anew")
    row = sql.row()
    assert added.became is Became.REINSTALLED
    assert row["generation"] == claimed.lease.generation + 1
    assert (row["failures"], row["last_error"], row["not_before"]) == (0, None, None)
    assert (row["refresh_requested"], row["sealed_refresh_token"]) == (False, "sealed-anew")
    assert row["lease_no"] == claimed.lease.number
    assert row["lease_until"] is not None
    assert row["identify_due_at"] is not None
    assert sql.events() == ["installed", "refresh_failed", "reinstalled", "scopes_changed"]


@pytest.mark.parametrize("status", ["suspect", "revoked", "disconnected"])
def test_an_install_brings_back_whatever_ended(town: Town, sql: Sql, status: str) -> None:
    town.install(ago=10)
    sql.set(f"status = '{status}', due_at = NULL, access_token = NULL, expires_at = NULL, status_reason = 'so'")
    assert town.install(access_token="anew").became is Became.REINSTALLED
    row = sql.row()
    assert (row["status"], row["status_reason"]) == ("active", None)
    assert row["due_at"] is not None
    assert sql.served() == "anew"
    detail = sql.value("SELECT detail FROM hubspot.history WHERE event = 'reinstalled'")
    assert detail == {"was": status}


def test_an_install_older_than_the_disconnect_does_not_undo_it(town: Town, sql: Sql) -> None:
    town.install(ago=60)
    late = sql.now()
    town.store.disconnecting(HUB)
    town.store.wiped(HUB)
    install_id = str(uuid4())
    assert town.install(granted_at=late, install_id=install_id).became is Became.DISCONNECTED_SINCE
    assert sql.row()["status"] == "disconnected"
    seen = town.store.installed(install_id)
    assert seen is not None, "whoever waits for it must be told how it ended"
    assert seen.status is Status.DISCONNECTED
    assert town.install().became is Became.REINSTALLED


def test_an_install_out_of_a_cookie_keeps_the_token_that_lives_and_is_due_at_once(town: Town, sql: Sql) -> None:
    town.install(ago=5)
    town.install(access_token=None, expires_in=None, scopes=None, sealed_refresh_token="sealed-cookie")
    row = sql.row()
    assert sql.served() == f"access-of-{HUB}"
    assert row["sealed_refresh_token"] == "sealed-cookie"
    assert row["scopes"] == ["oauth", "crm.objects.contacts.read"]
    assert town.store.due(10) == 1


def test_an_install_stored_after_its_token_died_is_due_at_once(town: Town, sql: Sql) -> None:
    town.install(ago=2000)
    assert sql.served() is None
    assert sql.row()["access_token"] is None
    (claimed,) = town.store.claim(1).rows
    town.store.save([town.refreshed(claimed)])
    assert sql.served() == "new-access"


def test_a_disconnected_ones_old_token_is_not_served_again(town: Town, sql: Sql) -> None:
    town.install(ago=5)
    town.store.disconnecting(HUB)
    town.install(access_token=None, expires_in=None)
    assert sql.row()["status"] == "active"
    assert sql.served() is None


def test_installs_of_one_hub_at_once_leave_the_newest(town: Town, sql: Sql) -> None:
    base = sql.now() - timedelta(seconds=100)
    calls = [lambda n=n: town.install(granted_at=base + timedelta(seconds=n), access_token=f"a-{n}") for n in range(8)]
    became = [added.became for added in at_once(calls)]
    assert became.count(Became.INSTALLED) == 1
    assert sql.served() == "a-7"


def test_one_install_delivered_by_many_at_once_is_stored_once(town: Town, sql: Sql) -> None:
    install_id, granted_at = str(uuid4()), sql.now()
    became = [a.became for a in at_once([lambda: town.install(install_id=install_id, granted_at=granted_at)] * 6)]
    assert sorted(became) == [Became.ALREADY] * 5 + [Became.INSTALLED]
    assert sql.events() == ["installed"]


def test_an_import_is_due_at_once_and_harmless_when_repeated(town: Town, sql: Sql) -> None:
    rows = [ImportRow(hub_id, f"sealed-{hub_id}") for hub_id in (1, 2, 3, 2)]
    assert town.store.import_(rows).new == {1, 2, 3}
    assert town.store.due(10) == 3
    assert sql.served(1) is None
    before = sql.rows("SELECT * FROM tokenkeeper.connections ORDER BY hub_id")
    again = town.store.import_(rows)
    assert (again.new, again.replaced) == (frozenset(), frozenset())
    assert sql.rows("SELECT * FROM tokenkeeper.connections ORDER BY hub_id") == before
    assert sql.events(1) == ["imported"]
    assert town.store.import_([]).new == frozenset()


def test_an_import_revives_only_what_is_revoked_and_only_when_told_to(town: Town, sql: Sql) -> None:
    for hub_id in (1, 2, 3, 4):
        town.install(hub_id)
    gone = "access_token = NULL, expires_at = NULL, due_at = NULL, status ="
    sql.set(f"{gone} 'revoked'", 1)
    sql.set(f"{gone} 'revoked'", 2)
    sql.set(f"{gone} 'disconnected', sealed_refresh_token = NULL", 3)
    standing = town.store.standing([1, 2, 3, 4, 99])
    assert {hub_id: found.status.value for hub_id, found in standing.items()} == {
        1: "revoked",
        2: "revoked",
        3: "disconnected",
        4: "active",
    }
    assert standing[1].sealed_refresh_token == "sealed-of-1"
    imported = town.store.import_(
        [ImportRow(1, "other", replaces=True), ImportRow(2, "same")]
        + [ImportRow(hub_id, "other", replaces=True) for hub_id in (3, 4)]
    )
    assert (imported.new, imported.replaced) == (frozenset(), {1})
    assert sql.rows("SELECT hub_id, status FROM hubspot.connections ORDER BY 1") == [
        (1, "active"),
        (2, "revoked"),
        (3, "disconnected"),
        (4, "active"),
    ]
    assert sql.row(4)["sealed_refresh_token"] == "sealed-of-4"
    assert sql.events(1) == ["installed", "imported"]


def test_an_import_puts_a_wrong_line_right_as_long_as_its_token_never_worked(town: Town, sql: Sql) -> None:
    town.store.import_([ImportRow(1, "wrong"), ImportRow(2, "good")])
    wrong = town.claim_one(1)
    town.store.save([town.refreshed(town.claim_one(2))])
    assert [found.replaceable for found in town.store.standing([1, 2]).values()] == [True, False]
    rows = [ImportRow(hub_id, "right", replaces=True) for hub_id in (1, 2)]
    assert town.store.import_(rows).replaced == {1}
    assert town.store.save([town.revoked(wrong)]) == set(), "the late answer speaks of the wrong token"
    assert (sql.row(1)["status"], sql.row(1)["sealed_refresh_token"]) == ("active", "right")
    assert sql.row(2)["sealed_refresh_token"] == "good"
    assert sql.rows("SELECT detail FROM hubspot.history WHERE hub_id = 1 ORDER BY at") == [({},), ({"was": "active"},)]


def test_an_import_that_replaces_an_active_one_tells_of_no_change(town: Town, sql: Sql) -> None:
    town.store.import_([ImportRow(HUB, "wrong")])
    before = sql.row()["status_since"]
    town.store.import_([ImportRow(HUB, "right", replaces=True)])
    told = sql.rows("SELECT status FROM tokenkeeper.history WHERE hub_id = %s ORDER BY id", HUB)
    assert told == [("active",), (None,)]
    assert sql.row()["status_since"] == before


def test_an_import_is_fast(town: Town) -> None:
    began = time.monotonic()
    for start in range(0, 20_000, 5_000):
        town.store.import_([ImportRow(hub_id, "x" * 300) for hub_id in range(start, start + 5_000)])
    assert 20_000 / (time.monotonic() - began) > 5_000, "30,000 a second on an idle machine"


def test_the_total_is_counted_without_counting(town: Town, sql: Sql) -> None:
    town.many_due(50)
    town.install(1)
    town.install(999)
    assert sql.value("SELECT connections FROM tokenkeeper.totals") == 51
    sql.rows("DELETE FROM tokenkeeper.connections WHERE hub_id <= 10")
    assert sql.value("SELECT connections FROM tokenkeeper.totals") == 41


def test_identification_waits_for_a_token_and_is_asked_again_until_answered(town: Town, sql: Sql) -> None:
    town.store.import_([ImportRow(HUB, "sealed")])
    assert not town.store.unidentified()
    town.store.save([town.refreshed(town.claim_one())])
    assert town.store.unidentified()
    assert town.store.claim_unidentified(10) == [(HUB, "new-access")]
    assert town.store.claim_unidentified(10) == []
    sql.set("identify_due_at = identify_due_at - interval '1 minute'")
    assert town.store.claim_unidentified(10) == [(HUB, "new-access")]
    town.store.identified(HUB, "acme.example", "ada@acme.example")
    assert not town.store.unidentified()
    assert sql.rows("SELECT hub_domain, installed_by FROM hubspot.connections") == [
        ("acme.example", "ada@acme.example")
    ]


def test_a_reinstall_during_identification_is_identified_anew(town: Town) -> None:
    town.install(ago=5)
    town.store.claim_unidentified(10)
    town.install(access_token="anew")
    town.store.identified(HUB, "acme.example", "the one before")
    assert town.store.claim_unidentified(10) == [(HUB, "anew")]


def test_a_disconnect_takes_two_steps_and_serves_nothing_from_the_first(town: Town, sql: Sql) -> None:
    town.install()
    secrets = town.store.disconnecting(HUB)
    assert secrets is not None
    assert (secrets.sealed_refresh_token, secrets.access_token) == (f"sealed-of-{HUB}", f"access-of-{HUB}")
    assert "of" not in repr(secrets)
    assert sql.served() is None
    assert town.store.disconnecting(HUB) == secrets, "whoever finishes it needs them again"
    town.store.wiped(HUB)
    row = sql.row()
    assert (row["status"], row["access_token"], row["sealed_refresh_token"]) == ("disconnected", None, None)
    assert town.store.disconnecting(HUB) is None
    assert town.store.disconnecting(404) is None
    assert sql.events() == ["installed", "disconnected"]


def test_wiping_spares_what_was_installed_again(town: Town, sql: Sql) -> None:
    town.install(ago=5)
    town.store.disconnecting(HUB)
    town.install(access_token="anew")
    town.store.wiped(HUB)
    assert sql.served() == "anew"


def test_a_disconnect_that_nobody_finished_is_found_once_a_minute(town: Town, sql: Sql) -> None:
    town.install()
    town.store.disconnecting(HUB)
    assert town.store.leftovers() == [], "somebody may be at it"
    sql.set("status_since = status_since - interval '2 minutes'")
    assert town.store.leftovers() == [HUB]
    assert town.store.leftovers() == []
    sql.set("lease_until = now()")
    assert town.store.leftovers() == [HUB]
    town.store.wiped(HUB)
    sql.set("lease_until = now()")
    assert town.store.leftovers() == []


def test_a_sample_of_what_is_sealed(town: Town) -> None:
    assert town.store.sealed_sample() == []
    town.many_due(30)
    assert town.store.sealed_sample(limit=5) == ["sealed"] * 5
