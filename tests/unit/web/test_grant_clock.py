"""A grant is dated by PostgreSQL's clock, whatever the host's clock says."""

from datetime import UTC, datetime, timedelta

from shared.db.core.errors import StoreUnavailable
from web.oauth.grant_clock import GrantClock

DATABASE_TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOST_TIME = DATABASE_TIME + timedelta(minutes=4)


class Database:
    is_down = False

    def read_time(self):
        if self.is_down:
            raise StoreUnavailable("PostgreSQL does not answer: connection refused")
        return DATABASE_TIME


def test_the_hosts_clock_counts_only_until_postgres_has_answered_once():
    database = Database()
    clock = GrantClock(database.read_time, lambda: HOST_TIME)
    database.is_down = True
    assert clock.now() == (HOST_TIME, True)
    database.is_down = False
    first, is_first_host_time = clock.now()
    database.is_down = True
    second, is_second_host_time = clock.now()
    assert DATABASE_TIME <= first <= second < HOST_TIME
    assert not is_first_host_time
    assert not is_second_host_time
