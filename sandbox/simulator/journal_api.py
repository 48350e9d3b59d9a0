"""Routes of HubSpot's Webhooks Journal: subscriptions, journal entries, and the files behind their signed URLs."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request

from sandbox.simulator.answers import Answer, make_api_error, make_missing_scopes, make_ok
from sandbox.simulator.behaviour import Behaviour
from sandbox.simulator.delivery import deliver
from sandbox.simulator.faults import Call
from sandbox.simulator.journal import (
    EVENT_TYPE_IDS,
    AppToken,
    JournalFile,
    LostOffset,
    Subscription,
    format_instant,
    sign_file,
)
from sandbox.simulator.simulation import Simulation

SUBSCRIPTIONS = "/webhooks-journal/subscriptions/<any('2026-03', '2026-09'):version>"
JOURNAL = "/webhooks-journal/journal/<any('2026-03', '2026-09'):version>"
_READ = "developer.webhooks_journal.read"
_LIST = "developer.webhooks_journal.subscriptions.read"
_WRITE = "developer.webhooks_journal.subscriptions.write"
_MAX_BATCH_OFFSETS = 100
Work = Callable[[AppToken, Behaviour], Answer]


def make_journal_routes(sim: Simulation) -> Blueprint:
    routes = Blueprint("journal", __name__)
    _add_subscription_routes(routes, sim)
    _add_entry_routes(routes, sim)
    _add_batch_routes(routes, sim)

    @routes.get("/journal-files/<offset>")
    def read_file(offset: str) -> Response:
        """The signed URL is enough: it takes no access token."""
        file = sim.journal.find_file(offset)
        call = Call("journal_file", client_id=file.client_id if file else None)
        return deliver(sim, call, lambda: _read_file(sim, offset, file))

    return routes


def _add_subscription_routes(routes: Blueprint, sim: Simulation) -> None:
    @routes.get(SUBSCRIPTIONS)
    def list_subscriptions(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        def work(token: AppToken, _: Behaviour) -> Answer:
            subscriptions = sim.journal.list_subscriptions(token.client_id)
            return make_ok({"results": [_subscription_to_json(sim, token, each) for each in subscriptions]})

        return _answer_app(sim, "subscriptions", _LIST, work)

    @routes.post(SUBSCRIPTIONS)
    def subscribe(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_app(sim, "subscriptions", _WRITE, lambda token, _: _subscribe(sim, token))

    @routes.delete(f"{SUBSCRIPTIONS}/<int:subscription_id>")
    def delete_subscription(version: str, subscription_id: int) -> Response:  # noqa: ARG001 all versions answer alike
        def work(token: AppToken, _: Behaviour) -> Answer:
            if sim.journal.delete_subscription(token.client_id, subscription_id):
                return Answer(204)
            return make_api_error(404, "There is no such subscription", "OBJECT_NOT_FOUND")

        return _answer_app(sim, "subscriptions", _WRITE, work)


def _add_entry_routes(routes: Blueprint, sim: Simulation) -> None:
    @routes.get(f"{JOURNAL}/earliest")
    def read_earliest(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_entry(sim, lambda token, its: sim.journal.read(token.client_id, its, sim.clock()))

    @routes.get(f"{JOURNAL}/latest")
    def read_latest(version: str) -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_entry(sim, lambda token, its: sim.journal.read_latest(token.client_id, its, sim.clock()))

    @routes.get(f"{JOURNAL}/offset/<offset>/next")
    def read_next(version: str, offset: str) -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_entry(sim, lambda token, its: sim.journal.read(token.client_id, its, sim.clock(), after=offset))


def _add_batch_routes(routes: Blueprint, sim: Simulation) -> None:
    @routes.get(f"{JOURNAL}/batch/earliest/<int:count>")
    def read_earliest_batch(version: str, count: int) -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_batch(
            sim, count, lambda app, its: sim.journal.read(app.client_id, its, sim.clock(), count=count)
        )

    @routes.get(f"{JOURNAL}/batch/latest/<int:count>")
    def read_latest_batch(version: str, count: int) -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_batch(
            sim, count, lambda app, its: sim.journal.read_latest(app.client_id, its, sim.clock(), count=count)
        )

    @routes.get(f"{JOURNAL}/batch/<offset>/next/<int:count>")
    def read_next_batch(version: str, offset: str, count: int) -> Response:  # noqa: ARG001 all versions answer alike
        return _answer_batch(
            sim, count, lambda app, its: sim.journal.read(app.client_id, its, sim.clock(), count=count, after=offset)
        )


def _answer_app(sim: Simulation, endpoint: str, scope: str, work: Work) -> Response:
    """401 where the request has no live token of the client-credentials grant, 403 where that lacks the scope."""
    token = sim.journal.find_app_token(request.headers.get("Authorization", "").removeprefix("Bearer "))

    def work_or_refuse() -> Answer:
        if token is None or token.expires_at <= sim.clock():
            return make_api_error(401, "Authentication credentials not found.", "INVALID_AUTHENTICATION")
        if scope not in token.scopes:
            return make_missing_scopes(scope)
        return work(token, sim.behaviour.find(token.client_id))

    return deliver(sim, Call(endpoint, client_id=token.client_id if token else None), work_or_refuse)


def _answer_entry(sim: Simulation, read: Callable[[AppToken, Behaviour], list[JournalFile]]) -> Response:
    def work(token: AppToken, behaviour: Behaviour) -> Answer:
        try:
            files = read(token, behaviour)
        except LostOffset:
            return _refuse_lost_offset(behaviour)
        return make_ok(_entry_to_json(sim, files[0], behaviour)) if files else Answer(int(behaviour.journal_empty))

    return _answer_app(sim, "journal", _READ, work)


def _answer_batch(sim: Simulation, count: int, read: Callable[[AppToken, Behaviour], list[JournalFile]]) -> Response:
    def work(token: AppToken, behaviour: Behaviour) -> Answer:
        if not 1 <= count <= _MAX_BATCH_OFFSETS:
            return make_api_error(400, f"count: from 1 to {_MAX_BATCH_OFFSETS}", "VALIDATION_ERROR")
        try:
            files = read(token, behaviour)
        except LostOffset:
            return _refuse_lost_offset(behaviour)
        now = format_instant(sim.clock())
        results = [_entry_to_json(sim, file, behaviour) for file in files]
        return make_ok({"status": "COMPLETE", "startedAt": now, "completedAt": now, "results": results})

    return _answer_app(sim, "journal", _READ, work)


def _refuse_lost_offset(behaviour: Behaviour) -> Answer:
    """How HubSpot answers is not documented: a setting."""
    status = int(behaviour.journal_lost_offset)
    return Answer(204) if status == 204 else make_api_error(status, "Unknown journal offset", "VALIDATION_ERROR")  # noqa: PLR2004


def _entry_to_json(sim: Simulation, file: JournalFile, behaviour: Behaviour) -> dict[str, Any]:
    expires_at = sim.clock() + behaviour.journal_url_lifetime
    expires_ms = int(expires_at * 1000)
    base = behaviour.journal_file_url or request.host_url.rstrip("/")
    query = f"X-Amz-Expires={expires_ms}&X-Amz-Signature={sign_file(sim.signing_key, file.offset, expires_ms)}"
    url = f"{base}/journal-files/{file.offset}?{query}"
    return {"url": url, "expiresAt": format_instant(expires_at), "currentOffset": file.offset}


def _read_file(sim: Simulation, offset: str, file: JournalFile | None) -> Answer:
    expires_ms = request.args.get("X-Amz-Expires", 0, type=int)
    signature = sign_file(sim.signing_key, offset, expires_ms)
    is_signed = hmac.compare_digest(signature.encode(), request.args.get("X-Amz-Signature", "").encode())
    if file is None or not is_signed or expires_ms <= sim.clock() * 1000:
        body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        return Answer(403, body, "application/xml", outcome="url_refused")
    return Answer(200, file.make_body())


def _subscribe(sim: Simulation, token: AppToken) -> Answer:
    body = request.get_json(silent=True)
    fields = body if isinstance(body, dict) else {}
    is_lifecycle = fields.get("subscriptionType") == "APP_LIFECYCLE_EVENT"
    if not is_lifecycle or fields.get("eventTypeId") not in EVENT_TYPE_IDS.values():
        return make_api_error(400, "Invalid subscription type provided", "VALIDATION_ERROR")
    if not isinstance(fields.get("properties"), list):
        return make_api_error(400, "properties is required", "VALIDATION_ERROR")
    subscription = sim.journal.subscribe(token.client_id, fields["eventTypeId"], sim.clock())
    return make_ok(_subscription_to_json(sim, token, subscription))


def _subscription_to_json(sim: Simulation, token: AppToken, subscription: Subscription) -> dict[str, Any]:
    """With the fields of the specification and those of the documentation's sample, which differ."""
    created = format_instant(subscription.created_at)
    actions = [name for name, type_id in EVENT_TYPE_IDS.items() if type_id == subscription.event_type_id]
    fields = {
        "id": subscription.id,
        "appId": sim.accounts.get_app_id(token.client_id),
        "subscriptionType": "APP_LIFECYCLE_EVENT",
        "eventTypeId": subscription.event_type_id,
        "objectTypeId": subscription.event_type_id,
        "actions": actions,
        "properties": [],
        "createdAt": created,
        "updatedAt": created,
    }
    omitted = sim.behaviour.find(token.client_id).omit
    return {name: value for name, value in fields.items() if name not in omitted}
