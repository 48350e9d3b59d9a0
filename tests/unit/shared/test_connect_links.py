"""A link is what our product signed, within its limits; anything else is refused by name of the claim."""

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.connect_links import ConnectLinks, LinkExpired, LinkForged, LinkMalformed, LinkRejected
from tests.support.builders import START

KEY, OLD_KEY, FOREIGN_KEY = "k" * 32, "o" * 32, "f" * 32
LINKS = ConnectLinks((KEY, OLD_KEY), ("https://app.example",))


def clock():
    return START


NOW = int(START.timestamp())
GOOD: dict[str, Any] = {"customer": "acme", "exp": NOW + 1800, "jti": "link-1"}
FULL = {
    **GOOD,
    "name": "Acme Ltd",
    "return_to": "https://app.example/done",
    "hub_id": 62515,
    "app": "sales",
    "scopes": ["tickets"],
    "move": True,
}


def sign(claims=GOOD, key=KEY, algorithm="HS256", **options):
    return jwt.encode(claims, key, algorithm=algorithm, **options)


def read(claims=GOOD, **more):
    return LINKS.read(sign({**claims, **more}), clock)


def test_a_link_says_what_our_product_signed():
    link = read(FULL)
    assert (link.claim.customer, link.claim.link_id, link.claim.hub_id, link.claim.may_move) == (
        "acme",
        "link-1",
        62515,
        True,
    )
    assert link.claim.link_expires_at == START + timedelta(minutes=30)
    assert (link.name, link.app, link.scopes) == ("Acme Ltd", "sales", ("tickets",))
    assert link.return_to == "https://app.example/done"


def test_what_is_signed_here_reads_back_the_same():
    for claims in (GOOD, FULL):
        link = read(claims)
        assert LINKS.read(LINKS.sign(link), clock) == link


def test_an_older_key_is_accepted_while_it_is_in_the_settings():
    assert LINKS.read(sign(key=OLD_KEY), clock).claim.customer == "acme"
    with pytest.raises(LinkForged):
        ConnectLinks((KEY,), ()).read(sign(key=OLD_KEY), clock)


def test_claims_that_libraries_add_by_themselves_are_ignored():
    assert read(iat=NOW, nbf=NOW, iss="app", aud=["x"], sub="7").claim.customer == "acme"


def encode(part):
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


FORGED = {
    "another key": sign(key=FOREIGN_KEY),
    "another algorithm": sign(key=KEY * 2, algorithm="HS512"),
    "no algorithm": f"{encode({'alg': 'none'})}.{encode(GOOD)}.",
    "no signature": sign().rpartition(".")[0] + ".",
    "changed claims": ".".join((sign().split(".")[0], encode({**GOOD, "customer": "other"}), sign().split(".")[2])),
    "a critical header": sign(headers={"crit": ["x"], "x": 1}),
    "a list": f"{encode({'alg': 'HS256'})}.{encode([1])}.AAAA",
    "deep nesting": "[" * 5000,
    "too long": sign({**GOOD, "name": "x" * 7000}),
    "empty": "",
    "text": "not-a-link",
}


@pytest.mark.parametrize("link", FORGED.values(), ids=FORGED.keys())
def test_a_forged_or_damaged_link_is_refused(link):
    with pytest.raises(LinkForged):
        LINKS.read(link, clock)


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"exp": NOW}, LinkExpired),
        ({"exp": NOW - 1}, LinkExpired),
        ({"exp": NOW + 1}, None),
        ({"exp": NOW + 7 * 86400}, None),
        ({"exp": NOW + 8 * 86400}, LinkMalformed),
        ({"nbf": NOW + 120}, LinkExpired),
        ({"iat": NOW + 120}, LinkExpired),
        ({"iat": NOW + 30}, None),
    ],
)
def test_a_link_is_valid_from_its_beginning_to_its_end_and_for_seven_days_at_most(claims, error):
    if error is None:
        read(**claims)
    else:
        with pytest.raises(error):
            read(**claims)


WRONG: list[tuple[str, Any]] = [
    ("customer", ""),
    ("customer", None),
    ("customer", "x" * 201),
    ("customer", "a\nb"),
    ("customer", 7),
    ("exp", None),
    ("exp", True),
    ("exp", "soon"),
    ("exp", 1e300),
    ("exp", -1e300),
    ("jti", None),
    ("jti", ""),
    ("jti", "j" * 129),
    ("jti", ["j"]),
    ("name", "a\x00"),
    ("name", {"a": 1}),
    ("return_to", "https://evil.example/"),
    ("return_to", ["https://app.example/"]),
    ("hub_id", 0),
    ("hub_id", -1),
    ("hub_id", 2**63),
    ("hub_id", "62515"),
    ("hub_id", True),
    ("hub_id", 62515.0),
    ("app", 7),
    ("app", ""),
    ("scopes", [7]),
    ("scopes", {"a": 1}),
    ("scopes", ["s"] * 101),
    ("move", "true"),
    ("move", 1),
    ("hubId", 62515),
    ("returnTo", "https://app.example/"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_claim_is_refused_and_its_value_is_not_repeated(name, value):
    with pytest.raises(LinkRejected) as caught:
        read(FULL, **{name: value})
    assert isinstance(caught.value, LinkMalformed)
    assert "evil" not in caught.value.why


def test_scopes_may_be_a_text_with_spaces():
    assert read(scopes="tickets  e-commerce tickets").scopes == ("tickets", "e-commerce")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*FULL, "nbf", "iat", "x"]), JSON, max_size=4))
def test_whatever_a_claim_is_the_link_is_read_or_refused(claims):
    try:
        link = LINKS.read(sign({**GOOD, **claims}), clock)
    except LinkRejected:
        return
    assert 1 <= len(link.claim.customer) <= 200
    assert START < link.claim.link_expires_at <= START + timedelta(days=7, minutes=1)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")))
def test_whatever_is_no_jwt_is_refused(text):
    with pytest.raises(LinkForged):
        LINKS.read(text, clock)
