"""The parameters of a request from HubSpot's Marketplace, and what the log says of them: names and hosts, no values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from flask import request

from shared.domain.customer import InvalidText
from shared.domain.return_urls import get_origin, parse_marketplace_return_url
from shared.text_format import make_printable
from web.oauth.handshake import read_parameter
from web.services import Services

log = structlog.get_logger(__name__)

AUTHORIZE, FINALIZE = "authorize", "finalize"
_NAMES = ("step", "code", "state", "error", "returnUrl", "link", "signed_in")
_LOGGABLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
MAX_LOGGED_NAMES, MAX_LOGGED_CHARACTERS = 20, 100


@dataclass(frozen=True, slots=True)
class MarketplaceRequest:
    """Each None where it is absent or empty."""

    step: str | None
    code: str | None
    state: str | None
    error: str | None
    return_url: str | None  #: checked and written again; None also where it was refused
    link: str | None  #: a connect link, which our product added
    signed_in: str | None  #: what we gave our product's sign-in page for the way back


def is_marketplace_request() -> bool:
    """Whether a request to the OAuth callback is the Marketplace's: HubSpot knows the callback as the install URL."""
    return "step" in request.args or "returnUrl" in request.args


def read_request(services: Services) -> MarketplaceRequest:
    """Raises AbortWithPage where a parameter is there twice."""
    values = {name: read_parameter(name) for name in _NAMES}
    _log_request()
    return_url = _check_return_url(services, values.pop("returnUrl"))
    return MarketplaceRequest(return_url=return_url, **values)


def list_frame_ancestors(services: Services, return_url: str | None) -> tuple[str, ...]:
    """The origins that may show the answer in a frame: hosts of HubSpot's that the settings name, and the returnUrl's.

    A pattern with a star in the middle of a label cannot be written in the header.
    """
    named = [f"https://{host}" for host in services.marketplace_return_hosts if "*" not in host]
    own = [get_origin(return_url)] if return_url else []
    return tuple(dict.fromkeys([*named, get_origin(services.hubspot_app_url), *own]))


def _check_return_url(services: Services, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        hubspot_origin = get_origin(services.hubspot_app_url)
        return parse_marketplace_return_url(text, services.marketplace_return_hosts, hubspot_origin)
    except InvalidText as error:
        log.warning("a returnUrl of HubSpot's Marketplace was refused", host=_read_host(text), why=str(error))
        return None


def _read_host(url: str) -> str:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return make_printable(host)[:MAX_LOGGED_CHARACTERS]


def _log_request() -> None:
    """What an operator needs where HubSpot's Marketplace behaves otherwise than docs/marketplace.md says."""
    names = [name if _LOGGABLE.fullmatch(name) else "?" for name in list(request.args)[:MAX_LOGGED_NAMES]]
    step = request.args.get("step", "")
    log.info(
        "a request of HubSpot's Marketplace",
        parameters=",".join(names),
        step=step if step in {"", AUTHORIZE, FINALIZE} else "unknown",
        fetched_as=make_printable(request.headers.get("Sec-Fetch-Dest", ""))[:MAX_LOGGED_CHARACTERS],
    )
