"""The settings of a run: from the environment, from .env, and generated."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from deploy.init_secrets import IncompleteApp
from sandbox.run_config import (
    InvalidPort,
    Ports,
    choose_ports,
    load_secrets,
    make_run_config,
    merge_settings,
    needs_simulator,
)
from shared.domain.identity import DEFAULT_APP
from shared.settings import Settings

URLS = {"DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d", "REDIS_URL": "redis://127.0.0.1:1/0"}
APP = {"HUBSPOT_CLIENT_ID": "app", "HUBSPOT_CLIENT_SECRET": "its-secret", "HUBSPOT_SCOPES": "oauth"}


def test_the_environment_wins_over_dotenv() -> None:
    assert merge_settings({"A": "1", "B": " "}, {"A": "2", "B": "2", "C": "3"}) == {"A": "1", "C": "3"}


def test_a_setting_of_the_environment_wins_over_a_file_that_dotenv_names() -> None:
    assert merge_settings({"SECRET_KEY": "here"}, {"SECRET_KEY_FILE": "/there"}) == {"SECRET_KEY": "here"}


def test_a_simulator_is_needed_where_no_app_is_configured() -> None:
    assert needs_simulator({})
    assert not needs_simulator(APP)
    assert not needs_simulator({f"{name}_FILE": "/somewhere" for name in APP})


def test_an_incomplete_app_is_refused_by_the_names_that_are_missing() -> None:
    with pytest.raises(IncompleteApp, match="HUBSPOT_CLIENT_SECRET") as caught:
        needs_simulator({"HUBSPOT_CLIENT_ID": "an-id", "HUBSPOT_SCOPES": "oauth"})

    assert "an-id" not in str(caught.value)


def test_generated_settings_are_complete(tmp_path: Path) -> None:
    config = make_run_config({}, Ports(5001, 5556, 8091), load_secrets(tmp_path, {}), URLS)

    settings = Settings.from_env(config.settings)

    assert settings.apps[DEFAULT_APP].redirect_uri == "http://localhost:5001/oauth/callback"
    assert settings.hubspot_api_url == "http://127.0.0.1:8091"
    assert config.is_simulated


def test_with_an_app_requests_go_to_hubspot_itself(tmp_path: Path) -> None:
    config = make_run_config(APP, Ports(5000, 5555, None), load_secrets(tmp_path, APP), URLS)

    settings = Settings.from_env({**APP, **config.settings})

    assert settings.hubspot_api_url == "https://api.hubapi.com"
    assert settings.apps[DEFAULT_APP].client_id == "app"
    assert not config.is_simulated


def test_with_a_file_of_apps_there_is_no_simulator_and_no_redirect_url_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"HUBSPOT_APPS_FILE": "apps.toml"}

    config = make_run_config(given, Ports(5000, 5555, None), load_secrets(tmp_path, given), URLS)

    assert not needs_simulator(given)
    assert config.settings["HUBSPOT_APPS_FILE"] == str(tmp_path / "apps.toml"), "also for a shell in another folder"
    assert "HUBSPOT_REDIRECT_URI" not in config.settings


def test_secrets_are_stored_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    first = load_secrets(tmp_path / "secrets", {})

    assert load_secrets(tmp_path / "secrets", {}) == first
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o600}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_a_given_password_wins_and_the_stored_one_stays(tmp_path: Path) -> None:
    first = load_secrets(tmp_path, {})

    assert load_secrets(tmp_path, {"OPERATOR_PASSWORD": "chosen-by-me"})["OPERATOR_PASSWORD"] == "chosen-by-me"
    assert load_secrets(tmp_path, {}) == first


def test_every_token_key_that_was_ever_used_stays(tmp_path: Path) -> None:
    generated = load_secrets(tmp_path, {})["TOKEN_KEYS"]
    newer = Fernet.generate_key().decode()

    assert load_secrets(tmp_path, {"TOKEN_KEYS": newer})["TOKEN_KEYS"] == f"{newer},{generated}"
    assert load_secrets(tmp_path, {})["TOKEN_KEYS"] == f"{newer},{generated}"


def test_a_setting_that_comes_from_a_file_is_not_generated(tmp_path: Path) -> None:
    given = {"OPERATOR_PASSWORD_FILE": "/run/secrets/password"}

    assert (
        "OPERATOR_PASSWORD" not in make_run_config(given, Ports(1, 2, 3), load_secrets(tmp_path, given), URLS).settings
    )


def test_a_port_in_use_is_replaced_by_the_next_free_one_with_a_message() -> None:
    messages: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        chosen = choose_ports({"WEB_PORT": str(port)}, messages.append, is_simulated=True)

    assert chosen.web > port
    assert messages[0].startswith(f"port {port} is taken: {chosen.web} instead")


def test_web_flower_and_simulator_get_different_ports() -> None:
    given = {"WEB_PORT": "15700", "FLOWER_PORT": "15700", "SIMULATOR_PORT": "15700"}

    ports = choose_ports(given, lambda _: None, is_simulated=True)

    assert len({ports.web, ports.flower, ports.simulator}) == 3


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "5e3"])
def test_a_malformed_port_is_refused_by_its_setting(port: str) -> None:
    with pytest.raises(InvalidPort, match="WEB_PORT"):
        choose_ports({"WEB_PORT": port}, lambda _: None, is_simulated=False)
