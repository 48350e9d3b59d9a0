"""Each example reads a token and calls HubSpot with it; what each does on a 401, and where there is no token."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.examples.conftest import connect_next_account
from tests.examples.documentation import find_code_block
from tests.examples.downstream_job import EXAMPLES, Job
from tests.support.deployment import Deployment
from tests.support.environment import ROOT
from tests.support.polling import until

#: At the list of processes.
LOOKS = 100
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node example with its locked dependencies."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the Node example was not run: there is no node and npm here")
    folder = tmp_path_factory.mktemp("example") / "node"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    argv += ["--fetch-retries=1", "--fetch-timeout=20000"]  # fail fast without a network
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the Node example was not run: npm could not bring its one dependency: {done.stderr[-300:]}")
    return folder / "contacts.js"


@pytest.fixture(params=["psql/contacts.sh", "python/contacts.py", "python/official_client.py", "node/contacts.js"])
def example(request: pytest.FixtureRequest) -> tuple[str | Path, ...]:
    name: str = request.param
    return ("node", request.getfixturevalue("node")) if name.startswith("node") else (name,)


def test_an_example_prints_the_contacts_of_the_account(
    lasting_deployment: Deployment, lasting_job: Job, example: tuple[str | Path, ...]
) -> None:
    result = lasting_job.run(*example, str(lasting_deployment.hub))
    assert (result.status, result.err) == (0, "")
    assert "@" in result.out


@pytest.mark.parametrize("arguments", [(), ("abc",)])
def test_an_example_without_an_account_number_prints_its_usage(
    lasting_job: Job, example: tuple[str | Path, ...], arguments: tuple[str, ...]
) -> None:
    ran = lasting_job.run(*example, *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert re.fullmatch(r"usage: .*HUB.*\n", ran.err)


@pytest.fixture(scope="module")
def revoked_hub(shared_deployment: Deployment) -> int:
    deployment = connect_next_account(shared_deployment)
    deployment.simulator.uninstall(deployment.hub)
    deployment.make_due()
    until(lambda: deployment.status() == "revoked")
    return deployment.hub


def test_an_example_says_why_there_is_no_token(
    lasting_job: Job, revoked_hub: int, example: tuple[str | Path, ...]
) -> None:
    result = lasting_job.run(*example, str(revoked_hub))
    assert (result.status, result.out) == (1, "")
    assert result.err == f"account {revoked_hub} has no token that works now: revoked\n"
    assert lasting_job.run(*example, "404").err == "account 404 has no token that works now: never installed\n"


@pytest.fixture(params=["python/contacts.py", "python/official_client.py", "node/contacts.js"])
def patient(request: pytest.FixtureRequest) -> tuple[str | Path, ...]:
    name: str = request.param
    return ("node", request.getfixturevalue("node")) if name.startswith("node") else (name,)


def test_after_a_401_an_example_asks_for_another_token_and_goes_on(
    deployment: Deployment, job: Job, patient: tuple[str | Path, ...]
) -> None:
    # The example before may have asked a moment ago: a token that came by a request is replaced half a minute later.
    deployment.sql.rows("UPDATE tokenkeeper.connections SET requested_refresh_at = NULL")
    refused = deployment.token()
    deployment.simulator.add_fault(401, where="api", hub_id=deployment.hub, times=1)
    result = job.run(*patient, str(deployment.hub))
    assert (result.status, result.err) == (0, "")
    assert "@" in result.out
    assert deployment.token() != refused


def test_after_a_401_because_of_an_uninstall_an_example_ends_with_the_reason(
    deployment: Deployment, job: Job, patient: tuple[str | Path, ...]
) -> None:
    deployment.simulator.uninstall(deployment.hub, keep_access_tokens=False)
    result = job.run(*patient, str(deployment.hub))
    assert (result.status, result.err) == (1, f"account {deployment.hub} has no token that works now: revoked\n")


def test_an_example_waits_after_a_429(lasting_deployment: Deployment, lasting_job: Job) -> None:
    lasting_deployment.simulator.add_fault(429, where="api", hub_id=lasting_deployment.hub, times=1, retry_after=1)
    assert lasting_job.run("python/contacts.py", str(lasting_deployment.hub)).status == 0


def test_the_psql_example_shows_no_token(lasting_deployment: Deployment, lasting_job: Job) -> None:
    result = lasting_job.run(
        "psql", "-X", "-q", "--set", f"hub={lasting_deployment.hub}", "-f", EXAMPLES / "psql/contacts.sql"
    )
    assert (result.status, result.err) == (0, "")
    assert "@" in result.out


def test_the_examples_show_no_token_in_the_process_list(lasting_deployment: Deployment, lasting_job: Job) -> None:
    """While curl waits for HubSpot."""
    token = lasting_deployment.token()
    fault = lasting_deployment.simulator.add_fault("held", where="api", hub_id=lasting_deployment.hub)
    process = lasting_job.start("psql/contacts.sh", str(lasting_deployment.hub))
    until(lambda: any("curl" in line for line in command_lines(process.pid)))
    assert token
    for _ in range(LOOKS):
        assert not [line for line in command_lines(process.pid) if token in line]
    lasting_deployment.simulator.clear_faults(fault)
    while process.poll() is None:
        assert not [line for line in command_lines(process.pid) if token in line]


def command_lines(pid: int) -> list[str]:
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return [" ".join(process.cmdline()) for process in family]
    except psutil.NoSuchProcess:
        return []


def test_the_batch_example_counts_every_account_and_continues_after_an_error_of_one(
    deployment: Deployment, job: Job
) -> None:
    other, gone = deployment.hub + 500, deployment.hub + 600
    deployment.connect(other)
    deployment.connect(gone)
    deployment.simulator.add_fault(403, where="api", hub_id=gone)
    result = job.run("python/every_account.py")
    assert (result.status, result.err) == (0, "")
    lines_by_hub = dict(line.split(" ", 1) for line in result.out.splitlines())
    assert lines_by_hub[str(deployment.hub)] == lines_by_hub[str(other)] == "1"
    assert lines_by_hub[str(gone)] == "failed: HTTPError"


def test_the_roles_created_as_documented_read_what_the_page_says(
    lasting_deployment: Deployment, lasting_job: Job
) -> None:
    """The first role reads all accounts; the second one has a view of two accounts."""
    roles = {
        "my_job": f"{lasting_job.role}_a",
        "support_job": f"{lasting_job.role}_b",
        "support": f"{lasting_job.role}_s",
    }
    statements = find_code_block("downstream.md", "CREATE ROLE my_job") + find_code_block(
        "downstream.md", "CREATE SCHEMA support"
    )
    statements += find_code_block("downstream.md", "ALTER ROLE my_job")
    for name, unique_name in roles.items():
        statements = re.sub(rf"\b{name}\b", unique_name, statements)
    lasting_deployment.sql.rows(f"CREATE ROLE {roles['support_job']} LOGIN PASSWORD 'a-password-of-its-own'")
    lasting_deployment.sql.rows(statements.replace("62515", str(lasting_deployment.hub)))
    try:
        read = f"SELECT hub_id FROM {roles['support']}.tokens"
        assert lasting_job.as_role(roles["support_job"], read) == str(lasting_deployment.hub)
        assert "permission denied" in lasting_job.as_role(roles["support_job"], "SELECT * FROM hubspot.tokens")
        mine = f"SELECT hub_id FROM hubspot.tokens WHERE hub_id = {lasting_deployment.hub}"
        assert lasting_job.as_role(roles["my_job"], mine) == str(lasting_deployment.hub)
        assert "permission denied" in lasting_job.as_role(roles["my_job"], "SELECT * FROM tokenkeeper.connections")
    finally:
        lasting_deployment.sql.rows(f"DROP SCHEMA {roles['support']} CASCADE; DROP OWNED BY {roles['my_job']}")
        lasting_deployment.sql.rows(f"DROP ROLE {roles['my_job']}; DROP ROLE {roles['support_job']}")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELECT * FROM tokenkeeper.connections", "permission denied for schema tokenkeeper"),
        ("SELECT * FROM tokens", 'relation "tokens" does not exist'),
        ("SELECT hubspot.request_refresh(1.5, 'x')", "function hubspot.request_refresh(…) does not exist"),
        (
            "BEGIN READ ONLY; SELECT hubspot.request_refresh(62515)",
            "cannot execute INSERT in a read-only transaction",
        ),
    ],
)
def test_the_errors_of_postgresql_are_in_the_troubleshooting_page(
    lasting_deployment: Deployment, lasting_job: Job, statement: str, says: str
) -> None:
    statement = statement.replace("62515", str(lasting_deployment.hub))
    until(lambda: lasting_deployment.token() is not None)
    lasting_deployment.sql.rows("UPDATE tokenkeeper.connections SET refresh_requested = false, lease_until = NULL")
    lasting_deployment.sql.rows("DELETE FROM tokenkeeper.refresh_requests")
    result = lasting_job.run("psql", "-XAt", "-c", statement)
    assert re.search(says.replace("(…)", r"\(.*\)"), result.err), result.err
    assert f"`{says}`" in TROUBLE


def test_a_role_that_is_no_reader_gets_an_error_that_names_the_schema(deployment: Deployment, job: Job) -> None:
    deployment.sql.rows(f"REVOKE hubspot_reader FROM {job.role}")
    assert "permission denied for schema hubspot" in job.run("psql", "-XAtc", "SELECT * FROM hubspot.tokens").err
    assert "`permission denied for schema hubspot`" in TROUBLE
