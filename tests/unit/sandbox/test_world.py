"""Which settings a run gets: from the environment, from .env, and made by ourselves."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from deploy.init_secrets import Refused
from sandbox.world import BadPort, Ports, choose_ports, given, is_simulated, kept_secrets, make
from shared.settings import Settings

URLS = {"DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d", "REDIS_URL": "redis://127.0.0.1:1/0"}
APP = {"HUBSPOT_CLIENT_ID": "app", "HUBSPOT_CLIENT_SECRET": "its-secret", "HUBSPOT_SCOPES": "oauth"}


def test_the_environment_wins_over_dotenv() -> None:
    assert given({"A": "1", "B": " "}, {"A": "2", "B": "2", "C": "3"}) == {"A": "1", "C": "3"}


def test_a_file_named_in_dotenv_does_not_stand_against_the_environment() -> None:
    assert given({"SECRET_KEY": "here"}, {"SECRET_KEY_FILE": "/there"}) == {"SECRET_KEY": "here"}


def test_without_an_app_there_is_a_simulator() -> None:
    assert is_simulated({})
    assert not is_simulated(APP)
    assert not is_simulated({f"{name}_FILE": "/somewhere" for name in APP})


def test_half_an_app_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="HUBSPOT_CLIENT_SECRET") as caught:
        is_simulated({"HUBSPOT_CLIENT_ID": "an-id", "HUBSPOT_SCOPES": "oauth"})

    assert "an-id" not in str(caught.value)


def test_what_is_made_makes_complete_settings(tmp_path: Path) -> None:
    world = make({}, Ports(5001, 5556, 8091), kept_secrets(tmp_path, {}), URLS)

    settings = Settings.from_env(world.settings)

    assert settings.hubspot_redirect_uri == "http://localhost:5001/oauth/callback"
    assert settings.hubspot_api_url == "http://127.0.0.1:8091"
    assert world.simulated


def test_with_an_app_hubspot_itself_is_asked(tmp_path: Path) -> None:
    world = make(APP, Ports(5000, 5555, None), kept_secrets(tmp_path, APP), URLS)

    settings = Settings.from_env({**APP, **world.settings})

    assert settings.hubspot_api_url == "https://api.hubapi.com"
    assert settings.hubspot_client_id == "app"
    assert not world.simulated


def test_secrets_are_kept_and_ours_alone_to_read(tmp_path: Path) -> None:
    first = kept_secrets(tmp_path / "secrets", {})

    assert kept_secrets(tmp_path / "secrets", {}) == first
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o600}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_a_password_that_is_given_wins_and_the_kept_one_stays(tmp_path: Path) -> None:
    first = kept_secrets(tmp_path, {})

    assert kept_secrets(tmp_path, {"OPERATOR_PASSWORD": "chosen-by-me"})["OPERATOR_PASSWORD"] == "chosen-by-me"
    assert kept_secrets(tmp_path, {}) == first


def test_no_key_to_the_data_is_ever_lost(tmp_path: Path) -> None:
    made = kept_secrets(tmp_path, {})["TOKEN_KEYS"]
    newer = Fernet.generate_key().decode()

    assert kept_secrets(tmp_path, {"TOKEN_KEYS": newer})["TOKEN_KEYS"] == f"{newer},{made}"
    assert kept_secrets(tmp_path, {})["TOKEN_KEYS"] == f"{newer},{made}"


def test_a_setting_from_a_file_is_left_to_that_file(tmp_path: Path) -> None:
    asked = {"OPERATOR_PASSWORD_FILE": "/run/secrets/password"}

    assert "OPERATOR_PASSWORD" not in make(asked, Ports(1, 2, 3), kept_secrets(tmp_path, asked), URLS).settings


def test_a_taken_port_gives_the_next_free_one_and_says_so() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        chosen = choose_ports({"WEB_PORT": str(port)}, said.append, simulated=True)

    assert chosen.web > port
    assert said[0].startswith(f"port {port} is taken: {chosen.web} instead")


def test_no_two_of_ours_get_the_same_port() -> None:
    wish = {"WEB_PORT": "15700", "FLOWER_PORT": "15700", "SIMULATOR_PORT": "15700"}

    ports = choose_ports(wish, lambda _: None, simulated=True)

    assert len({ports.web, ports.flower, ports.simulator}) == 3


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "5e3"])
def test_a_malformed_port_is_refused_by_name(port: str) -> None:
    with pytest.raises(BadPort, match="WEB_PORT"):
        choose_ports({"WEB_PORT": port}, lambda _: None, simulated=False)
