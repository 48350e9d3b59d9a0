"""One message names every bad setting, what it should look like, and never its value."""

import contextlib

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from shared.database_url import parse_database_url
from shared.domain.identity import DEFAULT_APP
from shared.settings import REQUIRED, Settings, SettingsError

KEY = Fernet.generate_key().decode()
GOOD = {
    "DATABASE_URL": "postgresql://keeper:pg-password@db/keeper",
    "REDIS_URL": "redis://:redis-password@cache:6379/0",
    "HUBSPOT_CLIENT_ID": "client-id",
    "HUBSPOT_CLIENT_SECRET": "client-secret",
    "HUBSPOT_REDIRECT_URI": "https://example.test/oauth/callback",
    "HUBSPOT_SCOPES": "oauth crm.objects.contacts.read",
    "TOKEN_KEYS": KEY,
    "SECRET_KEY": "a-long-enough-secret-key",
    "OPERATOR_PASSWORD": "operator-password",
}


def read(**changes):
    return Settings.from_env({**GOOD, **changes})


def read_error(**changes):
    with pytest.raises(SettingsError) as caught:
        read(**changes)
    return str(caught.value)


def test_the_defaults_are_those_of_the_contract():
    settings = read()
    assert (settings.refresh_from, settings.refresh_until, settings.sweep_seconds) == (0.6, 0.75, 2)
    assert (settings.http_timeout_seconds, settings.lease_seconds, settings.refresh_concurrency) == (20, 60, 400)
    assert settings.apps[DEFAULT_APP].max_refreshes_per_second == 0
    assert (settings.hubspot_api_url, settings.hubspot_app_url) == ("https://api.hubapi.com", "https://app.hubspot.com")
    assert settings.apps[DEFAULT_APP].api_version == "2026-09"
    assert (settings.log_format, settings.log_level) == ("text", "info")


def test_every_missing_setting_is_named_in_one_message():
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({})
    assert all(f"{name} is missing" in str(caught.value) for name in REQUIRED)


BAD = {
    "DATABASE_URL": "mysql://u:hidden-value@h/db",
    "REDIS_URL": "http://hidden-value",
    "HUBSPOT_CLIENT_ID": "hidden value",
    "HUBSPOT_CLIENT_SECRET": "hidden value",
    "HUBSPOT_REDIRECT_URI": "http://hidden-value/oauth/callback",
    "HUBSPOT_API_URL": "hidden-value",
    "HUBSPOT_APP_URL": "ftp://hidden-value",
    "HUBSPOT_API_VERSION": "v1",
    "TOKEN_KEYS": "hidden-value",
    "SECRET_KEY": "hidden-value",
    "OPERATOR_PASSWORD": "hidden",
    "REFRESH_FROM": "hidden-value",
    "REFRESH_UNTIL": "1.5",
    "SWEEP_SECONDS": "0",
    "HTTP_TIMEOUT_SECONDS": "nan",
    "LEASE_SECONDS": "inf",
    "JOURNAL_SECONDS": "-1",
    "REFRESH_CONCURRENCY": "0.5",
    "MAX_REFRESHES_PER_SECOND": "-1",
    "ALERT_WEBHOOK_URL": "hidden-value",
    "CONNECT_LINK_KEYS": "hidden-value-that-is-too-short",
    "CONNECT_LINK_REQUIRED": "hidden-value",
    "RETURN_TO_ORIGINS": "http://hidden-value",
    "MARKETPLACE_SIGN_IN_URL": "https://app.example/#hidden-value",
    "MARKETPLACE_RETURN_HOSTS": "https://hidden-value",
    "LOG_FORMAT": "hidden-value",
    "LOG_LEVEL": "hidden-value",
}


