"""What only web can check of the settings, because only web has these secrets."""

import pytest
from structlog.testing import capture_logs

from shared.settings import Settings, SettingsError
from tests.support.environment import product_environment
from web.startup import check_link_settings, refuse_gunicorn_arguments, warn_of_scopes


def read(**changes):
    environment = product_environment("postgresql://u@db/keeper", "redis://cache", "http://127.0.0.1", **changes)
    settings = Settings.from_env(environment)
    check_link_settings(settings)
    return settings


@pytest.mark.parametrize(
    "needs_keys",
    [{"CONNECT_LINK_REQUIRED": "true"}, {"MARKETPLACE_SIGN_IN_URL": "https://app.example/sign-in"}],
)
def test_what_needs_connect_links_is_refused_without_a_key(needs_keys):
    with pytest.raises(SettingsError) as caught:
        read(**needs_keys)
    assert "CONNECT_LINK_KEYS is missing" in str(caught.value)
    assert next(iter(needs_keys)) in str(caught.value)
    read(**needs_keys, CONNECT_LINK_KEYS="k" * 32)


def test_without_links_no_key_is_needed():
    assert read(RETURN_TO_ORIGINS="https://app.example").connect_link_keys == ()


def test_arguments_of_gunicorn_in_the_environment_are_refused():
    """Where gunicorn.conf.py was not read, which takes them away."""
    with pytest.raises(SettingsError, match="give gunicorn its options on its command line"):
        refuse_gunicorn_arguments({"GUNICORN_CMD_ARGS": "--config=other.py"})
    refuse_gunicorn_arguments({})


def test_scopes_that_hubspot_refuses_are_logged_at_the_start():
    with capture_logs() as log:
        warn_of_scopes(read(HUBSPOT_SCOPES="tickets"))
    assert any("oauth is not among the scopes" in line["what"] for line in log)
