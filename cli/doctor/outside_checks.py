"""What `tokenkeeper doctor` checks outside of PostgreSQL: the broker, and HubSpot with what it knows of our app."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from urllib.parse import urlsplit

from cli.doctor.findings import Check, CheckFailed, Level, Result, load, read_host_clock
from shared.broker_check import BrokerUnavailable, BrokerUnusable, check_broker
from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, UnknownRefusal
from shared.domain.identity import DEFAULT_APP
from shared.hubspot.app_definition import check_api_version, check_scopes
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport
from shared.settings import Settings, SettingsError
from shared.settings.apps_file import FILE_VARIABLE
from shared.settings.hubspot_app import HubSpotApp

#: HubSpot is asked about this token, to see whether it answers and accepts the app. It belongs to no account.
PROBE_TOKEN = "tokenkeeper-doctor"  # noqa: S105  no password


def check_redis(environ: Mapping[str, str]) -> str:
    try:
        check_broker(load(environ, "REDIS_URL").redis_url)
    except BrokerUnusable as error:
        raise CheckFailed(str(error)) from None
    except BrokerUnavailable as error:
        raise CheckFailed(
            f"the broker at REDIS_URL does not answer ({error}): start Redis, or correct REDIS_URL"
        ) from None
    return "answers, and lets our user run what Celery needs"


def list_app_checks(environ: Mapping[str, str]) -> Iterator[Check]:
    """The checks of each app, which name it where there are several."""
    try:
        names = list_app_names(environ)
    except SettingsError:
        yield Check("apps", partial(_check_apps_file, environ))
        return
    for name in names:
        suffix = f" of {name}" if len(names) > 1 else ""
        yield Check(f"redirect URI{suffix}", partial(_check_redirect_uri, environ, name))
        yield Check(f"scopes{suffix}", partial(_check_scopes, environ, name))
        yield Check(f"API version{suffix}", partial(_check_api_version, environ, name))
        yield Check(f"HubSpot{suffix}", partial(_check_hubspot, environ, name))


def list_app_names(environ: Mapping[str, str]) -> list[str]:
    """Raises SettingsError where the file of the apps cannot be read."""
    apps = list(load(environ, FILE_VARIABLE).apps) if environ.get(FILE_VARIABLE) else []
    return apps or [DEFAULT_APP]


def _check_apps_file(environ: Mapping[str, str]) -> str:
    return f"{len(load(environ, FILE_VARIABLE).apps)} apps"


def _check_redirect_uri(environ: Mapping[str, str], name: str) -> str:
    uri = load(environ, "HUBSPOT_REDIRECT_URI").apps[name].redirect_uri
    return f"{uri} follows HubSpot's rules; register exactly this URL in the app's settings at HubSpot"


def _check_scopes(environ: Mapping[str, str], name: str) -> Result:
    names = ("HUBSPOT_SCOPES", "HUBSPOT_OPTIONAL_SCOPES", "HUBSPOT_CONDITIONAL_SCOPES")
    app = load(environ, *names).apps[name]
    findings = list(check_scopes(app))
    if not findings:
        return f"{' '.join(app.scopes)}; compare them with HubSpot's file: tokenkeeper app check FILE"
    return Level.WARN, "; ".join(finding.text for finding in findings)


def _check_api_version(environ: Mapping[str, str], name: str) -> Result:
    app = load(environ, "HUBSPOT_API_VERSION").apps.get(name, HubSpotApp(name))
    finding = check_api_version(app.api_version, read_host_clock().date())
    return (Level.WARN, finding.text) if finding.is_difference else finding.text


def _check_hubspot(environ: Mapping[str, str], name: str) -> Result:
    app = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET", "HUBSPOT_API_URL", "HUBSPOT_API_VERSION", "HUBSPOT_PROXY")
    settings = load(environ, *app, "HTTP_TIMEOUT_SECONDS", "LEASE_SECONDS")
    transport = Transport(max_idle_connections=1, proxy=settings.hubspot_proxy)
    hubspot = HubSpot.for_app(settings.apps[name], settings, transport)
    try:
        hubspot.introspect(PROBE_TOKEN, "refresh_token")
    except InvalidGrant:
        pass  # it looked at the token, so it has accepted the app
    except InvalidClient as error:
        raise CheckFailed(f"refuses our app, {error}: check {_name_credentials(settings, name)}") from None
    except UnknownRefusal as error:
        what = f"refuses the request, {error}: are {_name_credentials(settings, name)} those of one app?"
        return Level.WARN, what
    except ProviderError as error:
        why = "connection failed" if error.code == "connection" else str(error)
        raise CheckFailed(
            f"does not answer ({why}): check the network to HUBSPOT_API_URL, and status.hubspot.com"
            if error.code != "proxy"
            else "the proxy of HUBSPOT_PROXY does not answer, or refuses the connection: check its URL and password"
        ) from None
    finally:
        transport.close()
    way = f" through the proxy at {urlsplit(settings.hubspot_proxy).hostname}" if settings.hubspot_proxy else ""
    return f"answers{way}; client id and secret accepted"


def _name_credentials(settings: Settings, name: str) -> str:
    if settings.hubspot_apps_file:
        return f"client_id and client_secret of [{name}] in {FILE_VARIABLE}"
    return "HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET"