HOSTILE = [
    ("SECRET_KEY", "\udcff" * 20),
    ("OPERATOR_PASSWORD", "hidden-\udcff-value"),
    ("SWEEP_SECONDS", "1e300"),
    ("HTTP_TIMEOUT_SECONDS", "1e12"),
    ("LEASE_SECONDS", "86401"),
    ("TRUSTED_PROXIES", "-1"),
    ("TRUSTED_PROXIES", "\u0661"),
    ("REFRESH_CONCURRENCY", "9" * 5000),
    ("REFRESH_CONCURRENCY", "1_0"),
    ("DATABASE_URL", "postgresql://u:hidden%00@db/keeper"),
    ("REDIS_URL", "redis://:hidden%00@cache/0"),
    ("HUBSPOT_CLIENT_SECRET", " , "),
    ("HUBSPOT_REDIRECT_URI", "https://hidden.example/oauth/callback?account=1"),
    ("REDIS_URL", "redis://:hidden@cache/zero"),
    ("HUBSPOT_REDIRECT_URI", "https://hidden.example\r\nSet-Cookie: a=b/oauth/callback"),
    ("HUBSPOT_APP_URL", "https://[::1"),
    ("ALERT_WEBHOOK_URL", "http://169.254.169.254/hidden"),
    ("ALERT_WEBHOOK_URL", "http://[fe80::1]/hidden"),
    ("ALERT_WEBHOOK_URL", "http://[::ffff:169.254.169.254]/hidden"),
    ("ALERT_WEBHOOK_URL", "file:///hidden"),
    ("HUBSPOT_API_URL", "gopher://hidden"),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE)
def test_a_value_that_would_fail_later_is_refused_at_the_start(name, value):
    message = read_error(**{name: value})
    assert message.startswith(f"bad settings: {name} is malformed")
    assert "hidden" not in message
    assert "\n" not in message


def test_a_setting_file_is_read_up_to_a_size_limit():
    message = read_error(TOKEN_KEYS="", TOKEN_KEYS_FILE="/dev/zero")
    assert message == "bad settings: TOKEN_KEYS_FILE cannot be read (FileTooLarge: a file that holds TOKEN_KEYS)"


@pytest.mark.parametrize("value", ["http://10.0.0.1/x", "http://127.0.0.1:9/x", "https://alerts.internal/x"])
def test_alerts_may_go_to_an_internal_host(value):
    assert read(ALERT_WEBHOOK_URL=value).alert_webhook_url == value


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_setting_is_named_and_its_value_is_not_shown(name):
    message = read_error(**{name: BAD[name]})
    assert f"{name} is malformed" in message
    assert "hidden" not in message


def test_all_malformed_settings_are_named_at_once():
    message = read_error(**BAD)
    assert all(f"{name} is malformed" in message for name in BAD)
    assert "\n" not in message


def test_v1_is_refused_with_the_reason():
    assert "2027-02-16" in read_error(HUBSPOT_API_VERSION="v1")


def test_a_lease_shorter_than_two_calls_is_refused():
    assert "LEASE_SECONDS is too short" in read_error(HTTP_TIMEOUT_SECONDS="30", LEASE_SECONDS="64")
    assert read(HTTP_TIMEOUT_SECONDS="30", LEASE_SECONDS="65").lease_seconds == 65


def test_events_without_a_secret_to_sign_them_are_refused():
    assert "EVENTS_WEBHOOK_SECRET is missing" in read_error(EVENTS_WEBHOOK_URL="https://app.example/events")


def test_refresh_from_above_refresh_until_is_refused():
    assert "REFRESH_FROM is above REFRESH_UNTIL" in read_error(REFRESH_FROM="0.8")


def test_hubspot_takes_plain_http_on_localhost_alone_and_a_simulator_on_any_loopback_address():
    assert read(HUBSPOT_REDIRECT_URI="http://localhost:5000/oauth/callback")
    for host in ("127.0.0.1", "[::1]"):
        uri = f"http://{host}:5000/oauth/callback"
        assert "HUBSPOT_REDIRECT_URI is refused by HubSpot" in read_error(HUBSPOT_REDIRECT_URI=uri)
        assert read(HUBSPOT_REDIRECT_URI=uri, HUBSPOT_APP_URL="http://127.0.0.1:8090")


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("HTTPS://Connect.Example/oauth/callback", "https://connect.example/oauth/callback"),
        ("https://connect.example:8443/oauth/callback", "https://connect.example:8443/oauth/callback"),
        ("https://connect.example/oauth/callback/", "https://connect.example/oauth/callback/"),
        ("https://connect.example/a/b-c_d.e~f/oauth/callback", "https://connect.example/a/b-c_d.e~f/oauth/callback"),
        ("https://[2001:db8::1]/oauth/callback", "https://[2001:db8::1]/oauth/callback"),
        ("http://[::1]:5000/oauth/callback", "http://[::1]:5000/oauth/callback"),
    ],
)
def test_each_accepted_form_of_the_redirect_uri_is_brought_into_the_form_that_browsers_send(text, uri):
    settings = read(HUBSPOT_REDIRECT_URI=text, HUBSPOT_APP_URL="http://localhost:8090")
    assert settings.apps[DEFAULT_APP].redirect_uri == uri


