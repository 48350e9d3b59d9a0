"""The URL of HubSpot's consent page."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport
from shared.settings.hubspot_app import HubSpotApp

APP = HubSpotApp(
    "default",
    client_id="an id",
    client_secrets=("a-client-secret",),
    redirect_uri="https://me.example/oauth/callback",
    scopes=("oauth", "crm.objects.contacts.read"),
)


def make_client(app: HubSpotApp) -> HubSpot:
    """Calls nothing."""
    return HubSpot(app, Transport(1), api_url="https://api.hubapi.com", app_url="https://app.hubspot.com/", timeout=1.0)


@pytest.fixture
def hubspot() -> HubSpot:
    return make_client(APP)


def test_the_authorize_url_has_all_parameters_with_spaces_as_percent_20(hubspot: HubSpot) -> None:
    assert hubspot.authorize_url("a state/&=") == (
        "https://app.hubspot.com/oauth/authorize?client_id=an%20id"
        "&redirect_uri=https%3A%2F%2Fme.example%2Foauth%2Fcallback"
        "&scope=oauth%20crm.objects.contacts.read&state=a%20state%2F%26%3D"
    )


def test_a_hub_is_preselected_in_the_path(hubspot: HubSpot) -> None:
    assert urlsplit(hubspot.authorize_url("s", hub_id=62515)).path == "/oauth/62515/authorize"


def test_optional_scopes_are_sent_as_optional_scope() -> None:
    client = make_client(replace(APP, optional_scopes=("tickets", "content")))
    assert parse_qs(urlsplit(client.authorize_url("s")).query)["optional_scope"] == ["tickets content"]


def test_conditional_scopes_are_asked_for_in_scope_by_those_who_need_them() -> None:
    client = make_client(replace(APP, conditional_scopes=("files", "forms")))
    assert parse_qs(urlsplit(client.authorize_url("s")).query)["scope"] == ["oauth crm.objects.contacts.read"]
    query = parse_qs(urlsplit(client.authorize_url("s", conditional_scopes=["files"])).query)
    assert query["scope"] == ["oauth crm.objects.contacts.read files"]
    assert "optional_scope" not in query


def test_without_optional_scopes_the_parameter_is_missing(hubspot: HubSpot) -> None:
    assert "optional" not in hubspot.authorize_url("s")


def test_the_client_secret_is_neither_in_the_authorize_url_nor_in_the_repr(hubspot: HubSpot) -> None:
    assert "a-client-secret" not in hubspot.authorize_url("s") + repr(hubspot)


def test_a_hub_id_that_is_not_a_number_is_refused(hubspot: HubSpot) -> None:
    with pytest.raises(ValueError, match="format code"):
        hubspot.authorize_url("s", hub_id="1/../2")  # type: ignore[arg-type]
