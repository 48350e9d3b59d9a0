"""Measures token reads by SQL, with pgbench: through `hubspot.tokens`, and the same SELECT on the table below it."""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.stats import percentile
from bench.testbed import BenchmarkError, Testbed
from sandbox.child_processes import LOG_TAIL_CHARACTERS

SELECT_FROM_VIEW = "SELECT access_token FROM hubspot.tokens WHERE hub_id = :hub_id;"
SELECT_FROM_TABLE = "SELECT access_token FROM tokenkeeper.connections WHERE hub_id = :hub_id;"
SELECT_OF_CUSTOMER = "SELECT access_token FROM hubspot.tokens WHERE customer = (:hub_id)::text;"
SELECT_OF_CUSTOMER_FROM_TABLE = "SELECT access_token FROM tokenkeeper.connections WHERE customer = (:hub_id)::text;"
#: So many connections have a customer, named like their hub id.
CUSTOMERS = 100_000
GIVE_CUSTOMERS = f"""
UPDATE tokenkeeper.connections SET customer = hub_id::text WHERE hub_id <= {CUSTOMERS} AND customer IS NULL
"""
ANALYZE = "ANALYZE tokenkeeper.connections"
KEEP_TOKENS_VALID = "UPDATE tokenkeeper.connections SET expires_at = now() + interval '1 hour' WHERE expires_at < now()"
#: Where throughput is measured; latency is measured with one.
READERS = 4


@dataclass(frozen=True, slots=True)
class Reads:
    p50_ms: float  #: of one reader
    p99_ms: float
    per_second: float  #: of READERS readers
    bare_per_second: float  #: the same on the table below the view


def measure_reads(testbed: Testbed, size: int, seconds: int) -> Reads:
    """By hub id. Raises BenchmarkError."""
    testbed.execute(KEEP_TOKENS_VALID)
    return _compare(testbed, SELECT_FROM_VIEW, SELECT_FROM_TABLE, size, seconds)


def measure_customer_reads(testbed: Testbed, size: int, seconds: int) -> Reads:
    """By customer. Raises BenchmarkError."""
    for statement in (KEEP_TOKENS_VALID, GIVE_CUSTOMERS, ANALYZE):
        testbed.execute(statement)
    return _compare(testbed, SELECT_OF_CUSTOMER, SELECT_OF_CUSTOMER_FROM_TABLE, min(size, CUSTOMERS), seconds)


def _compare(testbed: Testbed, from_view: str, from_table: str, size: int, seconds: int) -> Reads:
    """View and table take turns, each once before and once after the other."""
    latencies = _measure_latencies(testbed, from_view, size, seconds)
    turns = [
        (select, _measure_throughput(testbed, select, size, seconds))
        for select in (from_view, from_table, from_table, from_view)
    ]
    view_rate, table_rate = (
        statistics.mean(rate for select, rate in turns if select == each) for each in (from_view, from_table)
    )
    return Reads(percentile(latencies, 50), percentile(latencies, 99), view_rate, table_rate)


def _measure_latencies(testbed: Testbed, select: str, size: int, seconds: int) -> list[float]:
    """Milliseconds of each read."""
    with tempfile.TemporaryDirectory() as folder:
        _run_pgbench(testbed, select, size, seconds, Path(folder), "-c", "1", "-l", f"--log-prefix={folder}/log")
        logs = list(Path(folder).glob("log.*"))
        lines = [line.split() for log in logs for line in log.read_text(encoding="ascii").splitlines()]
    return [int(line[2]) / 1000 for line in lines]


def _measure_throughput(testbed: Testbed, select: str, size: int, seconds: int) -> float:
    """Reads a second."""
    with tempfile.TemporaryDirectory() as folder:
        output = _run_pgbench(testbed, select, size, seconds, Path(folder), "-c", str(READERS), "-j", "2")
    match = re.search(r"tps = ([\d.]+)", output)
    if not match:
        raise BenchmarkError(f"pgbench printed no throughput:\n{output[-LOG_TAIL_CHARACTERS:]}")
    return float(match[1])


def _run_pgbench(testbed: Testbed, select: str, size: int, seconds: int, folder: Path, *options: str) -> str:
    """What it prints. Raises BenchmarkError."""
    script = folder / "select.sql"
    script.write_text(f"\\set hub_id random(1, {size})\n{select}\n", encoding="ascii")
    url = urlsplit(testbed.database_url)
    server = ["-h", str(url.hostname), "-p", str(url.port), "-U", str(url.username), url.path.lstrip("/")]
    binary = testbed.postgres.binaries / "pgbench"
    argv = [str(binary), "-n", "-M", "prepared", "-f", str(script), "-T", str(seconds), *options, *server]
    environment = {"PATH": testbed.environment.get("PATH", ""), "PGPASSWORD": url.password or "", "LC_ALL": "C"}
    result = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BenchmarkError(f"pgbench failed:\n{result.stderr[-LOG_TAIL_CHARACTERS:]}")
    return result.stdout