@pytest.mark.parametrize(
    "text",
    [
        "https://connect.example",
        "https://connect.example/callback",
        "https://connect.example/oauth/callbacks",
        "https://connect.example//oauth/callback",
        "https://connect.example/oauth/callback//",
        "https://connect.example/a/../oauth/callback",
        "https://connect.example/a%20b/oauth/callback",
        "https://connect.example/install/oauth/callback",
        "https://connect.example/connections/x/oauth/callback",
        "https://connect.example/oauth/callback?",
        "https://connect.example/oauth/callback#",
        "https://connect.example:/oauth/callback",
        "https://connect.example:x/oauth/callback",
        "https://user@connect.example/oauth/callback",
        "https://bücher.example/oauth/callback",
        "http://connect.example/oauth/callback",
        "ftp://localhost/oauth/callback",
        "connect.example/oauth/callback",
    ],
)
def test_every_other_form_of_the_redirect_uri_is_refused_with_the_form_to_use(text):
    message = read_error(HUBSPOT_REDIRECT_URI=text)
    assert "HUBSPOT_REDIRECT_URI is malformed" in message
    assert "(https://your.host/oauth/callback; http only for localhost)" in message


@pytest.mark.parametrize("name", ["HUBSPOT_API_URL", "HUBSPOT_APP_URL"])
def test_hubspot_is_called_without_tls_on_private_hosts_only(name):
    assert read(**{name: "http://simulator:8090"})
    assert read(**{name: "http://127.0.0.1:8090"})
    assert read(**{name: "https://api.hubapi.com"})
    assert "http is for this machine and private networks only" in read_error(**{name: "http://api.hubapi.com"})


def test_a_setting_may_come_from_a_file(tmp_path):
    file = tmp_path / "secret"
    file.write_text("from-a-file\n")
    settings = read(HUBSPOT_CLIENT_SECRET="", HUBSPOT_CLIENT_SECRET_FILE=str(file))
    assert settings.apps[DEFAULT_APP].client_secrets == ("from-a-file",)


def test_a_variable_overrides_its_file(tmp_path):
    app = read(HUBSPOT_CLIENT_SECRET_FILE=str(tmp_path / "missing")).apps[DEFAULT_APP]
    assert app.client_secrets == ("client-secret",)


def test_a_missing_setting_file_is_named(tmp_path):
    message = read_error(TOKEN_KEYS="", TOKEN_KEYS_FILE=str(tmp_path / "missing"))
    assert "TOKEN_KEYS_FILE cannot be read (FileNotFoundError" in message
    assert "TOKEN_KEYS is missing" not in message


def test_client_secrets_and_token_keys_keep_their_order():
    settings = read(HUBSPOT_CLIENT_SECRET="new, old", TOKEN_KEYS=f"{KEY}, {KEY}")
    assert settings.apps[DEFAULT_APP].client_secrets == ("new", "old")
    assert settings.token_keys == (KEY, KEY)


def test_a_setting_that_is_not_needed_may_be_missing_but_not_malformed():
    settings = Settings.from_env({"REDIS_URL": "redis://h"}, needs=("REDIS_URL",))
    assert settings.token_keys == ()
    with pytest.raises(SettingsError, match="SWEEP_SECONDS is malformed"):
        Settings.from_env({"REDIS_URL": "redis://h", "SWEEP_SECONDS": "soon"}, needs=("REDIS_URL",))


def test_no_secret_is_in_the_repr_and_every_secret_is_listed_for_the_log():
    settings = read()
    secrets = ("client-secret", KEY, GOOD["SECRET_KEY"], GOOD["OPERATOR_PASSWORD"], "pg-password", "redis-password")
    assert not any(secret in repr(settings) for secret in secrets)
    assert set(settings.list_secrets()) == set(secrets)


@given(st.dictionaries(st.sampled_from(sorted(GOOD | BAD)), st.text(st.characters(codec="utf-8"), max_size=40)))
def test_any_environment_gives_settings_or_a_settings_error(environ):
    with contextlib.suppress(SettingsError):
        Settings.from_env(environ)


