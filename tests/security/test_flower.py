"""Flower accepts the operator's whole password only."""

from __future__ import annotations

from collections.abc import Callable

import requests

from tests.support.product import Product

PASSWORD = "comma,operator:second,third"


def test_a_comma_in_the_flower_password_does_not_make_several_accounts(
    environment: Callable[..., dict[str, str]], new_product: Callable[[dict[str, str]], Product]
) -> None:
    flower = new_product(environment(OPERATOR_PASSWORD=PASSWORD, FLOWER_BASIC_AUTH="")).flower()

    def status(user: str, password: str) -> int:
        return requests.get(f"{flower.url}/workers", auth=(user, password), timeout=60).status_code

    assert status("operator", PASSWORD) == 200
    for user, password in (("operator", "comma"), ("operator", "second"), ("third", ""), ("", ""), ("operator", "")):
        assert status(user, password) == 401
    assert requests.get(f"{flower.url}/api/tasks", timeout=60).status_code == 401
