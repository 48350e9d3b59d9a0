"""The cookies of the installs of one browser: for each, the right to see its page, and its grant until it is stored.

All of them are sent with every request, so a new install replaces the oldest ones that are not needed any more.
"""

from __future__ import annotations

from dataclasses import replace

from flask import Request, Response

from web.oauth.install_cookie import InstallCookie, InstallCookieSigner
from web.security.cookies import Cookies, shorten_install_id

#: Of all cookies of this site. With those of neighbouring sites they must stay below the 8 KB that many proxies accept.
MAX_COOKIES_BYTES = 2000
#: The same where these are the only copies of grants: a new one above it is refused, not an older one lost.
MAX_ONLY_COPIES_BYTES = 6000
#: The life of a grant in the browser after it was stored.
STORED_GRANT_SECONDS = 300
#: Names of cookies, each followed by the start of an install's identifier.
INSTALL, GRANT, LINK = "install_", "grant_", "link_"


class InstallCookieJar:
    def __init__(self, cookies: Cookies, secret_key: str) -> None:
        self._cookies = cookies
        self._signer = InstallCookieSigner(secret_key)

    def read(self, request: Request, install_id: str) -> tuple[InstallCookie | None, str | None]:
        """The install's cookie, where it is valid, and the encrypted grant, where the browser has it."""
        short_id = shorten_install_id(install_id)
        signed = self._cookies.read(request, INSTALL + short_id) or ""
        return self._signer.verify(signed, install_id), self._cookies.read(request, GRANT + short_id)

    def read_link(self, request: Request, install_id: str) -> str | None:
        """The encrypted link by which the person came."""
        return self._cookies.read(request, LINK + shorten_install_id(install_id))

    def add(
        self, request: Request, response: Response, cookie: InstallCookie, encrypted: str, link: str | None = None
    ) -> bool:
        """Sets the cookies of a new install. False where the browser has no room for the encrypted grant.

        `link`: the encrypted link by which the person came.
        """
        short_id = shorten_install_id(cookie.install_id)
        signed = self._signer.sign(cookie)
        new = {INSTALL + short_id: signed, GRANT + short_id: encrypted}
        if link is not None:
            new[LINK + short_id] = link
        others = {name: value for name, value in self._cookies.read_all(request).items() if name not in new}
        limit = MAX_COOKIES_BYTES if cookie.is_accepted else MAX_ONLY_COPIES_BYTES

        # 1. Remove the oldest installs that are stored elsewhere, until all cookies are small enough together.
        for name in self._list_replaceable(others):
            if self._count_bytes(others | new) <= MAX_COOKIES_BYTES:
                break
            others.pop(name)
            self._cookies.delete(response, name)

        # 2. Without the grant where it does not fit: then it must be stored elsewhere.
        has_room = self._count_bytes(others | new) <= limit and self._cookies.is_small_enough(GRANT, encrypted)
        self._cookies.set(response, INSTALL + short_id, signed)
        if link is not None:
            self._cookies.set(response, LINK + short_id, link)
        if has_room:
            self._cookies.set(response, GRANT + short_id, encrypted)
        return has_room

    def update(self, response: Response, cookie: InstallCookie) -> None:
        self._cookies.set(response, INSTALL + shorten_install_id(cookie.install_id), self._signer.sign(cookie))

    def set_link(self, response: Response, install_id: str, link: str) -> None:
        self._cookies.set(response, LINK + shorten_install_id(install_id), link)

    def let_grant_expire(self, response: Response, cookie: InstallCookie, encrypted: str) -> None:
        """Call it once the grant is stored. It is kept for some minutes: a failover of PostgreSQL may lose the row."""
        if not cookie.is_stored:
            name = GRANT + shorten_install_id(cookie.install_id)
            self._cookies.set(response, name, encrypted, max_age=STORED_GRANT_SECONDS)
            self.update(response, replace(cookie, is_stored=True))

    def _list_replaceable(self, others: dict[str, str]) -> list[str]:
        """The names of cookies that no grant depends on, oldest first, those of each install together."""
        replaceable = []
        for name in [name for name in others if name.startswith(INSTALL)]:
            grant, link = (kind + name.removeprefix(INSTALL) for kind in (GRANT, LINK))
            cookie = self._signer.read(others[name])
            if grant not in others or (cookie is not None and cookie.is_accepted):
                replaceable += [each for each in (name, grant, link) if each in others]
        return replaceable

    def _count_bytes(self, values: dict[str, str]) -> int:
        return sum(self._cookies.count_bytes(name, value) for name, value in values.items())
