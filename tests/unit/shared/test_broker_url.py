"""What Celery is told of the broker: one Redis, or what Sentinels watch."""

from __future__ import annotations

import pytest

from shared.dispatch import SENTINEL_SECONDS, broker
from shared.settings import Settings, SettingsError

TWO = "sentinel://a:1;sentinel://:secret-word@b:2/5?master_name=ours"


def test_a_single_redis_is_left_as_it_is() -> None:
    url, options = broker("rediss://:secret@cache:6379/4?ssl_cert_reqs=required", {"socket_timeout": 1})
    assert url == "rediss://:secret@cache:6379/4?ssl_cert_reqs=required"
    assert options["socket_timeout"] == 1
    assert "sentinel_kwargs" not in options


def test_of_several_sentinels_each_is_told_what_one_says() -> None:
    url, options = broker(TWO, {})
    assert url == "sentinel://:secret-word@a:1/5;sentinel://:secret-word@b:2/5"
    assert options["master_name"] == "ours"


def test_a_sentinel_is_given_up_at_once_for_the_next() -> None:
    _, options = broker(TWO, {"socket_timeout": 10})
    asked = options["sentinel_kwargs"]
    assert asked["socket_timeout"] == asked["socket_connect_timeout"] == SENTINEL_SECONDS
    assert asked["retry"].get_retries() == 0


def test_without_a_name_it_is_the_usual_one() -> None:
    assert broker("sentinel://a:1/0", {})[1]["master_name"] == "mymaster"


@pytest.mark.parametrize("url", [TWO, "sentinel://a:1/0", "redis://a:1/0"])
def test_settings_take_it(url: str) -> None:
    assert Settings.from_env({"REDIS_URL": url}, needs=("REDIS_URL",)).redis_url == url


@pytest.mark.parametrize(
    "url", ["sentinel://a:1;", "sentinel://a:1;http://b:2", "redis://a:1;redis://b:2", "sentinel://a:1;sentinel://b:x"]
)
def test_settings_refuse_what_is_none(url: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        Settings.from_env({"REDIS_URL": url}, needs=("REDIS_URL",))


def test_the_password_is_a_secret_whichever_sentinel_brings_it() -> None:
    assert "secret-word" in Settings.from_env({"REDIS_URL": TWO}, needs=("REDIS_URL",)).list_secrets()