@pytest.mark.parametrize("name", ["HUBSPOT_SCOPES", "HUBSPOT_OPTIONAL_SCOPES"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("oauth,crm.objects.contacts.read", "separate scopes by spaces, not by commas"),
        ("oauth, tickets", "separate scopes by spaces, not by commas"),
        ("oauth%20tickets", "a space for %20 or +"),
        ("oauth+tickets", "a space for %20 or +"),
        ("['oauth']", "a scope has letters, digits, and . _ - alone"),
    ],
)
def test_scopes_that_hubspot_would_not_know_are_refused_with_the_right_form(name, value, reason):
    assert f"{name} is malformed: " in read_error(**{name: value})
    assert f"{reason} (scopes separated by spaces)" in read_error(**{name: value})


def test_scopes_of_every_form_that_hubspot_documents_are_taken():
    scopes = "oauth e-commerce crm.objects.marketing_events.read settings.users.teams.read"
    assert read(HUBSPOT_SCOPES=f"  {scopes.replace(' ', '   ')}\r\n").apps[DEFAULT_APP].scopes == tuple(scopes.split())


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("name", [*GOOD, "LOG_LEVEL", "SWEEP_SECONDS"])
def test_a_value_that_is_still_in_quotes_is_refused(name, quote):
    value = GOOD.get(name, "1")
    message = read_error(**{name: f"{quote}{value}{quote}"})
    assert message.startswith(f"bad settings: {name} is malformed: remove the quotes around it (")
    assert value not in message.replace("scopes separated", "")


@pytest.mark.parametrize("value", ["pässwort-1", "пароль-123", "pass\x07word", "pass\u200bword"])
def test_an_operators_password_that_flower_or_a_browser_cannot_send_is_refused(value):
    message = read_error(OPERATOR_PASSWORD=value)
    assert "OPERATOR_PASSWORD is malformed: it has characters other than ASCII letters" in message
    assert value not in message


def test_a_password_may_have_spaces_signs_and_quotes_inside():
    assert read(OPERATOR_PASSWORD="a 'b', \"c\": d%").operator_password == "a 'b', \"c\": d%"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", " \r\n\r\n"])
def test_a_files_byte_order_mark_and_line_ends_are_no_part_of_the_value(tmp_path, ending):
    file = tmp_path / "secret"
    file.write_bytes(b"\xef\xbb\xbf" + KEY.encode() + ending.encode())
    assert read(TOKEN_KEYS="", TOKEN_KEYS_FILE=str(file)).token_keys == (KEY,)


def test_a_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "secret").write_text(KEY, encoding="utf-16")
    assert "TOKEN_KEYS_FILE cannot be read (UnicodeDecodeError" in read_error(
        TOKEN_KEYS="", TOKEN_KEYS_FILE=str(tmp_path / "secret")
    )


