"""Three apps in one installation, one of them user-level: what goes wrong with one app leaves the others alone."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from sandbox.child_processes import ChildProcess
from sandbox.simulator.control import DEMO_CLIENT_SECRET
from shared.domain.brake import MIN_REVOCATIONS
from tests.support.apps_file import use_apps_file
from tests.support.fault_deployment import RECOVERY_SECONDS, FaultDeployment, start_fault_deployment
from tests.support.polling import until

STAGING, SEATS = "the-staging-app", "the-user-level-app"
HUBS = range(1_000, 1_012)  #: in each of the first two apps
SHARED_HUB, USERS = 1_000, (7, 8)  #: also in the third one, with both users
Connection = tuple[str, int, int | None]
#: Longer than a busy machine needs for an answer: a failed refresh of a healthy app counts. Short enough to wait for.
TIMEOUTS = {"HTTP_TIMEOUT_SECONDS": "8", "LEASE_SECONDS": "21"}
#: No token of an app without a loop ends in a test.
TOKEN_LIFETIME_SECONDS = 300
HEALTHY_APPS = {"default", "seats"}
APPS: dict[str, dict[str, Any]] = {
    "default": {},
    "staging": {"client_id": STAGING},
    "seats": {"client_id": SEATS, "user_level": True},
}


class AppsFixture:
    """The product, with connections of all three apps."""

    def __init__(self, deployment: FaultDeployment, apps_file: Path) -> None:
        self.deployment, self.simulator, self.sql = deployment, deployment.simulator, deployment.sql
        self._apps_file, self._one_app = apps_file, deployment.product.environment
        self._describe_apps(APPS)

    def restart_worker(self, apps: Mapping[str, Mapping[str, Any]]) -> None:
        """With these apps in its settings."""
        worker = self.deployment.newest_process("worker")
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
        self._describe_apps(apps)
        self.deployment.product.worker()

    def _describe_apps(self, apps: Mapping[str, Mapping[str, Any]]) -> None:
        self.deployment.product.environment = use_apps_file(self._one_app, self._apps_file, apps)

    def import_connections(self) -> None:
        lines = [f"{hub},{token},default," for hub, token in self.simulator.install_many(len(HUBS), HUBS[0]).items()]
        staging = self.simulator.install_many(len(HUBS), HUBS[0], client_id=STAGING)
        lines += [f"{hub},{token},staging," for hub, token in staging.items()]
        for user in USERS:
            token = self.simulator.install(SHARED_HUB, SEATS, user)
            lines.append(f"{SHARED_HUB},{token},seats,{user}")
        text = "\n".join(["hub_id,refresh_token,app,user_id", *lines, ""])
        result = self.deployment.product.tokenkeeper("import", "-", stdin=text)
        assert result.returncode == 0, result.stderr

    def tokens(self) -> dict[Connection, str]:
        rows = self.sql.rows("SELECT app, hub_id, user_id, access_token FROM hubspot.tokens")
        return {(app, hub_id, user_id): token for app, hub_id, user_id, token in rows}

    def make_due(self) -> dict[Connection, str]:
        before = self.tokens()
        self.sql.rows("UPDATE tokenkeeper.connections SET due_at = now() WHERE status = 'active'")
        return before

    def wait_until_refreshed(self, before: dict[Connection, str], apps: Collection[str]) -> None:
        """Until each connection of these apps has another token, which HubSpot accepts."""

        def are_new() -> bool:
            now = self.tokens()
            return all(now.get(each, token) != token for each, token in before.items() if each[0] in apps)

        until(are_new, RECOVERY_SECONDS)
        served = [token for each, token in self.tokens().items() if each[0] in apps]
        assert all(check.is_live for check in self.simulator.check_tokens(served))

    def conditions(self) -> dict[str, str]:
        return dict(self.sql.rows("SELECT app, condition FROM tokenkeeper.provider"))

    def read_swept_at(self, app: str) -> datetime:
        swept_at: datetime = self.sql.value("SELECT swept_at FROM tokenkeeper.provider WHERE app = %s", app)
        return swept_at

    def count_events(self, event: str, apps: Collection[str]) -> int:
        query = "SELECT count(*) FROM hubspot.history WHERE event = %s AND app = ANY(%s)"
        return int(self.sql.value(query, event, list(apps)))

    def check_others(self) -> None:
        """Nothing of the fault has reached the healthy apps."""
        conditions = self.conditions()
        assert {app: conditions[app] for app in HEALTHY_APPS} == dict.fromkeys(HEALTHY_APPS, "ok")
        assert self.count_events("refresh_failed", HEALTHY_APPS) == 0
        statuses = self.sql.rows("SELECT DISTINCT status FROM hubspot.connections WHERE app <> 'staging'")
        assert statuses == [("active",)]


@pytest.fixture(scope="module")
def apps(simulator_process: ChildProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppsFixture]:
    folder = tmp_path_factory.mktemp("product")
    with start_fault_deployment(folder, simulator_process.url, TIMEOUTS) as deployment:
        deployment.simulator.change_settings(lifetime=TOKEN_LIFETIME_SECONDS)
        deployment.simulator.add_app(STAGING)
        deployment.simulator.add_app(SEATS, user_level=True)
        fixture = AppsFixture(deployment, folder / "apps.toml")
        fixture.import_connections()
        deployment.start(web=False)
        until(lambda: len(fixture.tokens()) == 2 * len(HUBS) + len(USERS), RECOVERY_SECONDS)
        yield fixture


def test_a_hub_in_three_apps_and_two_users_in_one_are_all_refreshed(apps: AppsFixture) -> None:
    before = apps.make_due()
    assert {each for each in before if each[1] == SHARED_HUB} == {
        ("default", SHARED_HUB, None),
        ("staging", SHARED_HUB, None),
        ("seats", SHARED_HUB, USERS[0]),
        ("seats", SHARED_HUB, USERS[1]),
    }
    apps.wait_until_refreshed(before, {"default", "staging", "seats"})
    assert set(apps.conditions().values()) == {"ok"}
    assert apps.simulator.get_stats()["violations"] == 0


@pytest.mark.parametrize(
    ("fault", "condition"), [("secret", "app_rejected"), ("429", "throttled"), ("timeout", "unavailable")]
)
def test_a_fault_of_one_app_leaves_the_refreshes_of_the_others_alone(
    apps: AppsFixture, fault: str, condition: str
) -> None:
    # 1. The fault begins, and all connections are due.
    if fault == "secret":
        apps.simulator.change_settings(client_id=STAGING, client_secrets=["another-secret"])
    elif fault == "429":
        apps.simulator.add_fault(429, client_id=STAGING, retry_after=300)
    else:
        apps.simulator.add_fault("slow", client_id=STAGING, seconds=30)
    before = apps.make_due()

    # 2. The other apps' are refreshed, twice, while it stays.
    apps.wait_until_refreshed(before, HEALTHY_APPS)
    until(lambda: apps.conditions()["staging"] == condition)
    apps.wait_until_refreshed(apps.make_due(), HEALTHY_APPS)
    apps.check_others()
    assert apps.conditions()["staging"] == condition
    assert apps.count_events("revoked", ["staging"]) == 0

    # 3. It ends, and the app recovers. The pause after a 429 is ended by an operator.
    apps.simulator.clear_faults()
    apps.simulator.change_settings(client_id=STAGING, client_secrets=[DEMO_CLIENT_SECRET])
    if fault == "429":
        assert apps.deployment.product.tokenkeeper("resume", "--app", "staging").returncode == 0
    until(lambda: apps.conditions()["staging"] == "ok", RECOVERY_SECONDS)
    apps.wait_until_refreshed(before, {"staging"})


def test_an_app_whose_sweeps_cannot_begin_stops_no_other(apps: AppsFixture) -> None:
    """Another program has locked the row of its state."""
    with closing(psycopg2.connect(apps.deployment.database_url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT FROM tokenkeeper.provider WHERE app = 'staging' FOR UPDATE")
        swept_at = apps.read_swept_at("staging")
        for _ in range(2):
            apps.wait_until_refreshed(apps.make_due(), HEALTHY_APPS)
        assert apps.read_swept_at("staging") == swept_at
    until(lambda: apps.read_swept_at("staging") > swept_at)
    apps.wait_until_refreshed(apps.make_due(), APPS)


def test_an_app_that_is_in_no_setting_any_more_is_kept_and_served_and_goes_on_when_it_is_back(
    apps: AppsFixture,
) -> None:
    # 1. Without it the others are refreshed.
    apps.restart_worker({name: keys for name, keys in APPS.items() if name != "staging"})
    before = apps.make_due()
    apps.wait_until_refreshed(before, HEALTHY_APPS)
    kept = {each: token for each, token in apps.tokens().items() if each[0] == "staging"}
    assert kept == {each: token for each, token in before.items() if each[0] == "staging"}
    assert len(kept) == len(HUBS)
    assert apps.count_events("suspected", ["staging"]) == 0
    # 2. With it again they all are.
    apps.restart_worker(APPS)
    apps.wait_until_refreshed(apps.make_due(), APPS)


def test_a_mass_revocation_of_one_app_turns_on_its_brake_alone_and_one_user_can_be_revoked(apps: AppsFixture) -> None:
    assert apps.simulator.uninstall(client_id=STAGING) == len(HUBS)
    assert apps.simulator.uninstall(SHARED_HUB, client_id=SEATS, user_id=USERS[0]) == 1
    before = apps.make_due()
    apps.wait_until_refreshed(before, {"default"})
    until(lambda: apps.count_events("suspected", ["staging"]) == len(HUBS))
    until(lambda: apps.count_events("revoked", ["seats"]) == 1)
    until(lambda: apps.count_events("revoked", ["staging"]) == MIN_REVOCATIONS)
    brakes = dict(apps.sql.rows("SELECT app, brake_since IS NOT NULL FROM tokenkeeper.provider"))
    assert {app: is_on for app, is_on in brakes.items() if is_on} == {"staging": True}
    users = dict(apps.sql.rows("SELECT user_id, status FROM hubspot.connections WHERE app = 'seats'"))
    assert users == {USERS[0]: "revoked", USERS[1]: "active"}
    assert apps.tokens()["seats", SHARED_HUB, USERS[1]] != before["seats", SHARED_HUB, USERS[1]]
