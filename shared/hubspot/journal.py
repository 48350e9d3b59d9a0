"""Reads HubSpot's Webhooks Journal, in which HubSpot says which accounts have uninstalled an app.

HubSpot sends uninstalls nowhere: the journal is a chain of files that an app reads with a token of its own. The reply
to a read names a file by a URL that needs no token, and the offset from which the next one is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from time import monotonic
from urllib.parse import quote, urlsplit

from shared.domain.errors import (
    InvalidClient,
    InvalidGrant,
    ProviderError,
    TemporarilyUnavailable,
    UnknownRefusal,
)
from shared.domain.journal import EntryKind, JournalFile, JournalRefused, OffsetUnknown, UnreadableFile
from shared.hubspot import response_fields
from shared.hubspot.client import HubSpot
from shared.hubspot.journal_parsing import EVENT_TYPE_IDS, parse_file, parse_offset, parse_subscriptions
from shared.hubspot.response_parsing import SUCCESS, Reply, parse_json
from shared.hubspot.transport import Steps, Transport, send
from shared.net.addresses import may_be_public_host
from shared.net.http_call import Endpoint
from shared.settings import Settings
from shared.settings.hubspot_app import HubSpotApp
from shared.tracing import SpanKind, trace_steps

#: Those that HubSpot's guide names for reading, and for making the subscriptions.
SCOPES = (
    "developer.webhooks_journal.read developer.webhooks_journal.subscriptions.read "
    "developer.webhooks_journal.subscriptions.write"
)
#: The journal has dated versions only.
FIRST_DATED_VERSION = "2026-03"
DEFAULT_VERSION = "2026-09"
#: HubSpot's files have up to 10,000 entries or 5 MB.
MAX_FILE_BYTES = 16 * 1024 * 1024
#: The share of its lifetime for which a token is used.
TOKEN_SHARE = 0.75
#: Two POSTs of one subscription may meet: HubSpot has it then.
CREATED_STATUSES = (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT, HTTPStatus.CONFLICT)
UNKNOWN_OFFSET_STATUSES = (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST, HTTPStatus.GONE)


class JournalClient:
    """The journal of one app. Used by one thread at a time. Every call raises ProviderError.

    JournalRefused: HubSpot does not let this app read it, now or at all.
    """

    def __init__(
        self, hubspot: HubSpot, transport: Transport, *, api_url: str, api_version: str, timeout_seconds: float
    ) -> None:
        """`hubspot`: the client of the app. `timeout_seconds`: for one call as a whole, with that for a token."""
        self._hubspot = hubspot
        self._transport = transport
        self._timeout_seconds = timeout_seconds
        self._api_url = api_url.rstrip("/")
        version = api_version if api_version >= FIRST_DATED_VERSION and api_version[0].isdecimal() else DEFAULT_VERSION
        self._journal_url = f"{self._api_url}/webhooks-journal/journal/{version}"
        self._subscriptions_url = f"{self._api_url}/webhooks-journal/subscriptions/{version}"
        self._token: str | None = None
        self._token_until = 0.0  #: by time.monotonic()

    @classmethod
    def for_app(cls, app: HubSpotApp, settings: Settings, hubspot: HubSpot, transport: Transport) -> JournalClient:
        return cls(
            hubspot,
            transport,
            api_url=settings.hubspot_api_url,
            api_version=app.api_version,
            timeout_seconds=settings.http_timeout_seconds,
        )

    def ensure_subscriptions(self) -> int | None:
        """Make the two subscriptions that are missing. HubSpot's number of the app; None: HubSpot did not say it."""
        return self._transport.run(self._ensure_subscriptions_steps())

    def read_next(self, offset: str | None) -> JournalFile | None:
        """The file after `offset`, or the earliest one. None: there is none yet.

        Raises OffsetUnknown, UnreadableFile.
        """
        return self._transport.run(self._read_steps(offset))

    @trace_steps("hubspot.journal_subscriptions", SpanKind.CLIENT)
    def _ensure_subscriptions_steps(self) -> Steps[int | None]:
        ends_at = monotonic() + self._timeout_seconds
        reply = yield from self._call_steps("GET", self._subscriptions_url, ends_at)
        kinds, app_id = parse_subscriptions(_parse(reply))
        for kind in EntryKind:
            if kind not in kinds:
                form = {
                    "subscriptionType": "APP_LIFECYCLE_EVENT",
                    "eventTypeId": EVENT_TYPE_IDS[kind],
                    "properties": [],
                }
                reply = yield from self._call_steps("POST", self._subscriptions_url, ends_at, form)
                if reply.http_status not in CREATED_STATUSES:
                    _parse(reply)
                app_id = app_id or parse_subscriptions(response_fields.parse_object(reply.body))[1]
        return app_id

    @trace_steps("hubspot.journal_read", SpanKind.CLIENT)
    def _read_steps(self, offset: str | None) -> Steps[JournalFile | None]:
        # 1. Where is the next file? An empty journal has no earliest one.
        ends_at = monotonic() + self._timeout_seconds
        path = "/earliest" if offset is None else f"/offset/{quote(offset, safe='')}/next"
        reply = yield from self._call_steps("GET", self._journal_url + path, ends_at)
        if reply.http_status in UNKNOWN_OFFSET_STATUSES and offset is not None:
            raise OffsetUnknown("unknown_offset", http_status=reply.http_status)
        if reply.http_status == HTTPStatus.NOT_FOUND:
            return None
        answer = _parse(reply)
        if not answer:
            return None
        url, next_offset = answer.get("url"), parse_offset(answer.get("currentOffset"))
        if not isinstance(url, str) or not url:
            raise TemporarilyUnavailable("no_file", http_status=reply.http_status)

        # 2. Fetch it, without our token: its URL is signed, and leads to another host.
        body = yield from self._fetch_steps(url, next_offset, ends_at)
        file = parse_file(body, next_offset)
        if file is None:
            raise _unreadable("not_a_journal_file", next_offset)
        return file

    def _fetch_steps(self, url: str, next_offset: str | None, ends_at: float) -> Steps[bytes]:
        endpoint = self._prepare_fetch(url)
        if endpoint is None:
            raise _unreadable("address_not_allowed", next_offset)
        try:
            reply = yield from send(endpoint, None, ends_at, secrets=(url,))
        except TemporarilyUnavailable as error:
            if error.code in ("address_not_allowed", "too_large", "encoding", "malformed_request"):
                raise _unreadable(error.code, next_offset) from None
            raise
        if reply.status_class == SUCCESS:
            return reply.body
        if reply.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR or reply.http_status in (
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.TOO_MANY_REQUESTS,
        ):
            raise TemporarilyUnavailable("server_error", http_status=reply.http_status)
        raise _unreadable("file_refused", next_offset, reply.http_status)

    def _prepare_fetch(self, url: str) -> Endpoint | None:
        """None for a URL that must not be called. HubSpot names any host: it must not lead into our network.

        Where HUBSPOT_API_URL is itself in a private network, as the simulator is, its own origin is allowed.
        """
        try:
            parts, api = urlsplit(url), urlsplit(self._api_url)
            host, is_own_origin = parts.hostname or "", (parts.scheme, parts.netloc) == (api.scheme, api.netloc)
            endpoint = self._transport.prepare_endpoint("GET", url)
        except ValueError:
            return None
        if is_own_origin:
            return Endpoint("GET", url, endpoint.headers, MAX_FILE_BYTES)
        if parts.scheme != "https" or not may_be_public_host(host):
            return None
        return Endpoint("GET", url, endpoint.headers, MAX_FILE_BYTES, is_public_only=True)

    def _call_steps(
        self, method: str, url: str, ends_at: float, form: Mapping[str, object] | None = None
    ) -> Steps[Reply]:
        """A call with the app's token. One that HubSpot does not accept any more is replaced, once."""
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if form else {})}
        body = json.dumps(form).encode() if form else None
        endpoint = self._transport.prepare_endpoint(method, url, headers)
        while True:
            is_kept_token = self._token is not None and monotonic() < self._token_until
            token = yield from self._token_steps(ends_at)
            authorization = {"Authorization": f"Bearer {token}"}
            reply = yield from send(endpoint, body, ends_at, authorization, secrets=(token,))
            if reply.http_status != HTTPStatus.UNAUTHORIZED or not is_kept_token:
                return reply
            self._token = None

    def _token_steps(self, ends_at: float) -> Steps[str]:
        if self._token is None or monotonic() >= self._token_until:
            begun_at = monotonic()
            try:
                issued = yield from self._hubspot.app_token_steps(SCOPES, ends_at)
            except (UnknownRefusal, InvalidGrant) as error:
                raise _to_refusal(error) from None
            except InvalidClient as error:
                if error.code in ("BAD_GRANT_TYPE", "unsupported_grant_type", "invalid_scope"):
                    raise _to_refusal(error) from None
                raise
            self._token = issued.access_token
            self._token_until = begun_at + issued.expires_in * TOKEN_SHARE
        return self._token


def _parse(reply: Reply) -> dict[str, object] | None:
    """Raises JournalRefused for a refusal that says nothing of a fault that passes."""
    if reply.http_status == HTTPStatus.UNAUTHORIZED:
        raise TemporarilyUnavailable("token_not_accepted", http_status=reply.http_status)
    if reply.http_status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
        code = "missing_scopes" if reply.http_status == HTTPStatus.FORBIDDEN else "no_journal"
        raise JournalRefused(code, http_status=reply.http_status)
    try:
        return parse_json(reply)
    except (UnknownRefusal, InvalidGrant) as error:
        raise _to_refusal(error) from None


def _to_refusal(error: ProviderError) -> JournalRefused:
    return JournalRefused(error.code, http_status=error.http_status, correlation_id=error.correlation_id)


def _unreadable(code: str, next_offset: str | None, http_status: int | None = None) -> ProviderError:
    """Without an offset after it, a file cannot be passed over."""
    if next_offset is None:
        return TemporarilyUnavailable(code, http_status=http_status)
    return UnreadableFile(code, next_offset=next_offset, http_status=http_status)
