"""HubSpot's scopes in words."""

from __future__ import annotations

import re
from collections.abc import Iterable

_OBJECTS = re.compile(
    r"crm\.(?P<kind>objects|schemas|lists|pipelines|dealsplits)(?:\.(?P<object>[a-z0-9_-]+))?"
    r"(?:\.(?P<sensitivity>sensitive|highly_sensitive))?\.(?P<verb>read_write|read|write)(?:\.v\d+)?"
)
_KINDS = {
    "objects": "{object}",
    "schemas": "the properties of {object}",
    "lists": "lists",
    "pipelines": "the pipelines of {object}",
    "dealsplits": "deal splits",
}
_SENSITIVITY = {
    None: "",
    "sensitive": ", sensitive data included",
    "highly_sensitive": ", highly sensitive data included",
}
_NAMES = {
    "custom": "custom objects",
    "owners": "owners (the users that records belong to)",
    "feedback_submissions": "feedback submissions",
    "commercepayments": "payments",
    "partner-clients": "partner clients",
    "partner-services": "partner services",
}
#: `<what>.read`, `.write` or both in one, where the description follows from the name alone.
_AREAS = {
    "automation.sequences": "sequences",
    "business_units_view": "brands (business units)",
    "cms.domains": "website domains",
    "cms.functions": "serverless functions",
    "cms.knowledge_base.articles": "knowledge base articles",
    "cms.knowledge_base.settings": "knowledge base settings",
    "cms.membership.access_groups": "membership access groups",
    "cms.performance": "website performance figures",
    "cms.source_code": "the source code of the website: templates and modules",
    "communication_preferences": "subscription preferences of contacts",
    "conversations": "conversations: inboxes, threads and messages",
    "conversations.custom_channels": "custom channels of the inbox",
    "ctas": "calls to action",
    "marketing.campaigns": "marketing campaigns",
    "marketing.campaigns.revenue": "the revenue of marketing campaigns",
    "media_bridge": "media (videos, audio, images)",
    "settings.billing": "billing settings",
    "settings.currencies": "currency settings",
    "settings.users": "the account's users",
    "settings.users.teams": "the account's teams",
    "tax_rates": "tax rates",
    "behavioral_events.event_definitions": "definitions of custom events",
    "scheduler.meetings.meeting-link": "meeting links",
    "account-info.security": "the account's security activity",
}
_AREA = re.compile(r"(?P<object>[a-z_.-]+)\.(?P<verb>read_write|read|write)")
_DESCRIPTIONS = {
    "oauth": "Know which account this is",
    "account-info.security.read": "Read the account's security activity",
    "accounting": "Read and change invoices and accounting data",
    "actions": "Add custom actions to workflows",
    "analytics.behavioral_events.send": "Send custom events",
    "automation": "Read and change workflows",
    "automation.sequences.enrollments.write": "Enroll contacts in sequences",
    "business-intelligence": "Read analytics data",
    "collector.graphql_schema.read": "Read how data of the account can be queried by GraphQL",
    "collector.graphql_query.execute": "Query data of the account by GraphQL",
    "communication_preferences.statuses.batch.read": "Read subscription preferences of many contacts at once",
    "content": "Read and change website pages, landing pages, blogs and e-mails",
    "conversations.visitor_identification.tokens.create": "Tell the chat who a visitor is",
    "crm.export": "Export records",
    "crm.extensions_calling_transcripts.read": "Read transcripts of calls",
    "crm.extensions_calling_transcripts.write": "Change transcripts of calls",
    "crm.import": "Import records",
    "e-commerce": "Read and change products, line items and other commerce data",
    "external_integrations.forms.access": "Use forms of other services",
    "files": "Read and change files",
    "files.ui_hidden.read": "Read files that are hidden in HubSpot, such as those of form uploads",
    "forms": "Read and change forms",
    "forms-uploaded-files": "Download files that were uploaded by forms",
    "hubdb": "Read and change HubDB tables",
    "integration-sync": "Synchronize data with other systems",
    "marketing-email": "Send marketing e-mails to a single contact",
    "record_images.signed_urls.read": "Read the images of records",
    "sales-email-read": "Read the text of sales e-mails",
    "social": "Read and change social media posts",
    "tickets": "Read and change tickets",
    "timeline": "Add events to the timelines of records",
    "transactional-email": "Send transactional e-mails",
}
_VERBS = {"read": "Read", "write": "Change", "read_write": "Read and change"}


def describe_scopes(scopes: Iterable[str]) -> list[tuple[str, str]]:
    """Each scope with its description; an unknown scope is its own description."""
    return [(scope, _describe_scope(scope)) for scope in scopes]


def _describe_scope(scope: str) -> str:
    if scope in _DESCRIPTIONS:
        return _DESCRIPTIONS[scope]
    if match := _OBJECTS.fullmatch(scope):
        name = match["object"] or "records"
        phrase = _KINDS[match["kind"]].format(object=_NAMES.get(name, name.replace("_", " ")))
        return f"{_VERBS[match['verb']]} {phrase}{_SENSITIVITY[match['sensitivity']]}"
    if (area := _AREA.fullmatch(scope)) and area["object"] in _AREAS:
        return f"{_VERBS[area['verb']]} {_AREAS[area['object']]}"
    return scope
