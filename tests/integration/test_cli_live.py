"""The command while the product runs: an import is refreshed, and keys rotate while the worker writes."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.fernet import Fernet

from sandbox.simulator.control import SimulatorControl
from shared.token_cipher import TokenCipher
from tests.support.command import Command
from tests.support.polling import until
from tests.support.product import Product
from tests.support.stores import SqlFixture

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
WAIT_SECONDS = 40
SERVED = "SELECT count(*) FROM hubspot.tokens"
LONG_LIVED = f"{SERVED} WHERE expires_in > 600"


def test_keys_rotate_while_the_worker_stores_new_refresh_tokens(
    environment: Callable[..., dict[str, str]],
    new_product: Callable[[dict[str, str]], Product],
    simulator: SimulatorControl,
    sql: SqlFixture,
) -> None:
    simulator.change_settings(lifetime=6, rotation=0)
    accounts = simulator.install_many(40)
    tokenkeeper = Command(environment(TOKEN_KEYS=f"{NEW},{OLD}", SWEEP_SECONDS="0.5"))
    lines = [f'{{"hub_id": {hub_id}, "refresh_token": "{token}"}}' for hub_id, token in accounts.items()]
    assert tokenkeeper.run_process("import", "-", stdin="\n".join(lines), TOKEN_KEYS=OLD).status == 0
    product = new_product(tokenkeeper.environment)
    product.worker()
    product.beat()
    until(lambda: sql.value(SERVED) == len(accounts), WAIT_SECONDS)
    rotated = tokenkeeper.run_process("keys", "rotate")
    assert (rotated.status, rotated.err) == (0, "")
    # Each is refreshed once more, and the tokens of that live until the end of the test.
    simulator.change_settings(lifetime=1800)
    until(lambda: sql.value(LONG_LIVED) == len(accounts), WAIT_SECONDS)
    again = tokenkeeper.run_process("import", "-", stdin="\n".join(lines))
    assert again.out == "0 new, 0 given another token, 40 unchanged, 0 refused\n"
    rows = sql.rows("SELECT hub_id, encrypted_refresh_token FROM tokenkeeper.connections")
    assert not any(TokenCipher([NEW]).needs_reencryption(ciphertext) for _, ciphertext in rows)
    tokens = [token for (token,) in sql.rows("SELECT access_token FROM hubspot.tokens")]
    assert all(checked.is_live for checked in simulator.check_tokens(tokens))
    assert simulator.get_stats()["violations"] == 0
    assert tokenkeeper.run_process("connections", "--json", "--status", "active").out.count("\n") == len(accounts)
    assert tokenkeeper.run_process("doctor").status == 0
