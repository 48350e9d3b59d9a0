"""What a setting must look like: each function turns its text into a value, or raises ValueError."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Collection, Mapping
from urllib.parse import SplitResult, parse_qsl, urlsplit

from shared import database_url
from shared.domain import return_urls
from shared.domain.customer import InvalidText
from shared.net.addresses import is_metadata_address, is_private_host
from shared.net.webhook_signature import decode_secret

#: A day. No clock, socket or interval needs more.
MAX_SECONDS = 86_400.0
#: Between two runs of something that may also be off.
MAX_PAUSE_SECONDS = 3600.0
#: The versions in HubSpot's paths that this client speaks, the default first.
API_VERSIONS = ("2026-09", "2026-03", "v3")
FERNET_KEY_BYTES = 32
DATABASE_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg2")
BROKER_SCHEMES = ("redis", "rediss", "sentinel", "unix", "redis+socket")
#: Brokers whose URL's path is the number of a database.
NUMBERED_BROKER_SCHEMES = ("redis", "rediss", "sentinel")
#: As in HubSpot's list of scopes, such as `crm.objects.contacts.read` and `e-commerce`.
SCOPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
SOCKET_SCHEMES = ("unix", "redis+socket")
TLS_PARAMETERS = frozenset({"ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
#: In the spelling of redis-py and in that of Python's ssl module.
CERTIFICATE_REQUIREMENTS = frozenset({"required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE"})
#: A prefix cannot begin with one of web's own paths: without the prefix, which a proxy may strip, it would be a page.
RESERVED_PATHS = (
    *("connect", "connections", "healthz", "install", "installs", "marketplace"),
    *("metrics", "oauth", "operator", "readyz", "static"),
)
#: Of characters that need no escape.
_REDIRECT_PATH = re.compile(r"(?P<prefix>(?:/[A-Za-z0-9._~-]+)*)/oauth/callback/?")
#: A name or an address, and a port.
_NETLOC = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]+)?")


class WrongForm(ValueError):
    """What is wrong with the text of a setting, in a few words that contain no part of it."""


def parse_word(text: str) -> str:
    """Printable, without whitespace."""
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError
    return text


def parse_comma_list(text: str) -> tuple[str, ...]:
    """At least one word."""
    words = tuple(parse_word(item.strip()) for item in text.split(",") if item.strip())
    if not words:
        raise ValueError
    return words


def parse_scopes(text: str) -> tuple[str, ...]:
    """Without duplicates."""
    scopes = tuple(dict.fromkeys(text.split()))
    if all(SCOPE.fullmatch(scope) for scope in scopes):
        return scopes
    if "," in text or ";" in text:
        raise WrongForm("separate scopes by spaces, not by commas")
    if "%" in text or "+" in text:
        raise WrongForm("write it as plain text, not as in a URL: a space for %20 or +")
    raise WrongForm("a scope has letters, digits, and . _ - alone")


def parse_database_url(text: str) -> str:
    """As libpq reads it, but for the scheme."""
    scheme, _, rest = text.partition("://")
    if scheme not in DATABASE_SCHEMES or not rest:
        raise WrongForm("it begins with postgresql://")
    if not text.isprintable() or " " in text:
        raise WrongForm("write %20 for a space")
    try:
        database_url.parse_database_url(text)
    except database_url.InvalidDatabaseUrl as error:
        raise WrongForm(str(error)) from None
    return text


def parse_broker_url(text: str) -> str:
    """One broker, or several Sentinels separated by semicolons."""
    urls = [_split_broker_url(url) for url in text.split(";")]
    if len(urls) > 1 and any(url.scheme != "sentinel" for url in urls):
        raise WrongForm("only several Sentinels are separated by semicolons")
    for url in urls:
        parameters = dict(parse_qsl(url.query, keep_blank_values=True))
        _check_broker_parameters(url.scheme, parameters)
        database = parameters.get("db", url.path.strip("/") if url.scheme in NUMBERED_BROKER_SCHEMES else "")
        if database and not (database.isascii() and database.isdigit()):
            raise WrongForm("a database of Redis is a number")
    return text


def _split_broker_url(text: str) -> SplitResult:
    url = urlsplit(parse_word(text))
    if url.scheme not in BROKER_SCHEMES:
        raise WrongForm("it begins with redis://, rediss://, sentinel:// or unix://")
    if "," in url.netloc.rpartition("@")[2]:
        raise WrongForm("name one server, or several Sentinels (sentinel://a:26379;sentinel://b:26379)")
    try:
        url.port  # noqa: B018  raises ValueError on a malformed one
    except ValueError:
        raise WrongForm(
            "percent-encode what is not a letter or digit in the password (%23 for #), and check the port"
        ) from None
    if "%00" in text or not (url.path.strip("/") if url.scheme in SOCKET_SCHEMES else url.hostname):
        raise ValueError
    return url


def _check_broker_parameters(scheme: str, parameters: Mapping[str, str]) -> None:
    known = {"db", "virtual_host"} if scheme in SOCKET_SCHEMES else {"db", *TLS_PARAMETERS}
    known |= {"master_name"} if scheme == "sentinel" else set()
    for name in parameters.keys() - known:
        shown = f"the parameter {name}" if name.isidentifier() and name.isascii() else "a parameter"
        raise WrongForm(f"remove {shown}, which has no effect for {scheme}://")
    if parameters.get("ssl_cert_reqs", "required") not in CERTIFICATE_REQUIREMENTS:
        raise WrongForm("ssl_cert_reqs is required, optional or none")
    if parameters.get("ssl_check_hostname", "true").lower() not in {"true", "false"}:
        raise WrongForm("ssl_check_hostname is true or false")


def parse_http_url(text: str) -> str:
    url = urlsplit(parse_word(text))
    url.port  # noqa: B018  raises ValueError on a malformed one
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError
    return text.rstrip("/")


def parse_proxy_url(text: str) -> str:
    """A user's name and password may be in it, percent-encoded."""
    url = urlsplit(parse_http_url(text))
    if url.path or url.query or url.fragment:
        raise WrongForm("a proxy's URL ends after its port")
    return text.rstrip("/")


