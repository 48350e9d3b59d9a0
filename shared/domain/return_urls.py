"""Addresses of other sites to which a browser is redirected: checked, and written again from their checked parts.

`return_to` of a connect link leads back to our own product, `returnUrl` of a Marketplace install to HubSpot. An address
that is not exactly as expected is never followed: an open redirect would serve phishing, and carry codes away.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from urllib.parse import SplitResult, quote, urlencode, urlsplit, urlunsplit

from shared.domain.customer import InvalidText

MAX_URL_CHARACTERS = 1024
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_DEFAULT_PORTS = {"https": 443, "http": 80}
#: What a URL is made of (RFC 3986). A backslash is not: browsers read it as a slash.
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|[0-9a-f:.]+")
#: Labels of letters and digits, in which a star stands for any of these; the last two have none.
_HOST_PATTERN = re.compile(r"(?:[a-z0-9*-]+\.)*[a-z0-9-]+\.[a-z0-9-]+")


def parse_origin(text: str) -> str:
    """Scheme, host and port in the spelling of browsers; https, or http on this machine. Raises InvalidText."""
    url = _parse_url(text)
    if url.path not in {"", "/"} or url.query or url.fragment:
        raise InvalidText("an origin ends after its host or port")
    return _format_origin(url)


def parse_page_url(text: str) -> str:
    """Raises InvalidText."""
    return _write_url(_parse_url(text))


def parse_host_pattern(text: str) -> str:
    """`app.hubspot.com`, `app-*.hubspot.com`: a star stands for a part of one label. Raises InvalidText."""
    if not _HOST_PATTERN.fullmatch(text.lower()):
        raise InvalidText("a host, in which * may stand for a part of its first labels")
    return text.lower()


def matches_host(host: str, patterns: Iterable[str]) -> bool:
    return any(
        re.fullmatch("[a-z0-9-]*".join(map(re.escape, pattern.split("*"))), host) is not None for pattern in patterns
    )


def parse_return_to(value: object, origins: Collection[str]) -> str:
    """An address of our own product. Raises InvalidText."""
    if not isinstance(value, str):
        raise InvalidText("it must be text")
    url = _parse_url(value)
    if _format_origin(url) not in origins:
        raise InvalidText("its origin is not in RETURN_TO_ORIGINS")
    return _write_url(url)


def parse_marketplace_return_url(value: str, host_patterns: Iterable[str], hubspot_origin: str) -> str:
    """An address at HubSpot: https on one of the hosts, or anything at the origin of the consent page.

    Raises InvalidText.
    """
    url = _parse_url(value)
    is_hubspot = url.scheme == "https" and url.port in {None, 443} and matches_host(url.hostname or "", host_patterns)
    if not is_hubspot and _format_origin(url) != hubspot_origin:
        raise InvalidText("its host is not in MARKETPLACE_RETURN_HOSTS")
    return _write_url(url)


def get_origin(url: str) -> str:
    """Of a URL that is valid already."""
    return _format_origin(urlsplit(url))


def set_query(url: str, values: Mapping[str, object]) -> str:
    """The URL with these parameters in its query, in place of others of the same names. None as value: left out."""
    parts = urlsplit(url)
    others = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] not in values]
    added = urlencode({name: value for name, value in values.items() if value is not None}, quote_via=quote)
    return urlunsplit(parts._replace(query="&".join([*others, added])))


def _parse_url(text: str) -> SplitResult:
    """Raises InvalidText."""
    if len(text) > MAX_URL_CHARACTERS:
        raise InvalidText(f"it must have at most {MAX_URL_CHARACTERS} characters")
    if not _URL.fullmatch(text):
        raise InvalidText("it must be a URL, with other characters percent-encoded")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise InvalidText("it must be a URL") from None
    host = url.hostname or ""
    if "@" in url.netloc or port == 0 or not _HOST.fullmatch(host):
        raise InvalidText("it must have a host, and no user or password")
    if url.scheme != "https" and not (url.scheme == "http" and host in LOOPBACK_HOSTS):
        raise InvalidText("it must begin with https:// (http:// for localhost only)")
    return url


def _format_origin(url: SplitResult) -> str:
    host = url.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if url.port in {None, _DEFAULT_PORTS[url.scheme]} else f":{url.port}"
    return f"{url.scheme}://{host}{port}"


def _write_url(url: SplitResult) -> str:
    scheme, _, netloc = _format_origin(url).partition("://")
    return urlunsplit((scheme, netloc, url.path or "/", url.query, url.fragment))
