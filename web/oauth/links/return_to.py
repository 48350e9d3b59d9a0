"""The way back to our product, for a person who came by a connect link: its `return_to`, with how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from flask import Response, abort

from shared.db.lifecycle.installs import StoredInstall
from shared.domain.return_urls import set_query
from web.error_pages import AbortWithPage
from web.oauth.links.context import LinkContext
from web.oauth.links.error_pages import FROM_PRODUCT

ReturnStatus = Literal["connected", "denied", "conflict", "wrong_account", "failed"]
#: Of an error page; any other is a failure.
_STATUS_BY_REASON: dict[str, ReturnStatus] = {"access_denied": "denied", "wrong_account": "wrong_account"}


def redirect_to_product(
    link: LinkContext, status: ReturnStatus, app: str, *, hub_id: int | None = None, reason: str | None = None
) -> Response | None:
    """None where the link names no way back: then our own page says how it ended."""
    if link.return_to is None:
        return None
    result = {"status": status, "customer": link.claim.customer, "hub_id": hub_id, "app": app, "reason": reason}
    return Response(status=303, headers={"Location": set_query(link.return_to, result)})


def classify_claim(link: LinkContext, stored: StoredInstall) -> tuple[ReturnStatus, str | None]:
    """How the install ended for the customer of the link, and the reason in a word."""
    if stored.customer == link.claim.customer:
        return "connected", None
    # Where the connection has no customer, another install had come by the link before.
    return ("failed", "link_spent") if stored.customer is None else ("conflict", "other_customer")


@contextmanager
def return_failures(link: LinkContext | None, app: str) -> Iterator[None]:
    """What fails inside leads back to the product. A page that asks again by itself is shown: it may still succeed."""
    try:
        yield
    except AbortWithPage as failure:
        if link is None or failure.refresh_seconds is not None:
            raise
        page = failure.page
        status = _STATUS_BY_REASON.get(page.reason, "failed")
        response = redirect_to_product(link, status, app, hub_id=failure.hub_id, reason=page.reason)
        if response is not None and page.reason:
            abort(response)
        # Without a link, starting again would connect the account for no customer.
        failure.page = replace(page, advice=FROM_PRODUCT, links=()) if page.links else page
        raise
