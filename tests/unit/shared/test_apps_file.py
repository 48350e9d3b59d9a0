"""HUBSPOT_APPS_FILE: several apps from one TOML file, and one message with every error of it, without its values."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import Settings, SettingsError
from shared.settings.apps_file import KEYS
from shared.settings.hubspot_app import HubSpotApp

NEEDS = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET", "HUBSPOT_REDIRECT_URI", "HUBSPOT_SCOPES")
ACME = """\
[acme]
client_id = "acme-id"
client_secret = "acme-secret"
redirect_uri = "https://acme.example/oauth/callback"
scopes = "oauth crm.objects.contacts.read"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "apps.toml"


def read(file: Path, text: str, **environ: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return Settings.from_env({"HUBSPOT_APPS_FILE": str(file), **environ}, needs=NEEDS)


def read_error(file: Path, text: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(file, text, **environ)
    message = str(caught.value)
    assert "hidden" not in message
    assert "\n" not in message
    return message


def test_a_file_describes_each_app_by_all_its_keys(file: Path) -> None:
    (file.parent / "secrets").mkdir()
    (file.parent / "secrets" / "users").write_text("new,old\n")
    apps = read(
        file,
        ACME
        + """
[for_users]
client_id = "users-id"
client_secret_file = "secrets/users"
redirect_uri = "https://users.example/oauth/callback"
scopes = ["oauth", "tickets"]
optional_scopes = ["files", "forms"]
conditional_scopes = "content  hubdb"
user_level = true
api_version = "2026-03"
max_refreshes_per_second = 12.5
marketplace_sign_in_url = "https://product.example/sign-in?from=hubspot"
""",
        MAX_REFRESHES_PER_SECOND="3",
    ).apps
    assert list(apps) == ["acme", "for_users"]
    assert apps["acme"] == HubSpotApp(
        "acme",
        client_id="acme-id",
        client_secrets=("acme-secret",),
        redirect_uri="https://acme.example/oauth/callback",
        scopes=("oauth", "crm.objects.contacts.read"),
        max_refreshes_per_second=3.0,
    ), "a variable counts where the table has no such key"
    assert apps["for_users"] == HubSpotApp(
        "for_users",
        client_id="users-id",
        client_secrets=("new", "old"),
        redirect_uri="https://users.example/oauth/callback",
        scopes=("oauth", "tickets"),
        optional_scopes=("files", "forms"),
        conditional_scopes=("content", "hubdb"),
        is_user_level=True,
        api_version="2026-03",
        max_refreshes_per_second=12.5,
        marketplace_sign_in_url="https://product.example/sign-in?from=hubspot",
    )


def test_every_secret_of_the_file_is_redacted_in_logs_and_hidden_in_the_repr(file: Path) -> None:
    second = ACME.replace("acme", "other").replace('"other-secret"', '["other-new", "other-old"]')
    found = read(file, ACME + second)
    assert {"acme-secret", "other-new", "other-old"} <= set(found.list_secrets())
    assert "acme-secret" not in repr(found)


def test_variables_of_one_app_are_an_app_named_default() -> None:
    environ = {"HUBSPOT_CLIENT_ID": "an-id", "HUBSPOT_CONDITIONAL_SCOPES": "files"}
    assert Settings.from_env(environ, needs=()).apps == {
        "default": HubSpotApp("default", client_id="an-id", conditional_scopes=("files",))
    }
    assert Settings.from_env({}, needs=()).apps == {}


@pytest.mark.parametrize("name", ["HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET_FILE", "HUBSPOT_OPTIONAL_SCOPES"])
def test_the_file_and_the_variables_of_one_app_are_not_taken_together(file: Path, name: str) -> None:
    message = read_error(file, ACME, **{name: "/hidden"})
    assert message.startswith(f"bad settings: HUBSPOT_APPS_FILE and {name.removesuffix('_FILE')} are both set: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('client_id = "hidden id"', "[acme] client_id is malformed (the app's client id)"),
        ("client_id = 5", "[acme] client_id is malformed: write a text (the app's client id)"),
        ('client_secret = ["hidden", 7]', "[acme] client_secret is malformed: write a text, or a list of texts"),
        ('client_secret = ""', "[acme] client_secret is empty"),
        ('redirect_uri = "http://hidden.example/oauth/callback"', "[acme] redirect_uri is malformed: http is for"),
        ('redirect_uri = "http://127.0.0.1:5000/oauth/callback"', "[acme] redirect_uri is refused by HubSpot"),
        ('scopes = "oauth,tickets"', "[acme] scopes is malformed: separate scopes by spaces, not by commas"),
        ('scopes = ["oauth,tickets"]', "[acme] scopes is malformed: separate scopes by spaces, not by commas"),
        ("scopes = \"'oauth tickets'\"", "[acme] scopes is malformed: remove the quotes around it"),
        ('optional_scopes = "oauth%20hidden"', "[acme] optional_scopes is malformed: write it as plain text"),
        ("conditional_scopes = [['hidden']]", "[acme] conditional_scopes is malformed: write a text, or a list"),
        ('user_level = "true"', "[acme] user_level is malformed (true or false)"),
        ('api_version = "v1"', "[acme] api_version is malformed (2026-09, 2026-03 or v3; HubSpot ends v1"),
        ('max_refreshes_per_second = "10"', "[acme] max_refreshes_per_second is malformed (a number, 0 for no cap)"),
        ("max_refreshes_per_second = true", "[acme] max_refreshes_per_second is malformed (a number"),
        ("max_refreshes_per_second = inf", "[acme] max_refreshes_per_second is malformed (a number"),
        (
            'marketplace_sign_in_url = "http://hidden.example/"',
            "marketplace_sign_in_url is malformed: it must begin with https",
        ),
        ('client_secret_file = "hidden-path"', "[acme] client_secret_file cannot be read (FileNotFoundError"),
        ('client_secrt = "hidden"', "[acme] client_secrt is no key of an app (did you mean client_secret?)"),
        ('"hidden key ?" = 1', "[acme] a key is no key of an app"),
        ("[acme.more]\nx = 1", "[acme] has a table in it: write an app's own as [more], without a dot"),
        ("= hidden", "HUBSPOT_APPS_FILE is not TOML at line 6, column 1"),
        ("client_id = hidden", "HUBSPOT_APPS_FILE is not TOML at line 2, column 13"),
        ("[Acme-EU]", "[Acme-EU] is no name of an app (a name has small letters, digits and _"),
    ],
)
def test_an_error_names_the_app_the_key_and_the_right_form(file: Path, change: str, message: str) -> None:
    key = change.split(" =", maxsplit=1)[0]
    lines = [change if line.startswith(f"{key} =") else line for line in ACME.splitlines()]
    if change not in lines:
        lines.append(change)
    assert message in read_error(file, "\n".join(lines))


def test_all_errors_of_a_file_are_in_one_message(file: Path) -> None:
    message = read_error(
        file, 'name = "hidden"\n' + ACME.replace("oauth crm", "oauth,crm") + "[second]\nclient_id = 1\n", LOG_LEVEL="x"
    )
    for part in (
        "name is outside of a table: write [default], or another app's name, above it",
        "[acme] scopes is malformed",
        "[second] client_id is malformed",
        "[second] client_secret is missing (one secret, or several: a,b)",
        "[second] redirect_uri is missing (https://your.host/oauth/callback",
        "[second] scopes is missing",
        "LOG_LEVEL is malformed",
    ):
        assert part in message


def test_what_a_command_does_not_need_may_be_missing_from_the_file(file: Path) -> None:
    file.write_text('[new]\nredirect_uri = "https://a.example/oauth/callback"\nscopes = "oauth"\n')
    needs = ("HUBSPOT_REDIRECT_URI", "HUBSPOT_SCOPES")
    assert Settings.from_env({"HUBSPOT_APPS_FILE": str(file)}, needs=needs).apps["new"].client_id == ""


@pytest.mark.parametrize(
    ("redirect_uri", "message"),
    [
        ("https://b.example/keeper/oauth/callback", "the apps differ in the path of redirect_uri before"),
        ("http://localhost:5000/oauth/callback", "some apps have a redirect_uri with https and some with http"),
    ],
)
def test_apps_that_one_site_cannot_serve_are_refused(file: Path, redirect_uri: str, message: str) -> None:
    second = ACME.replace("acme", "other").replace("https://other.example/oauth/callback", redirect_uri)
    assert message in read_error(file, ACME + second)


def test_each_app_may_have_a_host_of_its_own(file: Path) -> None:
    apps = read(file, ACME + ACME.replace("acme", "other")).apps
    assert [app.origin for app in apps.values()] == ["https://acme.example", "https://other.example"]


def test_two_tables_with_one_client_id_are_refused(file: Path) -> None:
    second = ACME.replace("[acme]", "[other]")
    assert "acme, other have the same client_id" in read_error(file, ACME + second)


def test_a_file_without_an_app_is_refused(file: Path) -> None:
    assert "HUBSPOT_APPS_FILE describes no app (a table for each: [acme])" in read_error(file, "# nothing yet\n")


def test_an_empty_file_counts_as_not_set(file: Path) -> None:
    assert "HUBSPOT_CLIENT_ID is missing" in read_error(file, " \n")
    file.write_text("")
    one = {"HUBSPOT_CLIENT_ID": "an-id", "HUBSPOT_CLIENT_SECRET_FILE": str(file), "HUBSPOT_APPS_FILE": str(file)}
    assert list(Settings.from_env(one, needs=()).apps) == ["default"]
    file.write_text(ACME)
    several = {"HUBSPOT_SCOPES_FILE": "/dev/null", "HUBSPOT_APPS_FILE": str(file)}
    assert list(Settings.from_env(several, needs=NEEDS).apps) == ["acme"], "and an empty file of a variable, too"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path, "/dev/zero"):
        with pytest.raises(SettingsError, match="HUBSPOT_APPS_FILE cannot be read"):
            Settings.from_env({"HUBSPOT_APPS_FILE": str(path)}, needs=NEEDS)


VALUES = st.one_of(st.text(max_size=20), st.booleans(), st.integers(), st.lists(st.text(max_size=5), max_size=3))


@given(st.dictionaries(st.sampled_from([*KEYS, "other"]), VALUES, max_size=6), st.text(max_size=30))
def test_any_file_gives_settings_or_a_settings_error(file: Path, table: dict[str, object], rest: str) -> None:
    with contextlib.suppress(SettingsError):
        read(file, rest)
    lines = [f"{key} = {to_toml(value)}" for key, value in table.items()]
    with contextlib.suppress(SettingsError):
        read(file, "\n".join(["[acme]", *lines]))


def to_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value if not "\ud800" <= letter <= "\udfff") + '"'
    return str(value)
