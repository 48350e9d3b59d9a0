"""Token reads by SQL, with pgbench: through `hubspot.tokens`, and by primary key straight from the table below it."""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import LOG_TAIL, Failed
from bench.stats import percentile
from bench.world import World

VIEW = "SELECT access_token FROM hubspot.tokens WHERE hub_id = :hub_id;"
TABLE = "SELECT access_token FROM tokenkeeper.connections WHERE hub_id = :hub_id;"
#: Jobs that read at once where throughput is counted; a latency is that of one alone.
CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Reads:
    p50: float  #: milliseconds, of one reader alone
    p99: float
    per_second: float  #: of CLIENTS readers
    bare_p50: float  #: the same of a bare select by primary key
    bare_per_second: float


def reads(world: World, size: int, seconds: int) -> Reads:
    """The view and the table take turns, each once before and once after the other. Raises Failed."""
    world.sql("UPDATE tokenkeeper.connections SET expires_at = now() + interval '1 hour' WHERE expires_at < now()")
    alone, bare_alone = _latencies(world, VIEW, size, seconds), _latencies(world, TABLE, size, seconds)
    turns = [(select, _throughput(world, select, size, seconds)) for select in (VIEW, TABLE, TABLE, VIEW)]
    together, bare_together = (
        statistics.mean(rate for select, rate in turns if select == each) for each in (VIEW, TABLE)
    )
    return Reads(percentile(alone, 50), percentile(alone, 99), together, percentile(bare_alone, 50), bare_together)


def _latencies(world: World, select: str, size: int, seconds: int) -> list[float]:
    """Milliseconds, one by one."""
    with tempfile.TemporaryDirectory() as folder:
        _pgbench(world, select, size, seconds, Path(folder), "-c", "1", "-l", f"--log-prefix={folder}/log")
        logs = list(Path(folder).glob("log.*"))
        lines = [line.split() for log in logs for line in log.read_text(encoding="ascii").splitlines()]
    return [int(line[2]) / 1000 for line in lines]


def _throughput(world: World, select: str, size: int, seconds: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        said = _pgbench(world, select, size, seconds, Path(folder), "-c", str(CLIENTS), "-j", "2")
    found = re.search(r"tps = ([\d.]+)", said)
    if not found:
        raise Failed(f"pgbench told no throughput:\n{said[-LOG_TAIL:]}")
    return float(found[1])


def _pgbench(world: World, select: str, size: int, seconds: int, folder: Path, *options: str) -> str:
    script = folder / "select.sql"
    script.write_text(f"\\set hub_id random(1, {size})\n{select}\n", encoding="ascii")
    url = urlsplit(world.database_url)
    where = ["-h", str(url.hostname), "-p", str(url.port), "-U", str(url.username), url.path.lstrip("/")]
    binary = world.postgres.binaries / "pgbench"
    argv = [str(binary), "-n", "-M", "prepared", "-f", str(script), "-T", str(seconds), *options, *where]
    environment = {"PATH": world.environment.get("PATH", ""), "PGPASSWORD": url.password or "", "LC_ALL": "C"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"pgbench failed:\n{done.stderr[-LOG_TAIL:]}")
    return done.stdout
