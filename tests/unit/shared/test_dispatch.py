"""The broker's URL and options that Celery gets: for one Redis, or for what Sentinels monitor."""

from __future__ import annotations

import pytest

from shared.dispatch import SENTINEL_TIMEOUT_SECONDS, build_broker_config
from shared.settings import Settings, SettingsError

TWO_SENTINELS = "sentinel://a:1;sentinel://:secret-word@b:2/5?master_name=ours"


def test_the_url_of_a_single_redis_is_not_changed() -> None:
    url, options = build_broker_config("redis://:secret@cache:6379/4", {"socket_timeout": 1})
    assert url == "redis://:secret@cache:6379/4"
    assert options["socket_timeout"] == 1
    assert "sentinel_kwargs" not in options


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ("rediss://cache/0", "rediss://cache/0?ssl_cert_reqs=required&ssl_check_hostname=true"),
        ("rediss://cache/0?ssl_cert_reqs=none", "rediss://cache/0?ssl_cert_reqs=none&ssl_check_hostname=false"),
        (
            "rediss://cache/0?ssl_cert_reqs=CERT_NONE",
            "rediss://cache/0?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=false",
        ),
        (
            "sentinel://a/0?ssl_ca_certs=/ca",
            "sentinel://a/0?ssl_ca_certs=%2Fca&ssl_cert_reqs=required&ssl_check_hostname=true",
        ),
        ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?virtual_host=2"),
        ("redis+socket://:p@/run/redis.sock", "redis+socket://:p@/run/redis.sock?virtual_host=0"),
        ("redis://cache?db=3", "redis://cache/3"),
    ],
)
def test_tls_verifies_certificates_and_every_spelling_becomes_kombus_own(given: str, completed: str) -> None:
    assert build_broker_config(given, {})[0] == completed


def test_every_sentinel_gets_the_login_and_database_that_one_url_has() -> None:
    url, options = build_broker_config(TWO_SENTINELS, {})
    assert url == "sentinel://:secret-word@a:1/5;sentinel://:secret-word@b:2/5"
    assert options["master_name"] == "ours"


def test_a_sentinel_that_does_not_answer_is_not_asked_again_before_the_next() -> None:
    _, options = build_broker_config(TWO_SENTINELS, {"socket_timeout": 10})
    sentinel_options = options["sentinel_kwargs"]
    assert sentinel_options["socket_timeout"] == SENTINEL_TIMEOUT_SECONDS
    assert sentinel_options["socket_connect_timeout"] == SENTINEL_TIMEOUT_SECONDS
    assert sentinel_options["retry"].get_retries() == 0


def test_without_a_master_name_the_usual_one_is_used() -> None:
    assert build_broker_config("sentinel://a:1/0", {})[1]["master_name"] == "mymaster"


@pytest.mark.parametrize("url", [TWO_SENTINELS, "sentinel://a:1/0", "redis://a:1/0"])
def test_settings_accept_a_redis_or_sentinels(url: str) -> None:
    assert Settings.from_env({"REDIS_URL": url}, needs=("REDIS_URL",)).redis_url == url


@pytest.mark.parametrize(
    "url", ["sentinel://a:1;", "sentinel://a:1;http://b:2", "redis://a:1;redis://b:2", "sentinel://a:1;sentinel://b:x"]
)
def test_settings_refuse_a_malformed_list_of_sentinels(url: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        Settings.from_env({"REDIS_URL": url}, needs=("REDIS_URL",))


def test_the_password_in_any_sentinel_url_is_a_secret() -> None:
    assert "secret-word" in Settings.from_env({"REDIS_URL": TWO_SENTINELS}, needs=("REDIS_URL",)).list_secrets()
