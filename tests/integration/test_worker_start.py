"""worker and beat as processes: what ends their start, and what does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.product import Product, has_printed

#: EX_CONFIG of sysexits.h.
EXIT_CONFIG_ERROR_STATUS = 78
UNREACHABLE = "postgresql://user@127.0.0.1:1/database"


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_a_redis_url_with_a_database_that_does_not_exist_ends_the_start_with_one_line(
    product: Product, redis_url: str, name: str
) -> None:
    wrong = f"{redis_url.rpartition('/')[0]}/9999"
    assert read_refusal(product, name, REDIS_URL=wrong).startswith("the broker at REDIS_URL refuses us")


def test_a_malformed_setting_ends_the_start_of_a_worker_with_one_line(product: Product) -> None:
    line = read_refusal(product, "worker", TOKEN_KEYS="no-key-at-all")
    assert "TOKEN_KEYS is malformed" in line
    assert "no-key-at-all" not in line


def test_a_database_that_is_not_migrated_ends_the_start_of_a_worker_with_one_line(
    environment: Callable[..., dict[str, str]],
    new_product: Callable[[dict[str, str]], Product],
    empty_database_url: str,
) -> None:
    product = new_product(environment(DATABASE_URL=empty_database_url))
    assert "tokenkeeper migrate" in read_refusal(product, "worker")


def test_a_worker_starts_while_postgres_is_down_and_names_the_variables_that_it_ignores(product: Product) -> None:
    worker = product.worker(DATABASE_URL=UNREACHABLE, CELERY_BROKER_URL="redis://another.example/0")
    assert worker.has_printed("PostgreSQL does not answer yet: starting all the same")
    worker.wait_until(has_printed("ignored variables of other programs"))
    assert "CELERY_BROKER_URL" in worker.output()
    assert "another.example" not in worker.output()


def read_refusal(product: Product, name: str, **changes: str) -> str:
    """The one line that says why the process did not start."""
    process = getattr(product, name)(wait=False, **changes)
    assert process.wait(60) == EXIT_CONFIG_ERROR_STATUS
    (line,) = [line for line in process.output().splitlines() if line.startswith("tokenkeeper: ")]
    assert "Traceback" not in process.output()
    assert " ready." not in process.output()
    return line.removeprefix("tokenkeeper: ")


def test_beat_loads_no_library_that_only_the_worker_needs(product: Product) -> None:
    only_worker = {"sqlalchemy", "psycopg2", "pycurl"}
    code = f"import sys, worker.app, worker.beat; print({only_worker!r} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], env=product.environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "set()"
