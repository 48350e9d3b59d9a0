"""worker and beat as processes: what ends their start, and what does not."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from sandbox.child_processes import ChildProcess, installed_command
from shared.settings import Settings
from tests.support.product import Product, has_printed
from worker.host_check import check_host

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
    for line in ("PostgreSQL does not answer yet: starting all the same", "ignored variables of other programs"):
        worker.wait_until(has_printed(line))
    worker.wait_until(has_printed("CELERY_BROKER_URL"))
    assert "another.example" not in worker.output()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--pool=threads", "the pool thread would refresh no token, for it runs no sweeps: remove --pool"),
        ("--queues=celery", "nothing is put into the queue celery, so installs would wait: remove --queues"),
    ],
)
def test_an_option_with_which_a_worker_would_do_nothing_ends_its_start(
    product: Product, option: str, says: str
) -> None:
    assert says in read_line(product.worker(option, wait=False))


@pytest.mark.parametrize("options", [("--pool=solo",), ("--autoscale=3,1",), ("--queues=tokenkeeper.background",)])
def test_a_worker_works_with_other_options_of_celery(product: Product, options: tuple[str, ...]) -> None:
    """And asks no other worker for anything, whatever the options are."""
    assert "mingle" not in product.worker(*options, "--without-heartbeat").output()


def run_worker(product: Product, *before: str) -> str:
    """The output of a worker that ends by itself, started by this command."""
    command = [*before, installed_command("celery"), "-A", "worker.app", "worker", "-c", "2"]
    result = subprocess.run(
        command, env=product.environment, capture_output=True, text=True, timeout=60, check=False, cwd=product.folder
    )
    assert result.returncode == EXIT_CONFIG_ERROR_STATUS, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("tokenkeeper: ")]
    return line


def test_a_host_that_allows_fewer_open_files_than_calls_ends_the_start_and_a_soft_limit_is_raised(
    product: Product,
) -> None:
    """Otherwise calls would fail, as if HubSpot did not answer."""
    line = run_worker(product, "sh", "-c", 'ulimit -n 256 && exec "$@"', "sh")
    assert "a process may open 256 files on this host, and REFRESH_CONCURRENCY=400 needs 500: raise the limit" in line
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        # More than this process, which has run other tests, has open.
        check_host(Settings.from_env({**product.environment, "REFRESH_CONCURRENCY": "1900"}))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_host_without_semaphores_ends_the_start_of_a_worker(product: Product) -> None:
    """As a container without /dev/shm."""
    mounted = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && exec "$@"', "sh")
    if subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount anything, so no host without /dev/shm can be made")
    assert "mount a writable tmpfs at /dev/shm" in run_worker(product, *mounted)


def test_a_worker_starts_for_a_user_that_the_host_has_no_name_for(product: Product) -> None:
    """As in a container of OpenShift, which chooses a number."""
    unnamed = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
    if subprocess.run([*unnamed, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a namespace of users")
    command = [*unnamed, installed_command("celery"), "-A", "worker.app", "worker", "-l", "info", "-c", "1"]
    worker = ChildProcess("unnamed", command, product.environment, product.folder / "unnamed.log")
    product.running.append(worker)
    worker.wait_until(has_printed(" ready."))


def read_refusal(product: Product, name: str, **changes: str) -> str:
    return read_line(getattr(product, name)(wait=False, **changes))


def read_line(process: ChildProcess) -> str:
    """The one line that says why the process did not start."""
    assert process.wait(60) == EXIT_CONFIG_ERROR_STATUS
    (line,) = [line for line in process.output().splitlines() if line.startswith("tokenkeeper: ")]
    assert "Traceback" not in process.output()
    assert " ready." not in process.output()
    return line.removeprefix("tokenkeeper: ")


def test_beat_loads_no_library_that_only_others_need(product: Product) -> None:
    """The worker's, and optional parts that structlog and redis-py would load where they are installed."""
    others = {"sqlalchemy", "psycopg2", "pycurl", "rich", "opentelemetry", "asyncio", "cryptography.fernet"}
    code = f"import sys, worker.app, worker.beat; print({others!r} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], env=product.environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "set()"