@pytest.mark.parametrize("value", ["proxy:3128", "socks5://proxy:1080", "http://proxy:3128/path", "http://"])
def test_a_proxy_that_cannot_be_used_is_refused(value):
    assert "HUBSPOT_PROXY is malformed" in read_error(HUBSPOT_PROXY=value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("postgresql://u:p@h/db?pgbouncer=true", "remove the parameter pgbouncer, which PostgreSQL's own clients"),
        ("postgresql://u:p@h/db?sslmode=require&schema=public", "remove the parameter schema"),
        ("postgresql://u:p@h/db?connection_limit=5", "remove the parameter connection_limit"),
        ("postgresql://u:p@ss@h/db", "write %40 for an @ in the password"),
        ("postgresql://u:p/ss@h/db", "percent-encode what is not a letter or digit"),
        ("postgresql://u:p@h/my db", "write %20 for a space"),
        ("postgresql://u:p@h/db?options=-csearch_path=public", "write %3D for an = in the value of a parameter"),
        ("postgresql://u:p@h:port/db", "check the port"),
        ("postgresql://u:p@/db?host=h1:5432&host=h2:5432", "host1:5432,host2:5432"),
        ("mysql://u:p@h/db", "it begins with postgresql://"),
        ("host=h dbname=db", "it begins with postgresql://"),
        ("postgresql+asyncpg://u:p@h/db", "it begins with postgresql://"),
        ("postgresql://", "it begins with postgresql://"),
    ],
)
def test_a_database_url_that_libpq_does_not_take_is_refused_with_the_right_form(value, reason):
    message = read_error(DATABASE_URL=value)
    assert "DATABASE_URL is malformed: " in message
    assert reason in message
    assert ":p@" not in message


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ("postgres://u:p@h/db", {"host": "h"}),
        ("postgresql+psycopg2://u:p%40%2F@h/db", {"password": "p@/"}),
        (
            "postgresql://u:p@h1:5432,h2:5433/db?target_session_attrs=read-write",
            {"host": "h1,h2", "port": "5432,5433", "target_session_attrs": "read-write"},
        ),
        ("postgresql://u:p@%2Frun%2Fpostgresql/db", {"host": "/run/postgresql"}),
        ("postgresql:///db?host=/run/postgresql&user=u", {"host": "/run/postgresql", "user": "u"}),
        ("postgresql://u:p@[::1]:5432/db", {"host": "::1"}),
        ("postgresql://u:p@h/db?ssl=true", {"sslmode": "require"}),
        ("postgresql://u:p@h/db?options=-csearch_path%3Dpublic", {"options": "-csearch_path=public"}),
    ],
)
def test_a_database_url_of_every_form_that_libpq_takes_is_accepted(value, parameters):
    assert read(DATABASE_URL=value).database_url == value
    assert parameters.items() <= parse_database_url(value).items()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("rediss://:hidden@h/0?ssl_cert_reqs=nonsense", "ssl_cert_reqs is required, optional or none"),
        ("rediss://:hidden@h/0?ssl_check_hostname=maybe", "ssl_check_hostname is true or false"),
        ("redis://:hidden@h/0?foo=bar", "remove the parameter foo, which has no effect for redis://"),
        ("redis://:hidden@h/0?credential_provider=os.system", "remove the parameter credential_provider"),
        ("redis://:hidden@h/zero", "a database of Redis is a number"),
        ("redis://:hidden@h1/0;redis://h2/0", "only several Sentinels"),
        ("redis://:hidden@h1:6379,h2:6379/0", "name one server, or several Sentinels"),
        ("redis://:hidden#hidden@h:6379/0", "percent-encode what is not a letter or digit in the password"),
        ("redis://:hidden/hidden@h:6379/0", "percent-encode what is not a letter or digit in the password"),
        ("amqp://:hidden@h/", "it begins with redis://, rediss://, sentinel:// or unix://"),
    ],
)
def test_a_broker_url_that_cannot_work_is_refused_with_the_right_form(value, reason):
    message = read_error(REDIS_URL=value)
    assert f"REDIS_URL is malformed: {reason}" in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    "value",
    [
        "rediss://h:6380/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required",
        "unix:///run/redis.sock?db=1",
        "redis+socket://:p@/run/redis.sock?virtual_host=1",
        "sentinel://a:26379/0?master_name=m;sentinel://b:26379",
        "redis://h?db=4",
    ],
)
def test_a_broker_url_of_every_form_that_celery_takes_is_accepted(value):
    assert read(REDIS_URL=value).redis_url == value


def test_the_settings_of_connect_links_and_the_marketplace():
    settings = read(
        CONNECT_LINK_KEYS=f"{'n' * 32}, {'o' * 32}",
        CONNECT_LINK_REQUIRED="True",
        RETURN_TO_ORIGINS="https://App.example:443/ http://localhost:3000 https://app.example",
        MARKETPLACE_SIGN_IN_URL="https://app.example/sign-in?from=hubspot",
        MARKETPLACE_RETURN_HOSTS="app.hubspot.com app-*.hubspot.com",
    )
    assert settings.connect_link_keys == ("n" * 32, "o" * 32)
    assert settings.connect_link_required is True
    assert settings.return_to_origins == ("https://app.example", "http://localhost:3000")
    assert settings.apps[DEFAULT_APP].marketplace_sign_in_url == "https://app.example/sign-in?from=hubspot"
    assert settings.marketplace_return_hosts == read().marketplace_return_hosts
    assert "n" * 32 in settings.list_secrets()
    assert "n" * 32 not in repr(settings)


def test_a_short_key_of_connect_links_is_refused_with_the_reason():
    assert "32 bytes or more" in read_error(CONNECT_LINK_KEYS=f"{'n' * 32},{'o' * 31}")
