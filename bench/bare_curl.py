"""The limit of the machine: `python -m bench.bare_curl CALLS FIRST_HUB` only calls HubSpot, with libcurl.

One thread keeps CALLS calls in flight and stores each token in a dict. Nothing of the product is in it: no database, no
schedule, no encryption, and none of its rules for calls.
"""

from __future__ import annotations

import json
import os
import selectors
import sys
import time
from io import BytesIO
from urllib.parse import urlencode

import pycurl

from bench.bare import CONNECTIONS_PER_CALL, make_form, make_url
from bench.hubspot import make_refresh_token
from shared.settings import Settings

TIMEOUT_SECONDS = 20


class RefreshedConnections(pycurl.Curl):  # type: ignore[misc]  # pycurl has no types
    """A handle that refreshes these one after the other, again and again."""

    def __init__(self, url: str, form: dict[str, str], refresh_tokens: list[str]) -> None:
        super().__init__()
        self._bodies = [urlencode({**form, "refresh_token": token}).encode() for token in refresh_tokens]
        self._number = 0
        self._reply = BytesIO()
        self.setopt(pycurl.URL, url)
        self.setopt(pycurl.TIMEOUT, TIMEOUT_SECONDS)
        self.setopt(pycurl.NOSIGNAL, 1)

    def prepare_next(self) -> None:
        self._reply = BytesIO()
        self.setopt(pycurl.WRITEDATA, self._reply)
        self.setopt(pycurl.POSTFIELDS, self._bodies[self._number % len(self._bodies)])
        self._number += 1

    def store(self, access_tokens: dict[int, str]) -> None:
        if self.getinfo(pycurl.RESPONSE_CODE) != 200:  # noqa: PLR2004
            sys.exit(f"HubSpot answered {self._reply.getvalue().decode()}")
        grant = json.loads(self._reply.getvalue())
        access_tokens[grant["hub_id"]] = grant["access_token"]


class CurlLoop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timeout_at: float | None = None
        self.multi = pycurl.CurlMulti()
        self.multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
        self.multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def run(self, handles: list[RefreshedConnections]) -> None:
        access_tokens: dict[int, str] = {}
        for handle in handles:
            handle.prepare_next()
            self.multi.add_handle(handle)
        while True:
            wait = None if self._timeout_at is None else max(0.0, self._timeout_at - time.monotonic())
            for key, mask in self._selector.select(wait):
                self.multi.socket_action(key.fd, mask)  # EVENT_READ and EVENT_WRITE are CSELECT_IN and CSELECT_OUT
            if self._timeout_at is not None and self._timeout_at <= time.monotonic():
                self._timeout_at = None
                self.multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            self._begin_next_calls(access_tokens)

    def _begin_next_calls(self, access_tokens: dict[int, str]) -> None:
        remaining = 1
        while remaining:
            remaining, ended, failed = self.multi.info_read()
            if failed:
                sys.exit(f"a call failed: {failed[0][2]}")
            for handle in ended:
                self.multi.remove_handle(handle)
                handle.store(access_tokens)
                handle.prepare_next()
                self.multi.add_handle(handle)

    def _watch_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        if what in (pycurl.POLL_IN, pycurl.POLL_OUT, pycurl.POLL_INOUT):
            self._selector.register(fd, what)  # POLL_IN and POLL_OUT are EVENT_READ and EVENT_WRITE

    def _set_timer(self, milliseconds: int) -> None:
        self._timeout_at = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def main(settings: Settings, calls: int, first_hub_id: int) -> None:
    url, form, handles = make_url(settings), make_form(settings), []
    for number in range(calls):
        start = first_hub_id + number * CONNECTIONS_PER_CALL
        tokens = [make_refresh_token(hub_id) for hub_id in range(start, start + CONNECTIONS_PER_CALL)]
        handles.append(RefreshedConnections(url, form, tokens))
    loop = CurlLoop()
    loop.multi.setopt(pycurl.M_MAXCONNECTS, calls)
    loop.run(handles)


if __name__ == "__main__":
    needs = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET")
    main(Settings.from_env(os.environ, needs), int(sys.argv[1]), int(sys.argv[2]))  # noqa: TID251  an entry point
