"""What `tokenkeeper doctor` checks outside of PostgreSQL: the broker, and HubSpot with what it knows of our app."""

from __future__ import annotations

from collections.abc import Mapping

from cli.doctor_findings import CheckFailed, Level, Result, load
from shared.broker_check import BrokerUnavailable, BrokerUnusable, check_broker
from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, UnknownRefusal
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Transport

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


def check_redirect_uri(environ: Mapping[str, str]) -> str:
    uri = next(iter(load(environ, "HUBSPOT_REDIRECT_URI").apps.values())).redirect_uri
    return f"{uri} follows HubSpot's rules; register exactly this URL in the app's settings at HubSpot"


def check_api_version(environ: Mapping[str, str]) -> str:
    return next(iter(load(environ, "HUBSPOT_CLIENT_ID", "HUBSPOT_API_VERSION").apps.values())).api_version


def check_hubspot(environ: Mapping[str, str]) -> Result:
    app = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET", "HUBSPOT_API_URL", "HUBSPOT_API_VERSION", "HUBSPOT_PROXY")
    settings = load(environ, *app, "HTTP_TIMEOUT_SECONDS", "LEASE_SECONDS")
    transport = Transport(max_idle_connections=1, proxy=settings.hubspot_proxy)
    hubspot = HubSpot.for_app(next(iter(settings.apps.values())), settings, transport)
    try:
        hubspot.introspect(PROBE_TOKEN, "refresh_token")
    except InvalidGrant:
        pass  # it looked at the token, so it has accepted the app
    except InvalidClient as error:
        raise CheckFailed(f"refuses our app, {error}: check HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET") from None
    except UnknownRefusal as error:
        what = f"refuses the request, {error}: are HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET those of one app?"
        return Level.WARN, what
    except ProviderError as error:
        raise CheckFailed(
            f"does not answer ({_describe(error)}): check the network to HUBSPOT_API_URL, and status.hubspot.com"
            if error.code != "proxy"
            else "the proxy of HUBSPOT_PROXY does not answer, or refuses the connection: check its URL and password"
        ) from None
    finally:
        transport.close()
    return "answers; client id and secret accepted"


def _describe(error: ProviderError) -> str:
    return "connection failed" if error.code == "connection" else str(error)
