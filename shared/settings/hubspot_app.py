"""One HubSpot app, as the settings describe it: by variables where there is one, else in HUBSPOT_APPS_FILE."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from shared.settings import parsers
from shared.settings.declaration import WEB_AND_WORKER, Source, setting


@dataclass(frozen=True, slots=True)
class HubSpotApp:
    """Each field with a declaration is a variable, and a key of an app's table in HUBSPOT_APPS_FILE."""

    name: str
    client_id: str = setting(
        "HUBSPOT_CLIENT_ID",
        parsers.parse_word,
        "",
        hint="the app's client id",
        example="8f1c2a4e-5b6d-4c3a-9e8f-7a6b5c4d3e2f",
        meaning="the app. For several apps, see [several-apps.md](several-apps.md)",
        required_by=WEB_AND_WORKER,
        source=Source.PERSON,
    )
    client_secrets: tuple[str, ...] = setting(
        "HUBSPOT_CLIENT_SECRET",
        parsers.parse_comma_list,
        (),
        hint="one secret, or several: a,b",
        example="new-secret,old-secret",
        meaning="one, or several separated by commas, tried in order: so a secret can be rotated without a gap",
        required_by=WEB_AND_WORKER,
        is_secret=True,
        source=Source.PERSON,
    )
    scopes: tuple[str, ...] = setting(
        "HUBSPOT_SCOPES",
        parsers.parse_scopes,
        (),
        hint="scopes separated by spaces",
        example="oauth crm.objects.contacts.read",
        meaning="separated by spaces: exactly those that the app requires",
        required_by=WEB_AND_WORKER,
        source=Source.PERSON,
    )
    optional_scopes: tuple[str, ...] = setting(
        "HUBSPOT_OPTIONAL_SCOPES",
        parsers.parse_scopes,
        (),
        hint="scopes separated by spaces",
        example="crm.objects.deals.read",
        meaning="sent as `optional_scope`: HubSpot leaves them out for accounts that cannot grant them",
    )
    conditional_scopes: tuple[str, ...] = setting(
        "HUBSPOT_CONDITIONAL_SCOPES",
        parsers.parse_scopes,
        (),
        hint="scopes separated by spaces",
        example="crm.objects.quotes.read",
        meaning='HubSpot\'s "conditionally required" scopes: a connect link may ask for some of them, in `scope`',
    )
    redirect_uri: str = setting(
        "HUBSPOT_REDIRECT_URI",
        parsers.parse_redirect_uri,
        "",
        hint="https://your.host/oauth/callback; http only for localhost",
        example="https://connect.example.com/oauth/callback",
        meaning="where a browser reaches web's `/oauth/callback`: exactly as registered at HubSpot. With a path before "
        "`/oauth/callback` everything is served below that path ([proxies.md](proxies.md#below-a-path)). "
        "`make up` and compose use localhost where it is not set",
        required_by=WEB_AND_WORKER,
    )
    api_version: str = setting(
        "HUBSPOT_API_VERSION",
        parsers.parse_api_version,
        parsers.API_VERSIONS[0],
        hint="2026-09, 2026-03 or v3; HubSpot ends v1 on 2027-02-16",
        example="2026-03",
        meaning="path segment of the token endpoint; `v3` also works; `v1` is refused: HubSpot ends it on 2027-02-16",
    )
    max_refreshes_per_second: float = setting(
        "MAX_REFRESHES_PER_SECOND",
        parsers.parse_rate,
        0.0,
        hint="a number, 0 for no cap",
        example="100",
        meaning="over all workers together, for each app; 0 for no cap",
    )
    marketplace_sign_in_url: str = setting(
        "MARKETPLACE_SIGN_IN_URL",
        parsers.parse_sign_in_url,
        "",
        hint="https://app.example.com/hubspot-sign-in; http only for localhost",
        example="https://app.example.com/hubspot-sign-in",
        meaning="your product's sign-in page, for Marketplace installs with sign-in",
    )
    is_user_level: bool = False

    @property
    def origin(self) -> str:
        """Scheme, host and port under which browsers reach the app's pages."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def base_url(self) -> str:
        """The address below which web serves everything, without a slash at its end."""
        return self.origin + self.path_prefix

    @property
    def host(self) -> str:
        """As browsers name it in an Origin header: without the default port of the scheme."""
        return urlsplit(self.redirect_uri).netloc.removesuffix(":443" if self.is_https else ":80")

    @property
    def is_https(self) -> bool:
        return self.redirect_uri.startswith("https://")

    @property
    def path_prefix(self) -> str:
        """The path below which everything is served; "" where `redirect_uri` has none before /oauth/callback."""
        return urlsplit(self.redirect_uri).path.partition("/oauth/callback")[0]
