"""For a connect link that names one account: another one that the person chose is not stored, and is left as it was."""

from __future__ import annotations

from dataclasses import replace

import structlog

from shared.domain.customer import CustomerClaim
from shared.domain.errors import ProviderError
from shared.domain.grant import ExchangedGrant
from shared.net.deadline import deadline
from shared.settings.hubspot_app import HubSpotApp
from web.error_pages import AbortWithPage
from web.oauth.install_storage import DATABASE_ERRORS
from web.oauth.links.error_pages import WRONG_ACCOUNT, WRONG_ACCOUNT_ADVICE
from web.services import Services

log = structlog.get_logger(__name__)

LOOKUP_TIMEOUT_SECONDS = 2.5


def refuse_wrong_account(
    services: Services, app: HubSpotApp, grant: ExchangedGrant, claim: CustomerClaim
) -> AbortWithPage:
    """Uninstalls the app from the account that was chosen, unless that was connected before. Stores nothing."""
    wanted = claim.hub_id
    done = _undo(services, app, grant)
    log.warning(
        "the person chose another account than the connect link names", app=app.name, hub_id=grant.hub_id, done=done
    )
    text = (WRONG_ACCOUNT.text + WRONG_ACCOUNT_ADVICE[done]).format(wanted=wanted, chosen=grant.hub_id)
    page = replace(WRONG_ACCOUNT, text=text, advice=WRONG_ACCOUNT.advice.format(wanted=wanted))
    return AbortWithPage(page, hub_id=grant.hub_id)


def _undo(services: Services, app: HubSpotApp, grant: ExchangedGrant) -> str:
    """A key of WRONG_ACCOUNT_ADVICE. Where PostgreSQL cannot say whether the account is connected, the app stays."""
    try:
        with deadline(LOOKUP_TIMEOUT_SECONDS):
            is_connected = services.installs.is_connected(app.name, grant.hub_id)
    except DATABASE_ERRORS:
        return "left"
    if is_connected:
        return "connected_before"
    if grant.access_token is None:
        return "left"
    try:
        services.hubspot_clients[app.name].uninstall(grant.access_token)
    except ProviderError as error:
        log.warning("HubSpot did not uninstall the app", app=app.name, hub_id=grant.hub_id, **error.evidence())
        return "left"
    return "uninstalled"