def parse_webhook_url(text: str) -> str:
    """Any host that the operator wants, except one that hands out a cloud machine's credentials."""
    url = parse_http_url(text)
    if is_metadata_address(urlsplit(url).hostname or ""):
        raise ValueError
    return url


def parse_webhook_secrets(text: str) -> tuple[str, ...]:
    secrets = parse_comma_list(text)
    for secret in secrets:
        decode_secret(secret)  # raises ValueError on a malformed one
    return secrets


def parse_hubspot_url(text: str) -> str:
    """Client secret and tokens are sent there: plain http only to this machine or a private network."""
    url = urlsplit(parse_http_url(text))
    if url.scheme != "https" and not is_private_host(url.hostname or ""):
        raise WrongForm("http is for this machine and private networks only")
    return text.rstrip("/")


def parse_redirect_uri(text: str) -> str:
    """HubSpot's rules (https, or http on localhost; no fragment), and the path at which web answers.

    Scheme and host in small letters, as browsers send them.
    """
    url = urlsplit(parse_http_url(text))
    netloc = url.netloc.lower()
    path = _REDIRECT_PATH.fullmatch(urlsplit(text).path)
    if url.scheme != "https" and url.hostname not in return_urls.LOOPBACK_HOSTS:
        raise WrongForm("http is for localhost only")
    if path is None or "?" in text or "#" in text:
        raise WrongForm("it ends with /oauth/callback; a path before that has letters, digits and -._~ alone")
    if not _NETLOC.fullmatch(netloc):
        raise WrongForm("the host is a name in ASCII or an address, with or without a port")
    segments = path["prefix"].split("/")[1:]
    if segments and (segments[0] in RESERVED_PATHS or not {".", ".."}.isdisjoint(segments)):
        raise WrongForm("the path before /oauth/callback must not begin with a path of web's own")
    return f"{url.scheme}://{netloc}{path[0]}"


def parse_api_version(text: str) -> str:
    if text not in API_VERSIONS:
        raise ValueError
    return text


def parse_token_keys(text: str) -> tuple[str, ...]:
    """Checked as Fernet does, without its library: beat needs no keys, and would be 2 MB larger."""
    keys = parse_comma_list(text)
    if any(len(base64.urlsafe_b64decode(key)) != FERNET_KEY_BYTES for key in keys):
        raise ValueError
    return keys


def parse_password(text: str, min_length: int) -> str:
    """Printable ASCII: browsers differ in how they send other characters, and Flower fails with them."""
    if not (text.isascii() and text.isprintable()):
        raise WrongForm("it has characters other than ASCII letters, digits and signs")
    return parse_secret(text, min_length)


def parse_secret(text: str, min_length: int) -> str:
    text.encode()  # raises ValueError on bytes that were not UTF-8
    if len(text) < min_length:
        raise ValueError
    return text


def parse_key_list(text: str, min_bytes: int) -> tuple[str, ...]:
    """At least one."""
    keys = parse_comma_list(text)
    if any(len(key.encode()) < min_bytes for key in keys):
        raise WrongForm(f"each key has {min_bytes} bytes or more")
    return keys


def parse_boolean(text: str) -> bool:
    return parse_choice(text, ("true", "false")) == "true"


def parse_origins(text: str) -> tuple[str, ...]:
    """In the spelling of browsers, without duplicates."""
    return tuple(dict.fromkeys(_check_url(return_urls.parse_origin, origin) for origin in text.split()))


def parse_host_patterns(text: str) -> tuple[str, ...]:
    return tuple(_check_url(return_urls.parse_host_pattern, host) for host in text.split())


def parse_sign_in_url(text: str) -> str:
    """A parameter is added to its query."""
    url = _check_url(return_urls.parse_page_url, text)
    if "#" in url:
        raise WrongForm("it has no fragment")
    return url


def _check_url(parse: Callable[[str], str], text: str) -> str:
    try:
        return parse(text)
    except InvalidText as error:
        raise WrongForm(str(error)) from None


def parse_seconds(text: str) -> float:
    if not 0 < (value := float(text)) <= MAX_SECONDS:
        raise ValueError
    return value


def parse_pause(text: str) -> float:
    """Zero, or up to an hour: what is done so seldom would be of no use."""
    if not 0 <= (value := float(text)) <= MAX_PAUSE_SECONDS:
        raise ValueError
    return value


def parse_fraction(text: str) -> float:
    if not 0 < (value := float(text)) < 1:
        raise ValueError
    return value


def parse_rate(text: str) -> float:
    """Zero or more, finite."""
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError
    return value


def parse_integer(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= (value := int(text)) <= most):
        raise ValueError
    return value


def parse_choice(text: str, choices: Collection[str]) -> str:
    if text.lower() not in choices:
        raise ValueError
    return text.lower()
